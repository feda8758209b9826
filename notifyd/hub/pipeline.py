"""The pipeline: decode, drop repeats, classify, store, then tell: one batch at a time, one order, one writer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import UNSET
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from notifyd import event as events
from notifyd.database import StateError
from notifyd.event import HINTS, Event, NotAcceptableError, Priority
from notifyd.hub.backplane import Backplane
from notifyd.hub.classify import Classifier
from notifyd.hub.clients import Clients
from notifyd.hub.log import Batch, Entry, EventLog, Position
from notifyd.hub.spools import Spool, Spools

BATCH_EVENTS = 2_000
BATCH_BYTES = 2 * 2**20
"""Events, and bytes of their lines, in one commit, nearly: bounds how long the reactor is busy, and memory."""

POSITION_DELAY_S = 0.5
"""Positions of clients that come without events wait so long to be written together: a second is promised."""

MAX_SEQUENCE = 2**63 - 1
"""What the database's integers hold."""


class Producer(Protocol):
    """The connection that event lines came from."""

    agent: str | None
    spool: Spool | None

    def stored(self, parcels: Sequence[Parcel]) -> None:
        """Is called when these parcels' lines are durable."""


@dataclass(slots=True)
class Parcel:
    """Event lines that one read of one connection brought, or an event of the hub's own."""

    producer: Producer | None
    lines: Sequence[bytes | Event]
    received_s: float
    number: int = 0  # of the first line, counted from 1 over its connection
    size: int = 0  # bytes of the lines
    rejects: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class Counters:
    """What came in and what became of it, since the start."""

    received: int = 0
    repeats: int = 0
    rejected: int = 0
    stored: int = 0


