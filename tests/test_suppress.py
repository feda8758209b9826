"""Storms: the first of a kind goes through, repeats are counted and told once, whatever crashes or jumps."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import UNSET

from notifyd import event as events
from notifyd.config_hub import Suppress, parse_hub
from notifyd.event import decode, format_time
from notifyd.hub import kinds, suppress
from notifyd.hub.draft import Draft
from notifyd.hub.suppress import Suppressor
from notifyd.hub.windows import Summary, WindowRow

DOORS = '[[suppress]]\nname = "doors"\ntype = "door"\nby = ["source", "type", "fields.zone"]\nwindow = "60s"\n'
ZONES = '[[suppress]]\nby = ["fields.zone"]\nwindow = "10s"\n'


def configured(text: str) -> tuple[Suppress, ...]:
    """Gives settings as they stand in hub.toml."""
    return parse_hub(text, "hub.toml").suppress


def by_type(setting: Suppress) -> Callable[[Draft], bool]:
    """Stands for a compiled condition: the type alone counts, or nothing."""
    return lambda draft: setting.type in (None, draft.event.type)


def suppressor(text: str, rows: Sequence[WindowRow] = (), **limits: int) -> Suppressor:
    """Gives one for settings as they stand in hub.toml."""
    found = configured(text)
    return Suppressor(found, [by_type(setting) for setting in found], rows, **limits)


def draft(zone: Any = "7", **attributes: Any) -> Draft:
    """Gives an event of a door."""
    data = {"line": "x", "fields": {} if zone is None else {"zone": zone}}
    return Draft(
        decode(json.dumps({"id": "1", "source": "/ward3/a", "type": "door", "data": data, **attributes}).encode())
    )


class Hub:
    """Judges events one after the other, each with the next offset."""

    def __init__(self, text: str, rows: Sequence[WindowRow] = (), **limits: int) -> None:
        self.suppressor = suppressor(text, rows, **limits)
        self.offset = 100

    def send(self, at: float, event: Draft | None = None, priority: str = "normal") -> bool:
        """Tells whether an event is suppressed; its time is when it was received."""
        event = event or draft()
        if event.event.time is UNSET:
            event.event.time = format_time(at)
        self.offset += 1
        return self.suppressor.judge(event, priority=priority, offset=self.offset, received_s=at)

    def told(self, at: float) -> list[int]:
        """Gives the counts of the summaries that are due."""
        return [summary.data["repeated"] for summary in self.suppressor.due(at)]


# --- windows -------------------------------------------------------------------------------------------


def test_the_first_goes_through_and_repeats_are_told_when_the_window_ends() -> None:
    """In an event of the same type and source, with all that is needed to make sense of it."""
    hub = Hub(DOORS)
    assert [hub.send(at) for at in (1000.0, 1000.5, 1059.5)] == [False, True, True]
    assert hub.suppressor.next_due_s() == 1060.0
    assert hub.suppressor.due(1059.999) == []
    first, last = "1970-01-01T00:16:40.500000Z", "1970-01-01T00:17:39.500000Z"
    line = f"door was repeated 2 times, from {first} to {last}"
    data = {"line": line, "repeated": 2, "first": first, "last": last, "fields": {"zone": "7"}, "of": "101"}
    assert hub.suppressor.due(1060.0) == [Summary("door", "/ward3/a", "normal", "doors", data)]
    assert hub.suppressor.due(1e9) == []
    assert hub.suppressor.next_due_s() is None
    assert hub.suppressor.counters == suppress.Counters(suppressed=2, summaries=1)


def test_a_window_does_not_slide() -> None:
    """A door that never stops flapping is heard of once a window, and its counts follow each other."""
    hub = Hub(DOORS)
    through = []
    counts = []
    for second in range(200):
        counts += hub.told(1000.0 + second)
        if not hub.send(1000.0 + second):
            through.append(second)
    assert through == [0, 60, 120, 180]
    assert counts == [59, 59, 59]


def test_a_window_without_repeats_tells_nothing() -> None:
    """One event is one event."""
    hub = Hub(DOORS)
    hub.send(1000.0)
    assert hub.suppressor.due(1060.0) == []
    assert hub.suppressor.next_due_s() is None


def test_one_repeat_was_repeated_once() -> None:
    """The sentence is for people."""
    hub = Hub(DOORS)
    hub.send(1.0)
    hub.send(2.0)
    assert "was repeated once, from" in str(hub.suppressor.due(61.0)[0].data["line"])


def test_what_no_setting_is_for_goes_through() -> None:
    """However often it comes; nothing is remembered of it."""
    hub = Hub(DOORS)
    assert not any(hub.send(1.0, draft(type="alarm")) for _ in range(3))
    assert hub.suppressor.take_changes() == ([], [])


def test_the_first_setting_that_is_for_an_event_counts() -> None:
    """The later one would not tell these doors apart, and has a window and a name of its own."""
    hub = Hub(DOORS + ZONES)
    assert not hub.send(1.0, draft(source="/a"))
    assert not hub.send(1.0, draft(source="/b"))
    assert not hub.send(1.0, draft(type="x"))
    assert hub.send(1.0, draft(type="y"))
    (summary,) = hub.suppressor.due(11.0)
    assert (summary.rule, summary.source, summary.type) == ("suppress 2", "/hub/suppress/2", "x")


def test_sources_that_share_a_window_are_told_by_the_hub() -> None:
    """The summary does not claim that one of them said so."""
    hub = Hub('[[suppress]]\nname = "all doors"\nby = ["type"]\n')
    assert [hub.send(1.0, draft(source="/a")), hub.send(1.0, draft(source="/b"))] == [False, True]
    assert hub.suppressor.due(61.0)[0].source == "/hub/suppress/all doors"


def test_an_event_after_the_end_is_the_first_of_the_next_window() -> None:
    """Its predecessor's repeats are told before it, if the hub asks first, as it has to."""
    hub = Hub(DOORS)
    hub.send(1000.0)
    hub.send(1001.0)
    assert hub.told(1060.0) == [1]
    assert [hub.send(1060.0), hub.send(1060.0)] == [False, True]
    assert hub.told(1119.0) == []
    assert hub.told(1120.0) == [1]


