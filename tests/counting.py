"""Counts what a program does, not how long it takes: bytecodes, calls of sockets, statements and steps of SQLite.

Everything here changes the whole process, so that it belongs into a process of its own, see ``work_per_event.py``.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import notifyd

OWN = str(Path(notifyd.__file__).parent)
"""The folder whose bytecodes are the program's own."""

_HARNESS = str(Path(__file__).parent)
_NOT_COUNTED = ("<frozen", threading.__file__, _HARNESS)

SOCKET_CALLS = ("recv", "recv_into", "recvfrom", "recvmsg", "send", "sendall", "sendto", "sendmsg")

STEP = 1
"""Instructions of SQLite's machine between two calls of what counts them."""


class Bytecodes:
    """Counts the bytecodes that run in the reactor's thread and in all others that begin after :meth:`install`.

    The program's own stand apart from those of libraries: the latter include the reactor's loop, which turns a few
    times more or less as threads happen to run. What this harness runs is not counted.
    """

    def __init__(self) -> None:
        self._cells = {(where, own): [0] for where in ("reactor", "thread") for own in (True, False)}
        self._tracers = {key: _adder(cell) for key, cell in self._cells.items()}
        self._own: dict[CodeType, bool | None] = {}
        self._reactor = threading.get_ident()

    def install(self) -> None:
        """Begins to count; the thread that calls is the reactor's."""
        threading.settrace(self._enter)
        sys.settrace(self._enter)

    def counts(self) -> dict[str, int]:
        """Gives what has run so far."""
        return {f"{'' if own else 'library_'}{where}": cell[0] for (where, own), cell in self._cells.items()}

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        try:
            own = self._own[code]
        except KeyError:
            own = self._own[code] = _is_own(code.co_filename)
        if own is None:
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._tracers["reactor" if threading.get_ident() == self._reactor else "thread", own]


def _is_own(name: str) -> bool | None:
    """Tells whether a file is the program's, or a library's; None where it is not counted."""
    if name.startswith(OWN):
        return True
    return None if name.startswith(_NOT_COUNTED) else False


def _adder(cell: list[int]) -> Callable[..., Any]:
    def add(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "opcode":
            cell[0] += 1
        return add

    return add


class SocketCalls:
    """Counts the calls that the thread makes that installs it."""

    def __init__(self) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self._thread = threading.get_ident()

    def install(self) -> None:
        """Begins to count."""
        for name in SOCKET_CALLS:
            setattr(socket.socket, name, self._counted(name, getattr(socket.socket, name)))

    def counts(self) -> dict[str, int]:
        """Gives the calls so far."""
        sent = sum(count for name, count in self.calls.items() if name.startswith("send"))
        return {"sends": sent, "receives": self.calls.total() - sent}

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            if threading.get_ident() == self._thread:
                self.calls[name] += 1
            return call(*arguments)

        return counted


class Gate:
    """Holds the database's thread in front of a statement, so that what comes meanwhile is one batch."""

    def __init__(self) -> None:
        self._armed = False
        self._reached, self._open = threading.Event(), threading.Event()

    def arm(self) -> None:
        """Has the next statement wait."""
        self._reached.clear()
        self._open.clear()
        self._armed = True

    def wait_reached(self, timeout: float) -> None:
        """Waits until a statement waits."""
        if not self._reached.wait(timeout):
            raise TimeoutError("nothing is written")

    def open(self) -> None:
        """Lets it go on."""
        self._open.set()

    def pass_through(self) -> None:
        """Is called in front of each statement."""
        if self._armed:
            self._armed = False
            self._reached.set()
            self._open.wait()


class Statements:
    """Counts what the connections that can write are asked for; a transaction that writes and ends is one fsync.

    Args:
        gate: in front of each statement.
        steps: whether the steps of SQLite's machine are counted too, which takes time.
    """

    def __init__(self, gate: Gate, *, steps: bool) -> None:
        self.statements = self.commits = self.steps = 0
        self._gate, self._counts_steps = gate, steps

    def install(self, factory: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        """Begins to count; connections are made as ``factory``."""
        connect = sqlite3.connect
        counter = self

        class Cursor(sqlite3.Cursor):
            def execute(self, sql: str, parameters: Any = ()) -> Cursor:
                with counter.counted(self.connection, sql):
                    return super().execute(sql, parameters)

            def executemany(self, sql: str, parameters: Any) -> Cursor:
                with counter.counted(self.connection, sql):
                    return super().executemany(sql, parameters)

        class Connection(factory):  # type: ignore[valid-type,misc]  # made for each use
            def cursor(self, factory: Any = Cursor) -> Any:
                return super().cursor(factory)

            def execute(self, sql: str, parameters: Any = ()) -> Any:
                return self.cursor().execute(sql, parameters)

            def commit(self) -> None:
                counter.commits += self.in_transaction
                super().commit()

        def connect_counted(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
            if "mode=ro" in str(database):
                return connect(database, *arguments, **options)  # type: ignore[no-any-return]
            connection: sqlite3.Connection = connect(database, *arguments, factory=Connection, **options)
            if self._counts_steps:
                connection.set_progress_handler(self._on_step, STEP)
            return connection

        sqlite3.connect = connect_counted  # type: ignore[assignment]

    def counts(self) -> dict[str, int]:
        """Gives the statements so far, the commits among them, and the steps."""
        return {"statements": self.statements, "commits": self.commits, "steps": self.steps * STEP}

    @contextlib.contextmanager
    def counted(self, connection: sqlite3.Connection, sql: str) -> Iterator[None]:
        """Counts a statement; one that writes and is in no transaction is one by itself."""
        self._gate.pass_through()
        self.statements += 1
        alone = not connection.in_transaction and sql.split(None, 1)[0].upper() in ("INSERT", "UPDATE", "DELETE")
        yield
        self.commits += alone and not connection.in_transaction

    def _on_step(self) -> int:
        self.steps += 1
        return 0
