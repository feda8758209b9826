"""Classification: rules, then the producer's hint, then the default."""

from __future__ import annotations

import json
from typing import Any

import pytest

from notifyd.config_hub import parse_hub
from notifyd.event import Priority, decode
from notifyd.hub.classify import Classifier, Decision, Explanation
from notifyd.hub.draft import Draft


def decide(rules: str, default: Priority = Priority.ERROR, **attributes: Any) -> Decision:
    """Classifies an event by rules as they stand in hub.toml."""
    event = decode(json.dumps({"id": "1", "source": "/ward3/panel", "type": "panel.alarm", **attributes}).encode())
    return Classifier(parse_hub(rules, "hub.toml").rule, default).classify(Draft(event))


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


def test_a_damaged_frame_is_an_error_whatever_its_hint_unless_a_rule_says_otherwise() -> None:
    """Its priority only chose the lane in which it waited."""
    for default in (Priority.ERROR, Priority.NORMAL):
        decision = decide("", default, type="notifyd.frame.damaged", priority="normal")
        assert (decision.priority, decision.rule) == (Priority.ERROR, "default")
        assert decision.reason is not None
        assert "damaged" in decision.reason
    rule = '[[rule]]\ntype = "notifyd.frame.*"\npriority = "important"'
    assert decide(rule, type="notifyd.frame.damaged", priority="normal") == Decision(Priority.IMPORTANT, "rule 1")
    event = decode(b'{"id":"1","source":"/a/b","type":"notifyd.frame.damaged","priority":"normal"}')
    explained = Classifier(parse_hub(rule.replace("frame.*", "x"), "hub.toml").rule, Priority.ERROR).explain(
        Draft(event)
    )
    assert explained.decision.priority is Priority.ERROR


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
    assert Classifier(rules, Priority.ERROR).classify(Draft(decode(line))).rule == "rule 2"
    deep = b'{"id":"1","source":"/a","type":"t","data":{"a":' + b"[" * 990 + b"]" * 990 + b',"c":7}}'
    assert Classifier(rules, Priority.ERROR).classify(Draft(decode(deep))).rule == "rule 2"


def test_an_integer_of_more_digits_than_python_reads_can_be_asked() -> None:
    """It counts as the text that it is written as, and the event is taken."""
    digits = "9" * 5000
    event = decode(b'{"id":"1","source":"s","type":"t","data":{"n":%s,"zone":"7"}}' % digits.encode())
    rules = parse_hub('[[rule]]\nwhere = { "zone" = "7" }\npriority = "normal"', "hub.toml").rule
    assert Classifier(rules, Priority.ERROR).classify(Draft(event)).priority is Priority.NORMAL


# --- what else a rule may say ----------------------------------------------------------------------------------


def test_a_rule_may_drop_an_event() -> None:
    """The decision says so, and which rule it was."""
    decision = decide('[[rule]]\nname="chatter"\ntype="panel.*"\ndrop=true')
    assert (decision.drop, decision.rule, decision.reason) == (True, "chatter", None)
    assert not decide('[[rule]]\ntype="door.*"\ndrop=true', priority="normal").drop


def test_a_rule_may_add_attributes() -> None:
    """With a priority of its own, and with one that stands in the data."""
    rules = """
        [[rule]]
        type = "panel.*"
        priority_from = "p"
        set = { ward = "3", floor = 2, night = true }
        [[rule]]
        type = "panel.*"
        priority = "normal"
    """
    for priority in ("critical", "error"):
        attributes = decide(rules, data={"p": priority}).attributes
        assert attributes is not None
        assert attributes.members == {"ward": b'"3"', "floor": b"2", "night": b"true"}
    assert decide(rules).attributes is None
    assert decide("", priority="normal").attributes is None


def test_priority_from_and_where_may_ask_for_the_same_path() -> None:
    """Both must hold."""
    rules = '[[rule]]\npriority_from = "p"\nwhere = { p = ["critical", "urgent"] }'
    assert decide(rules, data={"p": "critical"}).priority is Priority.CRITICAL
    assert decide(rules, data={"p": "normal"}).rule == "default"
    assert decide(rules, data={"p": "urgent"}).rule == "default"


def explain(rules: str, **attributes: Any) -> Explanation:
    """Explains the decision about an event."""
    event = decode(json.dumps({"id": "1", "source": "/ward3/panel", "type": "panel.alarm", **attributes}).encode())
    explanation = Classifier(parse_hub(rules, "hub.toml").rule, Priority.ERROR).explain(Draft(event))
    assert explanation.decision == decide(rules, **attributes)
    return explanation


def test_a_decision_can_be_explained() -> None:
    """Each rule before the one that decided, with the condition that failed first."""
    rules = """
        [[rule]]
        name = "doors"
        type = "door.*"
        priority = "normal"
        [[rule]]
        where = { "fields.zone" = ["8", "9"] }
        drop = true
        [[rule]]
        name = "zones"
        priority_from = "context.zone.priority"
        [[rule]]
        name = "words"
        priority_from = "fields.urgency"
        [[rule]]
        name = "rest"
        priority = "critical"
        [[rule]]
        name = "never asked"
        priority = "normal"
    """
    explanation = explain(rules, data={"fields": {"zone": "7", "urgency": "high"}})
    assert explanation.missed == (
        ("doors", 'type is "panel.alarm", not like "door.*"'),
        ("rule 2", 'fields.zone is "7", none of "8", "9"'),
        ("zones", "priority_from finds no priority at context.zone.priority, where nothing stands"),
        ("words", 'priority_from finds no priority at fields.urgency, where "high" stands'),
    )
    assert explanation.decision == Decision(Priority.CRITICAL, "rest")
    assert explain(rules, data={"fields": {"urgency": "critical"}}).decision.rule == "words"


def test_that_no_rule_decided_can_be_explained() -> None:
    """By the hint, or by the default with its reason."""
    rules = '[[rule]]\ntype = "door.*"\npriority = "normal"'
    assert explain(rules, priority="critical").decision.rule == "hint"
    explanation = explain(rules, priority="urgent")
    assert len(explanation.missed) == 1
    assert explanation.decision.reason == (
        'no rule matches and priority "urgent" is none of normal, important and critical'
    )
