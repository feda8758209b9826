"""A full spool: what is dropped, in which order, and how it is told."""

from __future__ import annotations

from tests.spooling import (
    Make,
    notices_of,
    put_all,
    read_all,
    read_on,
    texts,
)


async def test_a_full_spool_drops_the_oldest_normal_events_and_tells_it(make: Make) -> None:
    """One notice in the same lane carries the count and the range, and stands where the gap is."""
    spool = await make(max_events=3)
    await put_all(spool, "a", "b", "c")
    numbers = [each.sequence for each in await read_all(spool)]
    spool.release()
    await put_all(spool, "d")
    await put_all(spool, "e")
    sent = await read_all(spool)
    assert [each.is_notice for each in sent] == [True, False, False, False]
    assert texts(sent) == ["c", "d", "e"]
    notice = sent[0]
    assert notice.fields == {"count": 2, "ranges": [[str(numbers[0]), str(numbers[1])]], "reason": "spool full"}
    assert notice.sequence == numbers[1]
    assert spool.counters.dropped == 2


async def test_what_is_dropped_bit_by_bit_is_one_range(make: Make) -> None:
    """Numbers in between that other lanes have do not make a gap look like several."""
    spool = await make(max_events=8)
    for number in range(8):
        await put_all(spool, str(number), priority="normal" if number % 2 else "critical")
    for number in range(3):
        await put_all(spool, f"more {number}", priority="critical")
    sent = await read_all(spool)
    (notice,) = notices_of(sent)
    assert notice.fields["count"] == 3
    (only,) = notice.fields["ranges"]
    assert int(only[1]) - int(only[0]) == 4
    assert texts(sent)[-1] == "7"


async def test_important_and_critical_events_are_dropped_last(make: Make) -> None:
    """Normal goes before important, and that before critical."""
    spool = await make(max_events=2)
    for priority in ("critical", "important", "normal"):
        await put_all(spool, priority, priority=priority)
    await put_all(spool, "more", priority="critical")
    sent = await read_all(spool)
    assert texts(sent) == ["critical", "more"]
    assert [each.event["priority"] for each in notices_of(sent)] == ["important", "normal"]
    await put_all(spool, "third", priority="critical")
    assert texts(await read_on(spool)) == []
    spool.release()
    await put_all(spool, "fourth", priority="critical")
    assert texts(await read_all(spool)) == ["more", "fourth"]


async def test_what_is_in_flight_is_not_dropped(make: Make) -> None:
    """Events that the hub may be storing just now stay until it is known; newer ones go."""
    spool = await make(max_events=2)
    await put_all(spool, "a", "b")
    assert texts(await read_all(spool)) == ["a", "b"]
    await put_all(spool, "c", "d")
    sent = await read_on(spool)
    assert [each.fields["count"] for each in sent] == [2]
    spool.release()
    assert texts(await read_all(spool)) == ["a", "b"]


async def test_a_notice_that_was_sent_stays_as_it_is_and_the_next_drop_has_another(make: Make) -> None:
    """The hub never gets two different events under one id."""
    spool = await make(max_events=1)
    await put_all(spool, "a", "b")
    (first, _) = await read_all(spool)
    spool.release()
    await put_all(spool, "c")
    again = await read_all(spool)
    assert again[0].event == first.event
    assert [each.fields["count"] for each in notices_of(again)] == [1, 1]
    assert texts(again) == ["c"]
    assert [each.sequence for each in again] == sorted(each.sequence for each in again)


async def test_what_the_hub_has_is_taken_out_of_a_notice(make: Make) -> None:
    """Events that arrived, whose ACK was lost, and that were dropped here since, are not told as lost."""
    spool = await make(max_events=3)
    await put_all(spool, "a", "b", "c")
    numbers = [each.sequence for each in await read_all(spool)]
    spool.release()
    await put_all(spool, "d", "e")
    sent = await read_all(spool, {"normal": numbers[0]})
    assert notices_of(sent)[0].fields["ranges"] == [[str(numbers[1]), str(numbers[1])]]
    assert notices_of(sent)[0].fields["count"] == 1
    assert (spool.counters.dropped, spool.counters.acknowledged) == (1, 1)


async def test_a_notice_of_nothing_but_what_the_hub_has_goes(make: Make) -> None:
    """Where all of it arrived there is nothing to tell."""
    spool = await make(max_events=2)
    await put_all(spool, "a", "b")
    last = (await read_all(spool))[-1].sequence
    spool.release()
    await put_all(spool, "c", "d")
    assert texts(await read_all(spool, {"normal": last})) == ["c", "d"]
    spool.release()
    assert notices_of(await read_all(spool, {"normal": last})) == []
    assert spool.counters.dropped == 0


async def test_a_notice_survives_restarts_and_is_never_dropped(make: Make) -> None:
    """However often a full spool is opened and filled, each gap is told."""
    spool = await make(max_events=1)
    await put_all(spool, "a", "b")
    await spool.close()
    spool = await make(max_events=1)
    await put_all(spool, "c", "d")
    sent = await read_all(spool)
    assert [each.fields["count"] for each in notices_of(sent)] == [1, 2]
    assert texts(sent) == ["d"]
