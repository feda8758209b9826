"""Lookups: the breaker, what the log tells, and the end."""

from __future__ import annotations

from typing import Any

import pytest

from notifyd.hub.breaker import FIRST_TRIAL_S, LAST_TRIAL_S, OPENS_AFTER
from notifyd.hub.lookup import REFUSALS_S
from notifyd.hub.lookup_query import Refused
from tests.conftest import Logged
from tests.lookupbench import KITCHEN, Bench, draft, of_zone

# --- the breaker


def test_it_opens_after_failures_in_a_row_and_tells() -> None:
    """Events then go on at once with what is cached, and without what is not."""
    bench = Bench()
    bench.ask("7")
    bench.query.answer(KITCHEN)
    for number in range(OPENS_AFTER):
        assert bench.told == []
        bench.ask(f"x{number}")
        bench.clock.advance(1)
        bench.query.answer(fault="connection refused")
    ((kind, source, line, fields),) = bench.told
    assert (kind, source) == ("notifyd.lookup.lost", "/hub/lookup/zone")
    assert fields == {"lookup": "zone", "reason": "connection refused", "seconds": 2.0}
    assert "connection refused" in line
    bench.take()
    bench.ask("8")
    assert bench.take() == [("8", "unavailable")]
    assert len(bench.query.asked) == 1 + OPENS_AFTER
    assert bench.fill(data=of_zone("7"))[0] is None


def test_successes_between_failures_keep_it_closed() -> None:
    """Only failures in a row count."""
    bench = Bench()
    for _ in range(3):
        for number in range(OPENS_AFTER - 1):
            bench.ask(f"x{number}")
            bench.query.answer(fault="connection refused")
        bench.ask("7")
        bench.query.answer(None)
        bench.clock.advance(61)
    assert bench.told == []


def test_refused_values_are_no_failures_of_the_database() -> None:
    """Whoever sends them must not switch the lookup off for others."""
    bench = Bench()
    for number in range(3 * OPENS_AFTER):
        bench.ask(f"bad{number}")
        bench.query.answer(Refused("invalid input syntax"))
    assert bench.told == []


def test_timeouts_open_it_also_when_the_answer_comes_later() -> None:
    """A database that is always a little too slow would hold events for ever."""
    bench = Bench()
    for number in range(OPENS_AFTER):
        bench.ask(f"x{number}")
        bench.clock.advance(2.0)
        bench.query.answer(KITCHEN)
    assert bench.kinds() == ["notifyd.lookup.lost"]
    assert bench.told[0][3]["reason"] == "it does not answer in time"


def test_it_is_tried_in_the_background_less_and_less_often() -> None:
    """With what was missed last; nobody waits for it."""
    bench = Bench()
    bench.break_()
    delay, asked = FIRST_TRIAL_S, len(bench.query.asked)
    for number in range(8):
        bench.ask(f"late{number}")
        bench.clock.advance(delay - 0.01)
        assert len(bench.query.asked) == asked
        bench.clock.advance(0.01)
        asked += 1
        assert bench.query.asked[-1] == [(f"late{number}",)]
        bench.ask("other")
        bench.ask(f"late{number + 1}")
        assert [state for _, state in bench.take()] == ["unavailable"] * 3
        bench.query.answer(fault="connection refused")
        delay = min(2 * delay, LAST_TRIAL_S)
    assert delay == LAST_TRIAL_S
    assert bench.kinds() == ["notifyd.lookup.lost"]
    assert len(bench.clock.getDelayedCalls()) == 1


def test_a_trial_that_is_answered_closes_it_and_tells() -> None:
    """The next loss begins with short trials again."""
    bench = Bench()
    bench.break_()
    bench.clock.advance(FIRST_TRIAL_S)
    bench.query.answer(fault="connection refused")
    bench.clock.advance(2 * FIRST_TRIAL_S)
    bench.query.answer(Refused("bad value"))
    assert bench.kinds() == ["notifyd.lookup.lost", "notifyd.lookup.restored"]
    assert bench.told[1][3] == {"lookup": "zone", "reason": "connection refused", "seconds": 3 * FIRST_TRIAL_S}
    bench.ask("7")
    bench.query.answer(KITCHEN)
    assert bench.take() == [("7", KITCHEN)]
    assert bench.clock.getDelayedCalls() == []
    bench.break_()
    bench.clock.advance(FIRST_TRIAL_S)
    assert len(bench.query.waiting) == 1


