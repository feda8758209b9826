"""Notices that a device says nothing any more, though its port is open."""

from __future__ import annotations

from collections.abc import Callable

from notifyd.agent.teller import Teller
from notifyd.agent.timers import Timers


class Silence:
    """Watches one source; it is told as silent once, until it speaks again.

    Args:
        limit_s: how long it may say nothing; None where for ever.
        timers: of the source.
        clock: gives the reactor's seconds.
        teller: of the source.
    """

    def __init__(self, limit_s: float | None, timers: Timers, clock: Callable[[], float], teller: Teller) -> None:
        self._limit_s = limit_s
        self._timers, self._clock, self._teller = timers, clock, teller
        self._spoke_at = 0.0
        self._bytes = 0  # since the port was opened, or the last silence ended
        self._is_silent = False

    def opened(self) -> None:
        """Begins to count, unless the source was told to be silent and has not spoken since."""
        self._bytes = 0
        self._watch()

    def spoke(self, count: int) -> None:
        """Notes that so many bytes have come."""
        self._spoke_at = self._clock()
        if self._is_silent:
            self._is_silent = False
            self._bytes = 0
            self._teller.info("Source {source} speaks again")
            self._watch()
        self._bytes += count

    def _watch(self) -> None:
        self._spoke_at = self._clock()
        if self._limit_s is not None and not self._is_silent:
            self._timers.later(self._limit_s, self._look)

    def _look(self) -> None:
        limit_s = float(self._limit_s or 0)
        remaining = self._spoke_at + limit_s - self._clock()
        if remaining > 0.001:  # it has spoken since; a timer that each read pushes on would cost more
            self._timers.later(remaining, self._look)
            return
        self._is_silent = True
        self._teller.warn("Source {source} has been silent for {seconds} s", seconds=limit_s)
        line = f"{self._teller.source} has printed nothing for {limit_s:g} s"
        self._teller.tell("silent", line, {"seconds": limit_s, "bytes": self._bytes})
