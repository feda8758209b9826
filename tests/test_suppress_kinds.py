"""Storms: what makes two events of one kind, and what the summary says of them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from notifyd import event as events
from notifyd.event import decode
from notifyd.hub import kinds
from notifyd.hub.draft import Draft
from notifyd.hub.suppress import Suppressor
from tests.storms import ZONES, Hub, draft, suppressor

# --- kinds ---------------------------------------------------------------------------------------------


def same(by: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tells whether two events are of one kind."""
    hub = Hub(f'[[suppress]]\nby = ["{by}"]\n')
    return [hub.send(1.0, draft(**one)), hub.send(1.0, draft(**other))] == [False, True]


@pytest.mark.parametrize(
    ("by", "one", "other", "expected"),
    [
        ("fields.zone", {"zone": "7"}, {"zone": 7}, True),
        ("fields.zone", {"zone": True}, {"zone": "true"}, True),
        ("fields.zone", {"zone": 1.5}, {"zone": "1.5"}, True),
        ("fields.zone", {"zone": 1}, {"zone": True}, False),
        ("fields.zone", {"zone": "7"}, {"zone": "07"}, False),
        ("fields.zone", {"zone": None}, {"data": {"fields": {"zone": None}}}, True),
        ("fields.zone", {"zone": None}, {"zone": ""}, False),
        ("fields.zone", {"zone": None}, {"zone": "null"}, False),
        ("fields.zone", {"zone": {"a": 1, "b": [2]}}, {"zone": {"b": [2], "a": 1}}, True),
        ("fields.zone", {"zone": {"a": 1}}, {"zone": {"a": 2}}, False),
        ("fields.zone", {"zone": {"a": 1}}, {"zone": '{"a":1}'}, False),
        ("fields.zone", {"zone": []}, {"zone": {}}, False),
        ("fields.zone", {"zone": "x" * 65}, {"zone": "x" * 65}, True),
        ("fields.zone", {"zone": "x" * 65}, {"zone": "x" * 66}, False),
        ("fields.zone", {"zone": "\ud800"}, {"zone": "\ud800"}, True),
        ("fields.zone", {"zone": "\ud800" * 65}, {"zone": "\ud801" * 65}, False),
        ("fields.zone.0", {"zone": [1, 2]}, {"zone": [1, 3]}, True),
        ("source", {"source": "/a"}, {"source": "/a"}, True),
        ("source", {"source": "/a"}, {"source": "/b"}, False),
        ("id", {"id": "1"}, {"id": "2"}, False),
        ("time", {"time": "2026-11-22T10:00:00Z"}, {"time": "2026-11-22T10:00:01Z"}, False),
        ("subject", {"subject": "a"}, {"subject": "a"}, True),
        ("subject", {"subject": "a"}, {"subject": "b"}, False),
        ("subject", {"subject": None}, {}, True),
        ("subject", {"subject": 7}, {"subject": "7"}, True),
        ("subject", {"subject": {"a": "x" * 99}}, {"subject": {"a": "x" * 99}}, True),
        ("line", {"data": {"line": "a"}}, {"data": {"line": "a"}}, True),
        ("line", {"data": {"line": "a"}}, {"data": {"line": "b"}}, False),
        ("ward", {"ward": "3"}, {"ward": 3}, True),
        ("ward", {"ward": "3"}, {"ward": "4"}, False),
        ("sequence", {"sequence": 5}, {"sequence": 6}, False),
    ],
)
def test_a_kind_is_what_stands_at_each_entry_of_by(by: str, one: Any, other: Any, expected: bool) -> None:
    """Attributes or paths in the data, compared by their texts."""
    assert same(by, one, other) == expected
    assert same(by, other, one) == expected


def test_priority_is_the_one_that_the_hub_gave() -> None:
    """Where it is in by, events of different priorities are different kinds."""
    hub = Hub('[[suppress]]\nby = ["priority"]\n')
    judged = [hub.send(1.0, draft(priority="critical"), priority) for priority in ("normal", "important", "normal")]
    assert judged == [False, False, True]


def test_without_by_all_events_of_a_setting_are_of_one_kind() -> None:
    """But for errors."""
    hub = Hub("[[suppress]]\nby = []\n")
    assert [hub.send(1.0), hub.send(1.0, draft(type="x", source="/y")), hub.send(1.0, priority="error")] == [
        False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["x" * 70, {"a": 1}], ids=["text", "object"])
def test_no_text_is_taken_for_the_hash_of_another_value(value: Any) -> None:
    """A producer that writes a hash has it hashed again."""
    hub = Hub(ZONES)
    hub.send(1.0, draft(value))
    (row,), _ = hub.suppressor.take_changes()
    assert not hub.send(1.0, draft(json.loads(row.kind)[0]))