def test_a_window_that_ended_unasked_is_still_told() -> None:
    """Its count is not mixed with that of the next window, which is open already."""
    hub = Hub(DOORS)
    hub.send(1000.0)
    hub.send(1001.0)
    assert [hub.send(1060.0), hub.send(1060.5), hub.send(1061.0)] == [False, True, True]
    assert hub.suppressor.next_due_s() == 0.0
    (summary,) = hub.suppressor.due(1061.0)
    assert (summary.data["repeated"], summary.data["of"]) == (1, "101")
    assert hub.told(1120.0) == [2]


def test_summaries_can_be_asked_for_in_parts() -> None:
    """So that the end of a great storm is no batch without bounds; what is left is due at once."""
    hub = Hub(DOORS)
    for zone in range(5):
        hub.send(1.0, draft(str(zone)))
        hub.send(1.0, draft(str(zone)))
    parts = []
    due = []
    for _ in range(3):
        parts.append([summary.data["fields"]["zone"] for summary in hub.suppressor.due(61.0, 2)])
        due.append(hub.suppressor.next_due_s())
    assert parts == [["0", "1"], ["2", "3"], ["4"]]
    assert due == [0.0, 0.0, None]


def test_windows_of_several_lengths_end_in_their_order() -> None:
    """The hub's timer goes by the next one."""
    hub = Hub(DOORS + ZONES)
    hub.send(1.0)
    hub.send(2.0, draft(type="x"))
    assert hub.suppressor.next_due_s() == 12.0
    assert hub.told(12.0) == []
    assert hub.suppressor.next_due_s() == 61.0


# --- priorities ----------------------------------------------------------------------------------------


def test_a_higher_priority_always_goes_through() -> None:
    """Then it is the window's: what is not above it is suppressed, and the summary has it."""
    hub = Hub(DOORS)
    sent = ["normal", "important", "normal", "important", "critical", "important", "critical"]
    judged = [hub.send(1.0 + number, priority=priority) for number, priority in enumerate(sent)]
    assert judged == [False, False, True, True, False, True, True]
    (summary,) = hub.suppressor.due(61.0)
    assert (summary.priority, summary.data["repeated"]) == ("critical", 4)
    assert not hub.send(62.0), "the next window begins anew"


def test_errors_are_kinds_of_their_own() -> None:
    """They do not hide what is urgent, nor the other way round."""
    hub = Hub(DOORS)
    assert [hub.send(1.0, priority=priority) for priority in ("error", "critical", "error", "critical")] == [
        False, False, True, True,
    ]  # fmt: skip
    assert {summary.priority for summary in hub.suppressor.due(61.0)} == {"error", "critical"}


