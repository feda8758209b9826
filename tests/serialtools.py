"""What the tests of serial ports share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from notifyd import config_agent
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
