"""The pipeline: read, look up, settle, store, then tell: one batch at a time, one order, one writer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from notifyd import event as events
from notifyd.database import StateError
from notifyd.event import Event
from notifyd.hub.backplane import Backplane
from notifyd.hub.clients import Clients
from notifyd.hub.draft import Draft
from notifyd.hub.enrich import Enricher
from notifyd.hub.filtering import FilterRunner, Outcome
from notifyd.hub.intake import Intake, Parcel, Refusal
from notifyd.hub.log import EventLog
from notifyd.hub.records import Batch
from notifyd.hub.settle import Settler
from notifyd.hub.spools import Spools
from notifyd.hub.suppress import Suppressor

BATCH_EVENTS = 2_000
BATCH_BYTES = 2 * 2**20
"""Events, and bytes of their lines, in one commit, nearly: bounds how long the reactor is busy, and memory."""

POSITION_DELAY_S = 0.5
"""Positions of clients that come without events wait so long to be written together: a second is promised."""


LEAST_PAUSE_S = 0.05
MOST_PAUSE_S = 60.0
"""Between two looks at which windows of repeats have ended: the clock may be set meanwhile."""


class Pipeline:
    """Takes parcels and sees them stored, published and acknowledged, in the order in which they came.

    Args:
        reactor: its clock is used.
        log: where events are stored.
        intake: reads them.
        enricher: adds what databases know of them; None where there are no lookups.
        own_code: the operator's filter, if there is one.
        settler: decides their priority and their place.
        suppressor: whose windows end while nothing comes; None where nothing is suppressed.
        backplane: where they are published once they are stored.
        spools: for repeats.
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
        intake: Intake,
        settler: Settler,
        backplane: Backplane,
        spools: Spools,
        own_priority: str,
        fail: Callable[[Exception], None],
        enricher: Enricher | None = None,
        own_code: FilterRunner | None = None,
        suppressor: Suppressor | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.clients: Clients | None = None
        self.stored = 0  # events, since the start
        self._reactor = reactor
        self._log = log
        self._intake = intake
        self._settler = settler
        self._enricher = enricher
        self._own_code = own_code
        self._suppressor = suppressor
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
        self._window_timer: Any = None
        self._windows_wait = False
        self._told_full = False
        self._idle: list[Deferred[None]] = []

    @property
    def last(self) -> int:
        """The highest offset that was given."""
        return self._settler.last

    def submit(self, parcel: Parcel) -> None:
        """Queues a parcel; its producer is told when it is durable."""
        self._queue.append(parcel)
        self._start()

    def own_event(self, kind: str, source: str, line: str, fields: dict[str, object]) -> None:
        """Queues an event of the hub's own; it is given its id when it is stored."""
        own = Event(specversion="1.0", id="", source=source, type=kind, priority=self._own_priority)
        own.data = events.raw_data({"line": line, "fields": fields})
        self.submit(Parcel(None, (), self._now(), own=(own,)))

    def agent_state(self, agent: str, lost: bool) -> None:
        """Has the next commit note whether an agent is lost."""
        self._agents[agent] = lost

    def wake(self, urgent: bool) -> None:
        """Has clients' positions written: at once, or within :data:`POSITION_DELAY_S`."""
        if urgent:
            self._start()
        elif self._timer is None and not self._running and not self._stopped:
            self._timer = self._reactor.callLater(POSITION_DELAY_S, self._start)

    def start(self) -> None:
        """Begins to end windows of repeats; those that a crash left open go on."""
        self._watch_windows()

    def _watch_windows(self) -> None:
        """Has a batch made, though nothing may have come, when the next window ends."""
        if self._suppressor is None or self._stopped:
            return
        if self._suppressor.is_full and not self._told_full:
            self.logger.warn("There are too many kinds of repeats: events of new ones are not suppressed.")
        self._told_full = self._suppressor.is_full
        due_s = self._suppressor.next_due_s()
        if self._window_timer is not None and self._window_timer.active():
            self._window_timer.cancel()
        self._window_timer = None
        if due_s is not None:
            pause = min(max(due_s - self._now(), LEAST_PAUSE_S), MOST_PAUSE_S)
            self._window_timer = self._reactor.callLater(pause, self._end_windows)

    def _end_windows(self) -> None:
        self._window_timer = None
        self._windows_wait = True
        self._start()

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
        if self._stopped and self._window_timer is not None:
            self._window_timer.cancel()
            self._window_timer = None

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
        while self._queue or self._agents or self._windows_wait or (self.clients is not None and self.clients.dirty):
            await self._one_batch()
        self._end_run()

    def _end_run(self) -> None:
        self._running = False
        waiting, self._idle = self._idle, []
        for done in waiting:
            done.callback(None)

    async def _one_batch(self) -> None:
        parcels = self._gather()
        items: list[Draft | Refusal] = []
        for parcel in parcels:
            self._intake.read(parcel, items)
        outcomes = await self._ask(items)
        clients = self.clients.take() if self.clients is not None else []
        agents, self._agents = self._agents, {}
        batch = Batch([], clients, agents)
        self._windows_wait = False
        self._settler.settle(items, outcomes, self._now(), batch)
        await self._log.append(batch)
        self._publish(batch)
        self._watch_windows()
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

    async def _ask(self, items: Sequence[Draft | Refusal]) -> Sequence[Outcome] | None:
        """Adds what databases and the operator's own code know; the hub's own events are not theirs to judge."""
        if self._enricher is None and self._own_code is None:
            return None
        drafts = [item for item in items if isinstance(item, Draft) and not item.own]
        if self._enricher is not None:
            waiting = self._enricher.enrich([(draft, draft.received_s) for draft in drafts])
            if waiting is not None:
                await waiting
        else:
            for draft in drafts:
                draft.disown_context()
        if self._own_code is None:
            return None
        answers = iter(await self._own_code.run(drafts, [draft.received for draft in drafts]))
        return [next(answers) if isinstance(item, Draft) and not item.own else None for item in items]

    def _publish(self, batch: Batch) -> None:
        for position in batch.dropped:
            self._spools.stored(position)
        entries = batch.entries
        if not entries:
            return
        for entry in entries:
            if entry.position is not None:
                self._spools.stored(entry.position)
        self.stored += len(entries)
        sent = [(entry.offset, entry.priority, entry.line) for entry in entries if not entry.suppressed]
        self._backplane.publish(sent, entries[-1].offset)
