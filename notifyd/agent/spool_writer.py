"""The spool's writer: when it works, when it rests, and how it stops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from notifyd.agent.spool_reader import Trouble


class Writer:
    """Calls ``once`` as long as there is something to write, one call at a time.

    Args:
        clock: for waits.
        once: commits what has gathered; it notes its failures in ``trouble``.
        is_urgent: whether something has to be written at once.
        trouble: the failures in a row, which say how long to wait.
        on_rest: is called when nothing is urgent any more.

    Attributes:
        is_working: whether it looks for more by itself, so that it need not be woken.
        is_closed: whether it was stopped.
    """

    log = Logger("notifyd.agent")

    def __init__(
        self,
        clock: Any,
        once: Callable[[], Coroutine[Any, Any, None]],
        is_urgent: Callable[[], bool],
        trouble: Trouble,
        on_rest: Callable[[], None],
    ) -> None:
        self.is_working = self.is_closed = False
        self._clock, self._once, self._is_urgent, self._trouble = clock, once, is_urgent, trouble
        self._on_rest = on_rest
        self._call: Any = None
        self._work: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None

    def wake(self, delay_s: float = 0.0) -> None:
        """Has it work after ``delay_s`` at the latest: until then more may gather."""
        if self.is_working or self.is_closed:
            return
        if self._call is not None:
            if self._call.getTime() <= self._clock.seconds() + delay_s:
                return
            self._call.cancel()
        self._call = self._clock.callLater(delay_s, self._start)

    def _start(self) -> None:
        self._call = None
        self.is_working = True
        self._work = Deferred.fromCoroutine(self._run())
        self._work.addErrback(lambda failure: self.log.failure("The spool's writer has stopped.", failure))

    async def _run(self) -> None:
        try:
            await self._once()
            while self._is_urgent() and not (self.is_closed and self._trouble):
                if self._trouble:
                    await self._sleep(self._trouble.delay_s)
                await self._once()
        finally:
            self.is_working = False
        self._on_rest()

    async def _sleep(self, seconds: float) -> None:
        self._pause = deferLater(self._clock, seconds)
        with contextlib.suppress(defer.CancelledError):  # it is being stopped
            await self._pause
        self._pause = None

    async def close(self) -> None:
        """Writes what is urgent, with one last try where it fails, and stops."""
        self.is_closed = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._pause is not None:
            self._pause.cancel()
        if not self.is_working and self._is_urgent():
            self._start()
        if self._work is not None:
            finished: Deferred[None] = Deferred()
            self._work.addBoth(finished.callback)
            await finished
