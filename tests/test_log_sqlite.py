"""The event log in SQLite: its files, its lock, its pools; what both databases do is in test_log.py."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from notifyd.database import StateError
from notifyd.hub.backend import SqliteBackend
from notifyd.hub.entries import Entries
from notifyd.hub.log import EventLog
from notifyd.hub.pace import Pace
from notifyd.hub.readback import Page, Reader
from notifyd.hub.records import Batch
from notifyd.hub.service import _refused
from tests.hubkit import T0, Hub, line
from tests.test_log import entry


@pytest_twisted.ensureDeferred
async def test_a_second_hub_on_the_same_database_is_refused(tmp_path: Path) -> None:
    """One process writes a database; the other is told which one has it."""
    first = EventLog(SqliteBackend(tmp_path / "hub.db"), reactor, _refused)
    await first.open()
    second = EventLog(SqliteBackend(tmp_path / "hub.db"), reactor, _refused)
    with pytest.raises(StateError, match="another process"):
        await second.open()
    first.close()
    await second.open()
    second.close()
    second.close()


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_database_is_refused_with_a_clear_line(tmp_path: Path) -> None:
    """It is not overwritten."""
    path = tmp_path / "hub.db"
    path.write_bytes(b"This is a letter to my aunt. " * 100)
    log = EventLog(SqliteBackend(path), reactor, _refused)
    with pytest.raises(StateError, match=r"corrupt.*restore it or move it aside"):
        await log.open()
    log.close()
    assert path.read_bytes().startswith(b"This is a letter")


@pytest_twisted.ensureDeferred
async def test_what_is_stored_is_synced_and_there_at_the_next_start(tmp_path: Path) -> None:
    """With a real pool: write-ahead log, synchronous=FULL."""
    log = EventLog(SqliteBackend(tmp_path / "hub.db"), reactor, _refused, lambda: T0)
    memory = await log.open()
    assert await log._interact(lambda cursor, _: cursor.execute("PRAGMA synchronous").fetchone()[0]) == 2
    assert await log._interact(lambda cursor, _: cursor.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
    await log.append(Batch(Entries.of([entry(memory.last + 1)])))
    with sqlite3.connect(tmp_path / "hub.db") as other:
        assert other.execute("SELECT count(*) FROM event").fetchone() == (1,)
    other.close()
    log.close()
    again = EventLog(SqliteBackend(tmp_path / "hub.db"), reactor, _refused, lambda: T0)
    assert (await again.open()).last == memory.last + 1
    again.close()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the system has no such threads")
@pytest_twisted.ensureDeferred
async def test_readers_are_in_the_background_and_the_writer_is_not(tmp_path: Path) -> None:
    """They interrupt nobody; it is waited for by everybody."""
    backend = SqliteBackend(tmp_path / "hub.db")
    usual = os.sched_getscheduler(threading.get_native_id())
    for pool, expected in ((backend.open_writer(reactor), usual), (backend.open_reader(reactor, 2), os.SCHED_BATCH)):
        assert await pool.runInteraction(lambda _: os.sched_getscheduler(threading.get_native_id())) == expected
        pool.close()


@pytest_twisted.ensureDeferred
async def test_the_real_reader_cannot_write(tmp_path: Path) -> None:
    """It has connections of its own that refuse to."""
    backend = SqliteBackend(tmp_path / "hub.db")
    log = EventLog(backend, reactor, _refused)
    await log.open()
    reader = Reader(backend, reactor, Pace(reactor, lambda: False, 0.0))
    assert await reader.page("all", 0, 10) == Page(None, b"", 10, 0)
    with pytest.raises(Exception, match=r"readonly|read-only"):
        await reader._pool.runInteraction(lambda cursor: cursor.execute("DELETE FROM entry"))
    reader.close()
    log.close()


def test_a_database_that_is_deleted_under_the_hub_ends_it(tmp_path: Path) -> None:
    """What would be written to it from then on would be gone at the next start."""
    hub = Hub(tmp_path)
    hub.path.unlink()
    producer = hub.producer(line("a"))
    assert producer.lines() == []
    assert "deleted or replaced" in str(hub.failed[0])
    hub.close()