@pytest.mark.parametrize("hub_reads", ["7" * 5_000, "1e999", '"' + "\\ud800" * 300 + '"', "[" * 900 + "]" * 900])
@pytest.mark.parametrize("place", ["subject", "ward", "data"])
def test_whatever_a_producer_writes_is_judged(place: str, hub_reads: str) -> None:
    """Numbers that are too large, texts that are none, lists without end: no error, and a row of bounded size."""
    hub = Hub('[[suppress]]\nby = ["subject", "ward", "fields.zone"]\n')
    value = f'{{"fields":{{"zone":{hub_reads}}}}}' if place == "data" else hub_reads
    line = f'{{"id":"1","source":"/a","type":"b","{place}":{value}}}'.encode()
    try:
        found = [Draft(decode(line)) for _ in range(2)]
    except events.NotAcceptableError:
        return  # it does not come so far
    judged = [hub.send(1.0, event) for event in found]
    assert judged == [False, hub.suppressor.counters.unfit == 0]
    rows, _ = hub.suppressor.take_changes()
    assert all(len(row.kind.encode()) < 1_000 for row in rows)
    assert len(Suppressor((), (), rows).due(1.0)) == sum(judged)


def test_what_is_nested_too_deeply_to_be_compared_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted."""

    def too_deep(value: object) -> str:
        raise RecursionError

    monkeypatch.setattr(kinds, "_canonical", too_deep)
    hub = Hub(ZONES)
    assert [hub.send(1.0, draft([])), hub.send(1.0, draft([]))] == [False, False]
    assert hub.suppressor.counters.unfit == 2


def test_a_time_of_many_decimals_is_shortened() -> None:
    """It is kept with the window and written with each batch."""
    hub = Hub(ZONES)
    for _ in range(2):
        hub.send(1.0, draft(time="2026-11-22T10:00:00." + "1" * 10_000 + "Z"))
    (summary,) = hub.suppressor.due(11.0)
    assert summary.data["first"] == summary.data["last"] == "2026-11-22T10:00:00.111111Z"


def test_an_event_without_a_time_happened_when_it_was_received() -> None:
    """The hub may fill it in later."""
    judge = suppressor(ZONES)
    for offset in (1, 2):
        judge.judge(draft(), priority="normal", offset=offset, received_s=5.0)
    assert judge.due(15.0)[0].data["first"] == "1970-01-01T00:00:05.000000Z"


# --- fields --------------------------------------------------------------------------------------------


def test_the_summary_has_the_fields_that_by_names() -> None:
    """At the same paths, so that rules and clients find them; what is not under fields is not there."""
    hub = Hub('[[suppress]]\nby = ["line", "fields.zone", "fields.room.bed", "fields.none", "fields.list.0"]\n')
    data = {"line": "x", "fields": {"zone": 7, "room": {"bed": "b", "x": 1}, "list": ["l"], "more": 1}}
    hub.send(1.0, draft(data=data))
    hub.send(1.0, draft(data=data))
    (summary,) = hub.suppressor.due(61.0)
    assert summary.data["fields"] == {"zone": 7, "room": {"bed": "b"}, "list": {"0": "l"}}
    assert "truncated" not in summary.data


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("x" * kinds.MAX_FIELD, "x" * kinds.MAX_FIELD), ("x" * (kinds.MAX_FIELD + 1), None), ([1], None), ({}, None),
        ("\ud800", None), ("\0", "\0"), (2**70, str(2**70)), (-(2**63), -(2**63)), (math.inf, "Infinity"), (0.5, 0.5),
        (False, False),
    ],
)  # fmt: skip
def test_a_value_that_has_no_place_in_the_summary_is_left_out(zone: Any, expected: Any) -> None:
    """And the summary says so; what it has can always be written, also after a restart."""
    text = json.dumps({"id": "1", "source": "/a", "type": "b", "data": {"fields": {"zone": zone}}})
    hub = Hub(ZONES)
    for _ in range(2):
        hub.send(1.0, Draft(decode(text.replace("Infinity", "1e999").encode())))
    rows, _ = hub.suppressor.take_changes()
    assert "\0" not in rows[0].kind + rows[0].fields, "PostgreSQL does not take it"
    for summary in (*hub.suppressor.due(11.0), *suppressor(ZONES, rows).due(11.0)):
        written = json.loads(bytes(events.raw_data(summary.data)))
        assert written["fields"] == ({} if expected is None else {"zone": expected})
        assert written.get("truncated", False) == (expected is None)
