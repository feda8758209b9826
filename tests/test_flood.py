"""What is let through of a device that floods."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notifyd.agent.flood import CALM_S, Flood, FloodGate


def let_through(gate: FloodGate, rule: str, now_s: float, *, is_critical: bool = False) -> bool:
    """Does with one frame what the reader does."""
    if gate.admit(1, now_s):
        return True
    return gate.passes(rule, now_s, exceeds=gate.exceeds(now_s), is_critical=is_critical)


def test_a_device_that_keeps_to_its_rate_is_not_touched() -> None:
    """Also in a burst of a second's worth."""
    gate = FloodGate(10, 0.0)
    assert gate.admit(10, 0.0)
    assert all(let_through(gate, "a", second / 9) for second in range(1, 500))
    assert not gate.is_flooding
    assert gate.calm(100.0) is None


def test_beyond_the_rate_the_first_of_each_rule_in_a_second_still_passes() -> None:
    """One line that is repeated without end does not hide the others."""
    gate = FloodGate(10, 0.0)
    passed = [let_through(gate, "a", 0.0) for _ in range(15)]
    assert passed == [True] * 10 + [True] + [False] * 4
    assert gate.is_flooding
    assert [let_through(gate, "b", 0.0) for _ in range(3)] == [True, False, False]
    assert gate.calm(CALM_S - 0.1) is None
    assert gate.calm(CALM_S) == Flood(0.0, {"a": 4, "b": 2})
    assert not gate.is_flooding


def test_each_second_begins_anew() -> None:
    """Of a flood that goes on something comes every second, of every rule."""
    gate = FloodGate(1, 0.0)
    passed = [let_through(gate, "ab"[number % 2], number / 100) for number in range(1000)]
    assert 20 <= sum(passed) <= 33  # two rules, and a token a second; in ten seconds


def test_critical_events_always_pass() -> None:
    """An alarm is never thinned, however many there are."""
    gate = FloodGate(1, 0.0)
    assert all(let_through(gate, "alarm", 0.0, is_critical=True) for _ in range(100))
    assert gate.is_flooding
    assert gate.calm(0.0, at_once=True) == Flood(0.0, {})


def test_a_flood_that_hovers_around_the_rate_is_one() -> None:
    """It is over only when the device has kept to its rate for a while."""
    gate = FloodGate(10, 0.0)
    for second in range(20):
        for _ in range(12):
            let_through(gate, "a", float(second))
        assert gate.calm(second + 0.9) is None
    assert gate.calm(19 + CALM_S) is not None


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abc"), st.booleans()), max_size=200),
)
def test_every_event_passes_or_is_counted(rate: int, frames: list[tuple[float, str, bool]]) -> None:
    """Whatever the device does, and whatever the clock does: nothing vanishes uncounted."""
    gate = FloodGate(rate, 0.0)
    now_s, passed = 0.0, 0
    for pause_s, rule, is_critical in frames:
        now_s += pause_s / 10
        ok = let_through(gate, rule, now_s, is_critical=is_critical)
        assert ok or not is_critical
        passed += ok
    flood = gate.calm(now_s, at_once=True)
    assert passed + (0 if flood is None else flood.total) == len(frames)
    assert passed <= rate * (1 + now_s) + 3 * (now_s + 1) + sum(critical for _, _, critical in frames)
