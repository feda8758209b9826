"""Classification: rules, then the producer's hint, then the default."""

from __future__ import annotations

import json
from typing import Any

import pytest

from notifyd.config_hub import parse_hub
from notifyd.event import Priority, decode
from notifyd.hub.classify import Classifier, Decision


def decide(rules: str, default: Priority = Priority.ERROR, **attributes: Any) -> Decision:
    """Classifies an event by rules as they stand in hub.toml."""
    event = decode(json.dumps({"id": "1", "source": "/ward3/panel", "type": "panel.alarm", **attributes}).encode())
    return Classifier(parse_hub(rules, "hub.toml").rule, default).classify(event)


def matches(conditions: str, **attributes: Any) -> bool:
    """Tells whether a rule with these conditions takes an event."""
    return decide(f'[[rule]]\nname="r"\npriority="critical"\n{conditions}', **attributes).rule == "r"


def test_the_first_rule_that_matches_wins() -> None:
    """Whatever the hint is; a rule without a name is called by its number."""
    rules = """
        [[rule]]
        type = "other"
        priority = "normal"
        [[rule]]
        type = "panel.*"
        priority = "critical"
        [[rule]]
        name = "late"
        priority = "important"
    """
    assert decide(rules, priority="normal") == Decision(Priority.CRITICAL, "rule 2")
    assert decide(rules, type="x", priority="normal") == Decision(Priority.IMPORTANT, "late")


@pytest.mark.parametrize("hint", ["normal", "important", "critical"])
def test_without_a_rule_the_hint_counts(hint: str) -> None:
    """For the three priorities that a producer can give."""
    assert decide("", priority=hint) == Decision(Priority(hint), "hint")


@pytest.mark.parametrize("hint", [None, "error", "URGENT", "", 5, [], {}, True, "x" * 500])
def test_any_other_hint_gives_the_default(hint: Any) -> None:
    """And an error says what the hint was, shortened."""
    decision = decide("", priority=hint)
    assert (decision.priority, decision.rule) == (Priority.ERROR, "default")
    assert decision.reason is not None
    assert ("no priority" if hint is None else json.dumps(hint)[:50]) in decision.reason
    assert len(decision.reason) < 250
    assert decide("", Priority.IMPORTANT, priority=hint) == Decision(Priority.IMPORTANT, "default")


def test_a_rule_may_say_error() -> None:
    """The reason names the rule."""
    decision = decide('[[rule]]\nname="noise"\npriority="error"')
    assert decision.priority is Priority.ERROR
    assert decision.reason is not None
    assert "noise" in decision.reason


@pytest.mark.parametrize(
    ("pattern", "type", "expected"),
    [
        ("panel.alarm", "panel.alarm", True), ("panel.alarm", "panel.alarms", False), ("panel.*", "panel.", True),
        ("panel.*", "panelx", False), ("*", "", True), ("panel.?", "panel.ab", False), ("PANEL.*", "panel.a", False),
        ("[ab]*", "b1", True), ("[!ab]*", "b1", False), ("*.alarm", "a\nb.alarm", True), ("a", "a\n", False),
        ("*a", "a\n", False), ("panel.alarm.", "panelxalarmx", False),
    ],
)  # fmt: skip
def test_types_and_sources_are_globs(pattern: str, type: str, expected: bool) -> None:  # noqa: A002
    """Over the whole text, and upper case differs from lower."""
    if type:
        assert matches(f"type = {json.dumps(pattern)}", type=type) == expected
        assert matches(f"source = {json.dumps(pattern)}", source=type) == expected


def test_all_conditions_of_a_rule_must_hold() -> None:
    """Type, source and every where."""
    rule = 'type="panel.*"\nsource="/ward3/*"\nwhere={"fields.zone"="7","line"="ALARM"}'
    data = {"line": "ALARM", "fields": {"zone": "7"}}
    assert matches(rule, data=data)
    for wrong in (
        {"type": "x", "data": data},
        {"source": "/ward4/panel", "data": data},
        {"data": {**data, "line": "x"}},
        {"data": {**data, "fields": {"zone": "8"}}},
        {"data": {"line": "ALARM"}},
        {},
    ):
        assert not matches(rule, **wrong)


@pytest.mark.parametrize(
    ("value", "data", "expected"),
    [
        ("7", {"x": "7"}, True), ("7", {"x": 7}, True), ('"7"', {"x": 7}, True), ('"7"', {"x": "07"}, False),
        ("7.5", {"x": 7.5}, True), ("true", {"x": True}, True), ('"true"', {"x": True}, True),
        ("1", {"x": True}, False),
        ('"null"', {"x": None}, False), ('""', {"x": None}, False), ('""', {"x": ""}, True), ('"[]"', {"x": []}, False),
        ('""', {}, False), ('"a"', "a", False), ('"{}"', {"x": {}}, False),
    ],
)  # fmt: skip
def test_where_compares_scalars_as_text(value: str, data: Any, expected: bool) -> None:
    """A rule's 7 is a field's "7"; what is absent or null is equal to nothing."""
    assert matches(f"where={{x={value}}}", data=data) == expected


def test_where_goes_down_into_data() -> None:
    """Through objects by name and through lists by number; data that is no object is under value."""
    assert matches('where={"a.b.c"=1}', data={"a": {"b": {"c": 1}}})
    assert matches('where={"a.1"="y"}', data={"a": ["x", "y"]})
    assert not matches('where={"a.2"="y"}', data={"a": ["x", "y"]})
    assert not matches('where={"a.-1"="y"}', data={"a": ["x", "y"]})
    assert not matches('where={"a.b"="y"}', data={"a": "b"})
    assert matches('where={value="text"}', data="text")
    assert matches('where={"value.0"=1}', data=[1])


def test_priority_from_reads_the_priority_from_data() -> None:
    """What is none is no match, and the next rule is asked."""
    rules = '[[rule]]\nname="from"\npriority_from="fields.p"\n[[rule]]\nname="next"\npriority="normal"'
    assert decide(rules, data={"fields": {"p": "critical"}}) == Decision(Priority.CRITICAL, "from")
    for other in ("urgent", 5, None, {}, ["critical"]):
        assert decide(rules, data={"fields": {"p": other}}).rule == "next"
    assert decide(rules).rule == "next"


def test_data_with_surrogates_and_huge_numbers_can_be_asked() -> None:
    """Anything that was accepted can be classified."""
    line = b'{"id":"1","source":"/a","type":"t","data":{"a":"\\ud800","b":1E400,"c":"7"}}'
    rules = parse_hub(
        '[[rule]]\npriority="normal"\nwhere={c=7,b=0}\n[[rule]]\npriority="critical"\nwhere={c=7}', "f"
    ).rule
    assert Classifier(rules, Priority.ERROR).classify(decode(line)).rule == "rule 2"
    deep = b'{"id":"1","source":"/a","type":"t","data":{"a":' + b"[" * 990 + b"]" * 990 + b',"c":7}}'
    assert Classifier(rules, Priority.ERROR).classify(decode(deep)).rule == "rule 2"


def test_an_integer_of_more_digits_than_python_reads_can_be_asked() -> None:
    """It counts as the text that it is written as, and the event is taken."""
    digits = "9" * 5000
    event = decode(b'{"id":"1","source":"s","type":"t","data":{"n":%s,"zone":"7"}}' % digits.encode())
    rules = parse_hub('[[rule]]\nwhere = { "zone" = "7" }\npriority = "normal"', "hub.toml").rule
    assert Classifier(rules, Priority.ERROR).classify(event).priority is Priority.NORMAL
