"""Lookups in PostgreSQL, through psycopg 3; nothing is written there.

Sources: PostgreSQL 15 manual, section 34.1.2 (parameters of a connection), appendix A (SQLSTATE); psycopg 3, "Pipeline
mode support".
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from notifyd import postgresql
from notifyd.database import StateError
from notifyd.hub.lookup_cache import Key, Plain
from notifyd.hub.lookup_query import Answer, OutOfTimeError, Refused
from notifyd.hub.lookup_row import RefusedError, make_row
from notifyd.sqltext import SelectText

PIPELINE_KEYS = 100
"""Keys that are asked for in one go: between two of them the clock is looked at."""

CONNECT_S = 2
"""For how long a server may take to let the hub in, by each of its addresses; psycopg knows nothing shorter."""

_OF_A_VALUE = ("22", "54")
"""Classes of errors that a value makes, the database being well: it is malformed, or too deep or too long."""

_DEFAULTS: dict[str, object] = {
    "connect_timeout": CONNECT_S,
    "application_name": "notifyd lookup",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""What the URL may say otherwise."""


class PostgresqlConnector:
    """Asks a PostgreSQL server.

    Args:
        url: its connection URI.
        select: the statement, taken apart for PostgreSQL.
        timeout_s: what the server may take for a statement.

    Raises:
        StateError: psycopg is not installed, or the URL is none that it takes.
    """

    dbapi = "psycopg"

    def __init__(self, url: str, select: SelectText, timeout_s: float) -> None:
        self._psycopg = psycopg = postgresql.psycopg()
        # It would say on standard error, once more and unasked, that a pipeline's connection is lost.
        logging.getLogger("psycopg").setLevel(logging.ERROR)
        try:
            parameters = postgresql.parse_url(url)
        except ValueError as error:
            raise StateError(f"the URL of a lookup's database cannot be used: {error}") from None
        settings = f"-c default_transaction_read_only=on -c statement_timeout={max(1, round(timeout_s * 1000))}"
        self._parameters: dict[str, Any] = {
            **_DEFAULTS,
            **parameters,
            "client_encoding": "UTF8",
            "options": f"{parameters.get('options') or ''} {settings}".strip(),
        }
        # As a table of a statement of ours: of a million rows the server sends one.
        self._text = f"SELECT * FROM (\n{select.text}\n) AS notifyd_lookup LIMIT 1".encode()  # noqa: S608
        self._names = select.names
        self._socket: socket.socket | None = None
        # What a row can do, beside the errors of the server in _OF_A_VALUE: what cannot be read as Python's.
        self._unreadable = (psycopg.DataError, RefusedError, ValueError, ArithmeticError, RecursionError)

    def plain(self, value: int | float) -> Plain:
        """Gives a number or a truth value as JSON writes it: the server reads it as what it is compared with."""
        return json.dumps(value)

    def open(self) -> Any:
        """Connects."""
        connection = self._psycopg.Connection.connect(autocommit=True, prepare_threshold=None, **self._parameters)
        try:
            _adapt(connection)
            self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))
        except BaseException:
            connection.close()
            raise
        return connection

    def is_usable(self, connection: Any) -> bool:
        """Tells whether nothing is known against it; only a question shows whether the server is still there."""
        return not connection.closed

    def answer(self, connection: Any, keys: Sequence[Key], answers: list[Answer], end_s: float) -> None:
        """Asks for many keys in one go; where that fails, for one after the other, so that none spoils the others."""
        for start in range(0, len(keys), PIPELINE_KEYS):
            part = keys[start : start + PIPELINE_KEYS]
            _check_time(end_s)
            cursors = self._together(connection, part) if len(part) > 1 else None
            if cursors is not None:
                answers.extend(self._first_row(cursor) for cursor in cursors)
                continue
            for key in part:
                _check_time(end_s)
                answers.append(self._one(connection, key))

    def _together(self, connection: Any, keys: Sequence[Key]) -> list[Any] | None:
        """Gives a cursor for each key, None where at least one of them failed."""
        if not (self._psycopg.Pipeline.is_supported() and all(_is_bindable(key) for key in keys)):
            return None
        try:
            with connection.pipeline():
                return [self._execute(connection, key) for key in keys]
        except self._psycopg.Error:
            if connection.closed:
                raise
            return None

    def _execute(self, connection: Any, key: Key) -> Any:
        # Texts are sent without a type: the server reads 7 as a number for a number, as text for a text.
        return connection.execute(self._text, dict(zip(self._names, map(str, key), strict=True)))

    def _one(self, connection: Any, key: Key) -> Answer:
        if not _is_bindable(key):
            return Refused("a value has a NUL or an unpaired surrogate, which no text in PostgreSQL has")
        try:
            cursor = self._execute(connection, key)
        except self._psycopg.errors.QueryCanceled:
            raise OutOfTimeError from None
        except self._psycopg.Error as error:
            if (error.sqlstate or "").startswith(_OF_A_VALUE):
                return Refused(self.reason(error))
            raise
        return self._first_row(cursor)

    def _first_row(self, cursor: Any) -> Answer:
        try:
            row = cursor.fetchone()
            return None if row is None else make_row([column.name for column in cursor.description], row)
        except self._unreadable as error:
            return Refused(f"its row cannot be used: {error}")

    def reason(self, error: BaseException) -> str:
        """Gives the server's words, without the place in the statement and without libpq's advice."""
        primary = error.diag.message_primary if isinstance(error, self._psycopg.Error) else None
        return primary or str(error).partition("\n")[0] or type(error).__name__

    def cut(self, connection: Any) -> None:
        """Ends both directions of the socket, so that whoever waits at it is woken."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def release(self, connection: Any) -> None:
        """Closes this connector's own handle of the socket."""
        handle, self._socket = self._socket, None
        if handle is not None:
            handle.close()


def _check_time(end_s: float) -> None:
    if time.monotonic() >= end_s:
        raise OutOfTimeError


def _is_bindable(key: Key) -> bool:
    for value in key:
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return False
        if isinstance(value, str) and "\0" in value:
            return False
    return True


def _adapt(connection: Any) -> None:
    """Has dates that Python does not know (infinity, 44 BC) and intervals come as the server writes them."""
    from psycopg.types import datetime, string

    for name in ("date", "time", "timetz", "timestamp", "timestamptz"):
        connection.adapters.register_loader(name, _lenient(getattr(datetime, f"{name.capitalize()}Loader")))
    connection.adapters.register_loader("interval", string.TextLoader)


def _lenient(loader: type[Any]) -> type[Any]:
    class Lenient(loader):
        def load(self, data: Any) -> Any:
            try:
                return super().load(data)
            except Exception:  # noqa: BLE001 - psycopg has several ways to say that Python has no such date
                return bytes(data).decode()

    return Lenient
