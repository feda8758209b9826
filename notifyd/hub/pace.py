"""How fast the log is read back while the hub has its hands full: new events come first, a little and for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from notifyd import event as events
from notifyd.event import Priority

RATE = 52 * 2**20
"""Bytes of pages a second for all clients together: some 160,000 events that came with 256 bytes each, which costs new
ones about a tenth of their rate (measured on two cores)."""

LONGEST_S = 1.0
"""A page waits no longer, however many clients read the log."""

ADDED_S = 30.0
"""By how much the events that a client is sent may grow older while it is held back; then it is not any more, until it
has caught up. So it does catch up, whatever the load."""

SHARE = 0.1
"""Of the retention: who is at an event that is older is not held back, and so has nearly all of the time to come back
when it goes away."""


@dataclass(slots=True)
class Behind:
    """A client that reads the log, from where it begins until it has caught up.

    Attributes:
        received_s: of the last event that it was given, in seconds since 1970; None where that is not known.
        most_s: how old that may be for the client to be held back; None until it is held back.
    """

    received_s: float | None = None
    most_s: float | None = None


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

    def wait_s(self, stream: str, behind: Behind, size: int) -> float | None:
        """Gives for how many seconds a page is to wait, and counts it.

        Args:
            stream: that is read; nobody waits for critical events.
            behind: the client.
            size: bytes that the page may have.

        Returns:
            None where it is not held back, and not counted.
        """
        if behind.received_s is None or stream == Priority.CRITICAL.value or not self._is_pressed():
            return None
        age_s = self._now() - behind.received_s
        if behind.most_s is None:
            behind.most_s = min(age_s + ADDED_S, SHARE * self._keep_s - LONGEST_S)
        if age_s > behind.most_s:
            behind.most_s = float("-inf")
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
