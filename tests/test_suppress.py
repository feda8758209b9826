"""Storms: the first of a kind goes through, repeats are counted and told once, whatever the clocks do."""

from __future__ import annotations

import pytest

from notifyd.hub import suppress
from notifyd.hub.windows import Summary
from tests.storms import DOORS, ZONES, Hub, draft

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
