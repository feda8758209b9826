"""Conditions: which events they take, and what is said of those that they do not take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from notifyd.conditions import ABSENT, MAX_SHOWN, number_of
from notifyd.config import Comparison
from notifyd.config_hub import parse_hub
from notifyd.event import decode
from notifyd.hub.conditions import Matcher
from notifyd.hub.draft import Draft


def draft(data: str = "{}", **attributes: Any) -> Draft:
    """Gives an event with data as it is written."""
    event = {"id": "1", "source": "/ward3/panel", "type": "panel.alarm", **attributes}
    return Draft(decode(json.dumps(event)[:-1].encode() + b',"data":%b}' % data.encode()))


def matcher(conditions: str) -> Matcher:
    """Compiles conditions as they stand in hub.toml."""
    return Matcher(parse_hub(f"[[suppress]]\n{conditions}", "hub.toml").suppress[0])


def takes(condition: str, value: str) -> bool:
    """Tells whether a condition takes a value, which is written as JSON; asks for the sentence, too."""
    conditions, event = matcher(f"where = {{ x = {condition} }}"), draft(f'{{"x":{value}}}')
    assert (conditions.failure(event) is None) == conditions.matches(event)
    return conditions.matches(event)


def test_without_a_condition_every_event_is_taken() -> None:
    """Of every type and source, with data or without."""
    assert matcher("").matches(draft())
    assert matcher("").failure(draft()) is None


def test_a_list_takes_any_of_its_values() -> None:
    """Each compared as a text."""
    assert [takes('["7", 8, true]', value) for value in ('"7"', "7", '"8"', "true", '"true"')] == [True] * 5
    assert [takes('["7", 8, true]', value) for value in ('"78"', "1", "null", '["7"]', "7.0")] == [False] * 5


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("smoke*", '"smoke in the kitchen"', True), ("smoke*", '"no smoke"', False), ("*smoke", '"no smoke"', True),
        ("*smoke", '"smoke!"', False), ("*smoke*", '"no smoke!"', True), ("*smoke*", '"SMOKE"', False),
        ("*", '""', True), ("**", '"a"', True), ("*", "null", False), ("*", "{}", False), ("a*b", '"a\\nb"', True),
        ("a*b", '"a\\nb\\n"', False), ("a?", '"ab"', True), ("[ab]", '"b"', True), ("[ab", '"[ab"', True),
        ("7*", "78", True), ("t*", "true", True), ("*.5", "7.5", True), ("ab", '"ab"', True), ("ab", '"abc"', False),
        ("a*", '"\\n"', False), ("*a*b*", '"xaxbx"', True), ("a.*", '"axc"', False), ("*a.c*", '"xabcx"', False),
    ],
)  # fmt: skip
def test_a_glob_is_for_the_whole_text_of_a_value(pattern: str, value: str, expected: bool) -> None:
    """A number's and a truth value's, too."""
    assert takes(f"{{ glob = {json.dumps(pattern)} }}", value) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7), ("-2", -2), ("+2", 2), ("007", 7), ("38.5", 38.5), ("1e3", 1000.0), ("1E-2", 0.01), (".5", 0.5),
        ("5.", 5.0), ("-.5e+1", -5.0), ("9007199254740993", 9007199254740993), ("1e400", float("inf")),
        ("9" * 5000, float("inf")), ("-" + "9" * 5000, float("-inf")), ("0" * 5000 + "7.5", 7.5),
        ("", None), ("nan", None), ("inf", None), ("Infinity", None), ("0x1", None), ("1_000", None), (" 7", None),
        ("7 ", None), ("7\n", None), ("٣", None), ("1,5", None), ("--1", None), ("1e", None), (".", None), ("e3", None),
        ("7 C", None), ("true", None),
    ],
)  # fmt: skip
def test_a_text_is_a_number_when_it_is_wholly_decimal(text: str, number: float | None) -> None:
    """What devices print is text; nothing but figures, a sign, a point and an exponent make a number."""
    found = number_of(text)
    assert (found, type(found)) == (number, type(number))


def test_other_values_that_are_no_numbers() -> None:
    """A truth value is none, though Python takes it for one."""
    assert [number_of(value) for value in (True, None, [], {}, ABSENT, float("nan"))] == [None] * 6


@pytest.mark.parametrize(
    ("condition", "taken", "left"),
    [
        ("{ '>' = 60 }", ["61", "60.5", '"61"', '"1e3"', "1E400", "1" + "0" * 30],
         ["60", '"60"', "true", '"hot"', "null", '" 61 "', "[61]", "-1E400", '"nan"', '"inf"', '"Infinity"']),
        ("{ '>=' = 38.1 }", ["38.1", '"38.1"', '"38.10"', "39"], ["38", '"38.09"']),
        ("{ '<' = 0 }", ["-1", '"-0.001"', "-1e-300", "-1E400"], ["0", "-0", '"-0"', "1", "false"]),
        ("{ '<=' = 0 }", ["0", '"-0"', "-1"], ["0.1", "false"]),
        ("{ '>' = 60, '<=' = 400 }", ["61", "400"], ["60", "401"]),
        ("{ '>' = 9007199254740992 }", ["9007199254740993", '"9007199254740993"'], ["9007199254740992"]),
        ("{ '>' = 9007199254740992.0 }", ["9007199254740993", '"9007199254740993"'], ["9007199254740992"]),
        ("{ glob = '*5', '<' = 20 }", ["15", '"5"'], ["25", "16", '"x5"']),
        ("{ '<' = 1, '>' = 1 }", [], ["0", "1", "2"]), ("{ '<' = inf }", ["1"], ["1E400", '"1e400"']),
        ("{ '<' = nan }", [], ["1", '"nan"']),
    ],
)  # fmt: skip
def test_comparisons_are_of_numbers(condition: str, taken: list[str], left: list[str]) -> None:
    """Exact for integers of any size; what is no number is never taken."""
    assert [value for value in taken + left if takes(condition, value)] == taken


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ('type = "door.open"', 'type is "panel.alarm", not "door.open"'),
        ('type = "panel.*"\nsource = "/ward4/*"', 'source is "/ward3/panel", not like "/ward4/*"'),
        ('where = { "fields.zone" = 8 }', 'fields.zone is "7", not "8"'),
        ('where = { "fields.zone" = ["8", "9"] }', 'fields.zone is "7", none of "8", "9"'),
        ('where = { "fields.zone" = { glob = "8*" } }', 'fields.zone is "7", not like "8*"'),
        ('where = { "fields.zone" = { ">" = 1, "<" = 5 } }', 'fields.zone is "7", not < 5'),
        ('where = { "fields.text" = { ">" = 1 } }', 'fields.text is "smoke", no number, and so not > 1'),
        ('where = { "fields.ward" = "3" }', 'nothing stands at fields.ward: not "3"'),
        ('where = { "fields.ward" = { "<" = 3 } }', "nothing stands at fields.ward: not < 3"),
        ("where = { fields = 3 }", 'fields is {"zone": "7", "text": "smoke"}, not "3"'),
        ('where = { "fields.zone" = "7", "fields.text" = "x" }', 'fields.text is "smoke", not "x"'),
    ],
)
def test_the_first_condition_that_fails_is_told(conditions: str, sentence: str) -> None:
    """And what stood there instead."""
    event = draft('{"fields":{"zone":"7","text":"smoke"}}')
    assert matcher(conditions).failure(event) == sentence
    assert not matcher(conditions).matches(event)


def test_sentences_are_short() -> None:
    """Whatever an event or a long list brings; a level too deep to be shown is no mistake."""
    many = json.dumps([str(number) * 100 for number in range(50)])
    for data in ("x" * 10_000, list(range(1000)), ABSENT):
        event = draft("{}" if data is ABSENT else json.dumps({"x": data}))
        sentence = matcher(f"where = {{ x = {many} }}").failure(event)
        assert sentence is not None
        assert len(sentence) < 12 * (MAX_SHOWN + 5)
    # How deep the encoder goes differs with the version of Python: the sentence is short in either case.
    deep = matcher("where = { x = 7 }").failure(draft('{"x":' + "[" * 990 + "]" * 990 + "}"))
    assert deep is not None
    assert len(deep) < 2 * MAX_SHOWN
    assert "levels" in deep or "[[[" in deep
    long = draft(type="t" * 1000)
    assert len(str(matcher('type = "x"').failure(long))) < 2 * MAX_SHOWN


def test_a_path_leads_through_lists_and_what_behaves_like_an_object() -> None:
    """As :meth:`Draft.value` has it."""
    event = draft('{"a":[{"b":7}],"c":"text"}')
    assert matcher('where = { "a.0.b" = 7 }').matches(event)
    assert not matcher('where = { "a.1.b" = 7 }').matches(event)
    assert not matcher('where = { "c.0" = "t" }').matches(event)
    assert not matcher('where = { "x.y.z" = 7 }').matches(event)


def test_what_a_lookup_added_can_be_asked_for() -> None:
    """Under context, where it stands for clients, too."""
    event = draft('{"fields":{"zone":"7"}}')
    event.add_context("zone", {"floor": 2}, b'{"floor":2}')
    assert matcher('where = { "context.zone.floor" = { ">=" = 2 } }').matches(event)


def test_conditions_can_be_made_without_a_file() -> None:
    """By a test, or by code that has no hub.toml."""
    rule = parse_hub('[[suppress]]\nwhere = { x = { ">" = 1 } }', "f").suppress[0]
    assert rule.where == {"x": Comparison(gt=1)}
