"""The demo's account: where every event was seen on its way, and whether all of it adds up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from notifyd.event import LANES, Priority

OWN = "own"
"""The column of the events that the daemons send about themselves."""

COLUMNS = (*(lane.value for lane in LANES), OWN)

AGENT = "/ward3/"
"""How the source of the agent's events begins."""

TOLD = ("notifyd.source.lost", "notifyd.source.restored")
"""What the agent must have told of the cable."""

NAMED = 3
"""Lines that a complaint names; the rest is counted."""


@dataclass(frozen=True)
class Printed:
    """One line of the panel's."""

    line: str
    priority: Priority
    cable: bool  # whether the cable was in, so that somebody could read it


@dataclass(frozen=True)
class Seen:
    """What the account needs of an event."""

    offset: str
    source: str
    id: str
    type: str
    priority: str
    line: str
    fields: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What makes an event the same event."""
        return self.source, self.id

    @property
    def is_own(self) -> bool:
        """Whether a daemon sent it about itself."""
        return self.type.startswith("notifyd.")

    @property
    def column(self) -> str:
        """Where it is counted."""
        return OWN if self.is_own else self.priority


@dataclass(frozen=True)
class Delivery:
    """One event line that a client was sent."""

    stream: str
    connection: int  # of this client's, counted from 1
    event: Seen


class _Data(msgspec.Struct, frozen=True):
    line: str = ""
    fields: dict[str, Any] = {}


class _Line(msgspec.Struct):
    offset: str
    source: str
    id: str
    type: str
    priority: str
    data: _Data = _Data()


_decode = msgspec.json.Decoder(_Line).decode


def read_event(line: bytes) -> Seen:
    """Reads an event as the hub stores and sends it.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    event = _decode(line)
    return Seen(event.offset, event.source, event.id, event.type, event.priority, event.data.line, event.data.fields)


