"""The spool on a real file: what is put comes out, once, in order, whatever happens in between."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from notifyd import database
from notifyd.agent import spool_commit, spool_store
from notifyd.agent.spool import Spool
from notifyd.database import StateError
from notifyd.event import LANES, Priority
from notifyd.wire import MAX_LINE
from tests.spooling import (
    Log,
    bounded,
    device_event,
    make_spool,
    notices_of,
    other_connection,
    parse_lines,
    read_all,
    read_on,
    scheduled,
    texts,
    until,
)

Make = Callable[..., Any]


@pytest.fixture
def log() -> Iterator[Log]:
    """Gives what was logged."""
    log = Log()
    yield log
    log.close()


@pytest_twisted.async_yield_fixture
async def make(tmp_path: Path) -> Any:
    """Gives ``make(...)``, which opens a spool in the test's folder; it is closed after the test."""
    made: list[Spool] = []

    async def make(name: str = "spool.db", **options: Any) -> Spool:
        spool = make_spool(tmp_path / name, **options)
        made.append(spool)
        await bounded(spool.open())
        return spool

    yield make
    for spool in made:
        await spool.close()
    assert scheduled() == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a locked file count as away at once."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)


async def put_all(spool: Spool, *lines: str, priority: str = "normal") -> None:
    """Puts events and waits until they are stored."""
    for line in lines:
        spool.put(device_event(line, priority))
    await bounded(spool.flush())


# --- storing and sending -----------------------------------------------------------------------------------


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


# --- counters never go back --------------------------------------------------------------------------------


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


# --- full --------------------------------------------------------------------------------------------------


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


# --- away --------------------------------------------------------------------------------------------------


async def test_a_locked_spool_is_waited_for(make: Make, impatient: None, log: Log) -> None:
    """While another program locks the file events wait in memory; one line tells it, and one when it is over."""
    spool = await make()
    someone = sqlite3.connect(spool.path, isolation_level=None)
    someone.execute("BEGIN IMMEDIATE")
    for line in "abc":
        spool.put(device_event(line))
    await until(lambda: spool._trouble.failures > 3)  # the file has been opened anew in between
    assert spool.waiting == 3
    someone.rollback()
    someone.close()
    await bounded(spool.flush())
    assert texts(await read_all(spool)) == ["a", "b", "c"]
    assert len(log.matching("cannot be written")) == 1
    assert len(log.matching("is written again")) == 1


async def test_a_full_disk_is_waited_for_and_what_is_stored_is_still_sent(make: Make) -> None:
    """SQLite's own "disk is full": nothing is lost, a hub that comes back is served, and it goes on by itself."""
    spool = await make()
    await put_all(spool, "stored")
    pool = spool._file._pool
    pages = await database.interact(pool, lambda cursor: cursor.execute("PRAGMA page_count").fetchone()[0])
    await database.interact(pool, lambda cursor: cursor.execute(f"PRAGMA max_page_count={pages}").fetchall())
    for number in range(20):
        spool.put(device_event(f"{number}" + "x" * 4000))
    await until(lambda: spool._trouble)
    assert texts(await read_all(spool)) == ["stored"]
    await database.interact(pool, lambda cursor: cursor.execute("PRAGMA max_page_count=100000").fetchall())
    await bounded(spool.flush())
    assert len(await read_on(spool)) == 20


async def test_memory_is_bounded_while_the_spool_cannot_be_written(make: Make, impatient: None) -> None:
    """Beyond the limit the oldest normal events go first; with the next commit it is told how many and which."""
    spool = await make(max_waiting=20_000)
    someone = sqlite3.connect(spool.path, isolation_level=None)
    someone.execute("BEGIN IMMEDIATE")
    spool.put(device_event("urgent", "critical"))
    for number in range(100):
        spool.put(device_event(str(number)))
        assert spool._pending._bytes <= 20_000
    dropped = spool.counters.dropped
    assert 0 < dropped < 100
    someone.rollback()
    someone.close()
    await bounded(spool.flush())
    sent = await read_all(spool)
    assert texts(sent) == ["urgent", *[str(number) for number in range(dropped, 100)]]
    (notice,) = notices_of(sent)
    assert notice.fields["count"] == dropped
    assert notice.fields["reason"] == "spool cannot be written"
    assert len(notice.fields["ranges"]) == 1
    assert spool.counters.dropped == dropped


