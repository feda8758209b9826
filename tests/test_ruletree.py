"""Many rules: found as if they were asked one after the other, at a cost that hardly grows with them."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.config import Comparison
from notifyd.config_hub import HubRule, parse_hub
from notifyd.event import Priority, decode
from notifyd.hub import ruletree
from notifyd.hub.classify import Classifier
from notifyd.hub.draft import Draft
from notifyd.hub.ruletree import MAX_REMEMBERED, MAX_REMEMBERED_TEXT, RuleTree

PRIORITIES = ["normal", "important", "critical", "error"]
TYPES = ["a", "a.b", "a.bc", "b", "c.b", "x" * 150]
TYPE_PATTERNS = ["a", "b", "a.*", "a*", "*b", "*.b*", "?.b", "[ab]", "*", "x" * 150]
VALUES = [
    '"7"', "7", "7.0", '"7.0"', '"8"', "8", "9.5", '"9.5"', "-1", "true", '"true"', "1", "null", "{}", "[]", '["7"]',
    '""', '"ab"', '"abc"', '"xabx"', '"normal"', '"critical"', '"urgent"', "1E400", "-1E400", '"Infinity"', '"nan"',
    '"9007199254740993"', "9007199254740993", "9007199254740992", '"' + "y" * 150 + '"',
]  # fmt: skip
SCALARS = ["7", 7, 7.0, "8", True, "true", "", "ab", "Infinity", "1", "critical", "y" * 150]
GLOBS = [None, None, "a*", "*b", "*ab*", "a?", "7*", "*", "yy*"]
LIMITS = [7, 7.0, 8, 9.5, -1, 9007199254740992, 9007199254740992.0, float("inf"), float("nan")]

comparisons = (
    st.dictionaries(st.sampled_from(["gt", "ge", "lt", "le"]), st.sampled_from(LIMITS), max_size=2)
    .flatmap(
        lambda limits: st.builds(Comparison, glob=st.sampled_from(GLOBS), **{k: st.just(limits[k]) for k in limits})
    )
    .filter(lambda comparison: comparison != Comparison())
)
expectations = st.one_of(
    st.sampled_from(SCALARS), st.lists(st.sampled_from(SCALARS), min_size=1, max_size=4).map(tuple), comparisons
)
# What holds for a value is tested by itself: few values, so that rules that agree in part are often asked together.
few_expectations = st.sampled_from(
    ["7", ("8", "ab"), Comparison(gt=7), Comparison(glob="a*"), Comparison(le=8, glob="*")]
)
few_values = st.sampled_from(['"7"', "8", '"ab"', '"normal"', '"critical"', "null"])
paths = st.sampled_from(["x", "y", "f.x", "f.y", "f.z", "f.v", "l.0"])
patterns = st.sampled_from([None, None, None, *TYPE_PATTERNS])
rules = st.lists(
    st.builds(
        HubRule,
        type=patterns,
        source=patterns,
        where=st.dictionaries(paths, few_expectations, max_size=3),
        priority_from=st.one_of(st.none(), st.none(), st.none(), paths),
    ),
    max_size=14,
)
objects = st.dictionaries(st.sampled_from("xyzvw"), few_values, max_size=5)
events = st.tuples(
    st.sampled_from(TYPES),
    st.sampled_from(TYPES),
    objects,
    st.one_of(objects, objects, few_values),
    st.lists(few_values, max_size=2),
)


def written(members: dict[str, str]) -> str:
    """Gives an object of members that are written as JSON."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


def line_of(event: tuple[str, str, dict[str, str], dict[str, str] | str, list[str]]) -> bytes:
    """Gives the line of a generated event."""
    kind, source, top, fields, several = event
    f = fields if isinstance(fields, str) else written(fields)
    data = written({**top, "f": f, "l": f"[{','.join(several)}]"})
    return written({"id": '"1"', "type": f'"{kind}"', "source": f'"{source}"', "data": data}).encode()


