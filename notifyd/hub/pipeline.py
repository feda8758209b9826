"""The pipeline: read, look up, settle, store, then tell: one batch at a time, one order, one writer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from notifyd import event as events
from notifyd.database import StateError
from notifyd.event import Event
from notifyd.hub.backplane import Backplane, Lines
from notifyd.hub.clients import Clients
from notifyd.hub.draft import Draft
from notifyd.hub.enrich import Enricher
from notifyd.hub.express import Express
from notifyd.hub.filtering import FilterRunner, Outcome
from notifyd.hub.intake import Intake, Parcel, Refusal
from notifyd.hub.log import EventLog
from notifyd.hub.records import Batch, highest
from notifyd.hub.settle import Settler
from notifyd.hub.spools import Spools
from notifyd.hub.suppress import Suppressor

BATCH_EVENTS = 2_000
BATCH_BYTES = 2 * 2**20
"""Events, and bytes of their lines, in one commit, nearly: bounds how long the reactor is busy, and memory."""

PREPARED_EVENTS = 500
"""Events that are prepared in one turn of the reactor, nearly: some 2 ms."""

LARGE_BATCH = 256 * 1024
"""Bytes of lines that gather while the batch before is stored only where more comes than the hub has ease with."""

PRESSED_S = 0.1
"""So long after such a batch the hub is taken to have its hands full."""

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
        self._express: Express | None = None
        if enricher is None and own_code is None and suppressor is None:
            self._express = Express(settler.classifier, settler, settler.counters)
        self._backplane = backplane
        self._spools = spools
        self._own_priority = own_priority
        self._fail = fail
        self._now = now
        self._queue: deque[Parcel] = deque()
        self._open = _OpenBatch()
        self._agents: dict[str, bool] = {}
        self._preparing = self._storing = self._stopped = False
        self._pressed_until_s = float("-inf")
        self._timer: Any = None
        self._window_timer: Any = None
        self._told_full = False
        self._idle: list[Deferred[None]] = []

    @property
    def last(self) -> int:
        """The highest offset that was given."""
        return self._settler.last

    def is_pressed(self) -> bool:
        """Tells whether events are being stored about as fast as the hub can."""
        return not self._log.away and bool(self._reactor.seconds() < self._pressed_until_s)

    def submit(self, parcel: Parcel) -> None:
        """Queues a parcel; its producer is told when it is durable."""
        self._queue.append(parcel)
        self._prepare()

    def own_event(self, kind: str, source: str, line: str, fields: dict[str, object]) -> None:
        """Queues an event of the hub's own; it is given its id when it is stored."""
        own = Event(specversion="1.0", id="", source=source, type=kind, priority=self._own_priority)
        own.data = events.raw_data({"line": line, "fields": fields})
        agents, self._agents = self._agents, {}
        self.submit(Parcel(None, (), self._now(), own=(own,), agents=agents))

    def agent_state(self, agent: str, lost: bool) -> None:
        """Notes whether an agent is lost, in one commit with the own event that tells of it, which comes next."""
        self._agents[agent] = lost

    def wake(self, urgent: bool) -> None:
        """Has clients' positions written: at once, or within :data:`POSITION_DELAY_S`."""
        if urgent:
            self._store()
        elif self._timer is None and not self._storing and not self._stopped:
            self._timer = self._reactor.callLater(POSITION_DELAY_S, self._store)

    def start(self) -> None:
        """Begins to end windows of repeats; those that a crash left open go on."""
        self._watch_windows()

    async def stop(self) -> None:
        """Stores what is queued, and the positions that wait; nothing is taken after."""
        self._prepare()
        self._store()
        while self._preparing or self._storing:
            done: Deferred[None] = Deferred()
            self._idle.append(done)
            await done
        self._stopped = True
        self._cancel_timers()

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._window_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._window_timer = None

    def _broken(self, failure: Any) -> None:
        if not failure.check(StateError):
            self.logger.failure("The pipeline is broken.", failure)
        self._stopped = True
        self._preparing = self._storing = False
        self._fail(failure.value)
        self._tell_idle()

    def _tell_idle(self) -> None:
        waiting, self._idle = self._idle, []
        for done in waiting:
            done.callback(None)

    # --- preparing: from the queue into the batch that is open, also while another one is being stored

    def _prepare(self) -> None:
        if not self._preparing and not self._stopped and self._queue:
            alone = self._queue[0] if len(self._queue) == 1 and not self._open.is_full else None
            if alone is not None and self._take(alone):
                self._queue.popleft()
                self._open.add([alone])
                self._store()
                return
            self._preparing = True
            Deferred.fromCoroutine(self._prepare_all(alone)).addErrback(self._broken)

    def _take(self, parcel: Parcel) -> bool:
        """Settles a parcel where nothing has to be waited for: one that comes alone is stored soon."""
        return self._express is not None and self._express.take(parcel, self._open.batch)

    async def _prepare_all(self, declined: Parcel | None) -> None:
        """Settles what waits; one parcel was found to go the long way."""
        while self._queue and not self._open.is_full and not self._stopped:
            parcels = self._gather()
            if self._express is None:
                await self._settle(parcels)
            else:
                for parcel in parcels:
                    if parcel is declined or not self._take(parcel):
                        await self._settle([parcel])
            self._open.add(parcels)
            self._store()
            if self._storing and self._queue and not self._open.is_full:
                await deferLater(self._reactor, 0)  # what has been stored meanwhile is told first
        self._preparing = False
        if not self._storing:
            self._tell_idle()

    async def _settle(self, parcels: Sequence[Parcel]) -> None:
        items: list[Draft | Refusal] = []
        for parcel in parcels:
            self._intake.read(parcel, items)
        outcomes = await self._ask(items)
        # What waits was received before now: windows are to end for it as if it had not waited.
        until_s = self._queue[0].received_s if self._queue else self._now()
        self._settler.settle(items, outcomes, until_s, self._open.batch)

    def _gather(self) -> list[Parcel]:
        """Takes whole parcels up to about what is prepared at once: a parcel is at most what one read brought."""
        parcels: list[Parcel] = []
        count, size = self._open.count, self._open.size
        most = min(BATCH_EVENTS, count + PREPARED_EVENTS)
        while self._queue and count < most and size < BATCH_BYTES:
            parcels.append(parcel := self._queue.popleft())
            count += parcel.count
            size += parcel.size
        return parcels

    async def _ask(self, items: Sequence[Draft | Refusal]) -> Sequence[Outcome] | None:
        """Adds what databases and the operator's own code know; the hub's own events are not theirs to judge."""
        if self._enricher is None and self._own_code is None:
            return None
        drafts = [item for item in items if isinstance(item, Draft) and not item.own]
        if not drafts:
            return None
        if self._enricher is not None:
            waiting = self._enricher.enrich(drafts)
            if waiting is not None:
                await waiting
        else:
            for draft in drafts:
                draft.disown_context()
        if self._own_code is None:
            return None
        answers = iter(await self._own_code.run(drafts, [draft.received for draft in drafts]))
        return [next(answers) if isinstance(item, Draft) and not item.own else None for item in items]

    # --- storing: one batch at a time, then telling of it

    def _store(self) -> None:
        if not self._storing and not self._stopped and self._has_work:
            self._storing = True
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._timer = None
            Deferred.fromCoroutine(self._store_all()).addErrback(self._broken)

    @property
    def _has_work(self) -> bool:
        clients = self.clients
        return bool(self._open.parcels or self._open.batch.entries) or (clients is not None and clients.dirty)

    async def _store_all(self) -> None:
        while self._has_work:
            opened, self._open = self._open, _OpenBatch()
            batch = opened.batch
            if opened.size >= LARGE_BATCH:
                self._pressed_until_s = float("inf")
            self._settler.close(batch)
            batch.positions = highest(each for parcel in opened.parcels for each in parcel.positions.values())
            batch.clients = self.clients.take() if self.clients is not None else []
            await self._log.append(batch)
            if opened.size >= LARGE_BATCH:
                self._pressed_until_s = self._reactor.seconds() + PRESSED_S
            self._publish(batch)
            self._watch_windows()
            if self.clients is not None:
                self.clients.written(batch.clients)
            self._acknowledge(opened.parcels)
            self._prepare()
        self._storing = False
        if not self._preparing:
            self._tell_idle()

    def _publish(self, batch: Batch) -> None:
        for position in batch.positions:
            self._spools.stored(position)
        entries = batch.entries
        if not entries:
            return
        self.stored += len(entries)
        lines, runs = Lines(entries.offsets, entries.data, entries.sizes), entries.runs
        if any(kind.suppressed for kind, _ in runs):
            lines = lines.only([not kind.suppressed for kind in entries.kinds])
            runs = [(kind, count) for kind, count in runs if not kind.suppressed]
        self._backplane.publish(lines, [(kind.priority, count) for kind, count in runs], entries.last)

    def _acknowledge(self, parcels: Sequence[Parcel]) -> None:
        by_producer: dict[int, list[Parcel]] = {}
        for parcel in parcels:
            if parcel.producer is not None:
                by_producer.setdefault(id(parcel.producer), []).append(parcel)
        for mine in by_producer.values():
            producer = mine[0].producer
            assert producer is not None  # noqa: S101 - only such were gathered
            producer.stored(mine)

    # --- windows of repeats

    def _watch_windows(self) -> None:
        """Has the next window ended, though nothing may have come."""
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
        if self._preparing or self._queue:
            self._watch_windows()  # what waits was received before: it comes first
            return
        self._settler.end_windows(self._now(), self._open.batch)
        self._store()
        if not self._storing:
            self._watch_windows()


class _OpenBatch:
    """The batch into which events are settled, and the parcels that they came in."""

    def __init__(self) -> None:
        self.batch = Batch()
        self.parcels: list[Parcel] = []
        self.count = 0
        self.size = 0

    def add(self, parcels: Sequence[Parcel]) -> None:
        """Notes whose events have been settled into the batch."""
        self.parcels += parcels
        for parcel in parcels:
            self.batch.agents.update(parcel.agents)
        self.count += sum(parcel.count for parcel in parcels)
        self.size += sum(parcel.size for parcel in parcels)

    @property
    def is_full(self) -> bool:
        """Whether what comes next waits for the next batch."""
        return self.count >= BATCH_EVENTS or self.size >= BATCH_BYTES
