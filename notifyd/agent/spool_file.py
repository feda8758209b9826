"""The spool's file from outside: opening it, taking turns on it, and putting it aside when it is of no use."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from notifyd import database
from notifyd.agent import spool_store
from notifyd.agent.spool_store import Opened
from notifyd.database import Fault

T = TypeVar("T")


class ReplacedError(Exception):
    """The file that is open is no longer the one that its name leads to."""


class Identity(NamedTuple):
    """Tells a file from another one of the same name."""

    device: int
    inode: int


def identity(path: Path) -> Identity | None:
    """Gives the identity of the file that ``path`` leads to, None where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return Identity(status.st_dev, status.st_ino)


def judge(error: Exception) -> Fault:
    """Tells what an error asks for; here it also counts as corrupt when someone has changed the schema."""
    if isinstance(error, ReplacedError):
        return Fault.CORRUPT
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        return Fault.CORRUPT  # a table is missing, or another program's: no retry helps
    if not isinstance(error, sqlite3.Error | OSError | ValueError | TypeError | OverflowError | database.StateError):
        return Fault.AWAY  # such as no thread or no memory: what is written is not at fault
    return database.judge(error)


class SpoolFile:
    """One file, of which there may be several in the course of time.

    Args:
        reactor: for the database's thread.
        path: its name.
        now: gives the seconds since 1970.

    Attributes:
        turn: is held by whoever works on the file.
    """

    log = Logger("notifyd.agent")

    def __init__(self, reactor: Any, path: Path, now: Callable[[], float]) -> None:
        self.path = path
        self.turn = DeferredLock()
        self._reactor, self._now = reactor, now
        self._pool: adbapi.ConnectionPool | None = None
        self._identity: Identity | None = None
        self._log_identity: Identity | None = None
        self._is_corrupt = self._is_gone = False

    @property
    def is_open(self) -> bool:
        """Whether it can be worked on."""
        return self._pool is not None

    async def open(self) -> tuple[Opened, bool]:
        """Opens the file, after putting aside what was given up; makes it where it is missing.

        Returns:
            Where it stands; and whether it is the same file as before, only opened again.

        Raises:
            NewerSchemaError: a newer notifyd wrote it.
        """
        self._clear_way()
        before = self._identity
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pool = database.open_pool(self.path, reactor=self._reactor)
        try:
            opened = await database.interact(pool, functools.partial(spool_store.open_store, path=self.path))
        except BaseException:
            pool.close()
            raise
        self._pool = pool
        self._identity = identity(self.path)
        self._log_identity = identity(Path(f"{self.path}-wal"))
        return opened, before == self._identity

    async def run(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        """Runs ``work`` in a transaction; the caller holds ``turn`` and has opened the file.

        Raises:
            ReplacedError: the file was removed or replaced, so that what ``work`` wrote is not stored.
        """
        if self._pool is None:
            raise OSError("the spool is not open")
        self._check()
        result = await database.interact(self._pool, work)
        self._check()
        return result

    def _check(self) -> None:
        if (found := identity(self.path)) != self._identity:
            raise ReplacedError(f"{self.path} was {'removed' if found is None else 'replaced'}")
        if (found := identity(Path(f"{self.path}-wal"))) != self._log_identity:
            raise ReplacedError(f"{self.path}-wal was {'removed' if found is None else 'replaced'}")

    def give_up(self, error: Exception) -> None:
        """Closes a file that is lost; ``open`` begins another."""
        self.close()
        if isinstance(error, ReplacedError):
            self._is_gone = True
        else:
            self._is_corrupt = True
        self._identity = None

    def close(self) -> None:
        """Closes the file."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _clear_way(self) -> None:
        if self._is_corrupt:
            aside = self._put_aside("corrupt", ("", "-wal", "-shm"))
            self._is_corrupt = self._is_gone = False
            self.log.error("The corrupt spool is kept as {aside}.", aside=aside)
        if self._is_gone:
            # The log of the file that was removed must not be played into the one in its place.
            if identity(Path(f"{self.path}-wal")) == self._log_identity:
                self._put_aside("removed", ("-wal", "-shm"))
            self._is_gone = False

    def _put_aside(self, why: str, suffixes: tuple[str, ...]) -> str:
        stamp = dt.datetime.fromtimestamp(self._now(), dt.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = f"{self.path}.{why}-{stamp}"
        for suffix in suffixes:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        with contextlib.suppress(FileNotFoundError):
            database.sync_folder(self.path.parent)
        return aside
