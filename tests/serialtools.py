"""What the tests of serial ports share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from notifyd import config_agent
from notifyd.agent.linecounters import LineCounters
from notifyd.config import Duration
from notifyd.event import Event, data_object

HANG_S = 20


def settings(port: str | Path = "/dev/fake", **keys: Any) -> config_agent.Source:
    """A source as the configuration file gives it."""
    table = {"name": "panel", "port": str(port), **keys}
    return msgspec.convert(table, config_agent.Source, dec_hook=lambda _, value: Duration.parse(value))


class Sink:
    """Takes events, and can be waited for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        for waiting in list(self._waiting):
            if waiting[0]():
                self._waiting.remove(waiting)
                reactor.callLater(0, waiting[1].callback, None)

    def until(self, holds: Callable[[], bool]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if holds():
            done.callback(None)
        else:
            self._waiting.append((holds, done))
        return done.addTimeout(HANG_S, reactor)

    @property
    def lines(self) -> list[str]:
        """What the device printed."""
        return [data_object(event)["line"] for event in self.events if event.type == "notifyd.line"]

    @property
    def own(self) -> list[str]:
        """What happened to the port."""
        return [event.type.removeprefix("notifyd.source.") for event in self.events if ".source." in event.type]

    def fields(self, what: str) -> dict[str, Any]:
        """The fields of the last event of a type."""
        found = [event for event in self.events if event.type == f"notifyd.source.{what}"]
        return data_object(found[-1])["fields"]


class FakePort:
    """A port whose device and driver are the test."""

    where = "/dev/fake"
    proof_s = 0.0
    can_wait = False

    def __init__(self, protocol: Any = None) -> None:
        self.protocol = protocol
        self.held = b""
        self.counted: LineCounters | None = None
        self.sent: list[bytes] = []
        self.unsent = 0
        self.has_room = True
        self.is_reading = True

    def send(self, data: bytes) -> bool:
        if self.has_room:
            self.sent.append(data)
        return self.has_room

    def pause(self) -> None:
        self.is_reading = False

    def resume(self) -> None:
        self.is_reading = True

    def drain(self) -> None:
        if self.held:
            self.protocol.dataReceived(self.held)

    def close(self) -> None:
        self.lose(ConnectionDone())

    def line_counters(self) -> LineCounters | None:
        return self.counted

    def lose(self, why: Exception) -> None:
        self.protocol.connectionLost(Failure(why))
