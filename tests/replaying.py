"""Replays a recording into a source in process, by a clock that is moved by hand: a bug report becomes a test."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from notifyd import config_agent
from notifyd.agent.recording import Entry, Kind
from notifyd.agent.serialport import SerialSource
from notifyd.event import Event
from tests.serialtools import FakePort

WALL = 1_795_384_923.5


def replay(
    entries: Iterable[Entry], settings: config_agent.Source, clock: Clock | None = None, **options: Any
) -> list[Event]:
    """Gives the events that a source makes of what was recorded, its own among them.

    Args:
        entries: what happened, as ``Playback`` gives it.
        settings: of the source.
        clock: to be moved, where the test has a use for it.
        options: further ones of ``SerialSource``.
    """
    clock = clock or Clock()
    begin = clock.seconds()
    events: list[Event] = []
    ports: list[FakePort] = []
    plugged = [True]

    def opener(protocol: Any, _settings: config_agent.Source, _reactor: Any) -> FakePort:
        if not plugged[0]:
            raise FileNotFoundError(2, "no such device")
        ports.append(FakePort(protocol))
        return ports[-1]

    source = SerialSource(
        clock, settings, "ward3", "important", events.append, lambda: succeed(None), random=lambda: 0.0, opener=opener,
        now=lambda: WALL + clock.seconds() - begin, **options,
    )  # fmt: skip
    source.startService()
    for entry in entries:
        while clock.seconds() < begin + entry.at_s:
            clock.advance(min(0.05, begin + entry.at_s - clock.seconds()))
        if entry.kind is Kind.CLOSE and entry.text and ports and plugged[0]:
            plugged[0] = False
            ports[-1].close()
        elif entry.kind is Kind.OPEN and not plugged[0]:
            plugged[0] = True
            source._timers.cancel(source._try)  # it is opened at the time at which it was
            source._try()
        elif entry.kind is Kind.DATA:
            ports[-1].protocol.dataReceived(entry.data)
    source.stopService()
    return events
