"""The durable queue between the serial ports and the uplink.

``put`` numbers an event and keeps it in memory; a writer commits what has gathered, as one transaction
after the other. Everything that touches the file takes turns: one commit or one read at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from twisted.enterprise import adbapi
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from notifyd import database
from notifyd.agent import notices, spool_store
from notifyd.agent.notices import Dropped
from notifyd.agent.pending import Pending
from notifyd.agent.spool_store import Batch, Job, Opened, Outcome, ReplacedError, Shift
from notifyd.database import Fault
from notifyd.event import LANES, Event, Priority

T = TypeVar("T")

ACKNOWLEDGEMENT_DELAY_S = 0.05
"""How long a delete waits for a commit to go with; one that is lost in a crash costs a repeat, no event."""

RETRY_MIN_S, RETRY_MAX_S = 0.1, 5.0
"""The first and the longest wait before a spool that cannot be written is tried again."""

REOPEN_AFTER = 3
"""Failures in a row after which the file is opened anew: some faults are the connection's."""

READ_BYTES = 256 * 1024
"""Bytes that are read at once: enough to make the cost of a read small, and a quarter of the hub's window."""


@dataclasses.dataclass
class Counters:
    """What became of the events since the start."""

    put: int = 0
    stored: int = 0
    sent: int = 0
    acknowledged: int = 0
    dropped: int = 0
    rejected: int = 0


