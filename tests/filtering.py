"""What the tests of the filter share: events on their way, a runner on a clock of the test's, and its outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from notifyd.config_hub import Filter, parse_hub
from notifyd.event import decode
from notifyd.hub.draft import Draft
from notifyd.hub.filtering import FilterRunner, Outcome

RECEIVED = "2026-11-22T23:34:52.972771Z"


class ThreadClock(Clock):
    """A clock of the test's, with the threads of the real reactor."""

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        reactor.callFromThread(function, *arguments)  # type: ignore[attr-defined]


class Object:
    """An object of the operator's that is made of functions."""

    def __init__(self, **methods: Callable[[Any], Any]) -> None:
        self.__dict__.update(methods)


def draft(**attributes: Any) -> Draft:
    """Gives an event on its way."""
    return Draft(decode(json.dumps({"id": "1", "source": "/a/b", "type": "t", **attributes}).encode()))


def settings(more: str = "") -> Filter:
    """Gives the settings of a filter as they stand in hub.toml."""
    made = parse_hub(f'[filter]\nfactory = "module:name"\n{more}', "hub.toml").filter
    assert made is not None
    return made


class Rig:
    """A runner, and the time that it goes by."""

    def __init__(self, more: str = "", **methods: Callable[[Any], Any]) -> None:
        self.clock = ThreadClock()
        self.runner = FilterRunner(self.clock, settings(more), Object(**methods))

    def begin(self, *drafts: Draft) -> Deferred[list[Outcome]]:
        """Begins with a batch."""
        return Deferred.fromCoroutine(self.runner.run(drafts, [RECEIVED] * len(drafts)))

    def run(self, *drafts: Draft) -> list[Outcome]:
        """Gives the outcomes of a batch that needs no waiting."""
        return answer(self.begin(*drafts))

    def one(self, **attributes: Any) -> Outcome:
        """Gives the outcome of one event."""
        (outcome,) = self.run(draft(**attributes))
        return outcome


def answer(running: Deferred[Any]) -> Any:
    """Gives what a Deferred has fired with, which it must have."""
    results: list[Any] = []

    def note(result: Any) -> Any:
        results.append(result)
        return result

    running.addCallback(note)
    assert results, "it still waits"
    return results[0]
