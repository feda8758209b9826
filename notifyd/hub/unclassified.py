"""What nothing classified, told to the operator: at once where it is new, as counts where it goes on."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from notifyd.conditions import short
from notifyd.event import Event

WINDOW_S = 60.0
"""After a warning of a type the next one comes at the earliest after so long, with the count."""

MAX_TYPES = 100
"""Types that are told apart at a time: a producer that makes up types fills neither the memory nor the log."""

MAX_REASON = 300
"""Characters of a reason in the log."""


class Unclassified:
    """Warns of events that nothing classified, by type, without a line for each of them.

    Args:
        clock: for the windows.
        window_s: how long events of a type are counted before they are told.
    """

    logger = Logger("notifyd.hub.unclassified")

    def __init__(self, clock: Any, window_s: float = WINDOW_S) -> None:
        self._clock = clock
        self._window_s = window_s
        self._types: dict[str | None, _Window] = {}  # None: all other types; the window that ends first comes first
        self._timer: Any = None

    def tell(self, event: Event, reason: str | None) -> None:
        """Notes an event that nothing classified, and why."""
        kind: str | None = short(event.type)
        window = self._types.get(kind)
        if window is None and len(self._types) >= MAX_TYPES:
            kind = None
            window = self._types.get(None)
        if window is not None:
            window.count += 1
            return
        self._types[kind] = _Window(self._clock.seconds(), 0 if kind is not None else 1)
        if kind is not None:
            self.logger.warn(
                "Nothing classified an event of type {type!r} from {source!r}, id {id!r}: {reason}."
                " More of this type are counted for {seconds} s.",
                type=kind,
                source=short(event.source),
                id=short(event.id),
                reason=(reason or "")[:MAX_REASON],
                seconds=round(self._window_s),
            )
        if self._timer is None:
            self._timer = self._clock.callLater(self._window_s, self._end_windows)

    def stop(self) -> None:
        """Tells what has been counted; an event that comes after is as if it were the first."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        types, self._types = self._types, {}
        for kind, window in types.items():
            self._say(kind, window)

    def _end_windows(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while self._types:
            kind, window = next(iter(self._types.items()))
            left = window.start_s + self._window_s - now
            if left > 0:
                self._timer = self._clock.callLater(left, self._end_windows)
                return
            del self._types[kind]
            if window.count:
                self._say(kind, window)
                self._types[kind] = _Window(now, 0)

    def _say(self, kind: str | None, window: _Window) -> None:
        if not window.count:
            return
        seconds = round(self._clock.seconds() - window.start_s)
        if kind is None:
            self.logger.warn(
                "Nothing classified {count} events of other types in {seconds} s.", count=window.count, seconds=seconds
            )
        else:
            self.logger.warn(
                "Nothing classified {count} more events of type {type!r} in {seconds} s.",
                count=window.count,
                type=kind,
                seconds=seconds,
            )


class _Window:
    """How many events of a type have come since when."""

    __slots__ = ("count", "start_s")

    def __init__(self, start_s: float, count: int) -> None:
        self.start_s = start_s
        self.count = count
