"""The interface for authors of filters: an event that can be read and not changed, and how one is made for a test."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.event import Priority, decode
from notifyd.filters import Event, EventView, make_event, plain
from notifyd.frozen import FrozenDict, FrozenList, frozen
from notifyd.hub.draft import Draft
from tests.filtering import RECEIVED, draft
from tests.test_json_value import VALUES

ROOT = Path(__file__).parent.parent
FULL = {
    "specversion": "1.0", "id": "7", "source": "/ward3/panel", "type": "panel.alarm", "priority": "critical",
    "time": "2026-11-22T23:34:52.9Z", "sequence": "00000000000000000042", "subject": "kitchen",
    "datacontenttype": "application/json", "dataschema": "urn:x", "data_base64": "AAA=",
}  # fmt: skip
OPTIONAL = ("priority", "sequence", "subject", "datacontenttype", "dataschema", "data_base64")
LATER = ("offset", "rule", "reason")


def of_the_hub(**attributes: Any) -> Event:
    """Gives an event as the hub gives it to a filter."""
    mine = draft(**attributes)
    return EventView(mine.event, mine, RECEIVED)


@pytest.mark.parametrize("make", [of_the_hub, make_event])
def test_an_event_has_the_attributes_of_the_protocol(make: Any) -> None:
    """An event of a test has the same as one of the hub."""
    event = make(**FULL, data={"line": "x"}, vendor={"a": [1]}, count=3, offset="9", rule="x", reason="y")
    assert {name: getattr(event, name) for name in FULL} == FULL
    assert event.data == {"line": "x"}
    assert event.extensions == {"vendor": {"a": [1]}, "count": 3}
    assert {getattr(event, name) for name in LATER} == {None}
    assert "7" in repr(event)


@pytest.mark.parametrize("make", [of_the_hub, make_event])
def test_what_an_event_lacks_is_none(make: Any) -> None:
    """Or what the hub fills in, or empty."""
    event = make()
    assert {getattr(event, name) for name in OPTIONAL} == {None}
    assert event.specversion == "1.0"
    assert event.time == event.received
    assert event.data == {}
    assert event.extensions == {}


@pytest.mark.parametrize("value", [5, {"a": 1}, [], True])
def test_attributes_of_unusual_types_are_none(value: Any) -> None:
    """So that a text is a text; what the hub does not judge by is among the extensions."""
    event = of_the_hub(subject=value, data_base64=value, sequence=value, priority=value)
    assert (event.subject, event.data_base64, event.sequence, event.priority) == (None, None, None, None)
    assert event.extensions == {"sequence": value, "priority": value}


def test_a_priority_that_is_none_of_the_three_is_an_extension() -> None:
    """A filter may know what its device means by it."""
    event = of_the_hub(priority="URGENT")
    assert event.priority is None
    assert event.extensions["priority"] == "URGENT"
    assert of_the_hub(priority="normal").priority is Priority.NORMAL
    assert of_the_hub(priority="normal").extensions == {}


def test_a_base64_that_is_no_text_at_all_can_be_read() -> None:
    """An unpaired surrogate is allowed there."""
    assert of_the_hub(data_base64="\ud800").data_base64 == "\ud800"


@pytest.mark.parametrize("name", [*FULL, *LATER, "data", "extensions", "received", "anything"])
def test_nothing_of_an_event_can_be_set(name: str) -> None:
    """Or deleted."""
    event = of_the_hub(**FULL)
    with pytest.raises(AttributeError):
        setattr(event, name, "x")
    with pytest.raises(AttributeError):
        delattr(event, name)


def test_nothing_in_the_data_can_be_changed() -> None:
    """However deep, and through whatever it is reached."""
    event = of_the_hub(data={"a": {"b": [{"c": 1}, [2]]}})
    data: Any = event.data
    inner = data["a"]["b"]
    value = next(iter(data.values()))
    for mapping in (data, data["a"], data.get("a"), value, inner[0], next(iter(inner)), inner[:1][0]):
        assert not isinstance(mapping, dict)
        with pytest.raises(TypeError):
            mapping["x"] = 1
        with pytest.raises(TypeError):
            del mapping["a"]
        with pytest.raises(AttributeError):
            mapping.update(x=1)
    for items in (inner, inner[1], next(reversed(inner)), inner[1:][0], inner[:]):
        assert not isinstance(items, list)
        with pytest.raises(TypeError):
            items[0] = 1
        with pytest.raises(AttributeError):
            items.append(1)
    assert event.data == {"a": {"b": [{"c": 1}, [2]]}}


@given(VALUES)
def test_frozen_values_equal_what_they_hold(value: Any) -> None:
    """And a copy of one's own is the same again, in dicts and lists."""
    assert frozen(value) == value
    assert frozen({"x": [value]}) == {"x": [value]} == frozen({"x": [value]})
    mine = plain(frozen({"x": [value]}))
    assert mine == {"x": [value]}
    assert json.loads(json.dumps(mine)) == mine
    assert plain(value) == value


@given(st.dictionaries(st.text(max_size=2), st.integers()), st.lists(st.integers()))
def test_frozen_values_behave_like_dicts_and_lists(members: dict[str, int], items: list[int]) -> None:
    """In what does not change them."""
    mapping, sequence = frozen(members), frozen(items)
    assert {**mapping} == members == dict(mapping.items())
    assert (len(mapping), list(mapping), list(mapping.values())) == (len(members), list(members), [*members.values()])
    assert all(name in mapping and mapping.get(name) == members[name] for name in members)
    assert (mapping.get("long"), mapping.get("long", 5), "long" in mapping) == (None, 5, False)
    assert (len(sequence), list(sequence), sequence[1:], sequence[::-1]) == (len(items), items, items[1:], items[::-1])
    assert sequence == tuple(items)
    assert frozen({}) == copy.deepcopy(frozen({}))


