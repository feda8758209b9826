"""The events that wait in memory for the spool's next commit, within a limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain

from notifyd.agent.notices import UNWRITABLE, Dropped, Range
from notifyd.agent.spool_store import Row, numbered, renumbered
from notifyd.event import LANES, Event, Priority, data_object, encode, raw_data
from notifyd.wire import MAX_LINE

MAX_BYTES = 16 * 2**20
"""Bytes of events that wait while the spool cannot be written; part of the contract."""

ROW_BYTES = 120
"""What an event costs beside its line: two objects' headers, a number and a tuple."""

COMMIT_BYTES = 4 * 2**20
"""Bytes of events that one commit writes at most, so that it does not hold up the others for long."""


class Pending:
    """Per lane a queue of rows; a commit takes from their heads, and gives back what it could not write.

    Args:
        max_bytes: how much may wait.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._lanes: dict[Priority, deque[Row]] = {lane: deque() for lane in LANES}
        self._bytes = 0
        self._taken: dict[Priority, list[Row]] = {}
        self._lost: dict[Priority, Dropped] = {}
        self._taken_lost: dict[Priority, Dropped] = {}
        # Per lane the sequence that was dropped last, while what followed it directly is the lane's head.
        self._edge: dict[Priority, int] = {}
        self.kept: set[int] = set()

    def __len__(self) -> int:
        return sum(map(len, chain(self._lanes.values(), self._taken.values())))

    @property
    def has_work(self) -> bool:
        """Whether a commit has anything to write."""
        return bool(self._lost) or any(self._lanes.values())

    @property
    def is_over(self) -> bool:
        """Whether more waits than may."""
        return self._bytes > self.max_bytes

    def append(self, lane: Priority, event: Event, spool: str, sequence: int) -> None:
        """Adds an event under its number, which is higher than all others."""
        line = encode(numbered(event, spool, sequence))
        if len(line) > MAX_LINE:
            line = _fit(event)
        self._lanes[lane].append((sequence, line))
        self._bytes += len(line) + ROW_BYTES

    def announce(self, lane: Priority, event: Event, spool: str, sequence: int) -> None:
        """Adds an event that is never dropped under its number, which is lower than all others."""
        line = encode(numbered(event, spool, sequence))
        self.kept.add(sequence)
        self._lanes[lane].appendleft((sequence, line))
        self._bytes += len(line) + ROW_BYTES

    def last(self, lane: Priority) -> int:
        """Gives the highest sequence that waits in a lane, else 0."""
        rows = self._lanes[lane] or self._taken.get(lane)
        return max(rows[-1][0] if rows else 0, self._lost[lane].last if lane in self._lost else 0)

    def is_settled(self, sequence: int) -> bool:
        """Whether nothing up to ``sequence`` waits any more."""
        heads = [rows[0][0] for rows in chain(self._lanes.values(), self._taken.values()) if rows]
        lost = [each.ranges[0].first for each in chain(self._lost.values(), self._taken_lost.values())]
        return min(heads + lost, default=sequence + 1) > sequence

    def drop_excess(self) -> int:
        """Drops the oldest of the least urgent until the rest is within the limit; gives how many."""
        dropped = 0
        for lane in reversed(LANES):
            if self._bytes <= self.max_bytes:
                break
            dropped += self._drop(lane)
        return dropped

    def _drop(self, lane: Priority) -> int:
        rows, kept = self._lanes[lane], []
        count = first = last = 0
        while rows and self._bytes > self.max_bytes:
            row = rows.popleft()
            if row[0] in self.kept:
                kept.append(row)
                continue
            self._bytes -= len(row[1]) + ROW_BYTES
            first, last, count = first or row[0], row[0], count + 1
        rows.extendleft(reversed(kept))
        if count:
            self._note_lost(lane, Range(first, last, count), UNWRITABLE)
            if not kept:
                self._edge[lane] = last
        return count

    def _note_lost(self, lane: Priority, dropped: Range, reason: str) -> None:
        self._lost[lane] = self._lost.get(lane, Dropped()).add(dropped, reason, after=self._edge.pop(lane, None))

    def take(self, max_rows: int) -> tuple[dict[Priority, list[Row]], dict[Priority, Dropped]]:
        """Gives what one commit writes: the rows, and what was dropped before it was written."""
        room = COMMIT_BYTES
        for lane in LANES:
            rows, taken = self._lanes[lane], []
            while rows and room > 0 and max_rows > 0:
                room -= len(rows[0][1])
                max_rows -= 1
                taken.append(rows.popleft())
            if taken:
                self._taken[lane] = taken
                self._edge.pop(lane, None)
            # A notice must not come before events of its lane with lower numbers.
            if lane in self._lost and (not rows or rows[0][0] > self._lost[lane].last):
                self._taken_lost[lane] = self._lost.pop(lane)
                self._edge.pop(lane, None)
        return dict(self._taken), dict(self._taken_lost)

    def done(self) -> None:
        """Forgets what was taken: it is stored."""
        for rows in self._taken.values():
            self._bytes -= sum(len(line) + ROW_BYTES for _, line in rows)
            if self.kept:
                self.kept.difference_update(sequence for sequence, _ in rows)
        self._taken, self._taken_lost = {}, {}

    def restore(self) -> int:
        """Puts back what was taken: it could not be stored; gives how many rows it was."""
        count = 0
        for lane, rows in self._taken.items():
            count += len(rows)
            self._lanes[lane].extendleft(reversed(rows))
            self._edge.pop(lane, None)
        for lane, dropped in self._taken_lost.items():
            self._lost[lane] = dropped.merge(self._lost[lane]) if lane in self._lost else dropped
        self._taken, self._taken_lost = {}, {}
        return count

    def refuse_first(self, reason: str) -> Row:
        """Drops the row that a commit of one row would take, which the database does not accept."""
        lane = next(lane for lane in LANES if self._lanes[lane])
        row = self._lanes[lane].popleft()
        self._bytes -= len(row[1]) + ROW_BYTES
        self._edge.pop(lane, None)
        self._note_lost(lane, Range(row[0], row[0], 1), reason)
        return row

    def renumber(self, spool: str, first: int) -> int:
        """Gives everything that waits new numbers from ``first`` on, in the same order; gives the next free one.

        What was dropped before it was stored, nobody knows by its old numbers: it is told under new ones.
        """
        for lane, dropped in self._lost.items():
            whole = Range(first, first + dropped.count - 1, dropped.count)
            self._lost[lane] = Dropped((whole,), dropped.reasons)
            first += dropped.count
        order = sorted(sequence for rows in self._lanes.values() for sequence, _ in rows)
        numbers = dict(zip(order, range(first, first + len(order)), strict=True))
        for lane, rows in self._lanes.items():
            self._lanes[lane] = deque(renumbered(row, spool, numbers[row[0]]) for row in rows)
        self.kept = {numbers[sequence] for sequence in self.kept if sequence in numbers}
        self._edge = {}
        self._measure()
        return first + len(order)

    def shift(self, spool: str, delta: int) -> None:
        """Raises all numbers by ``delta``; of a commit that runs, those that it gives back should it fail."""

        def moved(rows: Iterable[Row]) -> Iterable[Row]:
            return (renumbered(row, spool, row[0] + delta) for row in rows)

        self._lanes = {lane: deque(moved(rows)) for lane, rows in self._lanes.items()}
        self._taken = {lane: list(moved(rows)) for lane, rows in self._taken.items()}
        self._lost = {lane: dropped.shifted(0, delta) for lane, dropped in self._lost.items()}
        self._taken_lost = {lane: dropped.shifted(0, delta) for lane, dropped in self._taken_lost.items()}
        self.kept = {sequence + delta for sequence in self.kept}
        self._edge = {}
        self._measure()

    def _measure(self) -> None:
        rows = chain(*self._lanes.values(), *self._taken.values())
        self._bytes = sum(len(line) + ROW_BYTES for _, line in rows)


def _fit(event: Event) -> bytes:
    """Gives the line of an event that is too long for the hub: without fields, then without the frame's text."""
    data = data_object(event)
    data["truncated"] = True
    for key in ("fields", "line"):
        data.pop(key, None)
        event.data = raw_data(data)
        line = encode(event)
        if len(line) <= MAX_LINE:
            break
    return line
