"""What one commit of the spool does. Runs in the database's thread."""

# ruff: noqa: S608 - the names of tables are those of the lanes

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec

from notifyd.agent.notices import FULL, Dropped, Range, dropped_event
from notifyd.agent.spool_store import ACKED, Row, numbered, renumbered
from notifyd.event import LANES, Priority, encode

_decode_ranges = msgspec.json.Decoder(tuple[Range, ...]).decode
_decode_reasons = msgspec.json.Decoder(tuple[str, ...]).decode


@dataclasses.dataclass(frozen=True)
class Shift:
    """Events that the hub cannot have, but under numbers that it holds: they are given higher ones."""

    above: Mapping[Priority, int]
    delta: int


@dataclasses.dataclass(frozen=True)
class Job:
    """All that one commit does."""

    spool: str
    agent: str
    now: float
    last: int
    max_events: int
    rows: Mapping[Priority, Sequence[Row]]
    kept: frozenset[int]  # the sequences among them that are never dropped
    lost: Mapping[Priority, Dropped]  # dropped before they were ever written
    acked: Mapping[Priority, int]  # to be deleted
    told: Mapping[Priority, int] | None  # what the hub holds: replaces what was acknowledged
    shift: Shift | None
    reserved: Mapping[Priority, int]  # up to here a lane is in flight, and is not dropped
    counts: Mapping[Priority, int]
    notices: Mapping[Priority, int | None]


@dataclasses.dataclass
class Outcome:
    """What a commit has changed."""

    counts: dict[Priority, int]
    notices: dict[Priority, int | None]
    tops: dict[Priority, int]
    acknowledged: int = 0
    dropped: int = 0


def commit(cursor: sqlite3.Cursor, job: Job) -> Outcome:
    """Writes what has gathered; the caller commits."""
    cursor.execute("BEGIN IMMEDIATE")
    outcome = Outcome(dict(job.counts), dict(job.notices), dict.fromkeys(LANES, 0))
    if job.shift is not None:
        for lane in LANES:
            _shift(cursor, job, job.shift, lane, outcome)
    for lane, rows in job.rows.items():
        _insert(cursor, lane, rows)
        outcome.counts[lane] += len(rows)
        outcome.tops[lane] = rows[-1][0]
        for sequence, _ in rows if job.kept else ():
            if sequence in job.kept:
                outcome.counts[lane] -= 1
                _store_notice_entry(cursor, lane, sequence, Dropped())
    for lane in LANES:
        _delete(cursor, job, lane, outcome)
        if dropped := job.lost.get(lane):
            _tell(cursor, job, lane, outcome, dropped)
    _drop_excess(cursor, job, outcome)
    _note_positions(cursor, job)
    return outcome


_CHUNKS = (512, 64, 8, 1)


def _insert(cursor: sqlite3.Cursor, lane: Priority, rows: Sequence[Row]) -> None:
    # Many rows in a statement: executemany gives the interpreter's lock up for each. Few sizes: each is cached.
    done = 0
    for size in _CHUNKS:
        statement = f"INSERT OR REPLACE INTO {lane} (sequence, line) VALUES {','.join(['(?,?)'] * size)}"
        while len(rows) - done >= size:
            cursor.execute(statement, tuple(chain.from_iterable(rows[done : done + size])))
            done += size


def _delete(cursor: sqlite3.Cursor, job: Job, lane: Priority, outcome: Outcome) -> None:
    up_to = _acknowledged(job, lane)
    if job.told is not None:
        _take_back(cursor, job, lane, outcome, job.told[lane])
    if up_to:
        rows = cursor.execute(f"DELETE FROM {lane} WHERE sequence <= ?", (up_to,)).rowcount
        notices = cursor.execute("DELETE FROM notice WHERE lane = ? AND sequence <= ?", (lane.value, up_to)).rowcount
        outcome.counts[lane] -= rows - notices
        outcome.acknowledged += rows - notices
        if (sequence := outcome.notices[lane]) is not None and sequence <= up_to:
            outcome.notices[lane] = None


def _take_back(cursor: sqlite3.Cursor, job: Job, lane: Priority, outcome: Outcome, told: int) -> None:
    """Takes out of the notices what was dropped here although the hub has it: that is not lost."""
    for sequence, dropped in _notices(cursor, lane):
        rest = dropped.above(told)
        is_sent = sequence <= job.reserved[lane] if sequence > told else sequence != outcome.notices[lane]
        if is_sent or rest == dropped:
            continue
        _replace_notice(cursor, job, lane, outcome, sequence, rest)
        outcome.dropped -= dropped.count - rest.count
        outcome.acknowledged += dropped.count - rest.count


def _acknowledged(job: Job, lane: Priority) -> int:
    return max(job.acked.get(lane, 0), 0 if job.told is None else job.told[lane])


def _drop_excess(cursor: sqlite3.Cursor, job: Job, outcome: Outcome) -> None:
    excess = sum(outcome.counts.values()) - job.max_events
    for lane in reversed(LANES):
        if excess <= 0:
            return
        after = job.reserved[lane]
        kept = "sequence NOT IN (SELECT sequence FROM notice WHERE lane = ?)"
        count, first, last = cursor.execute(
            "SELECT count(*), min(sequence), max(sequence) FROM"
            f" (SELECT sequence FROM {lane} WHERE sequence > ? AND {kept} ORDER BY sequence LIMIT ?)",
            (after, lane.value, excess),
        ).fetchone()
        if not count:
            continue
        cursor.execute(f"DELETE FROM {lane} WHERE sequence BETWEEN ? AND ? AND {kept}", (first, last, lane.value))
        outcome.counts[lane] -= count
        excess -= count
        _tell(cursor, job, lane, outcome, Dropped((Range(first, last, count),), (FULL,)), oldest_after=after)


