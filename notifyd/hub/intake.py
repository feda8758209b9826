"""Intake: event lines to drafts. What is no acceptable event becomes one of the hub's own; repeats are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import UNSET
from twisted.logger import Logger

from notifyd import event as events
from notifyd.event import HINTS, Event, NotAcceptableError, Priority
from notifyd.hub.draft import Draft
from notifyd.hub.records import Entry, Position
from notifyd.hub.spools import Spool

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
    """Event lines that one read of one connection brought, or events of the hub's own."""

    producer: Producer | None
    lines: Sequence[bytes]
    received_s: float
    number: int = 0  # of the first line, counted from 1 over its connection
    size: int = 0  # bytes of the lines
    own: Sequence[Event] = ()
    rejects: list[tuple[int, str]] = field(default_factory=list)


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
        received_s = parcel.received_s
        received = events.format_time(received_s)
        self._counters.received += len(parcel.lines)
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
                items.append(Draft(event, received, received_s, line, position))
            except NotAcceptableError as error:
                self._refuse(parcel, number, Refusal(line, str(error), received), items)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must cost one event's priority, not the hub
                self.logger.failure("An event could not be read.")
                reason = f"it could not be processed: {type(error).__name__}"
                self._refuse(parcel, number, Refusal(line, reason, received), items)
        items.extend(Draft(event, received, received_s, own=True) for event in parcel.own)

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
    if sequence is UNSET or not (sequence.isascii() and sequence.isdigit()) or len(sequence) > 40:
        raise NotAcceptableError("attribute sequence is no decimal number, which an event of a spool needs")
    number = int(sequence)
    if number > MAX_SEQUENCE:
        raise NotAcceptableError("attribute sequence is too large")
    if lane is UNSET or lane not in HINTS:
        raise NotAcceptableError(
            "attribute priority is none of normal, important and critical, which an event of a spool needs"
        )
    return Position(spool.name, lane, agent, number)


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
    return Entry(offset, event, events.encode(event), position)
