"""Storms: how many windows there may be, and their rows in the database."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from notifyd import event as events
from notifyd.hub import kinds, suppress
from notifyd.hub.windows import WindowRow
from tests.storms import DOORS, ZONES, Hub, draft, suppressor

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
