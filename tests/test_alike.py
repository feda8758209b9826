"""Events that are alike: members added to lines as they came, and what rules ask of data, decoded for all at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from notifyd import event as events
from notifyd import manyevents
from notifyd.conditions import ABSENT
from notifyd.config_hub import parse_hub
from notifyd.event import Event
from notifyd.hub.asked import AskedData
from notifyd.hub.conditions import value_at, values_in
from notifyd.hub.draft import Draft
from notifyd.hub.ruletree import RuleTree

COMPACT = (",", ":")
MEMBERS = b',"received":"r","rule":"load"'


def line(number: int = 1, data: Any = None, **more: Any) -> bytes:
    """Gives an agent's line, as short as it can be."""
    event = {
        "specversion": "1.0", "id": f"s-{number}", "source": "/a", "type": "t", "time": "2026-11-22T10:00:00.000000Z",
        "priority": "normal", "sequence": f"{number:020}", "data": {"line": "x"} if data is None else data,
    }  # fmt: skip
    return json.dumps({**event, **more}, separators=COMPACT, ensure_ascii=False).encode()


def added(*some: bytes, first: int = 12_345) -> list[dict[str, Any]] | None:
    """Adds members to lines; gives the events, after seeing that no member is there twice and that sizes are right."""
    found = manyevents.decode_all(some, complete=True)
    assert found is not None
    result = manyevents.append_members(found, some, first, MEMBERS)
    if result is None:
        return None
    data, sizes = result
    lines = data.splitlines(keepends=True)
    assert sizes == list(map(len, lines))
    pairs = [json.loads(each, object_pairs_hook=list) for each in lines]
    assert all(len(dict(each)) == len(each) for each in pairs)
    return [json.loads(each) for each in lines]


def test_members_are_added_to_lines_as_they_are() -> None:
    """Their own members stay as they stood, and offsets ascend."""
    some = [line(n, {"line": "x" * n, "fields": {"a": [1, {"b": None}]}}) for n in range(1, 4)]
    assert added(*some) == [
        {**json.loads(each), "offset": str(offset), "received": "r", "rule": "load"}
        for offset, each in enumerate(some, 12_345)
    ]


@pytest.mark.parametrize(
    "odd",
    [
        line().replace(b'"type":"t"', b'"type": "t"'),
        line() + b" ",
        b" " + line(),
        line().replace(b'"type":"t"', b'"type":"t","type":"t"'),
        line().replace(b'"type":"t"', b'"type":"o","type":"t"'),
        line().replace(b'"type":"t"', b'"typ\\u0065":"t"'),
        line().replace(b'"type":"t"', b'"type":"\\u0074"'),
        line(data={"line": 'a "quoted" word'}),
        line(data={"line": "ü"}),
        line(subject="s"),
        line(datacontenttype="application/json"),
        line(dataschema="s"),
    ],
)
def test_lines_with_more_than_their_values_are_encoded(odd: bytes) -> None:
    """White space, a key that is repeated, escapes, other attributes: also where the others have none."""
    usual = line(2)
    assert added(usual, usual) is not None
    assert added(odd) is None
    assert added(odd, usual) is None
    assert added(usual, odd) is None


def test_a_line_cannot_pay_for_another_ones_white_space() -> None:
    """Each is as short as it can be, or all have more bytes together."""
    padded = line(1, {"line": "x"}).replace(b'"type":"t"', b'"type"  :"t"')
    assert added(padded, line(2, {})) is None
    assert added(line(1, {}), padded) is None
    assert added(padded, line(2, {"line": "x" * 50}), line(3, {})) is None


@pytest.mark.parametrize(
    ("first", "done"), [(5, False), (9_999, False), (10_000, True), (19_998, True), (19_999, False)]
)
def test_offsets_with_other_figures_before_are_left_to_the_encoder(first: int, done: bool) -> None:
    """Two offsets have the same figures but for the last four, or nothing is done."""
    found = added(line(1), line(2), first=first)
    assert ([each["offset"] for each in found] if found else None) == ([str(first), str(first + 1)] if done else None)


texts = st.text(st.sampled_from('ab"\\\n\0 ü{},:\x7f'), min_size=1, max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b", "é"]), inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.lists(st.tuples(texts, st.dictionaries(st.sampled_from("ab"), json_values), st.text(" ", max_size=2))))
def test_what_is_added_to_is_what_would_be_encoded(parts: list[tuple[str, Any, str]]) -> None:
    """Whatever is in the lines; or it is left."""
    some = [line(n, data, id=name)[:-1] + blanks.encode() + b"}" for n, (name, data, blanks) in enumerate(parts, 1)]
    found = manyevents.decode_all(some, complete=True) if some else None
    if found is None or (result := manyevents.append_members(found, some, 70_001, MEMBERS)) is None:
        return
    for offset, event in enumerate(found, 70_001):
        event.offset, event.received, event.rule = str(offset), "r", "load"
    encoded, sizes = manyevents.encode_all(found)
    assert result[1] == sizes
    pairs = [
        [json.loads(each, object_pairs_hook=sorted) for each in data.splitlines()] for data in (result[0], encoded)
    ]
    assert pairs[0] == pairs[1]


# --- what rules ask ------------------------------------------------------------------------------------------

PATHS = [("a",), ("b", "a"), ("b", "b"), ("a.b",), ("é", "a", "b")]


@settings(max_examples=300)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "a.b", "é"]), json_values), min_size=1, max_size=4))
def test_values_are_found_as_they_are_in_parsed_data(some: list[dict[str, Any]]) -> None:
    """All that differ, or none where it is not known."""
    values = AskedData(PATHS).read([Event(id="1", source="/a", type="t", data=events.raw_data(each)) for each in some])
    for path in PATHS if values is not None else ():
        assert values is not None
        found, parsed = values.at(path), values_in(some, path)
        if found:
            assert {str(each) for each in found} == {str(each) for each in parsed or [ABSENT]}


