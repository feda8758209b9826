"""Warnings of what nothing classified: at once where it is new, as counts where it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from notifyd.event import Event
from notifyd.hub.unclassified import MAX_REASON, MAX_TYPES, WINDOW_S, Unclassified


@pytest.fixture
def clock() -> Clock:
    """Time that passes by hand."""
    return Clock()


@pytest.fixture
def unclassified(clock: Clock) -> Unclassified:
    """What is told of events."""
    return Unclassified(clock)


@pytest.fixture
def said(logged: Any) -> Callable[[], list[str]]:
    """Gives the warnings since it was asked last."""

    def new() -> list[str]:
        texts: list[str] = logged.text("warn")
        logged.events.clear()
        return texts

    return new


def event(kind: str = "door.open", id: str = "1") -> Event:  # noqa: A002 - the attribute's name
    """Gives an event that nothing classified."""
    return Event(id=id, source="/shed/door", type=kind)


def test_the_first_of_a_type_is_told_at_once(unclassified: Unclassified, said: Callable[[], list[str]]) -> None:
    """With what an operator needs to find it."""
    unclassified.tell(event("door.open", "42"), "no rule matches and there is no priority")
    unclassified.tell(event("door.shut", "43"), "because")
    first, second = said()
    for text in ("door.open", "/shed/door", "42", "no rule matches and there is no priority"):
        assert text in first
    assert "door.shut" in second
    unclassified.stop()


def test_more_of_the_type_are_told_as_a_count(
    unclassified: Unclassified, clock: Clock, said: Callable[[], list[str]]
) -> None:
    """In one line at the end of each window, as long as they come."""
    for _ in range(1001):
        unclassified.tell(event(), "because")
    assert len(said()) == 1
    clock.advance(WINDOW_S - 1)
    assert said() == []
    clock.advance(1)
    assert said() == ["Nothing classified 1000 more events of type 'door.open' in 60 s."]
    unclassified.tell(event(), "because")
    assert said() == []
    clock.advance(WINDOW_S)
    assert said() == ["Nothing classified 1 more events of type 'door.open' in 60 s."]
    clock.advance(WINDOW_S)
    assert said() == []
    assert clock.getDelayedCalls() == []


def test_a_type_that_was_quiet_for_a_window_is_new_again(
    unclassified: Unclassified, clock: Clock, said: Callable[[], list[str]]
) -> None:
    """It is told at once, not a minute later."""
    unclassified.tell(event(id="1"), "because")
    clock.advance(WINDOW_S)
    assert len(said()) == 1
    unclassified.tell(event(id="2"), "because")
    assert "id '2'" in said()[0]
    unclassified.stop()
    assert said() == []


def test_each_type_has_its_own_window(unclassified: Unclassified, clock: Clock, said: Callable[[], list[str]]) -> None:
    """A line of a type never comes sooner than a window after the one before it."""
    unclassified.tell(event("a"), "because")
    clock.advance(40)
    unclassified.tell(event("b"), "because")
    unclassified.tell(event("a"), "because")
    unclassified.tell(event("b"), "because")
    said()
    clock.advance(20)
    assert said() == ["Nothing classified 1 more events of type 'a' in 60 s."]
    clock.advance(39)
    assert said() == []
    clock.advance(1)
    assert said() == ["Nothing classified 1 more events of type 'b' in 60 s."]
    unclassified.stop()


def test_what_was_counted_is_told_at_the_end(
    unclassified: Unclassified, clock: Clock, said: Callable[[], list[str]]
) -> None:
    """A hub that stops within a window leaves nothing untold, and nothing scheduled."""
    for kind in ("a", "b", "b", "b"):
        unclassified.tell(event(kind), "because")
    clock.advance(10)
    said()
    unclassified.stop()
    assert said() == ["Nothing classified 2 more events of type 'b' in 10 s."]
    assert clock.getDelayedCalls() == []
    unclassified.stop()
    assert said() == []


def test_made_up_types_fill_neither_memory_nor_log(
    unclassified: Unclassified, clock: Clock, said: Callable[[], list[str]]
) -> None:
    """Beyond the limit they are counted together; a type that is known is counted by itself."""
    for number in range(MAX_TYPES + 500):
        unclassified.tell(event(f"t{number}"), "because")
    unclassified.tell(event("t0"), "because")
    assert len(said()) == MAX_TYPES
    assert len(unclassified._types) == MAX_TYPES + 1
    clock.advance(WINDOW_S)
    assert said() == [
        "Nothing classified 1 more events of type 't0' in 60 s.",
        "Nothing classified 500 events of other types in 60 s.",
    ]
    unclassified.tell(event("new"), "because")
    assert len(said()) == 1
    unclassified.stop()


def test_texts_of_events_are_short_and_on_one_line(
    unclassified: Unclassified, clock: Clock, said: Callable[[], list[str]]
) -> None:
    """A producer writes no lines of its own into the log, and no long ones."""
    hostile = "{x}\n2026-11-22 [hub] all is well\x1b[2J" + "x" * 60_000
    for _ in range(2):
        unclassified.tell(Event(id=hostile, source=hostile, type=hostile), "r" * 1000)
    clock.advance(WINDOW_S)
    for text in said():
        assert len(text) < 3 * 150 + MAX_REASON + 150
        assert "\n" not in text
        assert "\x1b" not in text
    unclassified.stop()