def with_x(value: str) -> Draft:
    """Gives an event with a value, which is written as JSON, in its data."""
    return Draft(decode(b'{"id":"1","type":"t","source":"s","data":{"x":%b}}' % value.encode()))


# --- one rule after the other, as plainly as can be ----------------------------------------------------------


def stands_at(value: Any, path: str) -> Any:
    """Gives what stands at a path; None for nothing, which is equal to nothing either."""
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def as_text(value: Any) -> str | None:
    """Gives a scalar's text."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def as_number(value: Any) -> int | float | None:
    """Gives the number that a value is, or that its text writes out."""
    if isinstance(value, str):
        if re.fullmatch(r"[-+]?[0-9]+", value):
            return int(value)
        return float(value) if re.fullmatch(r"[-+]?[0-9]+\.[0-9]+", value) else None  # the only ones in VALUES
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def holds(expected: Any, value: Any) -> bool:
    """Tells whether a condition of ``where`` holds."""
    text = as_text(value)
    if not isinstance(expected, Comparison):
        return text is not None and text in map(as_text, expected if isinstance(expected, tuple) else [expected])
    if text is None or (expected.glob is not None and not fnmatch.fnmatchcase(text, expected.glob)):
        return False
    limits = (expected.gt, expected.ge, expected.lt, expected.le)
    if limits == (None,) * 4:
        return True
    number = as_number(value)
    return (
        number is not None
        and (expected.gt is None or number > expected.gt)
        and (expected.ge is None or number >= expected.ge)
        and (expected.lt is None or number < expected.lt)
        and (expected.le is None or number <= expected.le)
    )


def first_of(rules: Sequence[HubRule], event: dict[str, Any]) -> tuple[int, str | None]:
    """Gives the number of the first rule that matches, and what its ``priority_from`` finds."""
    for number, rule in enumerate(rules):
        found = None if rule.priority_from is None else stands_at(event["data"], rule.priority_from)
        if (
            (rule.type is None or fnmatch.fnmatchcase(event["type"], rule.type))
            and (rule.source is None or fnmatch.fnmatchcase(event["source"], rule.source))
            and all(holds(expected, stands_at(event["data"], path)) for path, expected in rule.where.items())
            and (rule.priority_from is None or (isinstance(found, str) and found in PRIORITIES))
        ):
            return number, found
    return -1, None


@given(room=st.sampled_from([MAX_REMEMBERED, 7]), rules=rules, events=st.lists(events, min_size=1, max_size=12))
def test_the_rule_is_the_one_that_asking_each_would_find(room: int, rules: list[HubRule], events: list[Any]) -> None:
    """Whatever the events before it were, what is remembered of them, and when it is forgotten."""
    rules = [
        HubRule(type=rule.type, source=rule.source, where=rule.where, priority_from=rule.priority_from)
        if rule.priority_from is not None
        else HubRule(type=rule.type, source=rule.source, where=rule.where, priority=Priority.IMPORTANT)
        for rule in rules
    ]
    classifier = Classifier(rules, Priority.ERROR)
    with mock.patch.object(ruletree, "MAX_REMEMBERED", room):
        for line in map(line_of, events):
            number, found = first_of(rules, json.loads(line))
            decision = classifier.classify(Draft(decode(line)))
            assert decision.rule == ("default" if number < 0 else f"rule {number + 1}")
            assert decision.priority == (found or ("error" if number < 0 else "important"))
            explanation = classifier.explain(Draft(decode(line)))
            assert explanation.decision == decision
            assert len(explanation.missed) == (len(rules) if number < 0 else number)


@given(rules, st.lists(events, min_size=1, max_size=12), st.booleans(), st.booleans())
def test_events_are_judged_together_as_each_would_be(
    rules: list[HubRule], events: list[Any], same_type: bool, same_fields: bool
) -> None:
    """Those that are alike go down together as far as they can."""
    first = events[0]
    events = [
        (*(first[:2] if same_type else each[:2]), each[2], *(first[3:] if same_fields else each[3:])) for each in events
    ]
    some = [rule for rule in rules if rule.priority_from is not None]
    some += [HubRule(type=r.type, source=r.source, where=r.where, priority=Priority.IMPORTANT) for r in rules]
    lines = list(map(line_of, events))
    classifier = Classifier(some, Priority.ERROR)
    together = classifier.classify_all([Draft(decode(line)) for line in lines])
    assert together == [Classifier(some, Priority.ERROR).classify(Draft(decode(line))) for line in lines]
    assert together == classifier.classify_all([Draft(decode(line)) for line in lines])


def tree_for(expected: Sequence[Any]) -> RuleTree:
    """Compiles rules that each ask for one thing at the same place."""
    return RuleTree([HubRule(where={"x": each}, priority=Priority.NORMAL) for each in expected])


@pytest.mark.parametrize("name", ["gt", "ge", "lt", "le"])
def test_every_comparison_holds_as_it_does_by_itself(name: str) -> None:
    """With each limit, for each value: below it, above it and at it."""
    for limit in LIMITS:
        tree = tree_for([expected := Comparison(**{name: limit})])
        for value in VALUES:
            assert tree.first(with_x(value)) == (0 if holds(expected, json.loads(value)) else -1), (limit, value)


@given(expected=st.lists(expectations, min_size=2, max_size=5))
def test_conditions_for_one_place_do_not_mix(expected: list[Any]) -> None:
    """Of several rules the first that takes a value is found, for each value."""
    tree = tree_for(expected)
    for value in VALUES:
        holding = [number for number, each in enumerate(expected) if holds(each, json.loads(value))]
        assert tree.first(with_x(value)) == min(holding, default=-1), value


# --- what it costs -------------------------------------------------------------------------------------------


def tree_of(condition: str, count: int) -> RuleTree:
    """Compiles so many rules, each with its own number for the # in a condition."""
    text = "\n".join(f"[[rule]]\npriority = 'normal'\n{condition.replace('#', str(n))}" for n in range(count))
    return RuleTree(parse_hub(text, "hub.toml").rule)


