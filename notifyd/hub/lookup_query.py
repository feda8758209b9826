"""Asks one database for one lookup, through adbapi: many keys at once, and never for longer than it is allowed to.

What is peculiar to a database stands in ``lookup_sqlite`` and ``lookup_postgresql``; here is the thread, its one
connection, and how both are ended whatever the database does.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from notifyd.hub.lookup_cache import Key, Plain
from notifyd.hub.lookup_row import Row

CUT_GRACE_S = 0.5
"""So much longer than the timeout a question may take to end by itself: who is only slow keeps the connection."""

CLOSE_S = 1.0
"""For how long ``close`` waits for what it has cut off; what still hangs then ends by itself, and holds up nothing."""

MAX_REASON = 300
"""Characters of a database's words that go on into the log and into events."""

TOO_SLOW = "it does not answer in time"


@dataclass(frozen=True, slots=True)
class Refused:
    """A key that was not answered because of what it is or what its row is; the database is well."""

    reason: str


Answer = Row | Refused | None
"""The first row, None where there is no row."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question.

    Attributes:
        answers: of the first keys, in their order; of all of them where there is no fault.
        fault: what is wrong with the database, None where nothing is.
    """

    answers: Sequence[Answer]
    fault: str | None = None


class Query(Protocol):
    """One lookup's question to its database."""

    def plain(self, value: int | float) -> Plain:
        """Gives a number or a truth value as it is bound, so that what is equal is bound alike."""

    def ask(self, keys: Sequence[Key]) -> Deferred[Outcome]:
        """Asks for several keys; one question at a time. The Deferred always fires, and never fails."""

    def cut(self) -> None:
        """Ends the question that is running, if there is one."""

    def close(self) -> Deferred[None]:
        """Ends everything; nothing is asked after. The Deferred fires in bounded time."""


class Connector(Protocol):
    """What differs from one kind of database to the other; all but ``cut`` runs in the query's thread."""

    dbapi: str

    def plain(self, value: int | float) -> Plain:
        """Gives a number or a truth value as it is bound."""

    def open(self) -> Any:
        """Gives a connection that is ready; none is left open where that fails."""

    def is_usable(self, connection: Any) -> bool:
        """Tells whether a connection may be used once more."""

    def answer(self, connection: Any, keys: Sequence[Key], answers: list[Answer], end_s: float) -> None:
        """Adds one answer per key to ``answers``; raises what is wrong with the database.

        Args:
            connection: to the database.
            keys: what to ask for.
            answers: is added to.
            end_s: no further key is begun when ``time.monotonic()`` has come there.
        """

    def reason(self, error: BaseException) -> str:
        """Says in a line what is wrong with the database."""

    def cut(self, connection: Any) -> None:
        """Makes what runs on a connection fail; called in the reactor's thread, and while nobody closes it."""

    def release(self, connection: Any) -> None:
        """Gives up what ``cut`` needs, before the connection is closed."""


class OutOfTimeError(Exception):
    """The time was over before every key was asked for."""


class _Connection(adbapi.Connection):
    """A connection on which nothing is written, and which is given up when anything goes wrong.

    adbapi itself would ask a dead connection to roll back, log that it cannot, and keep it.
    """

    def rollback(self) -> None:
        self._pool.give_up(self._connection)


class _DaemonThread(threading.Thread):
    """A thread that does not keep the process from ending, should it hang in a call of the driver."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "daemon": True})


class _Pool(adbapi.ConnectionPool):
    """One thread with one connection, which the reactor's thread can cut."""

    connectionFactory = _Connection

    def __init__(self, connector: Connector, reactor: Any) -> None:
        super().__init__(connector.dbapi, cp_min=1, cp_max=1, cp_noisy=False, cp_reactor=reactor)
        self._connector = connector
        self._lock = threading.Lock()
        self._open: Any = None
        self.reused = False  # the connection has worked before, and may have been lost since

    def _start(self) -> None:
        """Begins; the end of the process must not join the thread, which may hang in a question for ever."""
        self.threadpool.threadFactory = _DaemonThread  # the first thread is made here
        super()._start()
        if self.shutdownID:
            self._reactor.removeSystemEventTrigger(self.shutdownID)
            self.shutdownID = None

    def connect(self) -> Any:
        """Gives the connection, a new one where there is none that works."""
        connection = self._open
        if connection is not None and not self._connector.is_usable(connection):
            self.give_up(connection)
            connection = None
        self.reused = connection is not None
        if connection is None:
            connection = self._connector.open()
            with self._lock:
                self._open = self.connections[self.threadID()] = connection
        return connection

    def give_up(self, connection: Any) -> None:
        """Closes a connection, without a word where it is broken."""
        if connection is not None and connection is self._open:
            self.disconnect(connection)

    def cut(self) -> None:
        """Makes fail what the thread does on its connection."""
        with self._lock:
            if self._open is not None:
                self._connector.cut(self._open)

    def _close(self, connection: Any) -> None:
        with self._lock:
            self._open = None
            self._connector.release(connection)
        with contextlib.suppress(Exception):  # it is broken, which is why it is closed
            connection.close()


