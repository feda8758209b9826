"""A source on a fake port, with clocks and a spool in the hand of the test."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import Any

from serial import SerialException
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from notifyd import config_agent
from notifyd.agent.linecounters import LineCounters
from notifyd.agent.serialport import SerialSource
from tests.serialtools import FakePort, Sink, settings

WALL = 1_795_384_923.5


class Rig:
    """A source on a fake port; ``fault`` is what opening raises, None where it works."""

    def __init__(self, *, jitter: float = 1.0, max_rate: int | None = None, **keys: Any) -> None:
        self.clock = Clock()
        self.sink = Sink()
        self.fault: Exception | None = None
        self.tries: list[float] = []
        self.flushes: list[Deferred[None]] = []
        self.opening: Deferred[FakePort] | None = None  # what opening gives, where it does not end at once
        self.at_once: Exception | None = None  # what the port is lost to as soon as the reactor runs
        self.ports: list[FakePort] = []
        self.source = SerialSource(
            self.clock,
            settings(**keys),
            "ward3",
            "critical",
            self.sink,
            flush=self.flush,
            max_rate=max_rate,
            random=lambda: jitter,
            opener=self.open,
            now=lambda: WALL + self.clock.seconds(),
        )

    def open(self, protocol: Any, _settings: config_agent.Source, _reactor: Any) -> FakePort | Deferred[FakePort]:
        self.tries.append(self.clock.seconds())
        if self.fault is not None:
            raise self.fault
        port = FakePort(protocol)
        port.counted = LineCounters(overrun=3, buffer_overrun=2, frame=4, parity=1)
        self.ports.append(port)
        if self.opening is not None:
            return self.opening
        if self.at_once is not None:
            self.clock.callLater(0, port.lose, self.at_once)
        return port

    def flush(self) -> Deferred[None]:
        self.flushes.append(Deferred())
        return self.flushes[-1]

    @property
    def port(self) -> FakePort:
        return self.ports[-1]

    def prints(self, data: bytes) -> None:
        self.port.protocol.dataReceived(data)

    def advance(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Lets time pass, each timer running at its own time, until ``seconds`` are over or ``until`` holds."""
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and calls[0].getTime() <= end and not until():
            self.clock.rightNow = max(self.clock.rightNow, calls[0].getTime())
            self.clock.advance(0)
        if not until():
            self.clock.rightNow = end

    @property
    def pauses(self) -> list[float]:
        """The time between one try and the next."""
        return [round(later - earlier, 2) for earlier, later in itertools.pairwise(self.tries)]

    def stop(self) -> None:
        self.source.stopService()
        assert self.clock.getDelayedCalls() == []


GONE = SerialException(errno.ENOENT, "could not open port")
