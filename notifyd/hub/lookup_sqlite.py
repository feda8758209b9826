"""Lookups in a SQLite file, which is only read."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from notifyd.hub.lookup_cache import Key, Plain
from notifyd.hub.lookup_query import Answer, OutOfTimeError, Refused
from notifyd.hub.lookup_row import RefusedError, make_row
from notifyd.sqltext import SelectText

MAX_VALUE = 4 * 2**20
"""Bytes of a value on its way in or out, so that a blob of a gigabyte is never in memory; a row may have far less."""

STEPS = 100_000
"""Instructions of SQLite's machine, about a millisecond of them, between two looks at the clock."""

_CONTENT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
_INTEGERS = range(-(2**63), 2**63)


class SqliteConnector:
    """Asks a SQLite file.

    Args:
        path: the file, which another one may replace at any time.
        select: the statement, taken apart for SQLite.
        timeout_s: for how long another program's lock is waited for.
    """

    dbapi = "sqlite3"

    def __init__(self, path: Path, select: SelectText, timeout_s: float) -> None:
        self._path = path
        self._select = select
        self._timeout_s = timeout_s
        self._identity: tuple[int, int] | None = None

    def plain(self, value: int | float) -> Plain:
        """Gives a truth value as 1 or 0, and a whole number as an integer: what is equal shall be found alike."""
        if isinstance(value, float) and not (value.is_integer() and int(value) in _INTEGERS):
            return value
        return int(value)

    def open(self) -> sqlite3.Connection:
        """Opens the file, which must be there."""
        identity = self._on_disk()
        connection = sqlite3.connect(
            f"file:{quote(str(self._path.absolute()))}?mode=ro", uri=True, timeout=self._timeout_s,
            isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        try:
            connection.execute("PRAGMA query_only=ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
            connection.text_factory = _text
        except BaseException:
            connection.close()
            raise
        self._identity = identity
        return connection

    def is_usable(self, connection: sqlite3.Connection) -> bool:
        """Tells whether the file is still the one that is open."""
        return self._on_disk() == self._identity

    def answer(self, connection: sqlite3.Connection, keys: Sequence[Key], answers: list[Answer], end_s: float) -> None:
        """Asks for one key after the other: there is no way to the database that would be worth saving."""
        connection.set_progress_handler(lambda: time.monotonic() >= end_s, STEPS)
        for key in keys:
            if time.monotonic() >= end_s:
                raise OutOfTimeError
            answers.append(self._one(connection, key))

    def _one(self, connection: sqlite3.Connection, key: Key) -> Answer:
        cursor = connection.cursor()
        try:
            cursor.execute(self._select.text, dict(zip(self._select.names, key, strict=True)))
            row = cursor.fetchone()
            return None if row is None else make_row([column[0] for column in cursor.description], row)
        except (OverflowError, UnicodeEncodeError, RefusedError, sqlite3.DataError) as error:
            return Refused(str(error))
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the low byte of an extended code
            if code == sqlite3.SQLITE_INTERRUPT:
                raise OutOfTimeError from None
            if code in _CONTENT and self._compiles(connection):
                return Refused(str(error))
            raise
        finally:
            cursor.close()  # the rest of the rows would keep the write-ahead log from being emptied

    def _compiles(self, connection: sqlite3.Connection) -> bool:
        """Tells a value that a function does not take from a statement that is wrong; SQLite has one code for both."""
        try:
            connection.execute(f"EXPLAIN {self._select.text}", dict.fromkeys(self._select.names)).close()
        except sqlite3.Error:
            return False
        return True

    def reason(self, error: BaseException) -> str:
        """Gives SQLite's words, with the file where it cannot be opened."""
        return f"{error}: {self._path}" if "unable to open" in str(error) else str(error) or type(error).__name__

    def cut(self, connection: sqlite3.Connection) -> None:
        """Interrupts what is running."""
        connection.interrupt()

    def release(self, connection: sqlite3.Connection) -> None:
        """There is nothing that ``cut`` needs."""

    def _on_disk(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _text(raw: bytes) -> Any:
    return raw.decode("utf-8", "replace")
