"""The filter: calls that take their time, or never end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from notifyd.event import Priority
from notifyd.hub import filtering
from notifyd.hub.filtering import Failed
from tests.conftest import Logged
from tests.filtering import Rig, answer, draft
from tests.filterkinds import expect_any, reason


class Slow:
    """Methods that answer when the test says so, in the order in which they were asked."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Any]] = []
        self.cancelled = 0

    def deferring(self, event: Any) -> Deferred[Any]:
        self.asked.append(Deferred(self._cancel))
        return self.asked[-1]

    async def asynchronous(self, event: Any) -> Any:
        return await self.deferring(event)

    async def stubborn(self, event: Any) -> Any:
        while True:
            try:
                return await self.deferring(event)
            except CancelledError:
                continue

    def _cancel(self, _: Any) -> None:
        self.cancelled += 1


@pytest.mark.parametrize("method", ["deferring", "asynchronous"])
def test_events_are_asked_about_side_by_side(method: str) -> None:
    """And the batch goes on when the last has its answer."""
    slow = Slow()
    rig = Rig(characterise=getattr(slow, method))
    running = rig.begin(draft(), draft(), draft())
    assert len(slow.asked) == 3
    for index, name in ((2, "critical"), (0, "normal")):
        slow.asked[index].callback(name)
        assert not running.called
    slow.asked[1].callback(None)
    assert answer(running) == [Priority.NORMAL, None, Priority.CRITICAL]
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("method", ["deferring", "asynchronous", "stubborn"])
@pytest.mark.parametrize("role", ["preprocess", "characterise"])
def test_who_has_no_answer_in_time_fails(logged: Logged, method: str, role: str) -> None:
    """What is waited for is cancelled, and an answer that comes later changes nothing."""
    slow = Slow()
    rig = Rig('timeout = "1.5s"', **{role: getattr(slow, method)})
    drafts = draft(), draft(), draft()
    running = rig.begin(*drafts)
    slow.asked[1].callback(None)
    rig.clock.advance(1.4)
    assert not running.called
    rig.clock.advance(0.1)
    late = Failed("filter: no answer within 1.5 s")
    assert answer(running) == [late, None, late]
    assert slow.cancelled == 2
    for asked in slow.asked:
        if not asked.called:
            asked.callback({"a": 1} if role == "preprocess" else "critical")
    assert [each.data for each in drafts] == [{}, {}, {}]
    assert answer(running) == [late, None, late]
    (line,) = logged.text("warn")
    assert "no answer within 1.5 s; 2 events have become errors" in line


def test_both_methods_share_the_time() -> None:
    """It is how long an event waits, not how long a call may take."""
    slow = Slow()
    rig = Rig(preprocess=slow.deferring, characterise=slow.deferring)
    event = draft()
    running = rig.begin(event)
    rig.clock.advance(1)
    slow.asked[0].callback({"a": 1})
    rig.clock.advance(1)
    assert answer(running) == [Failed("filter: no answer within 2 s")]
    assert event.data == {"context": {"a": 1}}


def test_what_is_raised_too_late_is_told_in_the_log_only(logged: Logged) -> None:
    """The event is an error event already."""
    asked: list[Deferred[None]] = []

    async def characterise(event: Any) -> Any:
        try:
            await asked[0]
        except CancelledError:
            await asked[1]

    asked += Deferred(), Deferred()
    rig = Rig(characterise=characterise)
    running = rig.begin(draft())
    rig.clock.advance(2)
    asked[1].errback(ValueError("too late"))
    assert answer(running) == [Failed("filter: no answer within 2 s")]
    assert len(logged.expect_failure(ValueError)) == 1


def test_a_canceller_that_raises_stops_nothing(logged: Logged) -> None:
    """It is the operator's code, too."""

    def canceller(_: Any) -> None:
        raise SystemExit

    rig = Rig(characterise=lambda event: Deferred(canceller))
    running = rig.begin(draft(), draft())
    rig.clock.advance(2)
    assert answer(running) == [Failed("filter: no answer within 2 s")] * 2
    expect_any(logged)


def test_calls_that_go_on_for_ever_do_not_gather_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many as the limit, events fail at once, until some have ended."""
    monkeypatch.setattr(filtering, "MAX_LEFT_BEHIND", 5)
    slow = Slow()
    rig = Rig(characterise=slow.stubborn)
    for expected in (4, 8):
        running = rig.begin(*(draft() for _ in range(4)))
        rig.clock.advance(2)
        assert answer(running) == [Failed("filter: no answer within 2 s")] * 4
        assert sum(not each.called for each in slow.asked) == expected
    asked = len(slow.asked)
    assert rig.run(draft()) == [Failed("filter: too many calls that were given up still go on")]
    assert len(slow.asked) == asked
    for each in slow.asked:
        if not each.called:
            each.callback(None)
    running = rig.begin(draft())
    slow.asked[-1].callback("normal")
    assert answer(running) == [Priority.NORMAL]


def test_a_batch_that_is_given_up_leaves_nothing_behind() -> None:
    """The hub ends."""
    slow = Slow()
    rig = Rig(characterise=slow.deferring)
    running = rig.begin(draft(), draft())
    running.cancel()
    results: list[Any] = []
    running.addErrback(lambda failure: results.append(failure.type))
    assert results == [CancelledError]
    assert slow.cancelled == 2
    assert rig.clock.getDelayedCalls() == []


def test_a_call_that_nobody_can_answer_any_more_is_forgotten(logged: Logged) -> None:
    """What it waited for is gone; it is no longer counted."""
    rig = Rig(characterise=Slow().stubborn)
    running = rig.begin(draft())
    rig.clock.advance(2)
    answer(running)
    rig.runner._calls.characterise = None
    gc.collect()
    assert rig.runner._left == 0


def test_an_awaitable_of_another_loop_is_a_failure(logged: Logged) -> None:
    """Of asyncio, which does not run: the reason says so, and nothing waits for ever."""
    loop = asyncio.new_event_loop()

    async def characterise(event: Any) -> Any:
        return await loop.create_future()

    assert "RuntimeError" in reason(Rig(characterise=characterise).one())
    loop.close()
    logged.expect_failure(RuntimeError)
