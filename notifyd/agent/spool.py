"""The durable queue between the serial ports and the uplink.

``put`` numbers an event and keeps it in memory; a writer commits what has gathered, as one transaction
after the other. Everything that touches the file takes turns: one commit or one read at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from notifyd.agent import notices, spool_commit
from notifyd.agent.flushes import Flushes
from notifyd.agent.notices import Dropped
from notifyd.agent.pending import MAX_BYTES, Pending
from notifyd.agent.positions import Positions
from notifyd.agent.spool_commit import Job, Shift
from notifyd.agent.spool_file import ReplacedError, SpoolFile, judge
from notifyd.agent.spool_reader import SpoolReader, Trouble
from notifyd.agent.spool_store import Batch, Opened, Row
from notifyd.agent.spool_writer import Writer
from notifyd.database import Fault, NewerSchemaError, StateError
from notifyd.event import HINTS, LANES, Event, Priority

ACKNOWLEDGEMENT_DELAY_S = 0.05
"""How long a delete waits for a commit to go with; one that is lost in a crash costs a repeat, no event."""

MAX_ROWS = 16_384
"""Events that one commit writes at most."""


@dataclasses.dataclass
class Counters:
    """What became of the events since the start; ``sent`` counts repeats too."""

    stored: int = 0
    sent: int = 0
    acknowledged: int = 0
    dropped: int = 0
    rejected: int = 0


class Spool:
    """The queue; see the module.

    Args:
        reactor: for the database's thread, and for timers.
        path: its file.
        agent: the agent's name, for the events that the spool itself makes.
        max_events: how many it holds.
        own_priority: the priority of the events that concern the whole spool.
        on_fatal: is called with a StateError when the spool can never be used again.
        clock: for timers, where it is not the reactor.
        now: gives the seconds since 1970.
        file: what works on the file, where it is not the reactor's thread.
        max_waiting: bytes of events that wait in memory at most.

    Attributes:
        spool_id: identifies the spool to the hub, once ``is_open``.
        is_open: whether it is known which spool this is.
        on_stored: is called when there may be more to read.
        on_identity: is called when it is known which spool this is, and whenever it has become another.
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
        on_fatal: Callable[[StateError], None] = lambda error: None,
        clock: Any = None,
        now: Callable[[], float] = time.time,
        file: SpoolFile | None = None,
        max_waiting: int = MAX_BYTES,
    ) -> None:
        self.path, self.agent, self.max_events, self.own_priority = path, agent, max_events, own_priority
        self.on_stored: Callable[[], None] = lambda: None
        self.on_identity: Callable[[], None] = lambda: None
        self.counters = Counters()
        self.spool_id = secrets.token_hex(4)  # a stand-in until the file says which it is
        self.is_open = False
        self._on_fatal, self._clock, self._now = on_fatal, clock or reactor, now
        self._file = file or SpoolFile(reactor, path, now)
        self._at = Positions()
        self._next = int(now() * 1e6)
        # What the next commit does.
        self._pending = Pending(max_waiting)
        self._acks: dict[Priority, int] = {}
        self._told: dict[Priority, int] | None = None
        self._shift: Shift | None = None
        self._lost_spool: tuple[str, str | None] | None = None
        self._max_rows = MAX_ROWS
        # Who waits for it.
        self._first_opening: Deferred[None] | None = None
        self._flushes = Flushes(self._pending.is_settled)
        self._resumes: list[Deferred[None]] = []
        self._fatal: StateError | None = None
        self._trouble = Trouble(self._file, "written", "events wait in memory")
        self._writer = Writer(self._clock, self._write_once, self._is_urgent, self._trouble, self._rest)
        self._reader = SpoolReader(self._file, self._at, self._clock, self._corrupt_when_read, self._read_again)

    # --- for the sources ---------------------------------------------------------------------------------

    def open(self) -> Deferred[None]:
        """Opens the file; the Deferred fires when that is settled, be it that the file is away for now.

        Raises:
            StateError: (in the Deferred) a newer notifyd wrote it.
        """
        opening: Deferred[None] = Deferred()
        self._first_opening = opening
        self._writer.wake()
        return opening

    @property
    def waiting(self) -> int:
        """How many events wait in memory."""
        return len(self._pending)

    def put(self, event: Event) -> None:
        """Takes an event, gives it its number and keeps it until it is stored.

        Raises:
            KeyError: its priority is no lane's.
        """
        lane = HINTS[event.priority]  # type: ignore[index]  # UNSET is no lane either
        sequence = self._next
        self._next += 1
        self._pending.append(lane, event, self.spool_id, sequence)
        if self._pending.is_over:
            self.counters.dropped += self._pending.drop_excess()
        if not self._writer.is_working:
            self._writer.wake()

    def flush(self) -> Deferred[None]:
        """Gives a Deferred that fires when everything that was put so far is stored (or dropped, and told)."""
        return self._flushes.wait(self._next - 1)

    # --- for the uplink ----------------------------------------------------------------------------------

    def resume(self, told: Mapping[str, int]) -> Deferred[None]:
        """Begins a connection: takes from the hub how far it is, and goes on behind that.

        Args:
            told: per lane the highest sequence that is stored there.

        Returns:
            Fires when ``next`` may be asked.
        """
        positions = {lane: told.get(lane.value, 0) for lane in LANES}
        self._tell_forgotten(positions)
        self._jump_past(positions)
        self._acks.clear()  # the hub's own word counts
        self._told = positions
        self._at.start_connection(positions)
        done: Deferred[None] = Deferred()
        self._resumes.append(done)
        self._writer.wake()
        return done

    def leave_name(self) -> None:
        """Goes on under another name, since a process with a copy of this spool speaks to the hub under this one.

        The hub would take what is numbered here for repeats of the other's events. Under a new name everything that is
        not known to be acknowledged is sent; what had arrived all the same comes again, with another id.
        """
        self.log.warn(
            "Another process uses spool {spool}, a copy of this one: going on under a new name.", spool=self.spool_id
        )
        nothing = dict.fromkeys(LANES, 0)
        self.spool_id = secrets.token_hex(4)
        self._shift = Shift(nothing, 0 if self._shift is None else self._shift.delta)
        self._pending.shift(self.spool_id, 0)
        self._acks.clear()
        self._told = dict(nothing)
        self._at.acked = dict(nothing)
        self._writer.wake()

    def release(self) -> None:
        """Ends a connection: nothing is in flight any more."""
        self._at.start_connection(dict.fromkeys(LANES, 0))

    def has_unsent(self) -> bool:
        """Whether there is anything that the current connection has not read yet."""
        return self._at.next_lane() is not None

    async def next(self, room: int) -> Batch | None:
        """Reads the most urgent events that the connection has not had; from now on they are in flight.

        Args:
            room: how many bytes they may have, line ends included.

        Returns:
            None where there is nothing, where the first has no room, or where the connection has ended;
            ``on_stored`` tells when that has changed.
        """
        return await self._reader.next(room, lambda: self._shift is not None)

    def acknowledge(self, lane: Priority, up_to: int) -> None:
        """Notes that the hub has everything of ``lane`` up to a sequence; it is deleted soon."""
        self._acks[lane] = max(up_to, self._acks.get(lane, 0))
        if not self._writer.is_working:
            self._writer.wake(ACKNOWLEDGEMENT_DELAY_S)

    async def close(self) -> None:
        """Writes what can be written, and closes the file."""
        self._reader.close()
        await self._writer.close()
        if self.waiting:
            self.log.error("{count} events that wait in memory are lost at this stop.", count=self.waiting)
        await self._file.turn.run(self._file.close)

    # --- what the hub tells ------------------------------------------------------------------------------

    def _tell_forgotten(self, told: Mapping[Priority, int]) -> None:
        if lost := self._at.forgotten(told):
            self.log.warn("The hub no longer knows what it had acknowledged: {lost}.", lost=lost)
            self.put(notices.hub_restored_event(self.agent, self.own_priority, lost, self._now()))
        # Told once; it is written down in the commit that stores the event.
        self._at.acked = dict(told)

    def _jump_past(self, told: Mapping[Priority, int]) -> None:
        waiting = {lane: self._pending.last(lane) for lane in LANES}
        shift = self._at.collision(told, waiting, self._shift)
        highest = max(told.values())
        if shift is None and highest < self._next:
            return
        self.log.warn("The hub holds {highest}, which this spool has not sent; going on behind it.", highest=highest)
        if shift is not None:
            delta = shift.delta - (self._shift.delta if self._shift is not None else 0)
            self._shift = shift
            self._pending.shift(self.spool_id, delta)
            self._next += delta
        self._next = max(self._next, highest + 1)
        self._flushes.retarget(self._next - 1)

    # --- writing -----------------------------------------------------------------------------------------

    def _is_urgent(self) -> bool:
        if self._fatal is not None or (self._writer.is_closed and not self.is_open):
            return False
        is_last_chance = self._writer.is_closed and bool(self._acks)
        return self._pending.has_work or self._told is not None or bool(self._trouble) or is_last_chance

    def _rest(self) -> None:
        if self._acks:
            self._writer.wake(ACKNOWLEDGEMENT_DELAY_S)

    async def _write_once(self) -> None:
        resumes: list[Deferred[None]] = []
        await self._file.turn.acquire()
        try:
            if not self._file.is_open:
                await self._open_file()
            resumes, self._resumes = self._resumes, []
            await self._commit()
        except Exception as error:  # noqa: BLE001 - whatever the database raises is judged
            self._judge(error)
        else:
            self._trouble.over()
        finally:
            self._file.turn.release()
        self._settle_opening()
        if self._shift is not None:  # nothing may be read before it is done
            self._resumes[:0] = resumes
            resumes = []
        for resume in resumes:
            resume.callback(None)
        self.on_stored()

    async def _commit(self) -> None:
        rows, lost = self._pending.take(self._max_rows)
        job, connection = self._job(rows, lost), self._at.connection
        try:
            outcome = await self._file.run(functools.partial(spool_commit.commit, job=job))
        except Exception as error:
            if self._pending.restore() and judge(error) is Fault.REFUSED:
                self._narrow(sum(map(len, rows.values())))
            raise
        self._pending.done()
        self._max_rows = min(MAX_ROWS, self._max_rows * 2)
        self._at.note_commit(job, outcome, connection)
        self._acks = {lane: up_to for lane, up_to in self._acks.items() if up_to != job.acked.get(lane)}
        self._told = None if self._told is job.told else self._told
        self._shift = None if self._shift is job.shift else self._shift
        self.counters.stored += sum(map(len, rows.values()))
        self.counters.acknowledged += outcome.acknowledged
        self.counters.dropped += outcome.dropped - sum(dropped.count for dropped in lost.values())
        self._flushes.settle()

    def _job(self, rows: dict[Priority, list[Row]], lost: dict[Priority, Dropped]) -> Job:
        return Job(
            spool=self.spool_id,
            agent=self.agent,
            now=self._now(),
            last=self._next - 1,
            max_events=self.max_events,
            rows=rows,
            kept=frozenset(self._pending.kept),
            lost=lost,
            acked=dict(self._acks),
            told=self._told,
            shift=self._shift,
            reserved=dict(self._at.read),
            counts=self._at.counts,
            notices=self._at.notices,
        )

    # --- faults ------------------------------------------------------------------------------------------

    def _judge(self, error: Exception) -> None:
        """Decides how it goes on after a failure of the writer, which tries again."""
        if isinstance(error, NewerSchemaError):
            self._file.close()
            self._writer.is_closed = True
            self._fatal = StateError(f"the spool {self.path} cannot be used: {error}")
            return
        is_lost = judge(error) is Fault.CORRUPT
        self._trouble.note(error, is_told=is_lost)
        if is_lost:
            self._give_up_file(error)

    def _give_up_file(self, error: Exception) -> None:
        self.log.error("The spool {path} is lost, another is begun: {reason}", path=self.path, reason=str(error))
        reason = notices.REPLACED if isinstance(error, ReplacedError) else notices.CORRUPT
        self._lost_spool = self._lost_spool or (reason, self.spool_id if self.is_open else None)
        self.is_open = False
        self._file.give_up(error)

    def _narrow(self, rows: int) -> None:
        """Has the next commit write fewer rows, until the one that the database refuses is alone, and goes."""
        if rows > 1:
            self._max_rows = max(1, rows // 2)
            return
        sequence, line = self._pending.refuse_first(notices.REFUSED)
        self.counters.dropped += 1
        self.log.error("The spool's database refuses event {sequence}: {line}", sequence=sequence, line=line[:200])

    def _corrupt_when_read(self, error: Exception) -> None:
        self._judge(error)
        self._writer.wake()

    def _read_again(self) -> None:
        self._writer.wake()  # the file may have to be opened again
        self.on_stored()

    # --- opening -----------------------------------------------------------------------------------------

    async def _open_file(self) -> None:
        opened, is_same_file = await self._file.open()
        if self.is_open and is_same_file and opened.spool == self.spool_id:
            self._at.reopen(opened)
        else:
            self._begin(opened)

    def _begin(self, opened: Opened) -> None:
        """Takes up a file that is new to this process; what waits goes into it, under new numbers."""
        self.spool_id = opened.spool
        self._next = max(opened.last + 1, self._next, int(self._now() * 1e6))
        self._at.begin(opened, self._next)
        self._acks, self._told, self._shift = {}, None, None
        announced, self._lost_spool = self._lost_spool, None
        number = self._next
        self._next = self._pending.renumber(self.spool_id, number + 1)
        if announced is not None:
            event = notices.spool_lost_event(self.agent, self.own_priority, *announced, self._now())
            self._pending.announce(Priority(self.own_priority), event, self.spool_id, number)
        self._flushes.retarget(self._next - 1)
        self.is_open = True
        self.on_identity()

    def _settle_opening(self) -> None:
        opening, self._first_opening = self._first_opening, None
        if opening is not None and self._fatal is None:
            opening.callback(None)
        elif opening is not None and self._fatal is not None:
            opening.errback(self._fatal)
        elif self._fatal is not None:
            self._on_fatal(self._fatal)