def draft_of(number: int) -> Draft:
    """Gives the event that is meant for one of the rules of :func:`tree_of`."""
    fields = {"zone": str(number), f"f{number}": "1", "celsius": number + 0.5}
    data = {"line": f"ALARM {number} smoke", "fields": fields}
    event = {"id": "1", "source": f"/w{number}/panel", "type": f"t{number}.alarm", "data": data}
    return Draft(decode(json.dumps(event).encode()))


@pytest.mark.parametrize(
    "condition",
    [
        'type = "t#.alarm"', 'type = "t#.*"', 'type = "t#.?*"', 'source = "/w#/*"', 'source = "*w#/*"',
        'type = "t#.*"\nsource = "/w#/*"', 'where = { "fields.zone" = "#" }', 'where = { "fields.zone" = ["#", "x#"] }',
        'where = { line = { glob = "ALARM # *" } }', 'where = { line = { glob = "* # *" } }',
        'where = { "fields.celsius" = { ">" = #, "<=" = #.9 } }', 'where = { "fields.f#" = "1" }',
        'where = { "fields.zone" = "#", "fields.f#" = "1" }',
    ],
)  # fmt: skip
def test_an_event_is_asked_as_little_with_200_rules_as_with_5(condition: str) -> None:
    """Once its like has been seen: as many look-ups in its data, and no rule is asked by itself."""

    def asked(count: int) -> list[int]:
        tree = tree_of(condition, count)
        drafts = [draft_of(number) for number in range(count)]
        assert [tree.first(draft) for draft in drafts] == list(range(count))
        remembered = tree.remembered
        with mock.patch.object(ruletree, "value_at", wraps=ruletree.value_at) as look_up:
            assert [tree.first(draft) for draft in drafts] == list(range(count))
        assert tree.remembered == remembered
        return [look_up.call_count // count, look_up.call_count % count]

    assert asked(200) == asked(5)


def test_rules_that_name_an_own_field_each_cost_no_more() -> None:
    """What fields an event has is looked up once, not every field that a rule might want."""
    tree = tree_of('where = { "fields.f#" = "1" }', 200)
    with mock.patch.object(ruletree, "value_at", wraps=ruletree.value_at) as look_up:
        assert tree.first(draft_of(150)) == 150
        assert tree.first(draft_of(300)) == -1
    assert look_up.call_count == 3


def test_rules_that_name_an_own_place_in_a_list_are_found() -> None:
    """A list has no names to look up first; a text, which has no members, is no list."""
    tree = tree_of('where = { "values.#" = "1" }', 20)

    def first(values: object) -> int:
        event = {"id": "1", "type": "t", "source": "s", "data": {"values": values}}
        return tree.first(Draft(decode(json.dumps(event).encode())))

    assert [first(["0"] * n + ["1"]) for n in range(22)] == [*range(20), -1, -1]
    assert [first("1"), first("0"), first(None), first({}), first({"3": "1"}), first(["1"])] == [-1, -1, -1, -1, 3, 0]


# --- what is remembered --------------------------------------------------------------------------------------


@pytest.mark.parametrize("changing", ["type", "source", "line", "celsius", "fields"])
def test_what_is_remembered_is_bounded(changing: str) -> None:
    """A producer that sends ever new types, sources, values or fields fills no memory, and is served all the same."""
    conditions = ["type = 't#*'", "source = '/w#*'", "where = { line = { glob = '*#' } }", "where = { celsius = # }",
                  "where = { celsius = { '>' = # } }", "where = { f# = 1 }"]  # fmt: skip
    tree = tree_of("\n[[rule]]\npriority='normal'\n".join(conditions), 5)
    with mock.patch.object(ruletree, "MAX_REMEMBERED", 100):
        for number in range(1000):
            value = f"x{number}"
            attributes = {"id": "1", "type": "t", "source": "s"}
            data: dict[str, object] = {"line": "l", "celsius": -1}
            if changing == "fields":
                data |= {f"f{bit}": 0 for bit in range(10) if number >> bit & 1}
            elif changing in attributes:
                attributes[changing] = value
            else:
                data[changing] = value if changing == "line" else -number
            tree.first(Draft(decode(json.dumps({**attributes, "data": data}).encode())))
            nodes = list(tree._nodes.values())
            held = len(nodes) + len(tree._types) + len(tree._sources) + len(tree._roots)
            assert held + sum(len(node.children) for node in nodes) <= tree.remembered <= 100


def test_long_texts_are_not_remembered() -> None:
    """They may be as long as a line."""
    tree = tree_of("where = { x = { glob = '*#*' } }", 5)

    def ask(text: str) -> int:
        event = {"id": "1", "type": text, "source": text, "data": {"x": text}}
        tree.first(Draft(decode(json.dumps(event).encode())))
        return tree.remembered

    long, short = "x" * (MAX_REMEMBERED_TEXT + 1), "x" * MAX_REMEMBERED_TEXT
    assert ask(long) == ask(long)  # the steps are, and they stay
    assert ask(short) == ask(long) == tree.remembered
    assert short in tree._types
    assert long not in tree._types
    assert long not in tree._sources
    assert not any(long in node.children for node in tree._nodes.values())


def test_values_that_no_rule_names_are_not_remembered() -> None:
    """They are known by a look-up anyway: numbers that only count up use no memory."""
    tree = tree_of('where = { "fields.zone" = ["#", "x#"] }', 5)
    assert tree.first(draft_of(100)) == -1
    remembered = tree.remembered
    for number in range(100, 200):
        draft = draft_of(100)
        draft.data["fields"]["zone"] = str(number)
        assert tree.first(draft) == -1
    assert tree.remembered == remembered
