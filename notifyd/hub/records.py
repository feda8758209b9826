"""What the log holds, as the hub's other parts give it and get it: entries, positions, clients, windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from notifyd.event import Event
from notifyd.hub.windows import WindowRow


class Position(msgspec.Struct, frozen=True, gc=False):
    """How far a spool's lane has come: set when the event that carries it is stored, or dropped by a rule."""

    spool: str
    lane: str
    agent: str
    sequence: int


class Entry(msgspec.Struct, gc=False):
    """An event that is about to be stored.

    Attributes:
        offset: its place in the log.
        event: as it is sent, with ``offset``, ``received``, ``priority`` and ``rule``.
        line: the same, encoded.
        position: what its storing says about its spool.
        hint: the priority that its producer gave it.
        suppressed: whether it repeats another and is sent to nobody.
    """

    offset: int
    event: Event
    line: bytes
    position: Position | None = None
    hint: str | None = None
    suppressed: bool = False

    def row(self) -> tuple[object, ...]:
        """Gives the columns of table ``event``."""
        event, position = self.event, self.position
        return (
            self.offset, event.id, event.source, event.type, event.priority, event.time, event.received,
            None if position is None else position.agent, event.rule, self.line.decode(), self.hint, self.suppressed,
        )  # fmt: skip


class ClientRow(NamedTuple):
    """A registered client's row of table ``subscriber``."""

    name: str
    stream: str
    acked: int
    seen: str


@dataclass(slots=True)
class Batch:
    """What is stored in one commit.

    ``positions`` tell how far spools' lanes have come with it, one for each lane: by its entries, and by events that a
    rule has discarded, which are dealt with and must not come again.
    """

    entries: list[Entry] = field(default_factory=list)
    clients: Sequence[ClientRow] = ()
    agents: dict[str, bool] = field(default_factory=dict)  # name to whether it is lost
    positions: Sequence[Position] = ()
    windows: tuple[Sequence[WindowRow], Sequence[int]] = ((), ())  # of repeats: those that changed, those that ended


def highest(positions: Iterable[Position]) -> list[Position]:
    """Gives the highest position of each lane of each spool."""
    found: dict[tuple[str, str], Position] = {}
    for position in positions:
        known = found.get(key := (position.spool, position.lane))
        if known is None or position.sequence > known.sequence:
            found[key] = position
    return list(found.values())


class Found(NamedTuple):
    """Some events of the log.

    ``data`` has their lines, each with its LF; ``last`` is the last one's offset, None where there are no more.
    """

    data: bytes
    last: int | None
    events: int


@dataclass(slots=True)
class Memory:
    """What the hub has to know of its log when it starts."""

    last: int
    clients: list[ClientRow]
    agents: dict[str, bool]
    windows: Sequence[WindowRow] = ()
