"""Timers that are known by what they call: set anew, and cancelled together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Timers:
    """The timers of one source.

    Args:
        reactor: runs them.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: dict[Callable[[], None], Any] = {}

    def __contains__(self, call: Callable[[], None]) -> bool:
        return call in self._calls

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Calls it after a while, and not when it was to be called before."""

        def run() -> None:
            del self._calls[call]
            call()

        self.cancel(call)
        self._calls[call] = self._reactor.callLater(delay_s, run)

    def due_at(self, call: Callable[[], None]) -> float | None:
        """Gives when it will be called, by the reactor's clock; None where it will not."""
        timer = self._calls.get(call)
        return None if timer is None else timer.getTime()

    def cancel(self, call: Callable[[], None]) -> None:
        """Does not call it."""
        if (timer := self._calls.pop(call, None)) is not None:
            timer.cancel()

    def cancel_all(self) -> None:
        """Calls nothing."""
        for call in list(self._calls):
            self.cancel(call)
