"""One lookup: what its key is, what is cached, and who asks when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.hub import lookup_cache
from notifyd.hub.lookup import Lookup
from notifyd.hub.lookup_cache import Cache
from notifyd.hub.lookup_query import Refused
from tests.conftest import Logged
from tests.lookupbench import KITCHEN, Bench, draft, of_zone

# --- keys


def test_a_parameter_is_a_field_else_an_attribute() -> None:
    """Fields come first; null, lists and objects count as lacking."""
    bench = Bench("zone", "type", "source", "id")
    assert bench.fill(data=of_zone("7"))[0] == ("7", "panel.alarm", "/ward3/panel", "1")
    assert bench.fill(data={"fields": {"zone": "7", "type": "own"}})[0] == ("7", "own", "/ward3/panel", "1")
    assert bench.fill(data={"fields": {"zone": "7", "type": None}})[0] == ("7", "panel.alarm", "/ward3/panel", "1")
    assert Bench("subject", "ward").fill(subject="s", ward=3)[0] == ("s", "3")


@pytest.mark.parametrize(
    "data",
    [{}, {"fields": {}}, {"fields": None}, {"fields": ["zone"]}, {"fields": "zone"}, {"zone": "7"}, of_zone(None),
     of_zone([]), of_zone({"a": 1}), "text"],
)  # fmt: skip
@pytest.mark.parametrize("names", [("zone",), ("id", "zone")])
def test_an_event_that_lacks_a_parameter_is_not_looked_up(names: tuple[str, ...], data: Any) -> None:
    """Its data stays as it is."""
    bench = Bench(*names)
    key, after = bench.fill(data=data)
    assert key is None
    assert "context" not in after
    assert "unavailable" not in after


def test_what_the_hub_sets_is_no_parameter() -> None:
    """Nor are places that no event has."""
    for name in ("offset", "received", "rule", "reason", "data", "extensions", "__class__"):
        event = draft(data={"line": "x"}, **({name: "x"} if name in ("offset", "received", "rule", "reason") else {}))
        assert Bench(name).lookup.fill(event, 0.0) is None


@pytest.mark.parametrize(
    ("value", "key"), [("7", "7"), (7, "7"), (7.5, "7.5"), (True, "True"), ("", ""), ("\ud800", "\ud800")]
)
def test_text_and_numbers_are_keys(value: Any, key: str) -> None:
    """Numbers as the database has them bound."""
    assert Bench().fill(data=of_zone(value))[0] == (key,)
    assert Bench("id", "zone").fill(data=of_zone(value))[0] == ("1", key)


def test_a_lookup_without_parameters_is_for_every_event() -> None:
    """It has one answer."""
    bench = Bench()
    lookup = Lookup(
        "on_call", [], bench.query, reactor=bench.clock, tell=print, cache_s=60, cache_entries=1, timeout_s=2
    )
    assert lookup.fill(draft(), 0.0) == ()


def test_conditions_say_which_events_it_is_for() -> None:
    """Others are not asked for, cached or not."""
    bench = Bench(matches=lambda draft: draft.event.type == "panel.alarm")
    assert bench.fill(data=of_zone("7"))[0] == ("7",)
    assert bench.fill(data=of_zone("7"), type="door.open") == (None, of_zone("7"))


# --- the cache


def test_an_answer_is_kept_that_there_is_none_too() -> None:
    """And that a value was refused."""
    bench = Bench()
    bench.ask("7", "8", "9")
    bench.query.answer(KITCHEN, None, Refused("bad"))
    assert bench.take() == [("7", KITCHEN), ("8", None), ("9", "unavailable")]
    assert bench.fill(data=of_zone("7")) == (None, {**of_zone("7"), "context": {"zone": KITCHEN}})
    assert bench.fill(data=of_zone("8")) == (None, {**of_zone("8"), "context": {"zone": None}})
    assert bench.fill(data=of_zone("9")) == (None, {**of_zone("9"), "unavailable": ["zone"]})


def test_an_answer_is_as_old_as_its_question() -> None:
    """So that a change in the table shows after ``cache`` at most, however slow the answer was."""
    bench = Bench(cache_s=60.0)
    bench.ask("7")
    bench.clock.advance(1.5)
    bench.query.answer(KITCHEN)
    bench.clock.advance(58.4)
    assert bench.fill(data=of_zone("7"))[0] is None
    bench.clock.advance(0.1)
    assert bench.fill(data=of_zone("7"))[0] == ("7",)


def test_what_was_not_used_for_longest_makes_room() -> None:
    """Within ``cache_entries``."""
    bench = Bench(cache_entries=2)
    bench.ask("1", "2")
    bench.query.answer(KITCHEN, KITCHEN)
    bench.fill(data=of_zone("1"))
    bench.ask("3")
    bench.query.answer(KITCHEN)
    assert [bench.fill(data=of_zone(zone))[0] for zone in ("1", "2", "3")] == [None, ("2",), None]


def test_the_cache_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large rows, and large values that are asked for, push out others before there are too many of them."""
    monkeypatch.setattr(lookup_cache, "CACHE_BYTES", 100_000)
    for key, size in (("x", 3000), ("x" * 3000, 0)):
        cache = Cache(60.0, 50)
        for number in range(50):
            cache.put((f"{number}{key}",), 0.0, {}, b"x" * size)
        kept = [number for number in range(50) if cache.get((f"{number}{key}",), 1.0) is not None]
        assert kept == list(range(50 - len(kept), 50))
        assert 5 < len(kept) < 40


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), max_size=40))
def test_the_cache_gives_what_was_put_last_or_nothing(steps: list[tuple[int, int]]) -> None:
    """Whatever was put, and how often."""
    cache = Cache(10.0, 3)
    model: dict[int, tuple[int, int]] = {}
    for now, (key, size) in enumerate(steps):
        cache.put((key,), now, {"n": now}, b"x" * size)
        model[key] = (now, size)
        kept = 0
        for each, (at, _) in model.items():
            entry = cache.get((each,), now)
            kept += entry is not None
            assert entry is None or (entry[1] == {"n": at} and at + 10 > now)
        assert 1 <= kept <= 3
    assert cache.size == sum(entry[3] for entry in cache._entries.values())


