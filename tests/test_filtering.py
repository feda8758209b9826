"""The operator's code, asked about batches of events: what it adds, what it names, and what happens when it fails."""

from __future__ import annotations

import json
import types
from collections import UserDict
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, fail, succeed

from notifyd.event import Priority
from notifyd.hub import filter_reports
from notifyd.hub.draft import Draft
from notifyd.hub.filtering import reason_of
from tests.conftest import Logged
from tests.filtering import Rig, draft
from tests.filterkinds import KINDS, expect_any, plain, reason

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