# --- clocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask_first", [True, False])
def test_a_clock_that_is_set_back_keeps_no_window_open(ask_first: bool) -> None:
    """What was opened in its future has ended; its repeats are told, and the next event goes through."""
    hub = Hub(DOORS)
    hub.send(10_000.0)
    hub.send(10_001.0)
    counts = hub.told(5_000.0) if ask_first else []
    assert [hub.send(5_000.0), hub.send(5_001.0)] == [False, True]
    assert counts + hub.told(5_001.0) == [1]
    assert hub.suppressor.next_due_s() == 5_060.0
    assert hub.told(5_060.0) == [1]


def test_other_windows_end_too_when_the_clock_was_set_back() -> None:
    """Also those of which no event comes any more, and each on its own time again afterwards."""
    hub = Hub(DOORS)
    for at, zone in ((10_000.0, "1"), (10_000.5, "2"), (5_000.0, "3"), (5_001.0, "4")):
        hub.send(at, draft(zone))
        hub.send(at, draft(zone))
    told = [
        {summary.data["fields"]["zone"] for summary in hub.suppressor.due(at)} for at in (5_001.0, 5_060.0, 5_061.0)
    ]
    assert told == [{"1", "2"}, {"3"}, {"4"}]


def test_a_clock_may_be_set_back_when_some_windows_have_ended() -> None:
    """Those that are left are ended by it."""
    hub = Hub(DOORS)
    hub.send(1000.0, draft("1"))
    hub.send(1030.0, draft("2"))
    hub.send(1031.0, draft("2"))
    assert hub.told(1060.0) == []
    assert hub.told(1029.0) == [1]


def test_a_clock_that_jumps_ahead_ends_windows() -> None:
    """By the clock that there is, their time has come."""
    hub = Hub(DOORS)
    hub.send(1000.0)
    hub.send(1001.0)
    assert hub.told(1e12) == [1]


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


# --- limits --------------------------------------------------------------------------------------------


def test_beyond_the_most_windows_new_kinds_go_through() -> None:
    """Known kinds are still suppressed; that it is full is told once, until there is much room again."""
    hub = Hub(DOORS, max_windows=10)
    assert not any(hub.send(float(number), draft(str(number))) for number in range(10))
    assert not hub.suppressor.is_full
    assert [hub.send(10.0, draft("10")), hub.send(10.0, draft("10")), hub.send(10.0, draft("3"))] == [
        False, False, True,
    ]  # fmt: skip
    assert hub.suppressor.counters.refused == 2
    assert hub.suppressor.is_full
    hub.suppressor.due(60.0)
    assert hub.suppressor.is_full
    hub.suppressor.due(61.0)
    assert not hub.suppressor.is_full
    assert [hub.send(61.0, draft("10")), hub.send(61.0, draft("10"))] == [False, True]


def test_windows_that_ended_take_room_until_they_are_told() -> None:
    """Else a hub that does not come to telling would hold more and more of them."""
    hub = Hub(DOORS, max_windows=1)
    hub.send(1.0)
    hub.send(1.0)
    assert [hub.send(61.0), hub.send(61.0)] == [False, False]
    assert hub.told(61.0) == [1]
    assert [hub.send(61.0), hub.send(61.0)] == [False, True]


def test_long_texts_take_more_room() -> None:
    """Windows hold what producers write: its amount is bounded, too, and given back."""
    hub = Hub(DOORS, max_characters=1_500)
    assert [hub.send(1.0, draft(source="/" + letter * 850)) for letter in "aabb"] == [False, True, False, False]
    assert hub.suppressor.counters.refused == 2
    assert [hub.send(1.0), hub.send(1.0)] == [False, True], "a small one has room"
    hub.suppressor.due(61.0)
    assert [hub.send(61.0, draft(source="/" + "b" * 850)) for _ in range(2)] == [False, True]


@pytest.mark.parametrize("name", ["source", "type"])
def test_an_event_that_a_summary_could_not_name_goes_through(name: str) -> None:
    """Of a type or source of more than a thousand characters."""
    for length, expected in ((suppress.MAX_NAME, True), (suppress.MAX_NAME + 1, False)):
        hub = Hub("[[suppress]]\n")
        event = {name: "x" * length}
        assert [hub.send(1.0, draft(**event)), hub.send(1.0, draft(**event))] == [False, expected]
        assert hub.suppressor.counters.unfit == (0 if expected else 2)