async def test_a_spool_that_is_locked_at_the_start_is_opened_later(make: Make, tmp_path: Path, impatient: None) -> None:
    """The agent comes up, keeps what is printed, and stores it under the spool's own id when it can."""
    first = await make()
    await put_all(first, "a")
    await first.close()
    someone = sqlite3.connect(first.path, isolation_level=None)
    someone.execute("BEGIN EXCLUSIVE")
    spool = await make()
    assert not spool.is_open
    spool.put(device_event("b"))
    someone.rollback()
    someone.close()
    await bounded(spool.flush())
    assert spool.spool_id == first.spool_id
    sent = await read_all(spool)
    assert texts(sent) == ["a", "b"]
    assert sent[1].event["id"].startswith(first.spool_id)


async def test_events_that_cannot_be_stored_before_the_end_are_told(make: Make, impatient: None, log: Log) -> None:
    """Closing does not wait for a disk that is away, but says what is lost."""
    spool = await make()
    someone = sqlite3.connect(spool.path, isolation_level=None)
    someone.execute("BEGIN IMMEDIATE")
    spool.put(device_event("a"))
    await until(lambda: spool._trouble)
    await spool.close()
    someone.close()
    assert len(log.matching("1 events that wait in memory are lost")) == 1


async def test_a_spool_that_cannot_be_read_is_tried_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """A read error holds the sending up, with one line, until it is over."""
    spool = await make()
    await put_all(spool, "a")
    await spool.resume({})
    read = spool_store.read
    failing = [True] * 4

    def fail(*arguments: Any, **options: Any) -> Any:
        if failing and failing.pop():
            raise sqlite3.OperationalError("disk I/O error")
        return read(*arguments, **options)

    monkeypatch.setattr(spool_store, "read", fail)
    sent = []

    async def again() -> None:
        if batch := await spool.next(1000):
            sent.extend(parse_lines(batch.lines))

    spool.on_stored = lambda: Deferred.fromCoroutine(again()) and None
    await again()
    await until(lambda: sent)
    assert len(log.matching("cannot be read")) == 1
    assert len(log.matching("is read again")) == 1


async def test_an_event_that_the_database_refuses_goes_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """The batch is split until the offender is found; it is told as dropped, and all others are stored."""
    spool = await make()
    commit = spool_commit.commit

    def refusing(cursor: Any, job: Any) -> Any:
        if any(b"offender" in line for rows in job.rows.values() for _, line in rows):
            raise sqlite3.IntegrityError("no")
        return commit(cursor, job)

    monkeypatch.setattr(spool_commit, "commit", refusing)
    await put_all(spool, "a", "b", "offender", "c", "d")
    sent = await read_all(spool)
    assert texts(sent) == ["a", "b", "c", "d"]
    (notice,) = notices_of(sent)
    assert (notice.fields["count"], notice.fields["reason"]) == (1, "refused by the spool's database")
    assert len(log.matching("refuses event")) == 1


# --- corrupt, removed, replaced ------------------------------------------------------------------------------


async def test_a_corrupt_spool_is_kept_aside_and_begun_anew(make: Make, tmp_path: Path, log: Log) -> None:
    """The agent comes up with an empty spool, and tells the hub that something was lost."""
    (tmp_path / "spool.db").write_bytes(b"this is no database" * 1000)
    spool = await make()
    await put_all(spool, "a")
    (aside,) = tmp_path.glob("spool.db.corrupt-*")
    assert aside.read_bytes().startswith(b"this is no database")
    notice, event = await read_all(spool)
    assert notice.event["type"] == "notifyd.spool.dropped"
    assert notice.fields == {"count": None, "ranges": [], "reason": "spool corrupt", "spool": None}
    assert event.text == "a"
    assert len(log.matching("is lost, another is begun")) == 1


def corrupt(spool: Spool) -> None:
    """Overwrites everything of a spool that is in use, and of what SQLite remembers of it."""
    for suffix in ("", "-wal"):
        file = Path(f"{spool.path}{suffix}")
        with open(file, "r+b") as handle:
            handle.write(b"\xa5" * file.stat().st_size)
    spool._file.close()
    Path(f"{spool.path}").write_bytes(b"\xa5" * 8192)


