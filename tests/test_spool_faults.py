"""A spool that is locked, full, corrupt, removed or replaced."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from notifyd import database
from notifyd.agent import spool_commit, spool_store
from notifyd.agent.spool import Spool
from notifyd.database import StateError
from notifyd.event import LANES
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