def test_the_greatest_summary_fits_into_a_line() -> None:
    """Everything that is in it is bounded: also with paths that are as long as they may be."""
    paths = ["fields." + letter * 990 for letter in "abcdefgh"]
    hub = Hub(f"[[suppress]]\nby = {json.dumps(['source', 'type', *paths])}\n")
    fields = {path[7:]: "\x01" * kinds.MAX_FIELD for path in paths}
    for _ in range(2):
        hub.send(
            1.0, draft(source="\x01" * suppress.MAX_NAME, type="\x01" * suppress.MAX_NAME, data={"fields": fields})
        )
    (summary,) = hub.suppressor.due(61.0)
    assert len(bytes(events.raw_data(summary.data))) < 64 * 1024


# --- rows ----------------------------------------------------------------------------------------------


def test_a_storm_is_one_row_a_batch() -> None:
    """However many repeats a batch has; and none where nothing has changed."""
    hub = Hub(DOORS)
    for _ in range(2_000):
        hub.send(1.0)
    (row,), deletions = hub.suppressor.take_changes()
    assert (row.offset, row.repeated, deletions) == (101, 1_999, [])
    assert hub.suppressor.take_changes() == ([], [])
    hub.send(2.0)
    (row,), _ = hub.suppressor.take_changes()
    assert row.repeated == 2_000
    hub.send(3.0, priority="critical")
    (row,), _ = hub.suppressor.take_changes()
    assert (row.repeated, row.priority) == (2_000, "critical")


def test_a_row_goes_when_its_window_is_told() -> None:
    """In the same commit; a window that no batch has written is not deleted either."""
    hub = Hub(DOORS)
    hub.send(1.0, draft("1"))
    hub.suppressor.take_changes()
    hub.send(2.0, draft("1"))
    hub.send(2.0, draft("2"))
    hub.suppressor.due(62.0)
    assert hub.suppressor.take_changes() == ([], [101])


def test_windows_go_on_after_a_restart() -> None:
    """With their counts, their level, and the time at which they end."""
    hub = Hub(DOORS)
    hub.send(1000.1, priority="important")
    hub.send(1001.0)
    rows, _ = hub.suppressor.take_changes()
    hub = Hub(DOORS, [WindowRow(*json.loads(json.dumps(row))) for row in rows])
    hub.offset = 200
    assert [hub.send(1002.0), hub.send(1003.0, priority="critical")] == [True, False]
    assert hub.suppressor.next_due_s() == 1000.1 + 60
    (summary,) = hub.suppressor.due(1060.1)
    assert (summary.data["repeated"], summary.data["of"], summary.priority) == (2, "101", "critical")
    assert hub.suppressor.take_changes() == ([], [101])


@pytest.mark.parametrize(
    "changed",
    [
        "", ZONES, DOORS.replace('"60s"', '"61s"'), DOORS.replace('"source", ', ""), DOORS.replace('"door"', '"door*"'),
        DOORS + 'where = { "a" = 1 }\n', DOORS + 'source = "/ward3/*"\n', DOORS + 'where = { "a" = { ">" = 1 } }\n',
    ],
)  # fmt: skip
def test_windows_of_a_setting_that_changed_end_at_the_start(changed: str) -> None:
    """Their counts are told, and the rows deleted with that."""
    hub = Hub(DOORS)
    for at in (1000.0, 1001.0, 1002.0):
        hub.send(at)
    rows, _ = hub.suppressor.take_changes()
    hub = Hub(changed, rows)
    assert hub.suppressor.next_due_s() == 0.0
    assert hub.told(1003.0) == [2]
    assert hub.suppressor.take_changes() == ([], [101])
    assert hub.told(1e12) == []


def test_another_name_or_place_changes_no_setting() -> None:
    """Its windows go on; they are told under the name that they were opened with."""
    hub = Hub(DOORS)
    hub.send(1000.0)
    rows, _ = hub.suppressor.take_changes()
    hub = Hub(ZONES.replace("[[suppress]]", '[[suppress]]\ntype = "x"') + DOORS.replace('"doors"', '"gates"'), rows)
    assert hub.send(1001.0)
    assert hub.suppressor.due(1060.0)[0].rule == "doors"


def test_settings_that_are_the_same_share_their_windows_in_the_first() -> None:
    """The others are never asked."""
    hub = Hub(DOORS)
    hub.send(1000.0)
    rows, _ = hub.suppressor.take_changes()
    assert Hub(DOORS + DOORS, rows).send(1001.0)


