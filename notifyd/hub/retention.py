"""Retention: what is older than the log is to keep goes, from its beginning only, and never by a clock's mistake."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from notifyd import event as events
from notifyd.config import Duration
from notifyd.database import in_one_line
from notifyd.hub.log import EventLog

SWEEP_MOST_S = 60.0
"""Between two sweeps at most."""

EXPIRE_AT_ONCE = 4_000
"""Events in one commit of a sweep: an event that arrives meanwhile waits for one such commit, some 10 ms.

More than one batch has, with which sweeps take turns: so a log that is filled at full speed does not outgrow them."""

JUMP_S = 3_600.0
"""A clock that goes this much more or less than the monotonic one has jumped."""

DISTRUST_S = 86_400.0
"""How long nothing is deleted after the clock has jumped: a person has this long to look."""


class Retention:
    """Deletes expired events, a few at a time.

    Args:
        reactor: its clock is the monotonic one.
        log: whose events expire.
        keep: how long an event is kept.
        now: the wall clock.
    """

    logger = Logger("notifyd.hub.retention")

    def __init__(self, reactor: Any, log: EventLog, keep: Duration, now: Callable[[], float] = time.time) -> None:
        self._reactor = reactor
        self._log = log
        self._keep = keep
        self._now = now
        self._difference = 0.0  # between the two clocks, when last trusted
        self._distrusted_s: float | None = None
        self._failing = False
        self._stopping = False
        self._loop = LoopingCall(self._sweep)
        self._loop.clock = reactor
        self._done: Deferred[Any] | None = None

    def start(self) -> None:
        """Begins to sweep, at least once a minute."""
        self._difference = self._now() - self._reactor.seconds()
        self._done = self._loop.start(min(SWEEP_MOST_S, max(1.0, float(self._keep) / 10)), now=True)

    async def stop(self) -> None:
        """Stops; a commit that is under way is finished."""
        self._stopping = True
        if self._loop.running:
            self._loop.stop()
        if self._done is not None:
            await self._done

    def _trusts_clock(self) -> bool:
        """Tells whether the wall clock has gone on as the monotonic one has; a jump is distrusted for a day."""
        difference = self._now() - self._reactor.seconds()
        jump = difference - self._difference
        if abs(jump) <= JUMP_S:
            if self._distrusted_s is not None:
                self._distrusted_s = None
                self.logger.info("The clock is back: expired events are deleted again.")
            self._difference = difference
            return True
        if self._distrusted_s is None:
            self._distrusted_s = self._reactor.seconds()
            self.logger.warn(
                "The clock has jumped by {jump} s: nothing is deleted for {hours} hours, unless it jumps back.",
                jump=round(jump),
                hours=round(DISTRUST_S / 3600),
            )
        elif self._reactor.seconds() - self._distrusted_s >= DISTRUST_S:
            self._difference = difference
        return False

    async def _sweep(self) -> None:
        try:
            while not self._stopping and self._trusts_clock():
                cutoff = events.format_time(self._now() - self._keep)
                gone = await self._log.expire(cutoff, EXPIRE_AT_ONCE)
                self._failing = False
                if not gone:
                    return
                self.logger.debug("Expired events were deleted: {gone}", gone=gone)
        except Exception as error:  # noqa: BLE001 - the next sweep tries again; the log's own writer judges the fault
            if not self._failing:
                self._failing = True
                self.logger.error("Expired events cannot be deleted now: {error}", error=in_one_line(error))
