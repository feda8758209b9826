"""A hub on a real database whose clock, database answers and transports obey the test; nothing in it waits."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from twisted.internet.task import Clock

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
from notifyd.hub.pace import Pace
from notifyd.hub.pipeline import Pipeline
from notifyd.hub.producer import IngestProtocol
from notifyd.hub.readback import Reader
from notifyd.hub.service import _refused
from notifyd.hub.settle import Settler
from notifyd.hub.spools import Spools
from notifyd.hub.stages import make_stages
from notifyd.hub.subscriber import SubscriberProtocol
from notifyd.hub.subscribers import Crowd, SubscriberFactory
from tests.hubparts import Peer, Pool, Transport, pending, result

T0 = events.parse_time("2026-11-22T10:00:00Z")
STREAMS = ("normal", "important", "critical", "error", "all")


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
            self.connection: Any = sqlite3.connect(folder / "hub.db", isolation_level=None)
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
        self.pressed = False  # whether new events are taken to come as fast as they can be stored
        pace = Pace(self.clock, lambda: self.pressed, 3_600.0, self.now)
        self.reader = Reader(self.backend, self.clock, pace)
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


def offset(hub: Hub, id: str) -> str:  # noqa: A002 - the attribute's name
    """Gives an event's offset."""
    return str(hub.rows('"offset"', f"id = '{id}'")[0])