def test_of_two_windows_of_one_kind_the_later_is_open() -> None:
    """The earlier one had ended when the hub did, and was not told yet."""
    hub = Hub(DOORS)
    for at in (1000.0, 1001.0, 1060.0, 1061.0):
        hub.send(at)
    rows, _ = hub.suppressor.take_changes()
    assert len(rows) == 2
    hub = Hub(DOORS, rows[::-1])
    assert hub.send(1062.0)
    assert hub.told(1062.0) == [1]
    assert hub.told(1120.0) == [2]


def test_more_rows_than_there_may_be_windows_end_at_once() -> None:
    """They are told, and then there is room."""
    hub = Hub(DOORS)
    for zone in "123":
        hub.send(1.0, draft(zone))
        hub.send(1.0, draft(zone))
    rows, _ = hub.suppressor.take_changes()
    hub = Hub(DOORS, rows, max_windows=2)
    assert hub.told(2.0) == [1]
    assert hub.told(61.0) == [1, 1]


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "["}, {"kind": "[7]"}, {"kind": "[" * 100_000}, {"kind": 7}, {"opened": math.nan}, {"opened": None},
        {"priority": "urgent"}, {"fields": "[]"}, {"fields": "{"}, {"repeated": -1}, {"repeated": "2"},
        {"first": None}, {"last": "yesterday"}, {"source": ""}, {"type": ""}, {"rule": None},
    ],
)  # fmt: skip
def test_a_row_that_makes_no_sense_is_deleted_and_counted(damage: dict[str, Any]) -> None:
    """Whoever wrote it; the others are taken over."""
    hub = Hub(DOORS)
    for zone in ("1", "1", "2", "2"):
        hub.send(1.0, draft(zone))
    (bad, good), _ = hub.suppressor.take_changes()
    hub = Hub(DOORS, [bad._replace(**damage), good])
    assert hub.suppressor.counters.damaged == 1
    assert hub.suppressor.take_changes() == ([], [bad.offset])
    assert hub.told(61.0) == [1]


def test_a_row_without_an_offset_is_left_alone() -> None:
    """There is nothing to delete it by."""
    hub = Hub(DOORS)
    hub.send(1.0)
    (row,), _ = hub.suppressor.take_changes()
    damaged = suppressor(DOORS, [row._replace(offset=None)])  # type: ignore[arg-type]
    assert damaged.counters.damaged == 1
    assert damaged.take_changes() == ([], [])


# --- the whole, against a model ------------------------------------------------------------------------

MOST = 5
SETTINGS = {
    "as it was": DOORS + ZONES,
    "swapped": ZONES.replace("[[suppress]]", '[[suppress]]\ntype = "x"') + DOORS + ZONES,
    "longer": DOORS.replace("60s", "90s") + ZONES,
    "gone": "",
}
RANK = ["normal", "important", "critical", "error"]


@dataclass
class Expected:
    """What the model knows of a window."""

    of: int
    opened: float
    length: float
    level: int
    times: tuple[str, ...] = ()


@dataclass
class Stored:
    """What the database holds."""

    log: list[tuple[int, bool]]
    rows: dict[int, WindowRow]
    summaries: list[Summary]
    model: dict[tuple[str, ...], Expected]


