"""PostgreSQL through adbapi and psycopg 3: pools whose connections come back, and what an error means.

The classes of SQLSTATE are those of appendix A of PostgreSQL's manual.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.enterprise import adbapi
from twisted.logger import Logger

from notifyd.database import Fault, StateError

CONNECT_TIMEOUT_S = 5
"""How long a server may take to answer a new connection."""

_SESSION = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "client_encoding": "UTF8",
    # A server that vanished is noticed while an answer is waited for: after 5 + 3 * 2 s.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_AWAY = ("08", "25", "40", "53", "55", "57", "58", "XX")
_REFUSED = ("21", "22", "23", "54", "P0")
_CORRUPT = ("XX001", "XX002")
_DENIED = "42501"


def psycopg() -> Any:
    """Gives the driver.

    Raises:
        StateError: it is not installed.
    """
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        reason = f"PostgreSQL needs psycopg, which cannot be loaded ({error}): pip install 'notifyd[postgresql]'"
        raise StateError(reason) from None
    return psycopg


def parse_url(url: str) -> dict[str, Any]:
    """Gives the connection parameters of a URL.

    Raises:
        StateError: the driver is not installed.
        ValueError: the URL cannot be used; the text has no password.
    """
    driver = psycopg()
    try:
        parameters: dict[str, Any] = driver.conninfo.conninfo_to_dict(url)
    except driver.Error as error:
        reason = " ".join(str(error).split())
        raise ValueError(reason if "@" not in reason else "is no connection URI that libpq understands") from None
    return parameters


def describe(url: str) -> str:
    """Gives a URL for messages: without user and password."""
    parameters = parse_url(url)
    place = ":".join(str(parameters[key]) for key in ("host", "port") if parameters.get(key))
    return f"postgresql://{place}/{parameters.get('dbname', '')}"


def judge(error: BaseException) -> Fault:
    """Tells what an error that an interaction with PostgreSQL raised asks for."""
    if isinstance(error, StateError):
        return Fault.CORRUPT
    state = getattr(error, "sqlstate", None)
    if state in _CORRUPT:
        return Fault.CORRUPT
    if state == _DENIED:
        return Fault.DENIED
    if state is not None:
        if state.startswith(_AWAY):
            return Fault.AWAY
        return Fault.REFUSED if state.startswith(_REFUSED) else Fault.FOREIGN
    driver = psycopg()
    if isinstance(error, driver.OperationalError | driver.InterfaceError | adbapi.ConnectionLost | OSError):
        return Fault.AWAY
    return Fault.REFUSED


class _Connection(adbapi.Connection):
    """A pooled connection; one that is dead is dropped without a word, and the next use opens another."""

    def rollback(self) -> None:
        """Rolls back, or drops the connection."""
        connection: Any = self._connection
        try:
            connection.rollback()
        except Exception:  # noqa: BLE001 - whatever it is, this connection is of no more use
            with contextlib.suppress(Exception):
                self._pool.disconnect(connection)


class Pool(adbapi.ConnectionPool):
    """A pool of connections to one PostgreSQL database.

    Args:
        url: of the database.
        reactor: whose threads and shutdown the pool goes with.
        threads: connections at once; one keeps interactions in the order in which they are asked for.
        application: how the sessions call themselves.
        settings: of the server, for the session, as ``statement_timeout``.
        prepare: is called with each new connection, in its thread.
    """

    log = Logger("notifyd.hub.log")
    connectionFactory = _Connection

    def __init__(
        self,
        url: str,
        *,
        reactor: Any,
        threads: int,
        application: str,
        settings: dict[str, str],
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        parameters = {**_SESSION, **parse_url(url), "application_name": application}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        # libpq looks at $PGOPTIONS only where the parameter is not given.
        given = parameters.get("options") or os.environ.get("PGOPTIONS", "")
        parameters["options"] = f"{given} {options}".strip()
        super().__init__(  # type: ignore[no-untyped-call]  # as all of adbapi
            "psycopg",
            **parameters,
            cp_min=1,
            cp_max=threads,
            cp_openfun=self._open,
            cp_noisy=False,
            cp_reactor=reactor,
        )
        self._prepare = prepare
        self._closed = False
        self._lock = threading.Lock()  # of the three below
        self._sockets: dict[int, socket.socket] = {}  # by thread: of its connection, whatever libpq does with its own
        self._begun: dict[int, float] = {}  # by thread: when its interaction began

    def connect(self) -> Any:
        """Gives the thread's connection, a new one where it has none that lives."""
        self._check_open()
        connection = self.connections.get(threading.get_ident())
        if connection is not None and (connection.closed or self._is_hung_up()):
            self.disconnect(connection)
        return super().connect()  # type: ignore[no-untyped-call]

    def disconnect(self, conn: Any) -> None:
        """Closes the thread's connection."""
        self._forget()
        super().disconnect(conn)  # type: ignore[no-untyped-call]

    def _open(self, connection: Any) -> None:
        """Prepares a connection; one for which that fails is closed, since adbapi forgets it."""
        try:
            with self._lock:
                self._sockets[threading.get_ident()] = socket.socket(fileno=os.dup(connection.pgconn.socket))
            self._check_open()  # after it can be cut: whoever closes the pool does it the other way round
            if self._prepare is not None:
                self._prepare(connection)
        except BaseException:
            self._forget()
            connection.close()
            raise

    def _is_hung_up(self) -> bool:
        """Tells whether the server has ended the thread's session while nobody used it, as at its restart."""
        poll = select.poll()
        poll.register(self._sockets[threading.get_ident()], select.POLLRDHUP)
        return bool(poll.poll(0))

    def _check_open(self) -> None:
        if self._closed:
            raise psycopg().OperationalError("the pool is closed")

    def _forget(self) -> None:
        with self._lock:
            copy = self._sockets.pop(threading.get_ident(), None)
            if copy is not None:
                copy.close()

    def _runInteraction(self, interaction: Any, *args: Any, **kw: Any) -> Any:
        thread = threading.get_ident()
        with self._lock:
            self._begun[thread] = time.monotonic()
        try:
            return super()._runInteraction(interaction, *args, **kw)  # type: ignore[no-untyped-call]
        finally:
            with self._lock:
                del self._begun[thread]

    def cut(self, busy_s: float) -> None:
        """Cuts the sockets of connections that one interaction has used for so long: it gets an error at once."""
        with self._lock:
            late = time.monotonic() - busy_s
            self._cut(thread for thread, begun in self._begun.items() if begun <= late)

    def _cut(self, threads: Iterable[int]) -> None:
        for thread in threads:
            if thread in self._sockets:
                with contextlib.suppress(OSError):  # it is cut already
                    self._sockets[thread].shutdown(socket.SHUT_RDWR)

    def finalClose(self) -> None:
        """Closes the pool; its threads are joined, so none may wait for a server that does not answer."""
        self._closed = True
        with self._lock:
            if self._begun:
                self.log.error("The database has not answered until the end; what it was asked is given up.")
            self._cut(self._sockets)
        super().finalClose()  # type: ignore[no-untyped-call]
        for copy in self._sockets.values():
            copy.close()
        self._sockets.clear()