def test_values_that_most_events_have_are_found() -> None:
    """A member that is nowhere, one that all have, one whose path ends early; not one that only some have."""
    some = [Event(id="1", source="/a", type="t", data=Raw(b'{"b":{"a":"%d"},"c":{},"line":"x"}' % n)) for n in (1, 2)]
    values = AskedData([("b", "a"), ("b", "c"), ("c", "a", "b")]).read(some)
    assert values is not None
    assert (values.at(("b", "a")), values.at(("b", "c"))) == (["1", "2"], [ABSENT])
    assert values.at(("c", "a", "b")) == [ABSENT]
    assert AskedData([("b",)]).read([some[0], Event(id="1", source="/a", type="t")]) is None
    mixed = AskedData([("b", "a")]).read([some[0], Event(id="1", source="/a", type="t", data=Raw(b"{}"))])
    assert mixed is not None
    assert mixed.at(("b", "a")) == ()


RULES = """
[[rule]]
where = { "a" = "x" }
priority = "critical"
[[rule]]
where = { "b.a" = 1, "b.b" = ["x", true] }
priority = "critical"
[[rule]]
where = { "b" = "x" }
priority = "normal"
[[rule]]
priority_from = "b.a.b"
[[rule]]
type = "u"
where = { "d.0" = "x" }
priority = "normal"
"""
some_values = st.sampled_from(
    ["x", "y", 1, True, None, ["x"], {"b": "normal"}, {"a": 1, "b": "x"}, {"a": {"b": "normal"}}]
)
some_data = st.dictionaries(st.sampled_from("abcd"), some_values)


@settings(max_examples=500)
@given(st.lists(some_data, min_size=1, max_size=3), st.sampled_from("tu"), st.booleans())
def test_rules_are_asked_together_as_for_each(data: list[dict[str, Any]], kind: str, same: bool) -> None:
    """Or it is not known whether one rule is the first for all."""
    tree = RuleTree(parse_hub(RULES, "hub.toml").rule)
    some = [Event(id="1", source="/a", type=kind, data=events.raw_data(data[0] if same else each)) for each in data]
    number = tree.first_alike(some)
    if number is not None:
        assert {tree.first(Draft(event, "r", 1.0)) for event in some} == {number}


@pytest.mark.parametrize("name", ['say "hi"', "C:\\", "a\tb"])
def test_names_that_have_to_be_escaped_are_asked_for_one_by_one(name: str) -> None:
    """They stand in few configurations, and cost those nothing but time."""
    rules = f"""
        [[rule]]
        type = "t"
        where = {{ {json.dumps("fields." + name)} = "x" }}
        priority = "critical"
        [[rule]]
        type = "t"
        priority_from = {json.dumps(name)}
        [[rule]]
        type = "u"
        where = {{ a = "x" }}
        priority = "normal"
        """
    tree = RuleTree(parse_hub(rules, "hub.toml").rule)

    def first(kind: str, data: dict[str, Any]) -> tuple[int | None, int]:
        event = Event(id="1", source="/a", type=kind, data=events.raw_data(data))
        return tree.first_alike([event]), tree.first(Draft(event, "r", 1.0))

    assert first("t", {"fields": {name: "x"}}) == (None, 0)
    assert first("t", {name: "normal"}) == (None, 1)
    assert first("u", {"a": "x"}) == (2, 2)


def test_usual_events_are_asked_together() -> None:
    """One way for all of them."""
    tree = RuleTree(parse_hub(RULES, "hub.toml").rule)

    def first(*some: dict[str, Any]) -> int | None:
        return tree.first_alike([Event(id="1", source="/a", type="t", data=events.raw_data(each)) for each in some])

    assert first({"a": "x"}, {"a": "x", "line": "y"}) == 0
    assert first({"a": "y"}, {"a": "z"}) == first({}, {}) == -1
    assert first({"a": "x"}, {"a": "y"}) is None
    assert first({}, {"b": 1}) is None


def test_data_that_is_something_else_than_asked_is_left() -> None:
    """A list where members are asked for: each event is asked by itself then."""
    deep = Event(id="1", source="/a", type="t", data=Raw(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"))
    assert AskedData([("a", "b")]).read([deep]) is None
    assert value_at(Draft(deep, "r", 1.0), ("a", "b")) is ABSENT
