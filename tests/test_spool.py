"""The spool on a real file: what is put comes out, once, in order; its numbers never go back."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from notifyd.agent import spool_commit
from notifyd.event import Priority
from notifyd.wire import MAX_LINE
from tests.spooling import (
    Log,
    Make,
    bounded,
    device_event,
    notices_of,
    other_connection,
    parse_lines,
    put_all,
    read_all,
    read_on,
    texts,
    until,
)


async def test_what_is_put_is_sent_in_the_order_in_which_it_was_printed(make: Make) -> None:
    """Events come out as they went in, numbered upwards, with ids that name the spool."""
    spool = await make()
    await put_all(spool, "one", "two", "three")
    sent = await read_all(spool)
    assert texts(sent) == ["one", "two", "three"]
    assert sent[0].sequence < sent[1].sequence < sent[2].sequence
    for each in sent:
        assert each.event["id"] == f"{spool.spool_id}-{each.sequence}"
        assert len(each.event["sequence"]) == 20
    assert spool.counters.stored == 3


async def test_the_urgent_overtakes_the_rest(make: Make) -> None:
    """Critical events go before important ones, and those before normal ones, whatever came first."""
    spool = await make()
    for priority in ("normal", "important", "critical", "normal", "critical"):
        spool.put(device_event(priority, priority))
    await bounded(spool.flush())
    assert texts(await read_all(spool)) == ["critical", "critical", "important", "normal", "normal"]


async def test_nothing_is_sent_before_it_is_stored(make: Make) -> None:
    """An event that a power loss could still take is not shown to the hub."""
    spool = await make()
    await spool.resume({})
    spool.put(device_event("not stored yet"))
    assert not spool.has_unsent()
    assert await spool.next(1000) is None
    await bounded(spool.flush())
    assert spool.has_unsent()
    with other_connection(spool.path) as reader:
        assert reader.execute("SELECT count(*) FROM normal").fetchone() == (1,)


async def test_many_events_in_one_turn_are_one_commit(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst costs one sync of the disk, not one an event."""
    spool = await make()
    commits: list[int] = []
    commit = spool_commit.commit

    def counting(cursor: Any, job: Any) -> Any:
        commits.append(sum(map(len, job.rows.values())))
        return commit(cursor, job)

    monkeypatch.setattr(spool_commit, "commit", counting)
    await put_all(spool, *[str(number) for number in range(700)])
    assert commits == [700]
    assert texts(await read_all(spool)) == [str(number) for number in range(700)]


async def test_an_acknowledged_event_is_deleted_and_the_rest_stays(make: Make) -> None:
    """What the hub has is not sent again, neither now nor after a restart; what it lacks is."""
    spool = await make()
    await put_all(spool, "a", "b", "c")
    sent = await read_all(spool)
    spool.acknowledge(Priority.NORMAL, sent[1].sequence)
    await spool.close()
    assert spool.counters.acknowledged == 2
    again = await make()
    assert texts(await read_all(again, {"normal": sent[1].sequence})) == ["c"]
    assert again.spool_id == spool.spool_id


async def test_each_connection_is_sent_everything_that_is_not_acknowledged(make: Make) -> None:
    """After a reconnect the spool begins behind what the hub says it holds."""
    spool = await make()
    await put_all(spool, "a", "b", "c")
    first = await read_all(spool)
    spool.release()
    assert texts(await read_all(spool, {"normal": first[0].sequence})) == ["b", "c"]


async def test_a_batch_keeps_within_the_room_that_it_is_given(make: Make) -> None:
    """However little room the window leaves, lines stay whole and in order; what has no room waits."""
    spool = await make()
    await put_all(spool, *["x" * size for size in (10, 300, 5, 2000, 1)])
    await spool.resume({})
    assert await spool.next(50) is None
    got = []
    while batch := await spool.next(2500):
        assert len(batch.lines) <= 2500
        assert batch.lines.count(b"\n") == batch.count
        assert parse_lines(batch.lines)[-1].sequence == batch.last
        got += parse_lines(batch.lines)
    assert [len(text) for text in texts(got)] == [10, 300, 5, 2000, 1]


