"""Where the event log is: what its database does in a way of its own, and the way of SQLite."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred

from notifyd import config, database
from notifyd.database import Fault, FolderLock, StateError, interact
from notifyd.hub.bulk import BulkInsert, read_bulk
from notifyd.hub.records import Batch, Found
from notifyd.hub.statements import SQLITE_MIGRATIONS, write_rest

T = TypeVar("T")


class Backend(Protocol):
    """A database that holds an event log.

    ``name`` is for messages and has no password; ``begin_write`` and ``begin_snapshot`` begin a transaction, and are
    empty where the driver does so itself; ``page_rows`` is how many rows a statement may fetch at once;
    ``answer_timeout_s`` is for how long an answer may be waited for.
    """

    name: str
    begin_write: str
    begin_snapshot: str
    page_rows: int
    answer_timeout_s: float | None
    sessions: int  # how often the writer's connection was opened
    table: str  # what rows of ``event`` are deleted from
    migrations: Sequence[str]

    def acquire(self) -> None:
        """Makes this process the one that writes the log, as far as that needs no connection; raises StateError."""

    def release(self) -> None:
        """Gives that back."""

    def open_writer(self, reactor: Any) -> Any:
        """Gives the pool with the one connection that writes."""

    def open_reader(self, reactor: Any, threads: int) -> Any:
        """Gives a pool that can only read."""

    def cut(self, pool: Any) -> None:
        """Ends what has waited in a pool's thread for ``answer_timeout_s``, with an error."""

    def judge(self, error: BaseException) -> Fault:
        """Tells what an error asks for."""

    def opened(self) -> None:
        """Is called once the schema is up to date."""

    def check(self) -> None:
        """Sees, after a commit, that what was written is what the next start will find; raises StateError."""

    def sql(self, text: str) -> str:
        """Gives a statement, whose parameters are written ``?``, as the driver wants it."""

    def write(self, cursor: Any, batch: Batch) -> None:
        """Writes a batch, in the quickest way; the caller commits afterwards."""

    def read_events(
        self, cursor: Any, stream: str, condition: str, arguments: Sequence[object], size: int, rows: int | None
    ) -> Found:
        """Reads a stream's events that meet a condition, in order, about ``size`` bytes of lines, or ``page_rows``.

        ``rows`` have about so many, but not more, as far as anything is known.
        """


def read_rows(
    cursor: Any, backend: Backend, stream: str, condition: str, arguments: Sequence[object], size: int
) -> Found:
    """Reads events row by row.

    Args:
        cursor: in a transaction that only reads.
        backend: of the database.
        stream: of which it is told what has expired.
        condition: for table ``event``.
        arguments: for the condition.
        size: characters of lines that are enough.
    """
    query = f'SELECT "offset", body FROM event WHERE {condition} ORDER BY "offset" LIMIT ?'  # noqa: S608 - constants
    lines: list[str] = []
    last = None
    for offset, body in cursor.execute(backend.sql(query), (*arguments, backend.page_rows)):
        lines.append(body)
        last = offset
        size -= len(body) + 1
        if size <= 0:
            break
    else:
        if len(lines) < backend.page_rows:
            last = None
    row = cursor.execute(backend.sql('SELECT "offset" FROM expired WHERE stream = ?'), (stream,)).fetchone()
    return Found("\n".join((*lines, "")).encode(), last, len(lines), None if row is None else int(row[0]))


def ask(reactor: Any, backend: Backend, pool: Any, work: Callable[[Any], T], *, bounded: bool = True) -> Deferred[T]:
    """Runs ``work`` in a transaction of its own, in a thread of the pool.

    Args:
        reactor: its clock is used.
        backend: of the pool.
        pool: that the backend has opened.
        work: is called with a cursor.
        bounded: whether an answer is waited for ``answer_timeout_s`` only, twice that at most.
    """
    answer = interact(pool, work)
    if not bounded or backend.answer_timeout_s is None or answer.called:
        return answer
    timeout = backend.answer_timeout_s
    timer: Any = None

    def watch() -> None:
        nonlocal timer
        timer = reactor.callLater(timeout, expire)

    def expire() -> None:
        backend.cut(pool)  # what waits for a thread of the pool yet has its own time later
        watch()

    def stop(result: Any) -> Any:
        timer.cancel()
        return result

    watch()
    return answer.addBoth(stop)


class SqliteBackend:
    """A log in a SQLite file.

    Args:
        path: the file.
    """

    begin_write = "BEGIN IMMEDIATE"
    begin_snapshot = "BEGIN"
    page_rows = 2**31
    answer_timeout_s: float | None = None
    table = "entry"
    migrations: Sequence[str] = SQLITE_MIGRATIONS

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.sessions = 1
        self._lock = FolderLock(path.with_name(path.name + ".lock"))
        self._bulk = BulkInsert()
        self._files = (path, path.with_name(path.name + "-wal"))
        self._inodes: list[int] = []  # of the file and its write-ahead log

    def acquire(self) -> None:
        """Locks the file; raises StateError where another process has it, or it is none."""
        if self.path.is_dir():
            raise StateError(f"the database {self.path} is a folder")
        database.prepare_folder(self.path.parent)
        self._lock.acquire()

    def release(self) -> None:
        """Unlocks the file."""
        self._lock.release()

    def open_writer(self, reactor: Any) -> Any:
        """Gives the pool that writes; one thread keeps interactions in order."""
        return database.open_pool(self.path, reactor=reactor, autocommit=True)

    def open_reader(self, reactor: Any, threads: int) -> Any:
        """Gives a pool that can only read."""
        return database.open_pool(self.path, reactor=reactor, read_only=True, threads=threads)

    def cut(self, pool: Any) -> None:
        """Nothing is waited for without an end here."""

    def judge(self, error: BaseException) -> Fault:
        """Tells what an error asks for."""
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            return Fault.FOREIGN  # a table is missing, or another program's
        return database.judge(error)

    def opened(self) -> None:
        """Notes which files are open."""
        self._inodes = self._look_at_files()

    def check(self) -> None:
        """Sees that nobody has moved the files away; raises StateError."""
        if self._look_at_files() != self._inodes:
            raise StateError(f"the database {self.path}, or its -wal, was deleted or replaced while the hub used it")

    def _look_at_files(self) -> list[int]:
        return [_inode(file) for file in self._files]

    def sql(self, text: str) -> str:
        """Statements are written for it."""
        return text

    def write(self, cursor: Any, batch: Batch) -> None:
        """Writes what is in most batches with one statement, during which Python's other threads go on."""
        self._bulk.write(cursor, batch)
        write_rest(cursor, self, batch)

    def read_events(
        self, cursor: Any, stream: str, condition: str, arguments: Sequence[object], size: int, rows: int | None
    ) -> Found:
        """Reads events with few statements, mostly one, during which Python's other threads go on."""
        return read_bulk(cursor, stream, condition, arguments, size, self.page_rows, rows)


def _inode(path: Path) -> int:
    """Gives a file's inode; -1 where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


def open_backend(url: str | None, state: Path) -> Backend:
    """Gives the backend of a log.

    Args:
        url: of the configuration; None for ``hub.db`` in the state folder.
        state: the state folder.

    Raises:
        StateError: the driver is not installed, or the URL is not one it can use.
    """
    if url is not None and config.is_postgresql(url):
        from notifyd.hub.backend_postgresql import PostgresqlBackend  # its driver is an extra

        return PostgresqlBackend(url)
    return SqliteBackend(state / "hub.db" if url is None else config.sqlite_path(url))
