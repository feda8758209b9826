"""Intake: event lines to drafts. What is no acceptable event becomes one of the hub's own; repeats are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import lt
from typing import Any, Protocol

from msgspec import UNSET
from twisted.logger import Logger

from notifyd import event as events
from notifyd import manyevents
from notifyd.event import HINTS, Event, NotAcceptableError, Priority
from notifyd.hub.draft import Draft
from notifyd.hub.entries import Entry, Kind, LaneRun, Position
from notifyd.hub.spools import Spool

MAX_SEQUENCE = 2**63 - 1
"""What the database's integers hold."""

MOST_DIGITS = 40
"""Of a sequence, with the zeros in front of it."""


class Producer(Protocol):
    """The connection that event lines came from."""

    agent: str | None
    spool: Spool | None

    def stored(self, parcels: Sequence[Parcel]) -> None:
        """Is called when these parcels' lines are durable."""


@dataclass(slots=True)
class Parcel:
    """Event lines that one read of one connection brought, or events of the hub's own."""

    producer: Producer | None
    lines: Sequence[bytes]
    received_s: float
    number: int = 0  # of the first line, counted from 1 over its connection
    size: int = 0  # bytes of the lines
    own: Sequence[Event] = ()
    rejects: list[tuple[int, str]] = field(default_factory=list)
    agents: Mapping[str, bool] = field(default_factory=dict)  # whether they are lost, as an own event tells
    positions: dict[str, Position] = field(default_factory=dict)  # by lane: the last that was taken in
    count: int = field(init=False)  # of the lines, which are let go once they are read

    def __post_init__(self) -> None:
        self.count = len(self.lines)


@dataclass(slots=True)
class Refusal:
    """A line that is no acceptable event, and why."""

    line: bytes
    reason: str
    received: str


@dataclass(slots=True)
class Counters:
    """What came in and what became of it, since the start."""

    received: int = 0
    repeats: int = 0
    rejected: int = 0
    suppressed: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # by the rule that discarded it


class Intake:
    """Reads parcels.

    Args:
        counters: are brought up to date.
    """

    logger = Logger("notifyd.hub.pipeline")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def read(self, parcel: Parcel, items: list[Draft | Refusal]) -> None:
        """Appends what a parcel's lines are, in their order."""
        received = events.format_time(parcel.received_s)
        self._counters.received += len(parcel.lines)
        found = manyevents.decode_all(parcel.lines) if parcel.lines else []
        if found is None or not self._take_all(parcel, found, received, items):
            self._read_each(parcel, received, items)
        items.extend(Draft(event, received, parcel.received_s, own=True) for event in parcel.own)
        parcel.lines = ()

    def _take_all(self, parcel: Parcel, found: Sequence[Event], received: str, items: list[Draft | Refusal]) -> bool:
        """Appends drafts of all events at once; False where that cannot be done, and nothing was."""
        producer, count = parcel.producer, len(found)
        spool = None if producer is None else producer.spool
        positions: Iterable[Position | None] = repeat(None, count)
        if producer is not None and spool is not None and count:
            run = lane_run(found, spool, producer.agent or "")
            if run is None or len({event.priority for event in found}) > 1:
                return False
            taken = [Position(run.spool, run.lane, run.agent, int(text)) for text in run.sequences]
            parcel.positions[run.lane] = taken[-1]
            positions = taken
            spool.known[run.lane] = taken[-1].sequence
        items += map(Draft, found, repeat(received), repeat(parcel.received_s), parcel.lines, positions)
        return True

    def _read_each(self, parcel: Parcel, received: str, items: list[Draft | Refusal]) -> None:
        producer = parcel.producer
        spool = None if producer is None else producer.spool
        agent = "" if producer is None else producer.agent or ""
        for number, line in enumerate(parcel.lines, parcel.number):
            try:
                event = events.decode(line)
                position = None
                if spool is not None:
                    position = read_position(event, spool, agent)
                    if spool.is_repeat(position.lane, position.sequence):
                        self._counters.repeats += 1
                        continue
                    parcel.positions[position.lane] = position
                items.append(Draft(event, received, parcel.received_s, line, position))
            except NotAcceptableError as error:
                self._refuse(parcel, number, Refusal(line, str(error), received), items)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must cost one event's priority, not the hub
                self.logger.failure("An event could not be read.")
                reason = f"it could not be processed: {type(error).__name__}"
                self._refuse(parcel, number, Refusal(line, reason, received), items)

    def _refuse(self, parcel: Parcel, number: int, refusal: Refusal, items: list[Draft | Refusal]) -> None:
        self._counters.rejected += 1
        parcel.rejects.append((number, refusal.reason))
        items.append(refusal)


def read_position(event: Event, spool: Spool, agent: str) -> Position:
    """Gives what a spool's event says about its spool.

    Raises:
        NotAcceptableError: it says nothing.
    """
    lane, sequence = event.priority, event.sequence
    if sequence is UNSET or not (sequence.isascii() and sequence.isdigit()) or len(sequence) > MOST_DIGITS:
        raise NotAcceptableError("attribute sequence is no decimal number, which an event of a spool needs")
    number = int(sequence)
    if number > MAX_SEQUENCE:
        raise NotAcceptableError("attribute sequence is too large")
    if lane is UNSET or lane not in HINTS:
        raise NotAcceptableError(
            "attribute priority is none of normal, important and critical, which an event of a spool needs"
        )
    return Position(spool.name, lane, agent, number)


def lane_run(found: Sequence[Event], spool: Spool, agent: str) -> LaneRun | None:
    """Gives the positions of a spool's events, at least one, that have one priority.

    Returns:
        None unless their sequences have as many figures, ascend, and are above what is known of their lane.
    """
    lane = found[0].priority
    texts: list[Any] = [event.sequence for event in found]
    if UNSET in texts or lane is UNSET or lane not in HINTS:
        return None
    figures, sizes = "".join(texts), set(map(len, texts))
    if not (figures.isascii() and figures.isdigit() and len(sizes) == 1 and max(sizes) <= MOST_DIGITS):
        return None
    if not spool.known[lane] < int(texts[0]) <= int(texts[-1]) <= MAX_SEQUENCE or not all(map(lt, texts, texts[1:])):
        return None
    return LaneRun(spool.name, lane, agent, texts)


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
    kind = Kind(Priority.ERROR.value, agent=None if position is None else position.agent)
    return Entry(offset, events.encode(event), kind, position)