def test_an_answer_is_kept_as_it_was_whatever_becomes_of_an_event() -> None:
    """Events share it: what one of them is given besides is its own."""
    bench = Bench()
    bench.ask("7")
    bench.query.answer(KITCHEN)
    first, second = draft(data=of_zone("7")), draft(data=of_zone("7"))
    bench.lookup.fill(first, 0.0)
    first.add_context("zone", {"location": "x"}, b'{"location":"x"}')
    first.disown_context()
    bench.lookup.fill(second, 0.0)
    assert second.data["context"]["zone"] == KITCHEN


# --- asking


def test_concurrent_misses_of_one_key_ask_once() -> None:
    """Whoever comes while it is asked gets the same answer; what else has come meanwhile is the next question."""
    bench = Bench()
    bench.ask("7", "8")
    bench.ask("7", "9")
    bench.ask("9", "10")
    assert bench.query.asked == [[("7",), ("8",)]]
    bench.query.answer(KITCHEN, None)
    assert sorted(bench.take(), key=str) == [("7", KITCHEN), ("7", KITCHEN), ("8", None)]
    assert bench.query.asked[1:] == [[("9",), ("10",)]]
    bench.query.answer(None, KITCHEN)
    assert bench.take() == [("9", None), ("9", None), ("10", KITCHEN)]
    assert bench.clock.getDelayedCalls() == []


def test_what_was_answered_before_a_fault_is_kept() -> None:
    """A database that is too slow for all keys of a question gets on all the same."""
    bench = Bench()
    bench.ask("7", "8")
    bench.query.answer(KITCHEN, fault="it does not answer in time")
    assert bench.take() == [("7", KITCHEN), ("8", "unavailable")]
    assert bench.fill(data=of_zone("7"))[0] is None
    assert bench.fill(data=of_zone("8"))[0] == ("8",)


def test_nothing_waits_behind_a_question_whose_time_is_over() -> None:
    """While it hangs, its keys and all others go without at once; its answer is kept when it comes after all."""
    bench = Bench()
    bench.ask("7")
    bench.ask("8")
    bench.clock.advance(1.9)
    assert bench.take() == []
    bench.clock.advance(0.1)
    assert bench.take() == [("7", "unavailable"), ("8", "unavailable")]
    bench.ask("7", "9")
    assert bench.take() == [("7", "unavailable"), ("9", "unavailable")]
    assert len(bench.query.asked) == 1
    bench.query.answer(KITCHEN)
    assert bench.fill(data=of_zone("7"))[0] is None
    bench.ask("9")
    assert bench.query.asked[1:] == [[("9",)]]


def test_when_one_event_could_not_wait_no_other_does() -> None:
    """Until the question has ended; it may still be in time, and is no failure then."""
    bench = Bench()
    bench.ask("7")
    bench.ask("8")
    bench.lookup.overdue()
    assert bench.take() == [("8", "unavailable")]
    bench.ask("7", "9")
    assert bench.take() == [("7", "unavailable"), ("9", "unavailable")]
    bench.query.answer(KITCHEN)
    assert bench.take() == [("7", KITCHEN)]
    assert bench.told == []


def test_whoever_is_answered_may_ask_at_once() -> None:
    """The pipeline begins its next batch from within the answer."""
    bench = Bench()
    bench.lookup.ask([("7",)], lambda key, entry: bench.ask("8"))
    bench.query.answer(KITCHEN)
    assert bench.query.asked == [[("7",)], [("8",)]]
    bench.query.answer(KITCHEN)
    assert bench.take() == [("8", KITCHEN)]


def test_a_mistake_in_a_query_is_logged_and_counts_as_a_fault(logged: Logged) -> None:
    """Nobody waits for it."""
    bench = Bench()
    bench.ask("7")
    bench.query.waiting.pop().errback(ZeroDivisionError())
    assert bench.take() == [("7", "unavailable")]
    assert len(logged.expect_failure(ZeroDivisionError)) == 1
