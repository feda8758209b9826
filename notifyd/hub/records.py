"""What the log holds, as the hub's other parts give it and get it: batches, clients, what was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from notifyd.hub.entries import Entries, Position
from notifyd.hub.windows import WindowRow


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

    entries: Entries = field(default_factory=Entries)
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

    ``data`` has their lines, each with its LF; ``last`` is the last one's offset, None where there are no more;
    ``expired`` is up to which offset nothing of the stream is held any more, None where nothing has expired.
    """

    data: bytes
    last: int | None
    events: int
    expired: int | None = None


@dataclass(slots=True)
class Memory:
    """What the hub has to know of its log when it starts."""

    last: int
    clients: list[ClientRow]
    agents: dict[str, bool]
    windows: Sequence[WindowRow] = ()
