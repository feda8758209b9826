"""What is counted of a source, and of its line: characters that were lost or damaged on their way. Pure."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class LineCounters(NamedTuple):
    """What a port's driver, or the server that has the port, counted since it was opened."""

    overrun: int = 0  # characters that the hardware had no room for
    frame: int = 0  # characters without a stop bit
    parity: int = 0  # characters of the wrong parity
    buffer_overrun: int = 0  # characters that the kernel had no room for
    breaks: int = 0  # no errors: a line that is held low

    @property
    def lost(self) -> int:
        """How many characters were lost."""
        return self.overrun + self.buffer_overrun

    @property
    def damaged(self) -> int:
        """How many characters came damaged."""
        return self.frame + self.parity

    def since(self, before: LineCounters) -> LineCounters:
        """Gives what was added since; a counter that went back, as when a driver begins anew, has added nothing."""
        return LineCounters(*(max(0, now - then) for now, then in zip(self, before, strict=True)))

    def plus(self, more: LineCounters) -> LineCounters:
        """Gives the sums."""
        return LineCounters(*(one + other for one, other in zip(self, more, strict=True)))


@dataclasses.dataclass
class Counters:
    """What became of what one source printed, since the agent began to read it.

    Attributes:
        openings: how often its port was opened.
        bytes: read.
        frames: read.
        thinned: events that were left out in floods.
        not_taken: replies and polls that its device did not take, or that were of no use any more.
        line: what the driver counted.
    """

    openings: int = 0
    bytes: int = 0
    frames: int = 0
    thinned: int = 0
    not_taken: int = 0
    line: LineCounters = dataclasses.field(default_factory=LineCounters)
