"""Ways in which an operator's own code may answer, and what is logged of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks, succeed

from notifyd.hub.filtering import Failed, Outcome, reason_of
from tests.conftest import Logged


def reason(outcome: Outcome) -> str:
    """Gives the reason of a failure."""
    assert isinstance(outcome, Failed)
    assert outcome.reason.isprintable()
    assert reason_of(outcome) == outcome.reason
    return outcome.reason


def expect_any(logged: Logged) -> list[BaseException]:
    """Takes out, and gives, all logged failures: BaseExceptions too, which a Failure cannot be asked for."""
    mine = [event["log_failure"].value for event in logged.failures]
    logged.events.clear()
    return mine


def plain(value: Any) -> Callable[[Any], Any]:
    """Gives a plain method that answers with a value."""
    return lambda event: value


def asynchronous(value: Any) -> Callable[[Any], Any]:
    """Gives an async method that answers with a value."""

    async def method(event: Any) -> Any:
        await succeed(None)
        return value

    return method


def deferring(value: Any) -> Callable[[Any], Any]:
    """Gives a method that returns a Deferred."""
    return lambda event: succeed(value)


def generating(value: Any) -> Callable[[Any], Any]:
    """Gives a method of the older style of Twisted."""

    @inlineCallbacks
    def method(event: Any) -> Any:
        yield succeed(None)
        return value

    return method


KINDS = [plain, asynchronous, deferring, generating]