def remove(spool: Spool) -> None:
    """Deletes a spool that is in use."""
    spool.path.unlink()


def drop_table(spool: Spool) -> None:
    """Changes the schema of a spool that is in use."""
    with other_connection(spool.path) as someone:
        someone.execute("DROP TABLE normal")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(corrupt, "spool corrupt"), (remove, "spool removed or replaced"), (drop_table, "spool corrupt")],
)
async def test_a_spool_that_is_lost_while_it_is_used_is_begun_anew(
    make: Make, damage: Callable[[Spool], None], reason: str, log: Log
) -> None:
    """What waits in memory goes into the new one under new numbers; the hub is told about the rest."""
    spool = await make()
    await put_all(spool, "only there")
    former = spool.spool_id
    identities: list[str] = []
    spool.on_identity = lambda: identities.append(spool.spool_id)
    damage(spool)
    spool.put(device_event("in memory"))
    await until(lambda: identities)
    await bounded(spool.flush())
    assert spool.spool_id != former
    assert identities == [spool.spool_id]
    sent = await read_all(spool)
    assert texts(sent) == ["in memory"]
    assert all(each.event["id"].startswith(spool.spool_id) for each in sent)
    (notice,) = notices_of(sent)
    assert (notice.fields["reason"], notice.fields["spool"]) == (reason, former)
    assert len(log.matching("is lost, another is begun")) == 1


async def test_the_notice_of_a_lost_spool_is_not_dropped_either(make: Make, tmp_path: Path) -> None:
    """A full spool drops events around it."""
    (tmp_path / "spool.db").write_bytes(b"x" * 5000)
    spool = await make(max_events=1)
    await put_all(spool, "a", "b", priority="important")
    sent = await read_all(spool)
    assert [each.fields["reason"] for each in notices_of(sent)] == ["spool corrupt", "spool full"]
    assert texts(sent) == ["b"]


async def test_a_copy_put_in_place_of_the_spool_in_use_is_taken_up(make: Make, tmp_path: Path) -> None:
    """Someone restores a backup without stopping the agent: what it holds is sent, the old log is not mixed in."""
    spool = await make()
    await put_all(spool, "a")
    with other_connection(spool.path) as someone:
        someone.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
    await put_all(spool, "b")
    (tmp_path / "backup.db").replace(spool.path)
    await put_all(spool, "c")
    sent = await read_all(spool)
    assert sorted(texts(sent)) == ["a", "c"]
    assert [each.fields["reason"] for each in notices_of(sent)] == ["spool removed or replaced"]


async def test_corruption_that_a_read_finds_is_handled_too(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not be a write that meets the damage."""
    spool = await make()
    await put_all(spool, "a")
    await spool.resume({})

    def fail(*arguments: Any, **options: Any) -> Any:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    former = spool.spool_id
    with monkeypatch.context() as patch:
        patch.setattr(spool_store, "read", fail)
        assert await spool.next(1000) is None
    await until(lambda: spool.is_open and spool.spool_id != former)


async def test_a_spool_of_a_newer_version_is_left_alone(make: Make, tmp_path: Path) -> None:
    """An older notifyd ends with a clear line and does not touch it."""
    spool = await make()
    await spool.close()
    with other_connection(spool.path) as newer:
        newer.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(StateError, match="newer notifyd"):
        await make()
    assert list(tmp_path.glob("*.corrupt*")) == []


async def test_a_newer_spool_that_appears_later_ends_the_agent(make: Make, tmp_path: Path) -> None:
    """Where no retry can help, whoever runs the spool is told so."""
    newer = await make("newer.db")
    await newer.close()
    with other_connection(newer.path) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    fatal: list[BaseException] = []
    spool = await make(on_fatal=fatal.append)
    newer.path.replace(spool.path)
    spool.put(device_event("a"))
    await until(lambda: fatal)
    assert isinstance(fatal[0], StateError)


def test_the_lanes_are_tables() -> None:
    """The names that are put into SQL are fixed words."""
    assert [str(lane) for lane in LANES] == ["critical", "important", "normal"]
