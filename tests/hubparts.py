"""A hub's surroundings in the hand of a test: what the database answers, and connections."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import psycopg
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

BUFFER = 65_536
"""Bytes beyond which Twisted's transports pause their producer."""

LOCKED = sqlite3.OperationalError("database is locked")
LOCKED.sqlite_errorcode = sqlite3.SQLITE_BUSY
CORRUPT = sqlite3.DatabaseError("database disk image is malformed")
CORRUPT.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
REFUSED = sqlite3.IntegrityError("CHECK constraint failed")
REFUSED.sqlite_errorcode = sqlite3.SQLITE_CONSTRAINT


def result(work: Awaitable[Any] | Deferred[Any]) -> Any:
    """Gives the result of what needs no waiting; raises what it raised."""
    got: list[Any] = []
    (work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)).addBoth(got.append)  # type: ignore[arg-type]
    assert got, "it still waits"
    if isinstance(got[0], Failure):
        got[0].raiseException()
    return got[0]


def pending(work: Awaitable[Any]) -> list[Any]:
    """Starts what has to wait; the list gets its result, or its Failure."""
    got: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(got.append)  # type: ignore[arg-type]
    return got


class Pool:
    """Stands for adbapi's pool on one connection: runs at once, or when the test lets it, and fails as told.

    ``faults`` are used up one an interaction: ``None`` (works), an error (nothing is done), or ``("answer", error)``:
    it is committed, but the answer is lost.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.faults: list[Any] = []
        self.held = False
        self.waiting: list[tuple[Callable[[Any], Any], Deferred[Any]]] = []
        self.runs = 0
        self.closed = False

    def runInteraction(self, work: Callable[[Any], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((work, done))
        if not self.held:
            self.step()
        return done

    def step(self) -> None:
        """Runs the interaction that waits longest."""
        work, done = self.waiting.pop(0)
        self.runs += 1
        fault = self.faults.pop(0) if self.faults else None
        try:
            if isinstance(fault, Exception):
                raise self.translate(fault)
            answer = work(self.connection.cursor())
            self.connection.commit()
            if fault is not None:
                raise self.translate(fault[1])
        except BaseException:  # noqa: BLE001 - it goes to whoever waits for the answer
            self.connection.rollback()
            done.errback(Failure())
        else:
            done.callback(answer)

    def translate(self, fault: Exception) -> Exception:
        """Gives what the connection's driver raises in such a case."""
        if isinstance(self.connection, sqlite3.Connection) or not isinstance(fault, sqlite3.Error):
            return fault
        kinds = {
            LOCKED.sqlite_errorcode: psycopg.OperationalError("the connection is lost"),
            CORRUPT.sqlite_errorcode: psycopg.errors.DataCorrupted("invalid page"),
            sqlite3.SQLITE_NOTADB: psycopg.errors.IndexCorrupted("index contains corrupted page"),
            REFUSED.sqlite_errorcode: psycopg.errors.CheckViolation("check constraint"),
        }
        return kinds[fault.sqlite_errorcode]

    def release(self) -> None:
        """Holds no more, and runs what waits."""
        self.held = False
        while self.waiting:
            self.step()

    def cut(self, busy_s: float) -> None:
        """Nothing is in its one thread for long."""

    def close(self) -> None:
        self.closed = True


class Transport:
    """A TCP transport in memory: pauses its producer as Twisted's does, and says what was asked of it.

    Args:
        takes: whether the peer takes every byte at once; else :meth:`drain` says when.
    """

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.written = bytearray()
        self.waiting = 0
        self.producer: Any = None
        self.reading = True
        self.closing = False
        self.half_closed = False
        self.aborted = False
        self.acked = 0
        self.options: list[tuple[int, int, int]] = []

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.closing or self.half_closed or self.aborted:
            return
        self.written += data
        if self.takes:
            self.acked += len(data)
            return
        self.waiting += len(data)
        if self.waiting > BUFFER and self.producer is not None:
            self.producer.pauseProducing()

    def drain(self) -> None:
        """The peer takes everything that waits."""
        self.acked += self.waiting
        self.waiting = 0
        if self.producer is not None:
            self.producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def loseConnection(self) -> None:
        self.closing = True

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True

    def getPeer(self) -> Any:
        return SimpleNamespace(host="192.0.2.1", port=4242)

    def setTcpKeepAlive(self, on: bool) -> None:
        self.options.append((-1, -1, int(on)))

    def setTcpNoDelay(self, on: bool) -> None:
        pass

    def getHandle(self) -> Any:
        return self

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append((level, option, value))

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return bytes(120) + self.acked.to_bytes(8, "little") + bytes(size - 128)

    @property
    def ended(self) -> bool:
        return self.closing or self.half_closed or self.aborted


class Peer:
    """The other end of a connection to the hub."""

    def __init__(self, protocol: Any, transport: Transport) -> None:
        self.protocol = protocol
        self.transport = transport
        self.lost = False
        self._read = 0
        protocol.makeConnection(transport)

    @property
    def under_way(self) -> bool:
        """Whether something was sent that :meth:`lines` does not give yet."""
        return False

    def send(self, *lines: bytes) -> None:
        """Sends lines in one read."""
        self.protocol.dataReceived(b"".join(line + b"\n" for line in lines))

    def half_close(self) -> None:
        self.protocol.readConnectionLost()

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(error.ConnectionLost()))

    def lines(self) -> list[bytes]:
        """Gives the lines that have come since the last call."""
        data = bytes(self.transport.written[self._read :])
        self._read = len(self.transport.written)
        assert not data or data.endswith(b"\n")
        return data.split(b"\n")[:-1]

    def ids(self) -> list[str]:
        """Gives the ids of the events that have come since the last call; nothing else may have."""
        return [json.loads(line)["id"] for line in self.lines()]
