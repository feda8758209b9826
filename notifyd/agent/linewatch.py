"""Asks a port's driver, now and then, whether characters were lost or damaged, and tells of it."""

from __future__ import annotations

from collections.abc import Callable

from notifyd.agent.linecounters import Counters, LineCounters
from notifyd.agent.port import OpenPort
from notifyd.agent.teller import Teller
from notifyd.agent.timers import Timers

EVERY_S = 60.0
"""How often the driver is asked, and how often it is told at most."""


class LineWatch:
    """Watches the line of one source.

    Args:
        counters: of the source; gets what is added.
        timers: of the source.
        clock: gives the reactor's seconds.
        teller: of the source.
    """

    def __init__(self, counters: Counters, timers: Timers, clock: Callable[[], float], teller: Teller) -> None:
        self._counters, self._timers, self._clock, self._teller = counters, timers, clock, teller
        self._port: OpenPort | None = None
        self._counted: LineCounters | None = None  # what the driver had counted at the last look
        self._told = LineCounters()
        self._told_at: float | None = None

    def opened(self, port: OpenPort) -> None:
        """Begins with what the driver has counted so far."""
        self._port, self._counted = port, port.line_counters()
        self._timers.later(EVERY_S, self._look)

    def closing(self, *, is_last: bool) -> None:
        """Looks once more; what is not told now is told with what comes later, unless nothing will."""
        self._count()
        self._tell(is_last=is_last)
        self._port = None

    def _look(self) -> None:
        self._count()
        self._tell()
        self._timers.later(EVERY_S, self._look)

    def _count(self) -> None:
        after = None if self._port is None else self._port.line_counters()
        if after is not None and self._counted is not None:
            self._counters.line = self._counters.line.plus(after.since(self._counted))
        self._counted = after

    def _tell(self, *, is_last: bool = False) -> None:
        new = self._counters.line.since(self._told)
        is_early = self._told_at is not None and self._clock() < self._told_at + EVERY_S
        if not (new.lost or new.damaged) or (is_early and not is_last):
            return
        self._told, self._told_at = self._counters.line, self._clock()
        self._teller.warn(
            "Source {source}: the driver reports {lost} characters lost and {damaged} damaged",
            lost=new.lost,
            damaged=new.damaged,
        )
        fields = new._asdict()
        del fields["breaks"]
        line = f"{self._teller.source}: {new.lost} characters were lost and {new.damaged} came damaged"
        self._teller.tell("errors", line, fields)