class StormMachine(RuleBasedStateMachine):
    """A hub that stores batches, and crashes, with a clock that jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1e9
        self.offset = 0
        self.stored = Stored([], {}, [], {})
        self.settings = "as it was"

    @initialize()
    def start(self) -> None:
        """Starts the hub, by what the database holds."""
        text = SETTINGS[self.settings]
        self.suppressor = suppressor(text, list(self.stored.rows.values()), max_windows=MOST)
        self.model = copy.deepcopy(self.stored.model)
        self.batch: list[tuple[int, bool]] = []
        self.told: list[Summary] = []

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 9.75, 30.0, 59.75, 60.0, 1e6, -0.25, -5.0, -1e5]))
    def clock_moves(self, seconds: float) -> None:
        """On, ahead, or back."""
        self.now += seconds

    @rule(most=st.sampled_from([1, 2, None]))
    def summaries_are_asked_for(self, most: int | None) -> None:
        """By the timer, or before a parcel."""
        expected = {kind: window for kind, window in self.model.items() if not self.in_force(window)}
        of: dict[str, Summary] = {}
        for _ in range(2 * MOST):
            for summary in self.suppressor.due(self.now, most):
                assert summary.data["of"] not in of
                of[str(summary.data["of"])] = summary
        assert (self.suppressor.next_due_s() or math.inf) > self.now
        assert of.keys() == {str(window.of) for window in expected.values() if window.times}
        for kind, window in expected.items():
            del self.model[kind]
            if window.times:
                data = of[str(window.of)].data
                assert (data["repeated"], data["first"], data["last"]) == (
                    len(window.times), window.times[0], window.times[-1],
                )  # fmt: skip
                assert RANK.index(of[str(window.of)].priority) == window.level
        self.told += of.values()

    @rule(
        events=st.lists(
            st.tuples(st.sampled_from("12"), st.sampled_from(["door", "x"]), st.sampled_from(["/a", "/b"]),
                      st.sampled_from(RANK)), min_size=1, max_size=6,
        ),
    )  # fmt: skip
    def parcel_comes(self, events: list[tuple[str, str, str, str]]) -> None:
        """Some events are received at once."""
        self.summaries_are_asked_for(None)
        for zone, type_, source, priority in events:
            self.offset += 1
            sent = draft(zone, type=type_, source=source, time=format_time(1e9 + self.offset))
            got = self.suppressor.judge(sent, priority=priority, offset=self.offset, received_s=self.now)
            assert got == self.expect(zone, type_, source, priority)
            self.batch.append((self.offset, got))

    def expect(self, zone: str, type_: str, source: str, priority: str) -> bool:
        """Says what the model makes of an event."""
        found = configured(SETTINGS[self.settings])
        setting = next((setting for setting in found if setting.type in (None, type_)), None)
        if setting is None:
            return False
        values = {"source": source, "type": type_, "fields.zone": zone}
        error = "error" if priority == "error" else ""
        kind = (suppress.fingerprint(setting), error, *(values[entry] for entry in setting.by))
        window = self.model.get(kind)
        level = RANK.index(priority)
        if window is None:
            if len(self.model) < MOST:
                self.model[kind] = Expected(self.offset, self.now, setting.window, level)
            return False
        if level > window.level:
            self.model[kind] = replace(window, level=level)
            return False
        self.model[kind] = replace(window, times=(*window.times, format_time(1e9 + self.offset)))
        return True

    def in_force(self, window: Expected) -> bool:
        """Tells whether a window's time has not come."""
        configured_now = {suppress.fingerprint(setting) for setting in configured(SETTINGS[self.settings])}
        kind = next(kind for kind, other in self.model.items() if other is window)
        return kind[0] in configured_now and window.opened <= self.now < window.opened + window.length

    @rule()
    def batch_is_stored(self) -> None:
        """Events, summaries and rows in one commit."""
        upserts, deletions = self.suppressor.take_changes()
        assert not {row.offset for row in upserts} & set(deletions)
        self.stored.log += self.batch
        self.stored.summaries += self.told
        self.stored.rows |= {row.offset: row for row in upserts}
        for offset in deletions:
            del self.stored.rows[offset]
        self.stored.model = copy.deepcopy(self.model)
        self.batch, self.told = [], []

    @rule(taken=st.booleans(), configured=st.sampled_from(sorted(SETTINGS)))
    def hub_crashes(self, taken: bool, configured: str) -> None:
        """Before the commit, perhaps with the batch put together; it is started again, perhaps with other settings."""
        if taken:
            self.suppressor.take_changes()
        self.settings = configured
        self.start()

    @invariant()
    def counts_are_exact(self) -> None:
        """At any moment the database says of each suppressed event once that it was suppressed."""
        suppressed = sum(is_suppressed for _, is_suppressed in self.stored.log)
        told = sum(summary.data["repeated"] for summary in self.stored.summaries)
        assert told + sum(row.repeated for row in self.stored.rows.values()) == suppressed
        assert len(self.stored.rows) <= MOST
        of = [summary.data["of"] for summary in self.stored.summaries]
        assert len(of) == len(set(of)), "told twice"

    def teardown(self) -> None:
        """In the end everything is told."""
        if not hasattr(self, "suppressor"):
            return
        self.now = 1e15
        self.summaries_are_asked_for(None)
        self.batch_is_stored()
        assert not self.stored.rows
        self.counts_are_exact()


StormMachine.TestCase.settings = hypothesis_settings(max_examples=100, stateful_step_count=50, deadline=None)
TestStormsAgainstModel = StormMachine.TestCase
