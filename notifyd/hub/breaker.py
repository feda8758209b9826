"""A circuit breaker: knows whether a database is ill, tells it, and has it tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel

OPENS_AFTER = 3
"""Failures of the database in a row: one may be chance, and each costs somebody the timeout."""

FIRST_TRIAL_S = 1.0
LAST_TRIAL_S = 30.0
"""After what time a database that failed is tried again: first, and at most; each time it is doubled."""

Tell = Callable[[str, str, str, dict[str, object]], None]
"""Queues an event of the hub's own: its type, source, line and fields."""


class Breaker:
    """Knows whether the database is ill, tells it, and has it tried again."""

    logger = Logger("notifyd.hub.lookup")

    def __init__(self, name: str, clock: Any, tell: Tell, attempt: Callable[[], None]) -> None:
        self.is_open = False
        self._name = name
        self._clock = clock
        self._tell = tell
        self._attempt = attempt
        self._failures = 0
        self._since_s = 0.0
        self._reason = ""
        self._delay_s = FIRST_TRIAL_S
        self._timer: Any = None

    def failed(self, reason: str) -> None:
        """Counts a failure of the database."""
        if self._failures == 0:
            self._since_s = self._clock.seconds()
        self._failures += 1
        if self.is_open or self._failures < OPENS_AFTER:
            return
        self.is_open = True
        self._reason = reason
        self._say("notifyd.lookup.lost", "Lookup {lookup} is lost, events go on without it: {reason}")

    def over(self) -> None:
        """Is called when a question that failed has come to its end: the next is put a while later."""
        if self.is_open and self._timer is None:
            self._timer = self._clock.callLater(self._delay_s, self._again)
            self._delay_s = min(2 * self._delay_s, LAST_TRIAL_S)

    def succeeded(self) -> None:
        """Notes that the database has answered in time."""
        if self.is_open:
            self.is_open = False
            self._say("notifyd.lookup.restored", "Lookup {lookup} works again after {seconds} s: {reason}")
        self._failures = 0
        self._delay_s = FIRST_TRIAL_S
        self.stop()

    def stop(self) -> None:
        """Has nothing tried any more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _again(self) -> None:
        self._timer = None
        self._attempt()

    def _say(self, kind: str, sentence: str) -> None:
        seconds = round(self._clock.seconds() - self._since_s, 3)
        fields: dict[str, object] = {"lookup": self._name, "reason": self._reason, "seconds": seconds}
        level = LogLevel.warn if self.is_open else LogLevel.info
        self.logger.emit(level, sentence, **fields)
        self._tell(kind, f"/hub/lookup/{self._name}", sentence.format(**fields), fields)