class Spool:
    """The queue; see the module.

    Args:
        reactor: for threads and timers.
        path: its file.
        agent: the agent's name, for the events that the spool itself makes.
        max_events: how many it holds.
        own_priority: the priority of the events that concern the whole spool.
        on_stored: is called when more can be read.
        on_identity: is called when the spool's id is known, and whenever it has become another.
        on_fatal: is called with a StateError when the spool can never be used again.
        clock: for timers, where it is not the reactor.
        now: gives the seconds since 1970.
    """

    log = Logger("notifyd.agent")

    def __init__(
        self,
        reactor: Any,
        path: Path,
        *,
        agent: str,
        max_events: int,
        own_priority: str,
        on_stored: Callable[[], None] = lambda: None,
        on_identity: Callable[[], None] = lambda: None,
        on_fatal: Callable[[BaseException], None] = lambda error: None,
        clock: Any = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path, self.agent, self.max_events, self.own_priority = path, agent, max_events, own_priority
        self.on_stored, self.on_identity, self.on_fatal = on_stored, on_identity, on_fatal
        self.counters = Counters()
        self.spool_id = secrets.token_hex(4)  # until the file says which it is
        self._reactor, self._clock, self._now = reactor, clock or reactor, now
        self._pool: adbapi.ConnectionPool | None = None
        self._turn = defer.DeferredLock()
        self._first_opening: Deferred[None] | None = None
        self._is_open = self._closed = False
        self._identity: spool_store.Identity | None = None
        # What is known of the file, as of the last commit.
        self._acked = dict.fromkeys(LANES, 0)
        self._counts = dict.fromkeys(LANES, 0)
        self._tops = dict.fromkeys(LANES, 0)
        self._open_notices: dict[Priority, int | None] = dict.fromkeys(LANES)
        # Reading: how far the current connection is, and how far any connection of this process was.
        self._connection = 0
        self._position = dict.fromkeys(LANES, 0)
        self._sent_high = dict.fromkeys(LANES, 0)
        self._bytes_per_line = 8 * 1024.0
        # What the next commit does.
        self._next = int(now() * 1e6)
        self._pending = Pending()
        self._acks: dict[Priority, int] = {}
        self._told: dict[Priority, int] | None = None
        self._shift: Shift | None = None
        self._lost_spool: tuple[str, str | None] | None = None
        # The writer.
        self._wake_call: Any = None
        self._writing: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._failures = 0
        self._flushes: list[tuple[int, Deferred[None]]] = []
        self._resumes: list[Deferred[None]] = []

    # --- from outside ------------------------------------------------------------------------------------

    def open(self) -> Deferred[None]:
        """Opens the file; the Deferred fires when that is settled, be it that the file is away for now.

        Raises:
            StateError: (in the Deferred) a newer notifyd wrote it.
        """
        self._first_opening = Deferred()
        opening = self._first_opening
        self._wake()
        return opening

    @property
    def is_open(self) -> bool:
        """Whether the spool's id is the file's, so that the hub can be told it."""
        return self._is_open

    @property
    def waiting(self) -> int:
        """How many events wait in memory."""
        return len(self._pending)

    def put(self, event: Event) -> None:
        """Takes an event, gives it its number and keeps it until it is stored.

        Raises:
            ValueError: its priority is no lane's.
        """
        lane = Priority(str(event.priority))
        sequence = self._next
        self._next += 1
        self.counters.put += 1
        self._pending.append(lane, event, self.spool_id, sequence)
        if self._pending.is_over:
            self.counters.dropped += self._pending.drop_excess()
        if self._writing is None:
            self._wake()

    def flush(self) -> Deferred[None]:
        """Gives a Deferred that fires when everything that was put so far is stored (or dropped, and told)."""
        done: Deferred[None] = Deferred()
        if not self._pending.has_work and self._writing is None:
            done.callback(None)
        else:
            self._flushes.append((self._next - 1, done))
            self._wake()
        return done

    def has_unsent(self) -> bool:
        """Whether there is anything that the current connection has not read yet."""
        return any(self._tops[lane] > self._position[lane] for lane in LANES)

    def resume(self, told: Mapping[str, int]) -> Deferred[None]:
        """Begins a connection: takes from the hub how far it is, and goes on behind that.

        Args:
            told: per lane the highest sequence that is stored there.

        Returns:
            Fires when ``next`` may be asked.
        """
        self._connection += 1
        positions = {lane: told.get(lane.value, 0) for lane in LANES}
        self._tell_restored(positions)
        self._jump_past(positions)
        self._acks.clear()
        self._told = positions
        self._position = dict(positions)
        done: Deferred[None] = Deferred()
        self._resumes.append(done)
        self._wake()
        return done

    def release(self) -> None:
        """Ends a connection: nothing is in flight any more."""
        self._connection += 1
        self._position = dict.fromkeys(LANES, 0)

    async def next(self, room: int) -> Batch | None:
        """Reads the most urgent events that the connection has not had; from now on they are in flight.

        Args:
            room: how many bytes they may have.

        Returns:
            None where there is nothing, where the first has no room, or where the connection has ended.
        """
        connection = self._connection
        await self._turn.acquire()
        try:
            lane = next((lane for lane in LANES if self._tops[lane] > self._position[lane]), None)
            if lane is None or self._pool is None or not self._is_open or connection != self._connection:
                return None
            size = min(room, READ_BYTES) if room > READ_BYTES else room
            rows = max(1, int(size / self._bytes_per_line) + 1)
            after = self._position[lane]
            work = functools.partial(spool_store.read, lane=lane, after=after, rows=rows, room=size)
            batch, any_left = await database.interact(self._pool, work)
        except Exception as error:  # noqa: BLE001 - whatever the database raises is judged
            self._judge(error)
            self._wake(RETRY_MIN_S)
            return None
        finally:
            self._turn.release()
        return self._reserve(lane, connection, batch, any_left)

    def acknowledge(self, lane: Priority, up_to: int) -> None:
        """Notes that the hub has everything of ``lane`` up to a sequence; it is deleted soon."""
        self._acks[lane] = max(up_to, self._acks.get(lane, 0))
        if self._writing is None:
            self._wake(ACKNOWLEDGEMENT_DELAY_S)

    async def close(self) -> None:
        """Writes what can be written, and closes the file."""
        if self._is_open and not self._failures and (self._acks or self._pending.has_work):
            self._wake()
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        if self._wake_call is not None and not (self._acks or self._pending.has_work):
            self._cancel_wake()
        elif self._wake_call is not None:
            self._cancel_wake()
            self._start_writing()
        if self._writing is not None:
            waiting: Deferred[None] = Deferred()
            self._writing.addBoth(lambda _: waiting.callback(None))
            await waiting
        if self.waiting:
            self.log.error("{count} events that wait in memory are lost at this stop.", count=self.waiting)
        await self._turn.acquire()
        self._close_pool()
        self._turn.release()

    # --- reading -----------------------------------------------------------------------------------------

    def _reserve(self, lane: Priority, connection: int, batch: Batch | None, any_left: bool) -> Batch | None:
        if connection != self._connection:
            return None
        if batch is None:
            if not any_left:  # dropped since, or removed by hand
                self._position[lane] = max(self._position[lane], self._tops[lane])
            return None
        self._bytes_per_line = len(batch.lines) / batch.count
        self._position[lane] = batch.last
        self._sent_high[lane] = max(self._sent_high[lane], batch.last)
        open_notice = self._open_notices[lane]
        if open_notice is not None and open_notice <= batch.last:
            self._open_notices[lane] = None  # it is sent as it is: the next drop opens another
        return batch

    def _tell_restored(self, told: Mapping[Priority, int]) -> None:
        lost = {lane.value: (told[lane] + 1, self._acked[lane]) for lane in LANES if told[lane] < self._acked[lane]}
        if lost:
            self.log.warn("The hub no longer knows what it had acknowledged: {lost}.", lost=lost)
            self.put(notices.hub_restored_event(self.agent, self.own_priority, lost, self._now()))
        # Told once: from here on the hub's own word counts.
        self._acked = dict(told)

    def _jump_past(self, told: Mapping[Priority, int]) -> None:
        """Gives higher numbers to what the hub cannot have, where it holds those numbers already."""
        highest = max(told.values())
        unsent = any(
            told[lane] > self._sent_high[lane]
            and max(self._tops[lane], self._pending.last(lane)) > self._sent_high[lane]
            for lane in LANES
        )
        if highest < self._next and not unsent:
            return
        self.log.warn("The hub holds {highest}, which this spool has not sent; going on behind it.", highest=highest)
        base = min(self._sent_high.values()) + 1
        # TODO
        delta = max(highest + 1, self._next) - base
        if unsent:
            self._shift = Shift(dict(self._sent_high), delta)
            self._pending.shift(self.spool_id, delta)
            self._next += delta
        else:
            self._next = highest + 1