async def test_a_batch_knows_where_each_of_its_events_ends(make: Make) -> None:
    """An ACK in the middle of a batch finds the sequence and the bytes up to there."""
    spool = await make()
    await put_all(spool, "a", "bb", "ccc")
    await spool.resume({})
    batch = await spool.next(10_000)
    assert batch is not None
    sequence, end = batch.locate(1)
    assert texts(parse_lines(batch.lines[:end])) == ["a", "bb"]
    assert parse_lines(batch.lines)[1].sequence == sequence


async def test_an_event_that_is_too_long_for_the_hub_is_made_to_fit(make: Make) -> None:
    """Fields go first, then the text; the event says so, and is never one that the hub must refuse."""
    spool = await make()
    spool.put(device_event("short", zone="z" * MAX_LINE))
    spool.put(device_event("l" * MAX_LINE))
    await bounded(spool.flush())
    without_fields, without_both = await read_all(spool)
    assert without_fields.event["data"] == {"line": "short", "truncated": True}
    assert without_both.event["data"] == {"truncated": True}


async def test_flush_tells_when_everything_is_stored(make: Make) -> None:
    """With nothing waiting it is at once, else after the commit."""
    spool = await make()
    assert spool.flush().called
    spool.put(device_event("a"))
    flushed = spool.flush()
    assert not flushed.called
    await bounded(flushed)
    assert spool.waiting == 0


async def test_an_unknown_priority_is_refused(make: Make) -> None:
    """A mistake in the agent shows at once, not in the hub."""
    spool = await make()
    with pytest.raises(KeyError):
        spool.put(device_event("x", "error"))


async def test_numbers_go_on_after_a_restart_even_when_the_spool_is_empty(make: Make) -> None:
    """A restart never gives a number twice, whatever the clock says."""
    spool = await make()
    await put_all(spool, "a")
    (first,) = await read_all(spool, acknowledge=True)
    await spool.close()
    again = await make(now=lambda: 0.0)
    await put_all(again, "b")
    (second,) = await read_all(again, {"normal": first.sequence})
    assert second.sequence > first.sequence
    assert second.text == "b"


async def test_a_kill_loses_nothing_that_was_stored(make: Make, tmp_path: Path) -> None:
    """A copy of the files as they stand after the commit, log included, has every event."""
    spool = await make()
    await put_all(spool, "a", "b")
    for suffix in ("", "-wal"):
        shutil.copy(f"{spool.path}{suffix}", tmp_path / f"copy.db{suffix}")
    again = await make("copy.db")
    assert again.spool_id == spool.spool_id
    assert texts(await read_all(again)) == ["a", "b"]


async def test_a_deleted_spool_is_another_spool(make: Make) -> None:
    """Under its new id nothing can be mistaken for a repeat."""
    spool = await make()
    await put_all(spool, "a")
    await spool.close()
    spool.path.unlink()
    again = await make()
    assert again.spool_id != spool.spool_id
    assert await read_all(again) == []


async def test_a_spool_restored_from_a_copy_sends_nothing_twice_and_loses_nothing_new(
    make: Make, tmp_path: Path
) -> None:
    """What the copy still holds although the hub has it is dropped; what is printed since is sent."""
    spool = await make()
    await put_all(spool, "a", "b")
    await spool.close()
    shutil.copy(spool.path, tmp_path / "backup.db")
    spool = await make()
    await put_all(spool, "c")
    told = {"normal": (await read_all(spool, acknowledge=True))[-1].sequence}
    await spool.close()
    shutil.copy(tmp_path / "backup.db", spool.path)
    restored = await make()
    await put_all(restored, "d")
    assert texts(await read_all(restored, told)) == ["d"]


async def test_a_restored_spool_with_a_slow_clock_gives_new_numbers_behind_the_hubs(
    make: Make, tmp_path: Path, log: Log
) -> None:
    """Events under numbers that the hub has already seen are numbered anew before they are sent."""
    spool = await make(now=lambda: 0.0)
    await put_all(spool, "a")
    await spool.close()
    shutil.copy(spool.path, tmp_path / "backup.db")
    spool = await make(now=lambda: 0.0)
    await put_all(spool, *"bcdefg")
    told = {"normal": (await read_all(spool, acknowledge=True))[-1].sequence}
    await spool.close()
    shutil.copy(tmp_path / "backup.db", spool.path)
    restored = await make(now=lambda: 0.0)
    await put_all(restored, "x", "y")
    await put_all(restored, "urgent", priority="critical")
    restored.put(device_event("waits in memory"))
    sent = await read_all(restored, told)
    await bounded(restored.flush())
    sent += await read_on(restored)
    assert texts(sent) == ["urgent", "x", "y", "waits in memory"]
    assert all(each.sequence > told["normal"] for each in sent)
    assert all(each.event["id"] == f"{spool.spool_id}-{each.sequence}" for each in sent)
    assert len(log.matching("going on behind it")) == 1


