"""Attributes that a rule adds to an event's line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.event import decode, encode
from notifyd.hub.attributes import Attributes, add_attributes, encode_attributes

HEAD = b'{"specversion":"1.0","id":"1","source":"/a/b","type":"t"'


def pairs(line: bytes) -> list[tuple[str, Any]]:
    """Gives an object's members, also those that stand there twice."""
    found: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=lambda members: members)
    return found


def added(rest: bytes, attributes: Attributes) -> list[tuple[str, Any]]:
    """Gives the members of an event, written as ``HEAD`` and ``rest``, with attributes added."""
    event = decode(HEAD + rest)
    return pairs(add_attributes(encode(event), event, attributes))


HEAD_PAIRS = [("specversion", "1.0"), ("id", "1"), ("source", "/a/b"), ("type", "t")]


def test_attributes_are_added() -> None:
    """Texts, whole numbers of any size, and truth values; what stands there stays."""
    attributes = encode_attributes({"ward": '3 \u00e4\n"', "big": 10**30, "small": -1, "night": True, "day": False})
    expected = [("ward", '3 \u00e4\n"'), ("big", 10**30), ("small", -1), ("night", True), ("day", False)]
    assert added(b"}", attributes) == HEAD_PAIRS + expected
    assert added(b',"data":{"ward":1}}', attributes) == [*HEAD_PAIRS, ("data", [("ward", 1)]), *expected]


@pytest.mark.parametrize("old", [b'"4"', b"4", b"null", b'{"a":[1]}'])
@pytest.mark.parametrize("name", ["ward", "subject"])
def test_an_attribute_of_the_producer_is_replaced(name: str, old: bytes) -> None:
    """It does not stand there twice, and the others stay."""
    attributes = encode_attributes({name: "3", "floor": 2})
    found = added(b',"%b":%b,"other":[1],"data":{"x":"\\ud800"}}' % (name.encode(), old), attributes)
    assert len(found) == len(HEAD_PAIRS) + 4
    assert dict(found) == dict(HEAD_PAIRS) | {name: "3", "floor": 2, "other": [1], "data": [("x", "\ud800")]}


def test_an_attribute_of_another_name_is_left_alone() -> None:
    """Whether or not the event has attributes that the hub does not know."""
    attributes = encode_attributes({"ward": "3"})
    assert dict(added(b',"subject":"s","wards":"4"}', attributes)) == dict(HEAD_PAIRS) | {
        "subject": "s", "wards": "4", "ward": "3",
    }  # fmt: skip


names = st.sampled_from(["subject", "ward", "floor", "dataschema", "zone"])
settable = st.sampled_from(["subject", "ward", "floor"])
old_values = st.sampled_from(["null", '"x"', "1.50", '{"a":"\\ud800"}', "[]"])
new_values = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), st.booleans())


@given(before=st.dictionaries(names, old_values), new=st.dictionaries(settable, new_values, min_size=1))
def test_the_line_is_that_of_an_event_which_had_them(before: dict[str, str], new: dict[str, Any]) -> None:
    """Whatever the event had before, and whatever is added."""
    event = decode(HEAD + "".join(f',"{name}":{value}' for name, value in before.items()).encode() + b"}")
    line = encode(event)
    found = pairs(add_attributes(line, event, encode_attributes(new)))
    assert len(dict(found)) == len(found)
    assert dict(found) == dict(pairs(line)) | new
    assert encode(event) == line
