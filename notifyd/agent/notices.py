"""What the spool dropped: ranges of sequences, and the notice that tells of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import msgspec

from notifyd.agent.own import AGENT, own_event
from notifyd.event import Event, Priority

DROPPED = "notifyd.spool.dropped"

MAX_RANGES = 100
"""Ranges in one notice: about 4 KiB of its line; beyond that the nearest are told as one."""

FULL = "spool full"
UNWRITABLE = "spool cannot be written"
REFUSED = "refused by the spool's database"
CORRUPT = "spool corrupt"
REPLACED = "spool removed or replaced"


class Range(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``count`` events of one lane that were dropped, none of them outside of ``first`` to ``last``."""

    first: int
    last: int
    count: int


@dataclasses.dataclass(frozen=True)
class Dropped:
    """Events of one lane that were dropped, as ranges in ascending order, and why."""

    ranges: tuple[Range, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many events; of a range that was cut, the most that it can be."""
        return sum(each.count for each in self.ranges)

    @property
    def last(self) -> int:
        """The sequence of the last one, which is also that of the notice."""
        return self.ranges[-1].last

    def add(self, new: Range, reason: str, *, after: int | None = None, before: int | None = None) -> Dropped:
        """Gives this and one more range.

        Args:
            new: the range; where it overlaps with others or touches them they become one.
            reason: why.
            after: the ``last`` of a range that ``new`` continues: nothing of the lane is kept between them.
            before: the ``first`` of a range that continues ``new``.
        """
        joined: list[Range] = []
        for each in sorted((*self.ranges, new), key=lambda item: item.first):
            previous = joined[-1] if joined else None
            if previous is not None and (
                each.first <= previous.last + 1
                or (previous.last == after and each.first == new.first)
                or (each.first == before and previous.last >= new.last)
            ):
                joined[-1] = _join(previous, each)
            else:
                joined.append(each)
        reasons = self.reasons if reason in self.reasons else (*self.reasons, reason)
        return Dropped(_bounded(joined), reasons)

    def merge(self, other: Dropped) -> Dropped:
        """Gives what either tells."""
        merged = self
        for each in other.ranges:
            merged = merged.add(each, other.reasons[0])
        return Dropped(merged.ranges, tuple(dict.fromkeys(merged.reasons + other.reasons)))

    def above(self, sequence: int) -> Dropped:
        """Gives what of it is above ``sequence``; of a range that is cut the count is the most that it can be."""
        kept = (
            each if each.first > sequence else Range(sequence + 1, each.last, min(each.count, each.last - sequence))
            for each in self.ranges
            if each.last > sequence
        )
        return Dropped(tuple(kept), self.reasons)

    def shifted(self, above: int, delta: int) -> Dropped:
        """Gives this with all sequences above ``above`` raised by ``delta``."""

        def shift(sequence: int) -> int:
            return sequence + delta if sequence > above else sequence

        moved = (Range(shift(each.first), shift(each.last), each.count) for each in self.ranges)
        return Dropped(tuple(moved), self.reasons)


def _join(left: Range, right: Range) -> Range:
    return Range(left.first, max(left.last, right.last), left.count + right.count)


def _bounded(ranges: Iterable[Range]) -> tuple[Range, ...]:
    bounded = list(ranges)
    while len(bounded) > MAX_RANGES:
        nearest = min(range(1, len(bounded)), key=lambda i: bounded[i].first - bounded[i - 1].last)
        bounded[nearest - 1 : nearest + 1] = [_join(bounded[nearest - 1], bounded[nearest])]
    return tuple(bounded)


def dropped_event(agent: str, lane: Priority, dropped: Dropped, now: float) -> Event:
    """Makes the notice of what was dropped in one lane; the spool fills in ``id`` and ``sequence``."""
    reason = ", ".join(dropped.reasons)
    ranges = [[str(each.first), str(each.last)] for each in dropped.ranges]
    return own_event(
        agent=agent,
        source=AGENT,
        type=DROPPED,
        priority=lane,
        line=f"{dropped.count} {lane} events were dropped: {reason}",
        fields={"count": dropped.count, "ranges": ranges, "reason": reason},
        now=now,
    )


def spool_lost_event(agent: str, priority: str, reason: str, spool: str | None, now: float) -> Event:
    """Makes the event that tells that a whole spool was lost; how much was in it nobody knows any more."""
    return own_event(
        agent=agent,
        source=AGENT,
        type=DROPPED,
        priority=priority,
        line=f"An unknown number of events was lost: {reason}",
        fields={"count": None, "ranges": [], "reason": reason, "spool": spool},
        now=now,
    )


def hub_restored_event(agent: str, priority: str, lost: dict[str, tuple[int, int]], now: float) -> Event:
    """Makes the event that tells that the hub no longer knows what it had acknowledged.

    Args:
        agent: the agent's name.
        priority: the lane that it goes into.
        lost: per lane the first and the last sequence that the hub has forgotten.
        now: seconds since 1970.
    """
    return own_event(
        agent=agent,
        source=AGENT,
        type="notifyd.hub.restored",
        priority=priority,
        line="The hub no longer knows events that it had acknowledged; they are not here any more",
        fields={"ranges": {lane: [[str(first), str(last)]] for lane, (first, last) in lost.items()}},
        now=now,
    )
