"""What the tests of the spool and of the uplink share."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher

from notifyd.agent.own import own_event
from notifyd.agent.spool import Spool
from notifyd.event import Event

WINDOW = 1024 * 1024


def device_event(text: str, priority: str = "normal", **fields: object) -> Event:
    """An event as a serial port makes it."""
    return own_event(
        agent="ward3", source="panel", type="panel.alarm", priority=priority, line=text, fields=fields, now=1.0
    )


def make_spool(path: Path, **options: Any) -> Spool:
    """A spool with the settings that most tests use."""
    settings: dict[str, Any] = {"agent": "ward3", "max_events": 1_000, "own_priority": "important", **options}
    return Spool(reactor, path, **settings)


@dataclasses.dataclass
class Sent:
    """An event as it went to the hub."""

    event: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.event["data"]["line"])

    @property
    def sequence(self) -> int:
        return int(self.event["sequence"])

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.event["data"]["fields"])

    @property
    def is_notice(self) -> bool:
        return bool(self.event["type"] == "notifyd.spool.dropped")


def parse_lines(lines: bytes) -> list[Sent]:
    """The events of a batch."""
    return [Sent(json.loads(line)) for line in lines.splitlines()]


async def read_all(spool: Spool, told: dict[str, int] | None = None, *, acknowledge: bool = False) -> list[Sent]:
    """What a new connection to a hub that holds everything up to ``told`` is sent."""
    await spool.resume(told or {})
    return await read_on(spool, acknowledge=acknowledge)


async def read_on(spool: Spool, *, acknowledge: bool = False) -> list[Sent]:
    """What the current connection is sent further on."""
    sent: list[Sent] = []
    while batch := await spool.next(WINDOW):
        sent += parse_lines(batch.lines)
        if acknowledge:
            spool.acknowledge(batch.lane, batch.last)
    return sent


def texts(sent: list[Sent]) -> list[str]:
    """Their texts, notices left out."""
    return [each.text for each in sent if not each.is_notice]


def notices_of(sent: list[Sent]) -> list[Sent]:
    """The notices among them."""
    return [each for each in sent if each.is_notice]


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Lets the reactor work until something is so."""
    expired = deferLater(reactor, seconds)
    expired.addErrback(lambda failure: None)
    try:
        while not condition():
            assert not expired.called, "it did not come to be in time"
            await deferLater(reactor, 0.002)
    finally:
        expired.cancel()


async def bounded(waited: Deferred[Any], seconds: float = 10.0) -> Any:
    """Waits for a Deferred, but not for ever."""
    return await waited.addTimeout(seconds, reactor)


class Log:
    """What was logged, as an operator reads it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._observe)

    def _observe(self, event: Any) -> None:
        self.lines.append(formatEvent(event))

    def matching(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]

    def close(self) -> None:
        globalLogPublisher.removeObserver(self._observe)


def other_connection(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """Another program's view of the file, for a ``with``."""
    return contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0))


def scheduled() -> list[Any]:
    """What is left in the reactor, the test runner's own calls left out."""
    return [call for call in reactor.getDelayedCalls() if not call.func.__module__.startswith("pytest_twisted")]


Make = Callable[..., Any]
"""What the fixture ``make`` is: a spool in the test's folder, open."""


async def put_all(spool: Spool, *lines: str, priority: str = "normal") -> None:
    """Puts events and waits until they are stored."""
    for line in lines:
        spool.put(device_event(line, priority))
    await bounded(spool.flush())
