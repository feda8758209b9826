"""Subscribers: the factories of ports 1600 to 1604, where clients are notified, and what they share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from notifyd import event as events
from notifyd.hub.backplane import Stream
from notifyd.hub.clients import Clients
from notifyd.hub.readback import Reader
from notifyd.hub.subscriber import SubscriberProtocol


@dataclass
class Crowd:
    """What the factories of all streams share."""

    clients: Clients
    reader: Reader
    max_subscribers: int
    stall_timeout_s: float
    now: Callable[[], float] = time.time
    connected: int = 0
    full: bool = False
    reading_fails: bool = False
    delivered: int = 0
    unfinished: int = 0  # bytes of long lines that are not complete, or wait for a SUBSCRIBE


class SubscriberFactory(Factory):
    """Makes the protocols of one stream's port.

    Args:
        reactor: its clock is used.
        stream: what the port's clients are sent.
        crowd: what all streams share.
    """

    log = Logger("notifyd.hub.subscribers")
    noisy = False

    def __init__(self, reactor: Any, stream: Stream, crowd: Crowd) -> None:
        self.reactor = reactor
        self.stream = stream
        self.crowd = crowd
        self.subscribers: set[SubscriberProtocol] = set()
        self._sweep = LoopingCall(self._close_stalled)
        self._sweep.clock = reactor

    def buildProtocol(self, addr: Any) -> Any:
        """Gives the protocol of a new connection."""
        protocol = SubscriberProtocol(self)
        protocol.factory = self
        return protocol

    def start(self) -> None:
        """Begins to look for stalled clients."""
        self._sweep.start(min(10.0, self.crowd.stall_timeout_s / 4), now=False)

    def stop(self) -> None:
        """Closes every connection."""
        if self._sweep.running:
            self._sweep.stop()
        for subscriber in tuple(self.subscribers):
            subscriber.close()

    def admit(self, subscriber: SubscriberProtocol) -> bool:
        """Counts a new connection in, or says that there are too many."""
        crowd = self.crowd
        if crowd.connected >= crowd.max_subscribers:
            if not crowd.full:
                crowd.full = True
                self.log.warn("There are {n} subscribers: more are turned away.", n=crowd.connected)
            return False
        crowd.connected += 1
        self.subscribers.add(subscriber)
        return True

    def leave(self, subscriber: SubscriberProtocol) -> None:
        """Counts a connection out."""
        if subscriber in self.subscribers:
            self.subscribers.discard(subscriber)
            self.crowd.connected -= 1
            self.crowd.full = False

    def stamp(self) -> str:
        """Gives the wall clock as RFC 3339."""
        return events.format_time(self.crowd.now())

    def _close_stalled(self) -> None:
        for subscriber in tuple(self.subscribers):
            subscriber.close_if_stalled()
