"""Ingest: the factory of port 1500, where producers push events, and what its connections share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from notifyd import wire
from notifyd.hub.agents import AgentWatch
from notifyd.hub.pipeline import Pipeline
from notifyd.hub.producer import SILENCE_S, IngestProtocol
from notifyd.hub.spools import Spools

WINDOW_BUDGET = 32 * 2**20
"""Bytes that all windows together may take; what is left is shared out so that there is always some for a newcomer."""

WINDOW_LEAST = wire.MAX_LINE + 1024
"""Bytes of the smallest window: room for the longest line."""

PLAIN_BUDGET = 16 * 2**20
"""Bytes in hand from all producers without HELLO; beyond it they are not read from until it is half."""


class IngestFactory(Factory):
    """Makes the protocols of port 1500 and holds what they share.

    Args:
        reactor: its clock is used.
        pipeline: takes the event lines.
        spools: who speaks for which spool.
        agents: is told which agents are connected.
        max_producers: connections at once.
        now: the wall clock.
    """

    log = Logger("notifyd.hub.ingest")
    noisy = False

    def __init__(
        self,
        reactor: Any,
        *,
        pipeline: Pipeline,
        spools: Spools,
        agents: AgentWatch,
        max_producers: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.reactor = reactor
        self.pipeline = pipeline
        self.spools = spools
        self.agents = agents
        self.max_producers = max_producers
        self.now = now
        self.producers: set[IngestProtocol] = set()
        self.windows = 0
        self.plain_bytes = 0
        self._full = False
        self._sweep = LoopingCall(self._close_silent)
        self._sweep.clock = reactor

    def buildProtocol(self, addr: Any) -> Any:
        """Gives the protocol of a new connection."""
        protocol = IngestProtocol(self)
        protocol.factory = self
        return protocol

    def start(self) -> None:
        """Begins to look for silent producers."""
        self._sweep.start(SILENCE_S / 12, now=False)

    def stop(self) -> None:
        """Stops reading from every producer: what was read can be stored, and no more comes."""
        if self._sweep.running:
            self._sweep.stop()
        for producer in tuple(self.producers):
            producer.stop_reading()

    def close(self) -> None:
        """Closes every connection."""
        for producer in tuple(self.producers):
            producer.close()

    def admit(self, producer: IngestProtocol) -> bool:
        """Counts a new connection in, or says that there are too many."""
        if len(self.producers) >= self.max_producers:
            if not self._full:
                self._full = True
                self.log.warn("There are {n} producers: more are turned away.", n=len(self.producers))
            return False
        self.producers.add(producer)
        return True

    def leave(self, producer: IngestProtocol) -> None:
        """Counts a connection out."""
        self.producers.discard(producer)
        self._full = self._full and len(self.producers) >= self.max_producers

    def grant_window(self) -> int:
        """Gives a producer's window: one sixteenth of what is left, within bounds."""
        window = min(wire.WINDOW, max(WINDOW_LEAST, (WINDOW_BUDGET - self.windows) // 16))
        self.windows += window
        return window

    def return_window(self, window: int) -> None:
        """Takes back what a producer that is gone was granted."""
        self.windows -= window

    @property
    def plain_is_full(self) -> bool:
        """Whether producers without HELLO must wait for those that are ahead."""
        return self.plain_bytes > PLAIN_BUDGET

    def plain_changed(self, amount: int) -> None:
        """Counts the bytes in hand from producers without HELLO; all are told when room ends, or is there again."""
        before, self.plain_bytes = self.plain_bytes, self.plain_bytes + amount
        if before <= PLAIN_BUDGET < self.plain_bytes or before > PLAIN_BUDGET // 2 >= self.plain_bytes:
            for producer in tuple(self.producers):
                producer.update_reading()

    def _close_silent(self) -> None:
        for producer in tuple(self.producers):
            producer.close_if_silent()