def test_frozen_values_differ_from_others() -> None:
    """Equality is not too generous, and what contains others has no hash."""
    assert frozen({"a": 1}) != {"a": 2}
    assert frozen([1]) != [2]
    assert frozen([1]) == frozen([1])
    assert frozen({}) != []
    assert frozen([]) != {}
    assert repr(frozen({"a": [1]})) == "FrozenDict({'a': [1]})"
    assert repr(frozen([1])) == "FrozenList([1])"
    for value in (frozen({}), frozen([])):
        with pytest.raises(TypeError):
            hash(value)


def test_patterns_match_frozen_values() -> None:
    """As they match dicts and lists."""
    match of_the_hub(data={"fields": {"zones": [7, 8]}}).data:
        case {"fields": {"zones": [first, *_]}}:
            assert first == 7
        case _:
            pytest.fail("no match")


def test_a_copy_is_ones_own() -> None:
    """Changing it changes no event."""
    event = of_the_hub(data={"a": {"b": [1]}})
    mine = plain(event.data)
    mine["a"]["b"].append(2)
    assert event.data == {"a": {"b": [1]}}
    assert isinstance(event.data, FrozenDict)
    assert isinstance(event.data["a"]["b"], FrozenList)


def test_the_deepest_event_can_be_read_and_copied() -> None:
    """As deep as the hub accepts."""
    line = b'{"id":"1","source":"/a","type":"t","data":{"a":%b1%b}}' % (b"[" * 990, b"]" * 990)
    mine = Draft(decode(line))
    event = EventView(mine.event, mine, RECEIVED)
    inner, copied = event.data["a"], plain(event.data)["a"]
    for _ in range(989):
        inner, copied = inner[0], copied[0]
    assert inner == copied == [1]


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"id": ""}, ValueError), ({"type": 5}, ValueError), ({"time": "noon"}, ValueError),
        ({"received": "noon"}, ValueError), ({"data": {"a": float("nan")}}, ValueError), ({"x": "\0"}, ValueError),
        ({"data": {1, 2}}, TypeError),
    ],
)  # fmt: skip
def test_an_event_that_the_hub_would_refuse_cannot_be_made(attributes: dict[str, Any], error: type[Exception]) -> None:
    """A test of a filter with it would prove nothing."""
    with pytest.raises(error):
        make_event(**attributes)


def test_an_event_can_be_made_from_the_parts_of_another() -> None:
    """And from what is no object."""
    assert make_event(data=make_event(data={"a": [1]}).data).data == {"a": [1]}
    assert make_event(data=[1]).data == {"value": [1]}
    assert make_event(priority=Priority.NORMAL, received=RECEIVED).received == RECEIVED


def test_the_interface_is_imported_without_twisted() -> None:
    """Tests of a filter need no reactor."""
    code = "import notifyd.filters, sys; notifyd.filters.make_event().data; sys.exit('twisted' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0


GOOD = """
from collections.abc import Awaitable, Mapping
from twisted.internet.defer import Deferred, succeed
from notifyd.filters import Characteriser, Event, Filter, Preprocessor, Priority, make_event


class Plain:
    def preprocess(self, event: Event) -> dict[str, str]:
        return {"zone": event.data["fields"]["zone"]}

    def characterise(self, event: Event) -> str | None:
        return event.priority


class Asynchronous:
    async def preprocess(self, event: Event) -> Mapping[str, object] | None:
        return None

    async def characterise(self, seen: Event) -> Priority | None:
        return Priority.CRITICAL if seen.type == "a" else None


class Deferring:
    def preprocess(self, event: Event) -> Deferred[dict[str, int]]:
        return succeed({"a": 1})

    def characterise(self, event: Event) -> Deferred[str | None]:
        return succeed(None)


class Inheriting(Preprocessor, Characteriser):
    async def preprocess(self, event: Event, /) -> Mapping[str, object]:
        return {}

    def characterise(self, event: Event, /) -> Awaitable[str | None]:
        return succeed(None)


filters: list[Filter] = [Plain(), Asynchronous(), Deferring(), Inheriting()]
preprocessors: list[Preprocessor] = [Plain(), Asynchronous(), Deferring(), Inheriting()]
characterisers: list[Characteriser] = [Plain(), Asynchronous(), Deferring(), Inheriting()]
event: Event = make_event(type="x", vendor=5)
"""
BAD = """
from notifyd.filters import Event, Filter


class Wrong:
    def characterise(self, event: Event) -> int:
        event.type = "x"
        event.data["a"] = 1
        return 5


class Neither:
    pass


first: Filter = Wrong()
second: Filter = Neither()
"""


def test_a_type_checker_understands_the_interface(tmp_path: Path) -> None:
    """It takes plain, async and Deferred methods, and finds what is wrong."""
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", "good.py", "bad.py"],
        cwd=tmp_path, check=False, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    errors = [line.split(": error: ")[0] for line in done.stdout.splitlines() if ": error: " in line]
    assert errors == ["bad.py:7", "bad.py:8", "bad.py:16", "bad.py:17"], done.stdout + done.stderr
