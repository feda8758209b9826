"""Retention: when sweeps run, and when the clock is not believed."""

from __future__ import annotations

from typing import Any

import pytest

from notifyd.config import Duration
from notifyd.hub.retention import DISTRUST_S, EXPIRE_AT_ONCE, JUMP_S, SWEEP_MOST_S, Retention
from tests.hubkit import Hub
from tests.hubparts import LOCKED, pending
from tests.test_log import fill

KEEP = Duration(100)


def retention(hub: Hub) -> Retention:
    """Starts sweeping."""
    made = Retention(hub.clock, hub.log, KEEP, hub.now)
    made.start()
    return made


def test_events_go_when_they_are_older_than_the_retention(hub: Hub) -> None:
    """Within a minute; younger ones stay."""
    fill(hub, ("normal", 0), ("normal", 50), ("normal", 90))
    sweeps = retention(hub)
    hub.clock.advance(100)
    assert len(hub.rows()) == 3
    hub.clock.advance(SWEEP_MOST_S)
    assert len(hub.rows()) == 1
    assert pending(sweeps.stop())


def test_a_sweep_goes_on_until_all_is_gone(hub: Hub) -> None:
    """A few at a time, and the newest stays."""
    fill(hub, *[("normal", 0.0)] * (2 * EXPIRE_AT_ONCE + 5))
    hub.clock.advance(200)
    sweeps = retention(hub)
    assert len(hub.rows()) == 1
    assert pending(sweeps.stop())


@pytest.mark.parametrize("jump", [JUMP_S * 1.1, 10 * 365 * 86_400.0, -JUMP_S * 1.1])
def test_a_clock_that_jumps_is_not_believed_for_a_day(hub: Hub, logged: Any, jump: float) -> None:
    """Nothing is deleted, it is told once, and after a day the new time counts."""
    sweeps = retention(hub)
    fill(hub, ("normal", -1000), ("normal", 50))
    hub.start += jump
    for _ in range(int(DISTRUST_S / SWEEP_MOST_S) - 1):
        hub.clock.advance(SWEEP_MOST_S)
    assert len(hub.rows()) == 2
    assert len([text for text in logged.text("warn") if "jumped" in text]) == 1
    for _ in range(20):
        hub.clock.advance(SWEEP_MOST_S)
    assert len(hub.rows()) == 1
    assert pending(sweeps.stop())


def test_a_clock_that_jumps_back_is_believed_again(hub: Hub, logged: Any) -> None:
    """At once, and it is told."""
    sweeps = retention(hub)
    fill(hub, ("normal", 0), ("normal", 1))
    hub.start += 86_400
    hub.clock.advance(SWEEP_MOST_S)
    hub.start -= 86_400
    hub.clock.advance(SWEEP_MOST_S)
    hub.clock.advance(SWEEP_MOST_S)
    assert len(hub.rows()) == 1
    assert [text for text in logged.text() if "clock is back" in text]
    assert pending(sweeps.stop())


def test_a_clock_that_is_slewed_is_believed(hub: Hub, logged: Any) -> None:
    """Small steps add up to no jump."""
    sweeps = retention(hub)
    for _ in range(20):
        hub.start += JUMP_S / 2
        hub.clock.advance(SWEEP_MOST_S)
    assert not logged.text("warn")
    assert pending(sweeps.stop())


def test_a_database_that_is_away_is_tried_again_at_the_next_sweep(hub: Hub, logged: Any) -> None:
    """Told once an outage."""
    fill(hub, ("normal", 0), ("normal", 1))
    hub.clock.advance(1000)
    hub.writes.faults = [LOCKED, LOCKED]
    sweeps = retention(hub)
    hub.clock.advance(SWEEP_MOST_S)
    assert len(hub.rows()) == 2
    hub.clock.advance(SWEEP_MOST_S)
    assert len(hub.rows()) == 1
    assert len([text for text in logged.text("error") if "cannot be deleted" in text]) == 1
    assert pending(sweeps.stop())


def test_a_stop_waits_for_the_commit_that_is_under_way(hub: Hub) -> None:
    """And begins no other."""
    fill(hub, *[("normal", 0.0)] * (2 * EXPIRE_AT_ONCE))
    hub.clock.advance(1000)
    hub.writes.held = True
    sweeps = retention(hub)
    stopped = pending(sweeps.stop())
    assert not stopped
    hub.writes.step()
    assert stopped
    assert len(hub.rows()) == EXPIRE_AT_ONCE
    hub.writes.release()


def test_retention_that_was_never_started_stops(hub: Hub) -> None:
    """As when the hub fails while it comes up."""
    assert pending(Retention(hub.clock, hub.log, KEEP, hub.now).stop())
