"""The operator's code, asked about batches of events: what it adds, what it names, and what happens when it fails."""

from __future__ import annotations

import asyncio
import gc
import json
import types
from collections import UserDict
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed

from notifyd.event import Priority
from notifyd.hub import filter_reports, filtering
from notifyd.hub.draft import Draft
from notifyd.hub.filtering import Failed, Outcome, reason_of
from tests.conftest import Logged
from tests.filtering import Rig, answer, draft


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

# --- answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_characterise_names_is_the_outcome(kind: Any) -> None:
    """A name, a Priority, or nothing."""
    for named in (*Priority, *(each.value for each in Priority), None):
        outcome = Rig(characterise=kind(named)).one()
        assert outcome == named
        assert outcome is None or type(outcome) is Priority
    assert reason_of(Priority.ERROR) == "filter: characterise named error"
    assert reason_of(Priority.NORMAL) is None
    assert reason_of(None) is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_preprocess_gives_becomes_context(kind: Any) -> None:
    """It takes the place of what a lookup has found under the same name, and stands in the event's line."""
    event = draft(data={"line": "x"})
    event.add_context("zone", {"place": "hall"}, b'{"place":"hall"}')
    event.add_context("other", None, b"null")
    answered = {"zone": {"place": "kitchen"}, "ü": [1, 2.5, None, True, "\0"], "p": Priority.NORMAL}
    assert Rig(preprocess=kind(answered)).run(event) == [None]
    expected = {"zone": {"place": "kitchen"}, "other": None, "ü": [1, 2.5, None, True, "\0"], "p": "normal"}
    assert event.data == {"line": "x", "context": expected}
    event.write_data()
    assert written(event) == {"line": "x", "context": expected}


def written(event: Draft) -> Any:
    """Gives an event's data as its line has them."""
    return json.loads(bytes(cast(bytes, event.event.data)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nothing", [None, {}, types.MappingProxyType({}), UserDict()])
def test_nothing_to_add_changes_nothing(kind: Any, nothing: Any) -> None:
    """There is no empty context either."""
    event = draft(data={"line": "x"})
    assert Rig(preprocess=kind(nothing)).run(event) == [None]
    assert event.data == {"line": "x"}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_characterise_sees_what_lookups_and_preprocess_have_found(first: Any, second: Any) -> None:
    """And preprocess what the lookups have."""
    seen: list[Any] = []

    def preprocess(event: Any) -> Any:
        seen.append(event.data["context"] == {"found": 1})
        return first({"mine": [2]})(event)

    def characterise(event: Any) -> Any:
        seen.append(event.data["context"] == {"found": 1, "mine": [2]})
        return second("critical")(event)

    event = draft()
    event.add_context("found", 1, b"1")
    assert Rig(preprocess=preprocess, characterise=characterise).run(event) == [Priority.CRITICAL]
    assert seen == [True, True]


def test_each_draft_of_a_batch_has_its_own_outcome() -> None:
    """In the order of the drafts, whichever of them are waited for."""

    def characterise(event: Any) -> Any:
        return {"a": "normal", "b": succeed("critical"), "c": None, "d": succeed(None)}[event.type]

    kinds = "abcdbcaad"
    outcomes = Rig(characterise=characterise).run(*(draft(type=kind) for kind in kinds))
    expected = {"a": Priority.NORMAL, "b": Priority.CRITICAL, "c": None, "d": None}
    assert outcomes == [expected[kind] for kind in kinds]
    assert Rig(characterise=characterise).run() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "bad", ["urgent", "", "CRITICAL", "x" * 10_000, "\ud800\x1b[2J\n", 5, True, b"normal", ["normal"], {}]
)
def test_a_priority_that_is_none_is_a_failure(kind: Any, bad: Any) -> None:
    """The reason has the word, or the type."""
    told = reason(Rig(characterise=kind(bad)).one())
    shown = f'named "{bad[:50].splitlines()[0][:2] if bad else ""}' if isinstance(bad, str) else type(bad).__name__
    assert told.startswith("filter: characterise ")
    assert (shown if not isinstance(bad, str) or bad.isprintable() else "\\ud800") in told
    assert len(told) < 400


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (5, "gave an answer of type int, which is no mapping"), ([("a", 1)], "type list"), ("text", "type str"),
        ({"a": float("nan")}, "gave what an event cannot hold: NaN or Infinity at a"), ({"a": "\ud800"}, "surrogate"),
        ({5: 1}, "a name of type int"), ({"a": "x" * 70_000}, "more than 64 KiB"), ({"ok": 1, "a": {1}}, "set at a"),
    ],
)  # fmt: skip
def test_an_answer_that_an_event_cannot_hold_is_a_failure(kind: Any, bad: Any, expected: str) -> None:
    """Nothing of it is added, and characterise is not asked."""
    event = draft()
    asked: list[Any] = []
    (outcome,) = Rig(preprocess=kind(bad), characterise=asked.append).run(event)
    assert expected in reason(outcome)
    assert event.data == {}
    assert asked == []


def test_a_coroutine_in_place_of_an_answer_is_a_failure() -> None:
    """It is awaited once, and no further."""

    async def characterise(event: Any) -> Any:
        return succeed("normal")

    assert "type Deferred" in reason(Rig(characterise=characterise).one())


# --- exceptions ----------------------------------------------------------------------------------------


def raising(error: BaseException) -> list[Callable[[Any], Any]]:
    """Gives methods that raise it, each in its way."""

    def plainly(event: Any) -> Any:
        raise error

    async def at_once(event: Any) -> Any:
        raise error

    async def later(event: Any) -> Any:
        await succeed(None)
        raise error

    return [plainly, at_once, later, lambda event: fail(error)]


