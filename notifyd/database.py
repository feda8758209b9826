"""SQLite through adbapi; migrations, the lock of a state folder, and what an error of a database means.

Durability: WAL with ``synchronous=FULL`` syncs the write-ahead log at each commit
(https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred

from notifyd.fewthreads import FewConnections

T = TypeVar("T")

BUSY_TIMEOUT_MS = 2_000
"""For how long a statement waits for another program's lock before it counts as a fault."""

WAL_LIMIT = 64 * 2**20
"""Bytes to which the write-ahead log is cut back after a checkpoint."""


class StateError(Exception):
    """The state folder or the database cannot be used; the text is a sentence for the operator."""


class NewerSchemaError(StateError):
    """The database was written by a newer notifyd."""


class Fault(enum.Enum):
    """What an error of the database asks for."""

    AWAY = "away"  # try again later: locked, full, not readable just now
    REFUSED = "refused"  # the data: will be refused again
    CORRUPT = "corrupt"  # the file: no retry helps
    FOREIGN = "foreign"  # the tables: missing, or another program's
    DENIED = "denied"  # the user: has not the rights


def in_one_line(error: object) -> str:
    """Gives what an error says as one line: libpq writes several, which would tear the daemon's log."""
    return " ".join(str(error).split())


_REFUSED = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def judge(error: BaseException) -> Fault:
    """Tells what an error that a database interaction raised asks for."""
    if isinstance(error, StateError):
        return Fault.CORRUPT
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF  # the low byte of an extended code
        if primary in _CORRUPT:
            return Fault.CORRUPT
        if primary in _REFUSED or (primary is None and not isinstance(error, sqlite3.OperationalError)):
            return Fault.REFUSED
        return Fault.AWAY
    if isinstance(error, OSError):
        return Fault.AWAY
    return Fault.REFUSED


def open_pool(
    path: Path, *, reactor: Any, read_only: bool = False, threads: int = 1, autocommit: bool = False
) -> adbapi.ConnectionPool:
    """Gives a pool on a SQLite file; its connections are opened in its threads, when first used.

    Args:
        path: the file; it is made where it is missing, unless ``read_only``.
        reactor: whose threads and shutdown the pool goes with.
        read_only: refuses every write; its threads are in the background.
        threads: connections at once; one keeps interactions in the order in which they are asked for.
        autocommit: a statement is a transaction of its own unless one is begun; else one is begun before it changes
            something. What an interaction has begun is committed after it, either way.
    """
    settings = [f"busy_timeout={BUSY_TIMEOUT_MS}"]
    if read_only:
        settings.append("query_only=ON")
    else:
        settings += ["journal_mode=WAL", "synchronous=FULL", f"journal_size_limit={WAL_LIMIT}"]

    def prepare(connection: sqlite3.Connection) -> None:
        try:
            for setting in settings:
                connection.execute(f"PRAGMA {setting}")
        except BaseException:
            connection.close()  # the pool forgets a connection that could not be prepared
            raise

    return FewConnections(
        "sqlite3",
        f"file:{_quote(path)}?mode={'ro' if read_only else 'rwc'}",
        threads=threads,
        background=read_only,
        uri=True,
        check_same_thread=False,
        cp_openfun=prepare,
        cp_noisy=False,
        cp_reactor=reactor,
        **({"isolation_level": None} if autocommit else {}),
    )


def _quote(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


def interact(pool: adbapi.ConnectionPool, work: Callable[[sqlite3.Cursor], T]) -> Deferred[T]:
    """Runs ``work`` in a transaction of its own, in the pool's thread."""
    result: Deferred[T] = pool.runInteraction(work)
    return result


def migrate(cursor: Any, migrations: Sequence[str], begin: str = "BEGIN IMMEDIATE") -> None:
    """Brings the schema to the newest version; each migration is one transaction.

    Args:
        cursor: outside of any transaction.
        migrations: SQL scripts without transaction statements; the first makes version 1.
        begin: begins a transaction that writes; empty where the driver does so itself.

    Raises:
        NewerSchemaError: the database is of a version that is not known here.
    """
    cursor.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    cursor.connection.commit()
    while True:
        if begin:
            cursor.execute(begin)
        version = cursor.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()[0]
        if version > len(migrations):
            cursor.connection.rollback()
            raise NewerSchemaError(
                f"its schema has version {version}, this notifyd knows {len(migrations)}: install a newer notifyd"
            )
        if version == len(migrations):
            cursor.connection.rollback()
            return
        for statement in migrations[version].split(";"):
            if statement.strip():
                cursor.execute(statement)
        cursor.execute("DELETE FROM schema_version")
        cursor.execute(f"INSERT INTO schema_version (version) VALUES ({version + 1:d})")  # noqa: S608 - a number
        cursor.connection.commit()


def sync_folder(folder: Path) -> None:
    """Makes a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prepare_folder(folder: Path) -> None:
    """Makes a state folder, readable by its user only, and sees that it can be written.

    Raises:
        StateError: it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / ".writable"
        with open(probe, "wb") as file:
            os.fsync(file.fileno())
        probe.unlink()
        sync_folder(folder.parent)
    except OSError as error:
        raise StateError(f"the state folder {folder} cannot be written: {error.strerror or error}") from None


class FolderLock:
    """The lock by which one process writes a state folder, or a database file.

    Args:
        path: the lock file; it is made and never removed, since removing it would let two in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            StateError: another process has it, or the file cannot be opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"the lock {self.path} cannot be opened: {error.strerror or error}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with contextlib.suppress(OSError):
                owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StateError(f"another process ({owner or 'unknown'}) uses {self.path.parent}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
