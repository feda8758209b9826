"""What the operator's code may add to an event: what JSON can hold, and no more of it than there is room for."""

from __future__ import annotations

import datetime as dt
import enum
import json
import types
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.event import Priority
from notifyd.frozen import frozen
from notifyd.hub.json_value import MAX_ADDED, MAX_DEPTH, NotJsonError, json_members

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


def kind(value: Any) -> str:
    """Names a case: its value may be too much for a name."""
    return type(value).__name__


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_json_can_hold_is_taken_as_it_is(given: dict[str, Any]) -> None:
    """As a copy, and as the JSON that stands for it."""
    members = json_members(given)
    assert {name: value for name, value, _ in members} == given
    assert {name: json.loads(encoded) for name, _, encoded in members} == given
    assert [name for name, _, _ in members] == list(given)


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Celsius(float):
    def __repr__(self) -> str:
        return "hot"


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]), (Pair(1, (2,)), [1, [2]]), (Colour.RED, "red"), (Priority.ERROR, "error"), (Level.HIGH, 3),
        (Celsius(1.5), 1.5),
        (Text("text"), "text"), (OrderedDict(a=1), {"a": 1}), (UserDict(a=[]), {"a": []}),
        (types.MappingProxyType({"a": 1}), {"a": 1}), ({Colour.RED: 1}, {"red": 1}),
        (frozen({"a": [1, {"b": 2}]}), {"a": [1, {"b": 2}]}), (frozen([1, [2]]), [1, [2]]), (10**4000, 10**4000),
    ],
    ids=kind,
)  # fmt: skip
def test_what_is_json_underneath_is_taken_as_that(value: Any, expected: Any) -> None:
    """Tuples, enums, subclasses, other mappings, and parts of the event itself."""
    ((_, copied, encoded),) = json_members({"x": value})
    assert copied == expected == json.loads(encoded)
    assert type(copied) is type(expected)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (float("nan"), "NaN or Infinity at x"), (float("-inf"), "NaN or Infinity at x"),
        (b"a", "a value of type bytes at x"),
        ({1, 2}, "a value of type set at x"), (dt.datetime.now(dt.UTC), "a value of type datetime at x"),
        (Decimal(1), "a value of type Decimal at x"),
        (object(), "a value of type object at x"), (iter([]), "a value of type list_iterator at x"),
        ({"a": [0, {"b": 1j}]}, "a value of type complex at x.a.1.b"),
        ({1: 2}, "a name of type int at x"), ({None: 2}, "a name of type NoneType at x"),
        ("\ud800", "an unpaired surrogate"), ({"\ud800": 1}, "an unpaired surrogate"),
        (["\udfff"], "an unpaired surrogate"), (10**5000, "a number of too many figures at x"),
    ],
    ids=kind,
)  # fmt: skip
def test_anything_else_is_refused_with_its_place(value: Any, what: str) -> None:
    """So that its author finds it."""
    with pytest.raises(NotJsonError) as caught:
        json_members({"before": 1, "x": value})
    assert str(caught.value) == what


@pytest.mark.parametrize("name", [5, None, b"a", "\ud800"])
def test_names_are_texts(name: Any) -> None:
    """They become keys of data.context."""
    with pytest.raises(NotJsonError):
        json_members({name: 1})


def nested(levels: int) -> Any:
    """Gives lists in lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_has_no_more_levels_than_the_limit() -> None:
    """The last that is allowed is taken."""
    assert json_members({"x": nested(MAX_DEPTH)})
    with pytest.raises(NotJsonError, match=f"^more than {MAX_DEPTH} levels at x.0.0"):
        json_members({"x": nested(MAX_DEPTH + 1)})


@pytest.mark.parametrize("width", [1, 2, 10])
def test_a_value_that_contains_itself_is_refused(width: int) -> None:
    """However often: this ends before the memory does."""
    mine: list[Any] = []
    mine.extend([mine] * width)
    with pytest.raises(NotJsonError, match="levels"):
        json_members({"x": mine})


def test_no_more_is_added_than_the_limit() -> None:
    """Counted in bytes of JSON, with the names, over all members."""
    room = MAX_ADDED - len('ab""')
    assert json_members({"ab": "x" * room})
    for too_much in (
        {"ab": "x" * (room + 1)},
        {"ab": "ü" * (room // 2 + 1)},
        {"ab": "\0" * (room // 6 + 1)},
        {"ab": "x" * (room // 2), "cd": "x" * (room // 2)},
        {"n" * MAX_ADDED: None},
        {"x": [0] * MAX_ADDED},
        {"x": [[]] * MAX_ADDED},
    ):
        with pytest.raises(NotJsonError, match=r"^more than 64 KiB"):
            json_members(too_much)


class Endless(Mapping[str, object]):
    """A mapping that gives members for ever."""

    def __getitem__(self, name: str) -> object:
        return 1

    def __iter__(self) -> Iterator[str]:
        while True:
            yield "name"

    def __len__(self) -> int:
        return 1


def test_a_mapping_without_an_end_is_refused() -> None:
    """Whatever it says of its length."""
    with pytest.raises(NotJsonError, match="more than 64 KiB"):
        json_members(Endless())


def test_what_a_mapping_raises_is_passed_on() -> None:
    """It is the operator's code, too."""

    class Broken(Endless):
        def __getitem__(self, name: str) -> object:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        json_members(Broken())


def test_a_value_that_is_changed_later_changes_nothing() -> None:
    """It is copied."""
    mine = {"a": [1]}
    ((_, copied, _),) = json_members({"x": mine})
    mine["a"].append(2)
    assert copied == {"a": [1]}
