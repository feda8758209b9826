"""How fast the log is read back while the hub has its hands full: new events come first, unless others would expire."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from notifyd import event as events

RATE = 58 * 2**20
"""Bytes of pages a second for all clients together: some 160,000 events that came with 256 bytes each, which costs new
ones about a tenth of their rate (measured on two cores)."""

LONGEST_S = 1.0
"""A page waits no longer, however many clients read the log."""

SAFE = 0.5
"""Of the retention: who is at an event that is older is never held back."""


class Pace:
    """Tells how long the next page of the log has to wait.

    Args:
        reactor: its clock is used.
        is_pressed: tells whether new events are stored as fast as the hub can.
        keep_s: the retention.
        now: the wall clock.
    """

    def __init__(
        self, reactor: Any, is_pressed: Callable[[], bool], keep_s: float, now: Callable[[], float] = time.time
    ) -> None:
        self._reactor = reactor
        self._is_pressed = is_pressed
        self._keep_s = keep_s
        self._now = now
        self._free_s = 0.0  # when all pages that were asked for have had their time

    def wait_s(self, size: int, received: str | None) -> float:
        """Gives for how many seconds a page is to wait, and counts it.

        Args:
            size: bytes that it may have.
            received: of the event that it comes behind; None where that is not known.
        """
        if not self._is_pressed() or received is None:
            return 0.0
        if received <= events.format_time(self._now() - SAFE * self._keep_s):
            return 0.0
        at_s: float = self._reactor.seconds()
        start_s = min(max(self._free_s, at_s), at_s + LONGEST_S)
        self._free_s = start_s + size / RATE
        return start_s - at_s


class _Received(msgspec.Struct):
    received: str


_decode = msgspec.json.Decoder(_Received).decode


def received_of(lines: bytes) -> str | None:
    """Gives ``received`` of the last event.

    Args:
        lines: of events that the hub has stored, each with its LF.

    Returns:
        The time, as RFC 3339; None where there is none.
    """
    try:
        return _decode(lines[lines.rfind(b"\n", 0, -1) + 1 :]).received
    except (msgspec.MsgspecError, RecursionError):
        return None
