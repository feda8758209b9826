"""The durable, ordered event log: what is written to it, in which order, and what a failure means."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from notifyd.database import Fault, FolderLock, NewerSchemaError, StateError, interact, judge, migrate, open_pool

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 5.0

MIGRATIONS = (
    """
    CREATE TABLE event (
        "offset" INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        source TEXT NOT NULL,
        type TEXT NOT NULL,
        priority TEXT NOT NULL,
        time TEXT NOT NULL,
        received TEXT NOT NULL,
        agent TEXT,
        rule TEXT NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX event_by_priority ON event (priority, "offset");
    CREATE TABLE spool (
        spool TEXT NOT NULL,
        lane TEXT NOT NULL,
        agent TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (spool, lane)
    ) WITHOUT ROWID;
    CREATE TABLE subscriber (
        name TEXT PRIMARY KEY,
        stream TEXT NOT NULL,
        acked INTEGER NOT NULL,
        seen TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE agent (
        agent TEXT PRIMARY KEY,
        lost INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE expired (
        stream TEXT PRIMARY KEY,
        "offset" INTEGER NOT NULL,
        received TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)


class Position(NamedTuple):
    """How far a spool's lane has come: set when the entry that carries it is stored."""

    spool: str
    lane: str
    agent: str
    sequence: int


@dataclass(slots=True)
class Entry:
    """An event that is about to be stored: its columns, its line, and what its storing says about its spool."""

    offset: int
    id: str
    source: str
    type: str
    priority: str
    time: str
    received: str
    agent: str | None
    rule: str
    line: bytes
    position: Position | None = None

    def row(self) -> tuple[object, ...]:
        """Gives the columns of table ``event``."""
        return (
            self.offset, self.id, self.source, self.type, self.priority, self.time, self.received, self.agent,
            self.rule, self.line.decode(),
        )  # fmt: skip


class ClientRow(NamedTuple):
    """A registered client's row of table ``subscriber``."""

    name: str
    stream: str
    acked: int
    seen: str


@dataclass(slots=True)
class Batch:
    """What is stored in one commit."""

    entries: list[Entry] = field(default_factory=list)
    clients: Sequence[ClientRow] = ()
    agents: dict[str, bool] = field(default_factory=dict)  # name to whether it is lost


@dataclass(slots=True)
class Memory:
    """What the hub has to know of its log when it starts."""

    last: int
    clients: list[ClientRow]
    agents: dict[str, bool]


class EventLog:
    """Writes the log; the one writer, one batch at a time.

    Args:
        path: the SQLite file.
        reactor: its clock, threads and shutdown are used.
        refused: gives the entry that is stored in place of one that the database refuses, and why.
        now: the wall clock, in seconds since 1970.
    """

    log = Logger("notifyd.hub.log")

    def __init__(
        self,
        path: Path,
        reactor: Any,
        refused: Callable[[Entry, str], Entry],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.away = False
        self._reactor = reactor
        self._refused = refused
        self._now = now
        self._lock = FolderLock(path.with_name(path.name + ".lock"))
        self._pool: adbapi.ConnectionPool | None = None
        self._inodes: list[int] = []  # of the file and its write-ahead log

    async def open(self) -> Memory:
        """Opens the database and brings its schema up to date; waits for one that is locked or full.

        Raises:
            StateError: another process writes it, it is corrupt, or it is of a newer version.
        """
        if self.path.is_dir():
            raise StateError(f"the database {self.path} is a folder")
        self._lock.acquire()
        self._pool = open_pool(self.path, reactor=self._reactor)
        try:
            memory: Memory = await self._persist(lambda: self._interact(_load))
        except NewerSchemaError as error:
            raise NewerSchemaError(f"the database {self.path} cannot be used: {error}") from None
        self._inodes = self._look_at_files()
        memory.last = max(memory.last, int(self._now() * 1_000_000) - 1)
        return memory

    def close(self) -> None:
        """Closes the database; nothing may be under way."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._lock.release()

    async def append(self, batch: Batch) -> None:
        """Stores a batch, however long it takes; when this returns it is on the disk.

        An entry that the database refuses is replaced, in ``batch`` too, by an event that tells of it.

        Raises:
            StateError: the database is corrupt or gone, and no retry will help.
        """
        attempts = 0

        async def attempt() -> None:
            nonlocal attempts
            attempts += 1
            await self._interact(_write, batch, attempts > 1)

        try:
            await self._persist(attempt)
        except StateError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the driver makes of bad data
            await self._append_halves(batch, error)
        self._check_file()

    async def _append_halves(self, batch: Batch, error: Exception) -> None:
        """Finds the entry that the database refuses by halving the batch around it."""
        entries = batch.entries
        if len(entries) > 1:
            middle = len(entries) // 2
            first, second = Batch(entries[:middle]), Batch(entries[middle:], batch.clients, batch.agents)
            await self.append(first)
            await self.append(second)
            entries[:] = first.entries + second.entries
        elif entries and not (entries[0].source == "/hub/ingest" and entries[0].type == "notifyd.rejected"):
            self.log.error("The database refuses an event: {error}", error=error, offset=entries[0].offset)
            entries[0] = self._refused(entries[0], f"the database refuses it: {error}")
            await self.append(batch)
        else:
            raise StateError(f"the database {self.path} refuses what every database takes: {error}") from error

    async def expire(self, cutoff: str, most: int) -> dict[str, int]:
        """Deletes the oldest events whose ``received`` is before ``cutoff``, never the newest one.

        Args:
            cutoff: an RFC 3339 time in the hub's own format.
            most: events at once, so that no batch waits for long.

        Returns:
            how many went of each priority.

        Raises:
            Exception: the database did not do it; nothing is changed then.
        """
        counts: dict[str, int] = await self._interact(_expire, cutoff, most)
        return counts

    async def positions(self, spool: str) -> dict[str, int]:
        """Gives the highest stored sequence of each lane of a spool; waits for a database that is away."""

        def read(cursor: sqlite3.Cursor) -> dict[str, int]:
            cursor.execute("SELECT lane, sequence FROM spool WHERE spool = ?", (spool,))
            return dict(cursor.fetchall())

        positions: dict[str, int] = await self._persist(lambda: self._interact(read))
        return positions

    def _interact(self, work: Callable[..., Any], *arguments: object) -> Deferred[Any]:
        if self._pool is None:
            raise StateError(f"the database {self.path} is closed")
        return interact(self._pool, lambda cursor: work(cursor, *arguments))

    async def _persist(self, work: Callable[[], Any]) -> Any:
        """Tries again, with growing pauses, as long as only the connection or the disk is at fault."""
        pause = RETRY_FIRST_S
        while True:
            try:
                result = await work()
            except Exception as error:
                fault = judge(error)
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
                    # A table is missing, or another program's: what is written can never be right.
                    raise StateError(f"the database {self.path} is not notifyd's, or was changed: {error}") from error
                if fault is Fault.CORRUPT and not isinstance(error, StateError):
                    message = f"the database {self.path} is corrupt ({error}): restore it or move it aside"
                    raise StateError(message) from error
                if fault is not Fault.AWAY:
                    raise
                if not self.away:
                    self.away = True
                    self.log.error(
                        "The database cannot be used; nothing is acknowledged until it can: {error}",
                        error=error,
                    )
                await deferLater(self._reactor, pause)
                pause = min(2 * pause, RETRY_MOST_S)
            else:
                if self.away:
                    self.away = False
                    self.log.info("The database can be used again.")
                return result

    def _check_file(self) -> None:
        """Sees that the file which was written is the one that the next start will find."""
        if self._look_at_files() != self._inodes:
            raise StateError(f"the database {self.path}, or its -wal, was deleted or replaced while the hub used it")

    def _look_at_files(self) -> list[int]:
        return [_inode(self.path), _inode(self.path.with_name(self.path.name + "-wal"))]


def _inode(path: Path) -> int:
    """Gives a file's inode; -1 where there is none."""
    try:
        return path.stat().st_ino
    except OSError:
        return -1


def _load(cursor: sqlite3.Cursor) -> Memory:
    migrate(cursor, MIGRATIONS)
    # An expired offset is counted too: the newest row stays, but a person may have deleted it.
    last = cursor.execute(
        'SELECT max(coalesce((SELECT max("offset") FROM event), 0), coalesce((SELECT max("offset") FROM expired), 0),'
        " coalesce((SELECT max(acked) FROM subscriber), 0))"
    ).fetchone()[0]
    clients = [ClientRow(*row) for row in cursor.execute("SELECT name, stream, acked, seen FROM subscriber")]
    known = {agent: False for (agent,) in cursor.execute("SELECT DISTINCT agent FROM spool")}
    lost = {agent: bool(lost) for agent, lost in cursor.execute("SELECT agent, lost FROM agent")}
    return Memory(last, clients, known | lost)


_CHUNKS = (256, 32, 1)
"""Rows in one INSERT: few sizes, so that each is prepared once; many rows, since each statement costs a GIL switch."""

_COLUMNS = '"offset", id, source, type, priority, time, received, agent, rule, body'
_INSERTS = {
    size: f"INSERT INTO event ({_COLUMNS}) VALUES {','.join(['(?,?,?,?,?,?,?,?,?,?)'] * size)}"  # noqa: S608 - constants
    for size in _CHUNKS
}


def _write(cursor: sqlite3.Cursor, batch: Batch, again: bool) -> None:
    entries = batch.entries
    if again and entries:
        # An earlier attempt may have been committed though its answer was lost.
        cursor.execute('SELECT 1 FROM event WHERE "offset" = ?', (entries[0].offset,))
        if cursor.fetchone() is not None:
            return
    start = 0
    for size in _CHUNKS:
        while len(entries) - start >= size:
            rows = entries[start : start + size]
            cursor.execute(_INSERTS[size], [value for entry in rows for value in entry.row()])
            start += size
    cursor.executemany(
        "INSERT INTO spool (spool, lane, agent, sequence) VALUES (?, ?, ?, ?) ON CONFLICT (spool, lane)"
        " DO UPDATE SET agent = excluded.agent, sequence = excluded.sequence",
        _highest(entry.position for entry in entries if entry.position is not None),
    )
    cursor.executemany(
        "INSERT INTO subscriber (name, stream, acked, seen) VALUES (?, ?, ?, ?) ON CONFLICT (name)"
        " DO UPDATE SET acked = excluded.acked, seen = excluded.seen",
        batch.clients,
    )
    cursor.executemany(
        "INSERT INTO agent (agent, lost) VALUES (?, ?) ON CONFLICT (agent) DO UPDATE SET lost = excluded.lost",
        batch.agents.items(),
    )


def _highest(positions: Iterable[Position]) -> Iterable[Position]:
    return {(position.spool, position.lane): position for position in positions}.values()


def _expire(cursor: sqlite3.Cursor, cutoff: str, most: int) -> dict[str, int]:
    cursor.execute("BEGIN IMMEDIATE")
    cursor.execute('SELECT "offset", priority, received FROM event ORDER BY "offset" LIMIT ?', (most + 1,))
    rows = cursor.fetchall()
    # Only a prefix goes, and what was read last is never part of it: it is the newest row, or the next sweep's.
    gone = []
    for row in rows[:-1]:
        if row[2] >= cutoff:
            break
        gone.append(row)
    if not gone:
        return {}
    last_of: dict[str, tuple[int, str]] = {}
    counts: dict[str, int] = {}
    for offset, priority, received in gone:
        last_of[priority] = last_of["all"] = (offset, received)
        counts[priority] = counts.get(priority, 0) + 1
    cursor.execute('DELETE FROM event WHERE "offset" <= ?', (gone[-1][0],))
    cursor.executemany(
        'INSERT INTO expired (stream, "offset", received) VALUES (?, ?, ?) ON CONFLICT (stream)'
        ' DO UPDATE SET "offset" = excluded."offset", received = excluded.received',
        [(stream, *last) for stream, last in last_of.items()],
    )
    return counts
