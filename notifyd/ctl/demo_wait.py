"""How the demo waits: for something to be so, for a bounded time, and no longer once something has failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred


class DemoError(Exception):
    """The demo cannot go on; the text is a sentence for whoever started it."""


class Changes:
    """Is told of every change, and lets the story wait for what it needs.

    Args:
        clock: the reactor, or what keeps the time in its place.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._look_call: Any = None
        self._error: Exception | None = None

    def happened(self) -> None:
        """Has everyone who waits look again, soon."""
        if self._look_call is None and self._waiting:
            # Later, so that the story never goes on inside of what told the change.
            self._look_call = self._clock.callLater(0, self._look)

    def fail(self, error: Exception) -> None:
        """Ends every wait, now and from now on, by ``error``; the first one counts."""
        self._error = self._error or error
        self.happened()

    async def until(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Waits until a condition holds.

        Args:
            what: what is waited for, as in "the hub to be ready".
            condition: is looked at after each change.
            timeout_s: how long.

        Raises:
            DemoError: it took too long.
        """
        if not await self.settles(condition, timeout_s):
            raise DemoError(f"waited {timeout_s:g} s in vain for {what}")

    async def pause(self, seconds: float) -> None:
        """Waits for the human eye."""
        await self.settles(lambda: False, seconds)

    async def settles(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until a condition holds, and tells whether it does in the end."""
        waiter: Deferred[None] = Deferred()
        entry = (condition, waiter)
        self._waiting.append(entry)
        self.happened()
        timer = self._clock.callLater(timeout_s, waiter.callback, None)
        try:
            await waiter
        finally:
            self._waiting.remove(entry)
            if timer.active():
                timer.cancel()
            if not self._waiting and self._look_call is not None:
                self._look_call.cancel()
                self._look_call = None
        return condition()

    def _look(self) -> None:
        self._look_call = None
        for condition, waiter in tuple(self._waiting):
            if waiter.called:
                continue
            if self._error is not None:
                waiter.errback(self._error)
            elif condition():
                waiter.callback(None)