class OwnBaseError(BaseException):
    """Something that is no Exception."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no zone"), KeyError("zone"), RecursionError(), MemoryError(), StopIteration(), CancelledError(),
        SystemExit(3), KeyboardInterrupt(), GeneratorExit(), OwnBaseError(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["preprocess", "characterise"])
def test_whatever_is_raised_is_a_failure_of_that_event(logged: Logged, error: BaseException, method: str) -> None:
    """With the traceback in the log; the events beside it are not touched, and the hub goes on."""
    for raises in raising(error):
        rig = Rig(**{method: lambda event, raises=raises: raises(event) if event.type == "bad" else None})  # type: ignore[dict-item]
        before, failed, after = rig.run(draft(), draft(type="bad"), draft())
        assert (before, after) == (None, None)
        (told,) = expect_any(logged)
        kind = type(told).__name__
        assert kind == type(error).__name__ or isinstance(error, StopIteration)  # async def makes a RuntimeError of it
        assert reason(failed).startswith(f"filter: {method} raised {kind}")


def test_the_traceback_leads_to_the_line(logged: Logged) -> None:
    """Of the operator's file."""
    (method, *_) = raising(ValueError("no zone"))
    assert reason(Rig(characterise=method).one()) == "filter: characterise raised ValueError: no zone"
    (event,) = logged.failures
    assert "test_filtering.py" in event["log_failure"].getTraceback()
    assert "in plainly" in event["log_failure"].getTraceback()
    logged.expect_failure(ValueError)


class HostileError(Exception):
    """An exception whose own code fails."""

    def __str__(self) -> str:
        raise SystemExit

    def __repr__(self) -> str:
        raise SystemExit

    def __setattr__(self, name: str, value: object) -> None:
        raise SystemExit

    @property
    def __traceback__(self) -> Any:
        raise SystemExit


class LongError(Exception):
    """An exception with very much to say, and not for a terminal."""

    def __str__(self) -> str:
        return "\x1b[2J\ud800\n" + "x" * 10**6


@pytest.mark.parametrize("error", [HostileError(), LongError()])
def test_an_exception_that_is_hostile_itself_is_a_failure(logged: Logged, error: Exception) -> None:
    """Its text is shortened and printable, if it has one."""
    for method in raising(error):
        assert len(reason(Rig(characterise=method).one())) < 400
    expect_any(logged)


def test_an_answer_whose_own_code_fails_is_a_failure(logged: Logged) -> None:
    """It is the operator's code, too."""

    class Broken(UserDict[str, Any]):
        def __iter__(self) -> Any:
            raise SystemExit

    class Word(str):
        __hash__ = None  # type: ignore[assignment]

    class Liar:
        @property
        def __class__(self) -> Any:
            raise OwnBaseError

    assert "SystemExit" in reason(Rig(preprocess=plain(Broken(a=1))).one())
    assert "OwnBaseError" in reason(Rig(preprocess=plain(Liar())).one())
    assert "OwnBaseError" in reason(Rig(characterise=plain(Liar())).one())
    assert Rig(characterise=plain(Word("normal"))).one() is Priority.NORMAL
    expect_any(logged)


def test_the_same_mistake_is_told_once_a_minute_with_its_count(logged: Logged) -> None:
    """However many events it comes with."""
    (method, *_) = raising(ValueError("x"))
    rig = Rig(characterise=method)
    for _ in range(10):
        rig.run(*(draft() for _ in range(100)))
        rig.clock.advance(1)
    assert len(logged.expect_failure(ValueError)) == 1
    assert logged.text("warn") == []
    rig.clock.advance(filter_reports.WINDOW_S)
    rig.run(draft())
    assert len(logged.expect_failure(ValueError)) == 1
    (line,) = logged.text("warn")
    assert "999 times more within 70 s: ValueError in test_filtering.py, line " in line
    rig.run(draft())
    rig.runner.stop()
    assert "1 times more" in logged.text("warn")[1]


def test_different_mistakes_are_told_apart(logged: Logged) -> None:
    """By their type and by their line."""

    def characterise(event: Any) -> Any:
        if event.type == "a":
            raise ValueError
        raise {"b": ValueError, "c": KeyError}[event.type]

    rig = Rig(characterise=characterise)
    rig.run(*(draft(type=kind) for kind in "abcabc"))
    assert [type(error) for error in logged.expect_failure(Exception)] == [ValueError, ValueError, KeyError]


def test_mistakes_without_number_are_counted_together(logged: Logged) -> None:
    """A filter that makes a class for each exception does not fill the memory."""

    def characterise(event: Any) -> Any:
        raise type(f"Error{event.id}", (Exception,), {})

    rig = Rig(characterise=characterise)
    rig.run(*(draft(id=str(number)) for number in range(filter_reports.MAX_MISTAKES + 10)))
    assert len(logged.expect_failure(Exception)) == filter_reports.MAX_MISTAKES
    rig.runner.stop()
    assert ["10 times more" in line and "other mistakes" in line for line in logged.text("warn")] == [True]


def test_an_exception_that_is_raised_again_and_again_gathers_no_traceback(logged: Logged) -> None:
    """One object, made once."""
    error = ValueError("x")
    (method, *_) = raising(error)
    rig = Rig(characterise=method)
    rig.run(*(draft() for _ in range(10)))
    assert error.__traceback__ is None
    logged.expect_failure(ValueError)


def test_a_bad_answer_is_told_once_without_a_traceback(logged: Logged) -> None:
    """There is none that would help."""
    rig = Rig(characterise=plain("urgent"))
    rig.run(draft(), draft())
    (line,) = logged.text("warn")
    assert line.startswith('filter: characterise named "urgent"')
    assert logged.failures == []


# --- waiting -------------------------------------------------------------------------------------------


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