def test_a_trial_that_is_too_late_does_not_close_it() -> None:
    """And the next one comes when it has ended."""
    bench = Bench()
    bench.break_()
    bench.clock.advance(FIRST_TRIAL_S)
    bench.clock.advance(100)
    assert len(bench.query.waiting) == 1
    bench.query.answer(KITCHEN)
    assert bench.kinds() == ["notifyd.lookup.lost"]
    bench.clock.advance(2 * FIRST_TRIAL_S)
    assert len(bench.query.waiting) == 1


# --- the log, and the end


def test_the_log_tells_changes_of_state_and_refusals_now_and_then(logged: Logged) -> None:
    """Not one line per event."""
    bench = Bench()
    for number in range(50):
        bench.ask(f"bad{number}")
        bench.query.answer(Refused("invalid input syntax"))
    assert len(logged.text()) == 1
    assert "invalid input syntax (0 more" in logged.text()[0]
    bench.clock.advance(REFUSALS_S)
    bench.ask("bad")
    bench.query.answer(Refused("{braces} in it"))
    assert "{braces} in it (49 more" in logged.text()[1]
    bench.break_()
    for _ in range(5):
        bench.clock.advance(LAST_TRIAL_S)
        bench.query.answer(fault="connection refused")
    bench.clock.advance(LAST_TRIAL_S)
    bench.query.answer(None)
    assert len(logged.text()) == 4
    assert logged.text("warn")[2] == "Lookup zone is lost, events go on without it: connection refused"
    assert logged.text("info")[0].startswith("Lookup zone works again after ")


def test_a_reason_with_braces_is_told_as_it_is() -> None:
    """It is the database's text, and no format."""
    bench = Bench()
    for number in range(OPENS_AFTER):
        bench.ask(f"x{number}")
        bench.query.answer(fault="no {table} of % that name")
    assert "no {table} of % that name" in bench.told[0][2]


@pytest.mark.parametrize("state", ["idle", "asking", "overdue", "open", "trying"])
def test_stopping_leaves_nothing_behind(state: str) -> None:
    """Whoever waits goes without, and nothing is asked any more."""
    bench = Bench()
    if state in ("open", "trying"):
        bench.break_()
    if state in ("asking", "overdue"):
        bench.ask("7")
        bench.ask("8")
    if state == "overdue":
        bench.clock.advance(2)
    if state == "trying":
        bench.clock.advance(FIRST_TRIAL_S)
    asked = len(bench.query.asked)
    stopped = bench.lookup.stop()
    assert stopped.called
    assert bench.query.closed
    assert bench.clock.getDelayedCalls() == []
    waited = [("7", "unavailable"), ("8", "unavailable")]
    assert bench.take() == (waited if state in ("asking", "overdue") else [])
    if bench.query.waiting:
        bench.query.answer(fault="it is closed")
    bench.ask("9")
    assert bench.take() == [("9", "unavailable")]
    assert len(bench.query.asked) == asked
    assert bench.clock.getDelayedCalls() == []
    assert bench.kinds() in ([], ["notifyd.lookup.lost"])


# --- for whoever wants to know


def test_the_parameter_that_an_event_lacks_is_named() -> None:
    """The first of them, in the statement's order; an attribute counts as in a question."""
    lookup = Bench("zone", "type", "bed").lookup
    assert lookup.lacks(draft(data={"fields": {"bed": "1"}})) == "zone"
    assert lookup.lacks(draft(data={"fields": {"zone": 7, "bed": None}})) == "bed"
    assert lookup.lacks(draft(data={"fields": {"zone": "7", "bed": 1}})) is None
    assert lookup.lacks(draft(data=[1])) == "zone"


def test_one_event_can_be_asked_about_past_cache_and_breaker() -> None:
    """What the database says comes as it is, and changes nothing for other events."""
    bench = Bench()
    bench.ask("7")
    bench.query.answer(KITCHEN)
    bench.break_()
    outcomes: list[Any] = []
    bench.lookup.inquire(draft(data={"fields": {"zone": "7"}})).addCallback(outcomes.append)
    assert bench.query.asked[-1] == [("7",)]
    bench.query.answer(fault="connection refused")
    assert [outcome.fault for outcome in outcomes] == ["connection refused"]
    bench.lookup.inquire(draft(data={})).addCallback(outcomes.append)
    assert outcomes[1].answers == (None,)
    bench.lookup.stop()