def _tell(
    cursor: sqlite3.Cursor,
    job: Job,
    lane: Priority,
    outcome: Outcome,
    new: Dropped,
    oldest_after: int | None = None,
) -> None:
    """Adds to the lane's open notice, or opens one.

    Args:
        cursor: in the transaction that drops.
        job: the commit.
        lane: the lane.
        outcome: is updated.
        new: what was dropped.
        oldest_after: it was the oldest above this sequence, so that nothing is kept between it and that.
    """
    outcome.dropped += new.count
    open_notice = outcome.notices[lane]
    told = dict(_notices(cursor, lane)).get(open_notice, Dropped()) if open_notice is not None else Dropped()
    if oldest_after is None:
        whole = told.merge(new)
    else:
        each = new.ranges[0]
        after = max((r.last for r in told.ranges if oldest_after <= r.last < each.first), default=None)
        before = min((r.first for r in told.ranges if r.first > each.last), default=None)
        if before is not None and _any_between(cursor, lane, each.last, before):
            before = None
        whole = told.add(each, new.reasons[0], after=after, before=before)
    _replace_notice(cursor, job, lane, outcome, open_notice if told.ranges else None, whole)
    outcome.notices[lane] = whole.last


def _any_between(cursor: sqlite3.Cursor, lane: Priority, first: int, last: int) -> bool:
    found = cursor.execute(f"SELECT 1 FROM {lane} WHERE sequence > ? AND sequence < ? LIMIT 1", (first, last))
    return found.fetchone() is not None


def _notices(cursor: sqlite3.Cursor, lane: Priority) -> list[tuple[int, Dropped]]:
    rows = cursor.execute("SELECT sequence, ranges, reasons FROM notice WHERE lane = ?", (lane.value,)).fetchall()
    return [(sequence, Dropped(_decode_ranges(ranges), _decode_reasons(why))) for sequence, ranges, why in rows]


def _replace_notice(
    cursor: sqlite3.Cursor, job: Job, lane: Priority, outcome: Outcome, old: int | None, dropped: Dropped
) -> None:
    """Writes a notice in place of the one under sequence ``old``; one with nothing left to tell goes."""
    if old is not None:
        _remove_notice(cursor, lane, old)
        if outcome.notices[lane] == old:
            outcome.notices[lane] = dropped.last if dropped.ranges else None
    if not dropped.ranges:
        return
    notice = numbered(dropped_event(job.agent, lane, dropped, job.now), job.spool, dropped.last)
    _insert(cursor, lane, [(dropped.last, encode(notice))])
    _store_notice_entry(cursor, lane, dropped.last, dropped)
    outcome.tops[lane] = max(outcome.tops[lane], dropped.last)


def _remove_notice(cursor: sqlite3.Cursor, lane: Priority, sequence: int) -> None:
    cursor.execute(f"DELETE FROM {lane} WHERE sequence = ?", (sequence,))
    cursor.execute("DELETE FROM notice WHERE lane = ? AND sequence = ?", (lane.value, sequence))


def _store_notice_entry(cursor: sqlite3.Cursor, lane: Priority, sequence: int, dropped: Dropped) -> None:
    cursor.execute(
        "INSERT OR REPLACE INTO notice (lane, sequence, ranges, reasons) VALUES (?, ?, ?, ?)",
        (lane.value, sequence, msgspec.json.encode(dropped.ranges), msgspec.json.encode(dropped.reasons)),
    )


def _shift(cursor: sqlite3.Cursor, job: Job, shift: Shift, lane: Priority, outcome: Outcome) -> None:
    above, delta = shift.above[lane], shift.delta
    for sequence, dropped in _notices(cursor, lane):
        if sequence > above and dropped.ranges:
            _replace_notice(cursor, job, lane, outcome, sequence, dropped.shifted(above, delta))
    # Notices have moved already, unless they tell of no range: those move like events.
    rows = cursor.execute(
        f"SELECT sequence, line FROM {lane} WHERE sequence > ? AND sequence NOT IN"
        " (SELECT sequence FROM notice WHERE lane = ? AND ranges <> CAST('[]' AS BLOB)) ORDER BY sequence",
        (above, lane.value),
    ).fetchall()
    if not rows:
        return
    cursor.executemany(f"DELETE FROM {lane} WHERE sequence = ?", [(sequence,) for sequence, _ in rows])
    _insert(cursor, lane, [renumbered((sequence, line), job.spool, sequence + delta) for sequence, line in rows])
    cursor.execute(
        "UPDATE notice SET sequence = sequence + ? WHERE lane = ? AND sequence > ? AND ranges = CAST('[]' AS BLOB)",
        (delta, lane.value, above),
    )
    outcome.tops[lane] = max(outcome.tops[lane], rows[-1][0] + delta)


def _note_positions(cursor: sqlite3.Cursor, job: Job) -> None:
    if job.told is not None:
        assignments = ", ".join(f"acked_{lane} = ?" for lane in LANES)
    else:
        assignments = ", ".join(f"acked_{lane} = max(acked_{lane}, ?)" for lane in LANES)
    positions = [_acknowledged(job, lane) for lane in LANES]
    updated = cursor.execute(f"UPDATE meta SET spool = ?, last = ?, {assignments}", (job.spool, job.last, *positions))
    if updated.rowcount != 1:  # someone has emptied it by hand
        cursor.execute("DELETE FROM meta")
        cursor.execute(
            f"INSERT INTO meta (spool, last, {ACKED}) VALUES (?, ?, ?, ?, ?)", (job.spool, job.last, *positions)
        )