class Pipeline:
    """Takes parcels and sees them stored, published and acknowledged, in the order in which they came.

    Args:
        reactor: its clock is used.
        log: where events are stored.
        classifier: decides their priority.
        backplane: where they are published once they are stored.
        spools: for repeats.
        clients: whose positions are written along.
        last: the log's last offset.
        own_priority: of the hub's own events.
        fail: is called with the reason when the log can no longer be written at all.
        now: the wall clock.
    """

    logger = Logger("notifyd.hub.pipeline")

    def __init__(
        self,
        reactor: Any,
        *,
        log: EventLog,
        classifier: Classifier,
        backplane: Backplane,
        spools: Spools,
        last: int,
        own_priority: str,
        fail: Callable[[Exception], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.counters = Counters()
        self.clients: Clients | None = None
        self.last = last
        self._reactor = reactor
        self._log = log
        self._classifier = classifier
        self._backplane = backplane
        self._spools = spools
        self._own_priority = own_priority
        self._fail = fail
        self._now = now
        self._queue: deque[Parcel] = deque()
        self._agents: dict[str, bool] = {}
        self._running = False
        self._stopped = False
        self._timer: Any = None
        self._idle: list[Deferred[None]] = []

    def submit(self, parcel: Parcel) -> None:
        """Queues a parcel; its producer is told when it is durable."""
        self._queue.append(parcel)
        self._start()

    def own_event(self, kind: str, source: str, line: str, fields: dict[str, object]) -> None:
        """Queues an event of the hub's own; it is given its id when it is stored."""
        own = Event(specversion="1.0", id="", source=source, type=kind, priority=self._own_priority)
        own.data = events.raw_data({"line": line, "fields": fields})
        self.submit(Parcel(None, [own], self._now()))

    def agent_state(self, agent: str, lost: bool) -> None:
        """Has the next commit note whether an agent is lost."""
        self._agents[agent] = lost

    def wake(self, urgent: bool) -> None:
        """Has clients' positions written: at once, or within :data:`POSITION_DELAY_S`."""
        if urgent:
            self._start()
        elif self._timer is None and not self._running and not self._stopped:
            self._timer = self._reactor.callLater(POSITION_DELAY_S, self._start)

    async def stop(self) -> None:
        """Stores what is queued, and the positions that wait; nothing is taken after."""
        self._start()
        if self._running:
            done: Deferred[None] = Deferred()
            self._idle.append(done)
            await done
        self._stopped = True
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _start(self) -> None:
        if self._running or self._stopped:
            return
        self._running = True
        self._cancel_timer()
        Deferred.fromCoroutine(self._run()).addErrback(self._broken)

    def _broken(self, failure: Any) -> None:
        if not failure.check(StateError):
            self.logger.failure("The pipeline is broken.", failure)
        self._stopped = True
        self._fail(failure.value)
        self._end_run()

    async def _run(self) -> None:
        while self._queue or self._agents or (self.clients is not None and self.clients.dirty):
            await self._one_batch()
        self._end_run()

    def _end_run(self) -> None:
        self._running = False
        waiting, self._idle = self._idle, []
        for done in waiting:
            done.callback(None)

    async def _one_batch(self) -> None:
        parcels = self._gather()
        entries: list[Entry] = []
        for parcel in parcels:
            self._process(parcel, entries)
        clients = self.clients.take() if self.clients is not None else []
        agents, self._agents = self._agents, {}
        await self._log.append(batch := Batch(entries, clients, agents))
        self._publish(batch.entries)
        if self.clients is not None:
            self.clients.written(clients)
        by_producer: dict[int, list[Parcel]] = {}
        for parcel in parcels:
            if parcel.producer is not None:
                by_producer.setdefault(id(parcel.producer), []).append(parcel)
        for mine in by_producer.values():
            producer = mine[0].producer
            assert producer is not None  # noqa: S101 - only such were gathered
            producer.stored(mine)

    def _gather(self) -> list[Parcel]:
        """Takes whole parcels up to about one batch: a parcel is at most what one read brought."""
        parcels: list[Parcel] = []
        count = size = 0
        while self._queue and count < BATCH_EVENTS and size < BATCH_BYTES:
            parcels.append(parcel := self._queue.popleft())
            count += len(parcel.lines)
            size += parcel.size
        return parcels

    def _publish(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        for entry in entries:
            if entry.position is not None:
                self._spools.stored(entry.position)
        self.counters.stored += len(entries)
        self._backplane.publish([(entry.offset, entry.priority, entry.line) for entry in entries], entries[-1].offset)

    def _process(self, parcel: Parcel, entries: list[Entry]) -> None:
        received = events.format_time(parcel.received_s)
        for number, line in enumerate(parcel.lines, parcel.number):
            if isinstance(line, Event):
                line.id = str(self.last + 1)
                entries.append(self._entry(line, received, None, None))
                continue
            self.counters.received += 1
            try:
                entry = self._accept(line, parcel.producer, received)
            except NotAcceptableError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must cost one event's priority, not the hub
                self.logger.failure("An event could not be processed.")
                reason = f"it could not be processed: {type(error).__name__}"
            else:
                if entry is not None:
                    entries.append(entry)
                continue
            self.counters.rejected += 1
            parcel.rejects.append((number, reason))
            self.last += 1
            entries.append(rejected_entry(self.last, line, reason, received))

    def _accept(self, line: bytes, producer: Producer | None, received: str) -> Entry | None:
        """Gives a line's entry; None where it repeats what the hub has."""
        event = events.decode(line)
        if producer is None or producer.spool is None:
            return self._entry(event, received, None, None)
        agent = producer.agent or ""
        position = self._position(event, producer.spool, agent)
        if producer.spool.is_repeat(position.lane, position.sequence):
            self.counters.repeats += 1
            return None
        return self._entry(event, received, agent, position)

    @staticmethod
    def _position(event: Event, spool: Spool, agent: str) -> Position:
        """Gives what a spool's event says about its spool."""
        lane, sequence = event.priority, event.sequence
        if sequence is UNSET or not (sequence.isascii() and sequence.isdigit()) or len(sequence) > 40:
            raise NotAcceptableError("attribute sequence is no decimal number, which an event of a spool needs")
        if int(sequence) > MAX_SEQUENCE:
            raise NotAcceptableError("attribute sequence is too large")
        if lane is UNSET or lane not in HINTS:
            raise NotAcceptableError(
                "attribute priority is none of normal, important and critical, which an event of a spool needs"
            )
        return Position(spool.name, lane, agent, int(sequence))

    def _entry(self, event: Event, received: str, agent: str | None, position: Position | None) -> Entry:
        decision = self._classifier.classify(event)
        if event.specversion is UNSET and events.extension(event, "specversion") is None:
            event.specversion = "1.0"
        if event.time is UNSET:
            event.time = received
        event.priority = decision.priority.value
        offset = self.last + 1
        event.offset = str(offset)
        event.received = received
        event.rule = decision.rule
        event.reason = UNSET if decision.reason is None else decision.reason
        entry = Entry(
            offset, event.id, event.source, event.type, event.priority, event.time, received, agent,
            decision.rule, events.encode(event), position,
        )  # fmt: skip
        self.last = offset
        return entry


def rejected_entry(offset: int, line: bytes, reason: str, received: str, position: Position | None = None) -> Entry:
    """Gives the event of the hub that keeps a line which is no acceptable event."""
    event = Event(
        specversion="1.0",
        id=str(offset),
        source="/hub/ingest",
        type="notifyd.rejected",
        time=received,
        priority=Priority.ERROR.value,
        offset=str(offset),
        received=received,
        rule="default",
        reason=reason,
        data=events.raw_data(events.quote_line(line)),
    )
    return Entry(
        offset, event.id, event.source, event.type, Priority.ERROR.value, received, received, None,
        "default", events.encode(event), position,
    )  # fmt: skip