@dataclass
class Account:
    """What was counted, by whom.

    Attributes:
        printed: the panel's lines.
        agent: the counters of the agent.
        waiting: what was in the agent's spool, by lane, just before the hub came back.
        hub: the counters of the hub since its restart.
        stored_before: events in the hub's database while the hub was dead.
        stored: events in the hub's database at the end.
        deliveries: what each client was sent, by stream.
        gaps: what the hub said it no longer held.
        lines_since_restart: event lines that the clients read from the hub since its restart.
        outage: the panel's lines that were printed while the hub was down.
    """

    printed: Sequence[Printed]
    agent: Mapping[str, int]
    waiting: Mapping[str, int]
    hub: Mapping[str, int]
    stored_before: int
    stored: Sequence[Seen]
    deliveries: Mapping[str, Sequence[Delivery]]
    gaps: Sequence[str] = ()
    lines_since_restart: int = 0
    outage: Sequence[str] = ()
    _firsts: dict[str, list[Seen]] = field(init=False, repr=False)
    _repeats: list[tuple[Delivery, Delivery]] = field(init=False, repr=False)  # first and later

    def __post_init__(self) -> None:
        self._firsts, self._repeats = {}, []
        for stream, deliveries in self.deliveries.items():
            first: dict[tuple[str, str], Delivery] = {}
            for delivery in deliveries:
                earlier = first.setdefault(delivery.event.key, delivery)
                if earlier is not delivery:
                    self._repeats.append((earlier, delivery))
            self._firsts[stream] = [delivery.event for delivery in first.values()]

    # --- figures -------------------------------------------------------------------------------------------

    def readable(self, lane: str | None = None) -> list[str]:
        """Gives the lines that were printed with the cable in."""
        return [each.line for each in self.printed if each.cable and lane in (None, each.priority.value)]

    def printed_by(self, *, cable: bool) -> dict[str, int]:
        """Counts what was printed with the cable in, or out."""
        return _by_column(each.priority.value for each in self.printed if each.cable == cable)

    def stored_by(self) -> dict[str, int]:
        """Counts what the hub has stored."""
        return _by_column(event.column for event in self.stored)

    def delivered_by(self) -> dict[str, int]:
        """Counts what the clients were sent, each event once."""
        return _by_column(event.column for events in self._firsts.values() for event in events)

    def repeated_by(self) -> dict[str, int]:
        """Counts what the clients were sent again."""
        return _by_column(later.event.column for _, later in self._repeats)

    def lost_by(self) -> dict[str, int]:
        """Counts what was printed with the cable in, or stored of the daemons' own, and never came to its client."""
        missing: list[str] = []
        for lane in LANES:
            come = {event.line for event in self._firsts.get(lane, ()) if not event.is_own}
            missing += [lane.value for line in self.readable(lane) if line not in come]
        come_own = {event.key for events in self._firsts.values() for event in events if event.is_own}
        missing += [OWN for event in self.stored if event.is_own and event.key not in come_own]
        return _by_column(missing)

    @property
    def sent_again(self) -> int:
        """How many events the agent sent more than once."""
        return self.agent.get("sent", 0) - self.agent.get("stored", 0)

    # --- whether they add up -------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Says what does not add up, a sentence each; nothing where all does."""
        found = [*self._agent_problems(), *self._hub_problems(), *self._order_problems()]
        for stream in self.deliveries:
            found += self._client_problems(stream)
        found += [f"the hub told a client of a gap: {gap}" for gap in self.gaps]
        return found

    def _agent_problems(self) -> list[str]:
        agent, printed = self.agent, len(self.readable())
        own = sum(event.is_own and event.source.startswith(AGENT) for event in self.stored)
        return [
            *_differ("the panel printed with the cable in", printed, "the agent read", agent.get("read")),
            *_differ("the agent stored", agent.get("stored"), "it read, and told of itself", printed + own),
            *_differ("the agent stored", agent.get("stored"), "the hub acknowledged", agent.get("acknowledged")),
            *_differ("the agent dropped", agent.get("dropped"), "it should have dropped", 0),
            *_differ("the hub rejected of the agent's", agent.get("rejected"), "it should have rejected", 0),
            *(["the agent counts fewer events sent than stored"] if self.sent_again < 0 else []),
        ]

    def _hub_problems(self) -> list[str]:
        hub, found = self.hub, []
        found += _differ("the hub rejected", hub.get("rejected"), "it should have rejected", 0)
        since = len(self.stored) - self.stored_before
        found += _differ("the hub's counter has stored since its restart", hub.get("stored"), "its database has", since)
        own = sum(event.is_own and not event.source.startswith(AGENT) for event in self.stored)
        new = hub.get("received", 0) - hub.get("repeats", 0) - hub.get("rejected", 0)
        if not 0 <= since - new <= own:
            found.append(f"the hub received {new} new events since its restart, but stored {since}")
        sent = hub.get("delivered")
        found += _differ("the hub has sent since its restart", sent, "the clients read", self.lines_since_restart)
        twice = [f"{source} {id_}" for (source, id_), times in _count(event.key for event in self.stored) if times > 1]
        found += _named("stored twice by the hub", twice)
        expected = {line: lane.value for lane in LANES for line in self.readable(lane)}
        for event in self.stored:
            if not event.is_own and expected.get(event.line) != event.priority:
                found.append(f"the hub stored as {event.priority} what it should not: {event.line!r}")
        for lane in LANES:
            stored = [event.line for event in self.stored if event.column == lane]
            found += _sequence_problems(self.readable(lane), stored, f"stored by the hub as {lane}")
        told = {event.type for event in self.stored}
        found += [f"nobody was told {each}" for each in TOLD if each not in told]
        return found

    def _order_problems(self) -> list[str]:
        """Looks whether what waited for the hub came in the order of its urgency."""
        waited = [event for event in self.stored[self.stored_before :] if event.line in set(self.outage)]
        ranks = [LANES.index(Priority(event.priority)) for event in waited if event.priority in tuple(LANES)]
        return [] if ranks == sorted(ranks) else ["what waited for the hub did not come critical first"]

    def _client_problems(self, stream: str) -> list[str]:
        expected = [f"{event.source} {event.id}" for event in self.stored if event.priority == stream]
        come = [f"{event.source} {event.id}" for event in self._firsts[stream]]
        found = _sequence_problems(expected, come, f"delivered to the client of {stream}")
        for first, later in self._repeats:
            if later.stream != stream:
                continue
            # A position that was not written yet when the hub was killed: the only reason for a repeat.
            if later.connection <= first.connection or later.event.offset != first.event.offset:
                found.append(f"delivered twice to the client of {stream} without a reason: {later.event.line!r}")
        return found


def _by_column(columns: Iterable[str]) -> dict[str, int]:
    counts = Counter(columns)
    return {column: counts[column] for column in COLUMNS} | {
        column: count for column, count in counts.items() if column not in COLUMNS
    }


def _count(keys: Iterable[tuple[str, str]]) -> Iterable[tuple[tuple[str, str], int]]:
    return Counter(keys).items()


def _differ(what: str, one: int | None, other_what: str, other: int | None) -> list[str]:
    if one is not None and one == other:
        return []
    shown = ["no figure" if figure is None else str(figure) for figure in (one, other)]
    return [f"{what} {shown[0]}, but {other_what} {shown[1]}"]


def _sequence_problems(expected: Sequence[str], actual: Sequence[str], what: str) -> list[str]:
    """Compares two sequences, and says what is missing, what is too much, and whether the order is another."""
    if list(expected) == list(actual):
        return []
    missing, extra = Counter(expected) - Counter(actual), Counter(actual) - Counter(expected)
    found = _named(f"not {what}", missing.elements()) + _named(f"{what}, but not expected", extra.elements())
    return found or [f"{what} in the wrong order"]


def _named(what: str, lines: Iterable[str]) -> list[str]:
    all_lines = list(lines)
    if not all_lines:
        return []
    more = f" and {len(all_lines) - NAMED} more" if len(all_lines) > NAMED else ""
    return [f"{what}: {', '.join(repr(line) for line in all_lines[:NAMED])}{more}"]
