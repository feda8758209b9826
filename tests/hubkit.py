"""A hub on a real database whose clock, database answers and transports obey the test; nothing in it waits."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from notifyd import event as events
from notifyd.config import Duration
from notifyd.config_hub import parse_hub
from notifyd.hub.agents import AgentWatch
from notifyd.hub.backend import open_backend
from notifyd.hub.backplane import Backplane
from notifyd.hub.clients import Clients
from notifyd.hub.ingest import IngestFactory
from notifyd.hub.intake import Counters, Intake
from notifyd.hub.log import EventLog
from notifyd.hub.pipeline import Pipeline
from notifyd.hub.producer import IngestProtocol
from notifyd.hub.readback import Reader
from notifyd.hub.service import _refused
from notifyd.hub.settle import Settler
from notifyd.hub.spools import Spools
from notifyd.hub.stages import make_stages
from notifyd.hub.subscriber import SubscriberProtocol
from notifyd.hub.subscribers import Crowd, SubscriberFactory

T0 = events.parse_time("2026-11-22T10:00:00Z")
STREAMS = ("normal", "important", "critical", "error", "all")
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


class TestBackend:
    """A real backend whose pools are in the test's hand, on one connection.

    Args:
        folder: where its database is.
        url: of the database, if it is not the file there.
    """

    __test__ = False

    def __init__(self, folder: Path, url: str | None) -> None:
        self.real = open_backend(url, folder)
        if url is None:
            self.connection: Any = sqlite3.connect(folder / "hub.db")
            self.connection.execute("PRAGMA synchronous=OFF")
            self.connection.execute("PRAGMA journal_mode=MEMORY")
        else:
            self.connection = psycopg.connect(url)
        self.writes, self.reads = Pool(self.connection), Pool(self.connection)

    def open_writer(self, reactor: Any) -> Any:
        return self.writes

    def open_reader(self, reactor: Any, threads: int) -> Any:
        return self.reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Hub:
    """Everything of the hub but its ports and its retention.

    Args:
        folder: where its database is.
        url: of its database, if it is not in the folder.
        toml: what ``hub.toml`` says of lookups, rules, the filter and suppression.
        filter_object: what the filter's factory would make.
        stream_memory: its limit of the backplane.
        max_producers: its limit.
        max_subscribers: its limit.
    """

    def __init__(
        self,
        folder: Path,
        url: str | None = None,
        *,
        toml: str = "",
        filter_object: object = None,
        stream_memory: int = 2**20,
        max_producers: int = 100,
        max_subscribers: int = 100,
        start: float = T0,
    ) -> None:
        self.path = folder / "hub.db"
        self.clock = Clock()
        self.start = start
        self.failed: list[Any] = []
        self.backend: Any = TestBackend(folder, url)
        self.connection = self.backend.connection
        self.writes, self.reads = self.backend.writes, self.backend.reads
        self.log = EventLog(self.backend, self.clock, _refused, self.now)
        try:
            self.memory = result(self.log.open())
        except BaseException:
            self.connection.close()
            raise
        self.reader = Reader(self.backend, self.clock)
        self.backplane = Backplane(STREAMS, self.memory.last, stream_memory)
        self.spools = Spools(self.log.positions)
        self.counters = Counters()
        self.stages = make_stages(
            parse_hub(toml, "hub.toml"),
            folder,
            reactor=self.clock,
            tell=lambda *told: self.pipeline.own_event(*told),
            filter_object=filter_object,
            windows=self.memory.windows,
        )
        self.pipeline = Pipeline(
            self.clock,
            log=self.log,
            intake=Intake(self.counters),
            enricher=self.stages.enricher,
            own_code=self.stages.own_code,
            settler=Settler(
                classifier=self.stages.classifier,
                suppressor=self.stages.suppressor,
                unclassified=self.stages.unclassified,
                counters=self.counters,
                last=self.memory.last,
            ),
            suppressor=self.stages.suppressor,
            backplane=self.backplane,
            spools=self.spools,
            own_priority="important",
            fail=self.failed.append,
            now=self.now,
        )
        self.pipeline.start()
        self.clients = self.pipeline.clients = Clients(self.memory.clients, self.pipeline.wake)
        self.agents = AgentWatch(
            self.clock, Duration(60), self.memory.agents, self.pipeline.own_event, self.pipeline.agent_state
        )
        self.ingest = IngestFactory(
            self.clock,
            pipeline=self.pipeline,
            spools=self.spools,
            agents=self.agents,
            max_producers=max_producers,
            now=self.now,
        )
        self.crowd = Crowd(self.clients, self.reader, max_subscribers, 300.0, self.now)
        self.ports = {
            name: SubscriberFactory(self.clock, stream, self.crowd) for name, stream in self.backplane.streams.items()
        }
        self.peers: list[Peer] = []
        self.make_client: Callable[[Any, bool], Peer] = lambda protocol, takes: Peer(protocol, Transport(takes))

    def now(self) -> float:
        return self.start + self.clock.seconds()

    def producer(self, *lines: bytes, takes: bool = True) -> Peer:
        """Connects to 1500, and sends."""
        protocol: IngestProtocol = self.ingest.buildProtocol(None)
        peer = Peer(protocol, Transport(takes))
        self.peers.append(peer)
        if lines:
            peer.send(*lines)
        return peer

    def agent(self, spool: str = "s", agent: str = "ward3") -> Peer:
        """Connects to 1500 with a HELLO; its answer is read off."""
        peer = self.producer(hello(spool, agent))
        assert peer.lines()[0].startswith(b"OK ")
        return peer

    def client(self, stream: str = "normal", *lines: bytes, takes: bool = True) -> Peer:
        """Connects to a stream's port, and sends."""
        protocol: SubscriberProtocol = self.ports[stream].buildProtocol(None)
        peer = self.make_client(protocol, takes)
        self.peers.append(peer)
        if lines:
            peer.send(*lines)
        return peer

    def put(self, *ids: str, priority: str = "normal", **attributes: object) -> None:
        """Has events stored and published in one batch."""
        peer = self.producer(*(line(id, priority=priority, **attributes) for id in ids))  # noqa: A001
        assert peer.lines()[-1] == b"ACK %d" % len(ids)
        peer.lose()

    def execute(self, sql: str, *arguments: object) -> Any:
        """Runs a statement, whose parameters are written ``?``, in the connection that all pools share."""
        return self.connection.execute(self.backend.sql(sql), arguments)

    def rows(self, columns: str = "id", where: str = "1 = 1") -> list[Any]:
        """Gives what table ``event`` holds."""
        rows = self.execute(f'SELECT {columns} FROM event WHERE {where} ORDER BY "offset"').fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def close(self) -> None:
        """Drops every connection and closes the database."""
        for pool in (self.writes, self.reads):
            pool.faults.clear()
        for peer in self.peers:
            peer.lose()
        self.agents.stop()
        pending(self.pipeline.stop())
        result(self.stages.stop())
        self.log.close()
        self.connection.close()


def line(id: str = "1", **attributes: object) -> bytes:  # noqa: A002 - the attribute's name
    """Gives an event line."""
    members = {"specversion": "1.0", "id": id, "source": "/ward3/panel", "type": "panel.alarm", **attributes}
    return json.dumps(members).encode()


def spooled(sequence: int, lane: str = "normal", **attributes: object) -> bytes:
    """Gives an event line of a spool."""
    return line(f"s-{sequence}", sequence=f"{sequence:020}", priority=lane, **attributes)


def hello(spool: str = "s", agent: str = "ward3") -> bytes:
    """Gives a HELLO line."""
    return b"HELLO " + json.dumps({"agent": agent, "spool": spool}).encode()


def subscribe(**wish: str) -> bytes:
    """Gives a SUBSCRIBE line."""
    return b"SUBSCRIBE " + json.dumps(wish).encode()


def payload(answer: bytes) -> Any:
    """Gives a verb line's JSON argument."""
    return json.loads(answer.partition(b" ")[2])
