"""A state folder that was copied to a second machine: two agents speak to the hub under one spool's name."""

from __future__ import annotations

from tests.spooling import Log, Make, bounded, device_event, put_all, read_all, read_on, texts


async def test_what_was_not_acknowledged_goes_out_under_a_new_name(make: Make, log: Log) -> None:
    """The hub may take what was in flight for the other's: it is sent again, under ids that nobody else uses."""
    spool = await make()
    former = spool.spool_id
    await put_all(spool, "a", "b")
    await put_all(spool, "urgent", priority="critical")
    await read_all(spool, {"normal": 0})
    spool.put(device_event("waits in memory"))
    spool.leave_name()
    spool.release()
    again = await read_all(spool, {})
    await bounded(spool.flush())
    again += await read_on(spool)
    assert texts(again) == ["urgent", "a", "b", "waits in memory"]
    assert spool.spool_id != former
    assert all(each.event["id"] == f"{spool.spool_id}-{each.sequence}" for each in again)
    assert len(log.matching("a copy of this one")) == 1


async def test_what_was_acknowledged_is_not_sent_again(make: Make) -> None:
    """A takeover changes nothing for what is known to be stored, and nobody is told that the hub has forgotten it."""
    spool = await make()
    await put_all(spool, "a", "b")
    await read_all(spool, {"normal": 0}, acknowledge=True)
    await put_all(spool, "c")
    spool.leave_name()
    spool.release()
    await put_all(spool, "d")
    sent = await read_all(spool, {})
    assert [each.text for each in sent] == ["c", "d"]


async def test_the_new_name_survives_a_restart(make: Make) -> None:
    """It is written down together with the events that carry it."""
    spool = await make()
    await put_all(spool, "a", "b")
    await read_all(spool, {"normal": 0})
    spool.leave_name()
    await put_all(spool, "c")
    name = spool.spool_id
    await spool.close()
    spool = await make()
    assert spool.spool_id == name
    sent = await read_all(spool, {})
    assert texts(sent) == ["a", "b", "c"]
    assert all(each.event["id"].startswith(name) for each in sent)
