"""A device that floods: what is let through of it, and what is counted. Pure.

Frames beyond the rate are thinned by rule. Of each rule the first event of a second is let through all the same, so
that a device that repeats one line without end does not hide the others; critical events always are.
"""

from __future__ import annotations

import dataclasses

CALM_S = 5.0
"""For how long a device must keep to the rate before its flood is over: one that hovers around it is told once."""


@dataclasses.dataclass(frozen=True)
class Flood:
    """A flood that is over.

    Attributes:
        seconds: how long it was.
        thinned: how many events were left out, by rule.
    """

    seconds: float
    thinned: dict[str, int]

    @property
    def total(self) -> int:
        """How many events were left out."""
        return sum(self.thinned.values())


class FloodGate:
    """Lets through what keeps to a rate: a bucket of tokens for one second.

    Args:
        max_rate: frames a second.
        now_s: by a clock that is never set.
    """

    def __init__(self, max_rate: int, now_s: float) -> None:
        self.max_rate = max_rate
        self._tokens = float(max_rate)
        self._filled_at = now_s
        self._began_at: float | None = None
        self._over_at = 0.0  # when a frame last exceeded the rate
        self._second_at = 0.0
        self._passed: set[str] = set()  # rules that had an event in this second
        self._thinned: dict[str, int] = {}

    @property
    def is_flooding(self) -> bool:
        """Whether a flood has begun and is not over."""
        return self._began_at is not None

    def admit(self, count: int, now_s: float) -> bool:
        """Tells whether no flood goes on and ``count`` frames keep to the rate; else each is to be asked for."""
        self._fill(now_s)
        if self._began_at is not None or self._tokens < count:
            return False
        self._tokens -= count
        return True

    def exceeds(self, now_s: float) -> bool:
        """Counts one frame and tells whether it is beyond the rate; the first one begins a flood."""
        self._fill(now_s)
        if self._tokens >= 1:
            self._tokens -= 1
            return False
        self._over_at = now_s
        if self._began_at is None:
            self._began_at = now_s
            self._thinned = {}
        return True

    def passes(self, rule: str, now_s: float, *, exceeds: bool, is_critical: bool) -> bool:
        """Tells whether an event of a rule is let through; else counts it.

        Args:
            rule: its name.
            now_s: the time.
            exceeds: whether its frame is beyond the rate.
            is_critical: whether it is critical.
        """
        if not 0 <= now_s - self._second_at < 1:
            self._second_at = now_s
            self._passed.clear()
        if not exceeds or is_critical or rule not in self._passed:
            self._passed.add(rule)
            return True
        self._thinned[rule] = self._thinned.get(rule, 0) + 1
        return False

    def calm(self, now_s: float, *, at_once: bool = False) -> Flood | None:
        """Gives the flood that is over; ``at_once`` ends one in any case."""
        if self._began_at is None or (now_s - self._over_at < CALM_S and not at_once):
            return None
        flood = Flood(round(self._over_at - self._began_at, 3), self._thinned)
        self._began_at, self._thinned = None, {}
        return flood

    def _fill(self, now_s: float) -> None:
        self._tokens = min(float(self.max_rate), self._tokens + max(0.0, now_s - self._filled_at) * self.max_rate)
        self._filled_at = now_s