async def test_what_was_dropped_is_numbered_anew_with_the_rest(make: Make, tmp_path: Path) -> None:
    """A notice of events under numbers that the hub has given to others tells of the new numbers."""
    spool = await make(now=lambda: 0.0)
    await put_all(spool, *"abcdefghij")
    told = {"normal": (await read_all(spool, acknowledge=True))[-1].sequence}
    await spool.close()
    shutil.copy(spool.path, tmp_path / "elsewhere.db")
    with other_connection(tmp_path / "elsewhere.db") as older:
        older.execute("UPDATE meta SET last = 0, acked_normal = 0")
    restored = await make("elsewhere.db", now=lambda: 0.0, max_events=2)
    await put_all(restored, "v", "w", "x", "y")
    sent = await read_all(restored, told)
    assert texts(sent) == ["x", "y"]
    (notice,) = notices_of(sent)
    assert notice.fields["count"] == 2
    assert notice.sequence > told["normal"]
    assert notice.fields["ranges"] == [[str(notice.sequence - 1), str(notice.sequence)]]


async def test_events_told_twice_to_be_in_collision_are_moved_once_more(make: Make, impatient: None) -> None:
    """A hub that is further ahead at the next connection, before the first move was written, is jumped past too."""
    spool = await make(now=lambda: 0.0)
    await put_all(spool, "a", "b")
    someone = sqlite3.connect(spool.path, isolation_level=None)
    someone.execute("BEGIN IMMEDIATE")
    first = spool.resume({"normal": 50})
    await until(lambda: spool._trouble)
    assert not first.called
    second = spool.resume({"normal": 90})
    spool.put(device_event("c"))
    someone.rollback()
    someone.close()
    await bounded(second)
    sent = await read_on(spool)
    assert texts(sent) == ["a", "b", "c"]
    assert all(each.sequence > 90 for each in sent)


async def test_a_hub_that_is_ahead_is_jumped_past(make: Make, log: Log) -> None:
    """With nothing waiting the counter goes on behind what the hub holds, and it is logged."""
    spool = await make()
    ahead = 2**60
    assert await read_all(spool, {"critical": ahead}) == []
    await put_all(spool, "a")
    (sent,) = await read_on(spool)
    assert sent.sequence > ahead
    assert len(log.matching("going on behind it")) == 1


async def test_a_hub_that_has_forgotten_is_told_once(make: Make) -> None:
    """After a restored hub one event names the range per lane that it no longer has, not one a reconnect."""
    spool = await make()
    await put_all(spool, "a", "b")
    await put_all(spool, "c", priority="critical")
    sent = await read_all(spool, acknowledge=True)
    await until(lambda: spool.counters.acknowledged == 3)
    last = {each.event["priority"]: each.sequence for each in sent}
    (told,) = await read_all(spool, {"normal": 7})
    assert told.event["type"] == "notifyd.hub.restored"
    assert told.event["priority"] == "important"
    assert told.fields == {
        "ranges": {"normal": [["8", str(last["normal"])]], "critical": [["1", str(last["critical"])]]}
    }
    again = await read_all(spool, {"normal": 7})
    assert [each.event["id"] for each in again] == [told.event["id"]]
    await spool.close()
    reopened = await make()
    assert [each.event["id"] for each in await read_all(reopened, {"normal": 7})] == [told.event["id"]]


async def test_a_spool_that_someone_has_emptied_goes_on(make: Make, log: Log) -> None:
    """Rows that were deleted by hand are not waited for, and what comes later is sent."""
    spool = await make()
    await put_all(spool, "a", "b")
    with other_connection(spool.path) as someone:
        someone.execute("DELETE FROM normal")
        someone.execute("DELETE FROM meta")
    assert await read_all(spool) == []
    await put_all(spool, "c")
    assert texts(await read_on(spool)) == ["c"]
    await spool.close()
    again = await make()
    assert again.spool_id == spool.spool_id
    assert texts(await read_all(again)) == ["c"]