class PoolQuery:
    """A query through a pool of one thread, which is begun with the first question.

    Args:
        connector: to its database.
        timeout_s: what a question may take; a little later it is cut off.
        reactor: for the thread and the timer.
    """

    def __init__(self, connector: Connector, timeout_s: float, reactor: Any) -> None:
        self._connector = connector
        self._timeout_s = timeout_s
        self._reactor = reactor
        self._pool: _Pool | None = None
        self._asking: Deferred[Outcome] | None = None
        self._timer: Any = None
        self._closed = False
        self._hangs = False  # after the end, in a call of the driver that does not come back
        self._idle: list[Deferred[None]] = []

    def plain(self, value: int | float) -> Plain:
        """As of :class:`Query`."""
        return self._connector.plain(value)

    def ask(self, keys: Sequence[Key]) -> Deferred[Outcome]:
        """As of :class:`Query`."""
        if self._closed:
            return succeed(Outcome((), "it is closed"))
        if self._asking is not None:
            return succeed(Outcome((), "its last question is not answered"))
        if self._pool is None:
            self._pool = _Pool(self._connector, self._reactor)
        self._asking = asked = Deferred[Outcome]()
        self._timer = self._reactor.callLater(self._timeout_s + CUT_GRACE_S, self.cut)
        answers: list[Answer] = []
        work = functools.partial(self._work, keys, answers, time.monotonic() + self._timeout_s)
        running: Deferred[Outcome] = self._pool.runWithConnection(work)
        running.addErrback(lambda failure: Outcome(answers, self._reason(failure)))
        running.addCallback(self._done)
        return asked

    def cut(self) -> None:
        """As of :class:`Query`."""
        if self._pool is not None and self._asking is not None:
            self._pool.cut()

    def close(self) -> Deferred[None]:
        """As of :class:`Query`."""
        self._closed = True
        closed: Deferred[None] = Deferred()
        if self._asking is None:
            if not self._hangs:
                self._close_pool()
            closed.callback(None)
            return closed
        self.cut()
        self._idle.append(closed)
        timer = self._reactor.callLater(CLOSE_S, self._abandon)
        closed.addCallback(lambda _: timer.cancel() if timer.active() else None)
        return closed

    def _work(self, keys: Sequence[Key], answers: list[Answer], end_s: float, connection: Any) -> Outcome:
        """Runs in the thread; what it raises costs the connection."""
        answer, pool = self._connector.answer, connection._pool
        try:
            try:
                answer(connection._connection, keys, answers, end_s)
            except Exception:
                lost = pool.reused and not self._connector.is_usable(connection._connection)
                if not lost or self._closed or time.monotonic() >= end_s:
                    raise
                connection.reconnect()  # the server was restarted meanwhile: no reason for an event to go without
                answer(connection._connection, keys[len(answers) :], answers, end_s)
        except OutOfTimeError:
            return Outcome(answers, TOO_SLOW)
        return Outcome(answers)

    def _reason(self, failure: Failure) -> str:
        error = failure.value or OSError(failure.getErrorMessage())
        reason = " ".join(self._connector.reason(error).split())
        return reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + "…"

    def _done(self, outcome: Outcome) -> None:
        """Is called in the reactor's thread when the other one is idle."""
        self._hangs = False
        asking = self._end_question()
        if self._closed:
            self._close_pool()
        self._fire_idle()
        if asking is not None:
            asking.callback(outcome)

    def _abandon(self) -> None:
        """Goes on without a question that does not end: its thread closes the pool when it comes back."""
        self._hangs = True
        asking = self._end_question()
        self._fire_idle()
        if asking is not None:
            asking.callback(Outcome((), "it is closed"))

    def _end_question(self) -> Deferred[Outcome] | None:
        if self._timer.active():
            self._timer.cancel()
        asking, self._asking = self._asking, None
        return asking

    def _fire_idle(self) -> None:
        idle, self._idle = self._idle, []
        for waiting in idle:
            waiting.callback(None)

    def _close_pool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
