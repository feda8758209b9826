"""How fast the log is read back while the hub has its hands full: new events first, but nobody falls far behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from notifyd import event as events
from notifyd.event import Priority

RATE = 52 * 2**20
"""Bytes of pages a second for all clients that are held back: some 160,000 events that came with 256 bytes each, which
costs new ones about a tenth of their rate (measured on two cores)."""

LONGEST_S = 1.0
"""A page waits no longer, however many clients read the log: beyond some 200 of them it is a page a second for each."""

MOST_BEHIND_S = 30.0
SHARE = 0.1
"""Who is at an event that is older than that, or than this share of the retention, is not held back: by holding it back
nobody comes to be further behind, and whoever goes away keeps nearly all of the time to come back."""


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
        self._most_s = min(MOST_BEHIND_S, SHARE * keep_s - LONGEST_S)
        self._now = now
        self._free_s = 0.0  # when all pages that were asked for have had their time

    def wait_s(self, stream: str, received_s: float | None, size: int) -> float | None:
        """Gives for how many seconds a page is to wait, and counts it.

        Args:
            stream: that is read; nobody waits on that of critical events.
            received_s: of the event that the page comes behind, in seconds since 1970; None where that is not known.
            size: bytes that the page may have.

        Returns:
            None where it is not held back, and not counted.
        """
        if received_s is None or stream == Priority.CRITICAL.value or not self._is_pressed():
            return None
        if self._now() - received_s > self._most_s:
            return None
        at_s: float = self._reactor.seconds()
        start_s = min(max(self._free_s, at_s), at_s + LONGEST_S)
        self._free_s = start_s + size / RATE
        return start_s - at_s

    def give_back(self, size: int) -> None:
        """Takes back bytes that were counted: the page had fewer."""
        self._free_s -= size / RATE


class _Received(msgspec.Struct):
    received: str


_decode = msgspec.json.Decoder(_Received).decode


def received_of(lines: bytes) -> float | None:
    """Gives ``received`` of the last event.

    Args:
        lines: of events that the hub has stored, each with its LF.

    Returns:
        The time, in seconds since 1970; None where there is none.
    """
    try:
        return events.parse_time(_decode(lines[lines.rfind(b"\n", 0, -1) + 1 :]).received)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
