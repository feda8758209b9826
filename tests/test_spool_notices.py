"""What a notice tells: ranges that stay few, and counts that stay right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notifyd.agent.notices import MAX_RANGES, Dropped, Range, dropped_event
from notifyd.agent.pending import Pending
from notifyd.event import Priority, encode
from notifyd.wire import MAX_LINE
from tests.spooling import device_event, parse_lines

SEQUENCES = st.lists(st.integers(1, 10**6), unique=True, max_size=400)


def told(sequences: list[int]) -> Dropped:
    """What is told when these are dropped one by one."""
    dropped = Dropped()
    for sequence in sequences:
        dropped = dropped.add(Range(sequence, sequence, 1), "why")
    return dropped


@given(SEQUENCES)
def test_every_dropped_event_is_in_a_range_and_counted_once(sequences: list[int]) -> None:
    """However many there are, the ranges are few, apart, in order, and cover all of them."""
    dropped = told(sequences)
    assert dropped.count == len(sequences)
    assert len(dropped.ranges) <= MAX_RANGES
    for sequence in sequences:
        assert any(each.first <= sequence <= each.last for each in dropped.ranges)
    for left, right in zip(dropped.ranges, dropped.ranges[1:], strict=False):
        assert left.last < right.first


@given(st.lists(st.integers(1, 1000), unique=True, min_size=1, max_size=MAX_RANGES), st.integers(0, 1000))
def test_what_the_hub_has_is_taken_out(sequences: list[int], acked: int) -> None:
    """Of single events exactly those above the hub's position are left."""
    rest = told(sequences).above(acked)
    assert rest.count == sum(sequence > acked for sequence in sequences)
    assert all(each.first > acked for each in rest.ranges)


def test_ranges_with_nothing_kept_between_them_are_one() -> None:
    """Sequences of a lane have holes where other lanes' events are: that is no reason for two ranges."""
    first = Dropped((Range(1, 3, 2),), ("full",))
    assert first.add(Range(7, 9, 2), "full", after=3).ranges == (Range(1, 9, 4),)
    assert first.add(Range(7, 9, 2), "full").ranges == (Range(1, 3, 2), Range(7, 9, 2))
    later = Dropped((Range(7, 9, 2),), ("full",))
    assert later.add(Range(1, 3, 2), "full", before=7).ranges == (Range(1, 9, 4),)


def test_reasons_are_kept_side_by_side() -> None:
    """A lane that lost events for two reasons says both."""
    both = Dropped((Range(1, 1, 1),), ("a",)).merge(Dropped((Range(5, 5, 1),), ("b",)))
    assert (both.count, both.reasons) == (2, ("a", "b"))


def test_the_longest_notice_is_within_the_line_limit() -> None:
    """The hub never has to refuse one."""
    far = Dropped(tuple(Range(10**18 + 9 * n, 10**18 + 9 * n + 1, 10**6) for n in range(MAX_RANGES)), ("why",) * 4)
    assert len(encode(dropped_event("a" * 255, Priority.NORMAL, far, 0.0))) < MAX_LINE // 4


def test_what_must_be_kept_is_passed_over_when_memory_is_short() -> None:
    """The event that tells of a lost spool stays, the others around it go, and are told as they were."""
    pending = Pending(max_bytes=1_500)
    pending.announce(Priority.NORMAL, device_event("lost spool"), "s", 1)
    dropped = 0
    for number in range(2, 20):
        pending.append(Priority.NORMAL, device_event(str(number)), "s", number)
        dropped += pending.drop_excess() if pending.is_over else 0
    rows, lost = pending.take(100)
    kept = [each.text for each in parse_lines(b"\n".join(line for _, line in rows[Priority.NORMAL]))]
    assert kept[0] == "lost spool"
    assert kept[1:] == [str(number) for number in range(20 - len(kept[1:]), 20)]
    assert lost[Priority.NORMAL].count == dropped == 18 - len(kept[1:])


def test_what_was_dropped_waits_for_what_came_before_it() -> None:
    """A notice never overtakes events of its lane that a small commit leaves for the next."""
    pending = Pending(max_bytes=10_000)
    for number in range(1, 6):
        pending.append(Priority.NORMAL, device_event(str(number)), "s", number)
    pending.take(3)
    pending.max_bytes = 1
    assert pending.drop_excess() == 2
    assert pending.restore() == 3
    pending.max_bytes = 10_000
    rows, lost = pending.take(2)
    assert ([sequence for sequence, _ in rows[Priority.NORMAL]], lost) == ([1, 2], {})
    pending.done()
    rows, lost = pending.take(2)
    assert [sequence for sequence, _ in rows[Priority.NORMAL]] == [3]
    assert lost[Priority.NORMAL].ranges == (Range(4, 5, 2),)
    assert not pending.is_settled(5)
    pending.done()
    assert pending.is_settled(5)


def test_new_numbers_keep_the_order() -> None:
    """In another spool everything that waits has the same order, and what was dropped a place before it."""
    pending = Pending(max_bytes=1_500)
    for number in range(1, 11):
        pending.append(Priority.NORMAL, device_event(str(number)), "s", number)
    dropped = pending.drop_excess()
    following = pending.renumber("t", 1_000)
    assert following == 1_010
    rows, lost = pending.take(100)
    events = parse_lines(b"\n".join(line for _, line in rows[Priority.NORMAL]))
    assert [each.text for each in events] == [str(number) for number in range(dropped + 1, 11)]
    assert [each.event["id"] for each in events] == [f"t-{1_000 + number}" for number in range(dropped, 10)]
    assert lost[Priority.NORMAL].ranges == (Range(1_000, 999 + dropped, dropped),)
