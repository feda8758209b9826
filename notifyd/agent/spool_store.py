"""The spool's file: its schema, and what is done to it in one transaction. Runs in the database's thread."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from notifyd import database
from notifyd.agent.notices import FULL, Dropped, Range, dropped_event
from notifyd.event import LANES, Event, Priority, decode, encode

Row = tuple[int, bytes]
"""A sequence and the event's line, without its line end."""

MIGRATIONS = (
    """
    CREATE TABLE meta (
        spool TEXT NOT NULL, last INTEGER NOT NULL,
        acked_critical INTEGER NOT NULL, acked_important INTEGER NOT NULL, acked_normal INTEGER NOT NULL
    );
    CREATE TABLE critical (sequence INTEGER PRIMARY KEY, line BLOB NOT NULL);
    CREATE TABLE important (sequence INTEGER PRIMARY KEY, line BLOB NOT NULL);
    CREATE TABLE normal (sequence INTEGER PRIMARY KEY, line BLOB NOT NULL);
    CREATE TABLE notice (
        lane TEXT NOT NULL, sequence INTEGER NOT NULL, ranges BLOB NOT NULL, reasons BLOB NOT NULL,
        PRIMARY KEY (lane, sequence)
    ) WITHOUT ROWID
    """,
)

_ACKED = ", ".join(f"acked_{lane}" for lane in LANES)
_decode_ranges = msgspec.json.Decoder(tuple[Range, ...]).decode
_decode_reasons = msgspec.json.Decoder(tuple[str, ...]).decode


class ReplacedError(Exception):
    """The file that is open is no longer the one that its name leads to."""


class Identity(msgspec.Struct, frozen=True):
    """Tells a file from another one of the same name."""

    device: int
    inode: int


def identity(path: Path) -> Identity:
    """Gives the identity of the file that ``path`` leads to.

    Raises:
        ReplacedError: there is none.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ReplacedError(f"{path} was removed") from None
    return Identity(status.st_dev, status.st_ino)


def move_aside(path: Path, now: float) -> Path:
    """Renames a spool's files to ``spool.db.corrupt-<UTC stamp>`` and gives the new name."""
    stamp = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    database.sync_folder(path.parent)
    return aside


@dataclasses.dataclass(frozen=True)
class Opened:
    """What stands in a spool that was just opened."""

    spool: str
    last: int  # the highest sequence that was ever given
    acked: dict[Priority, int]  # per lane the highest sequence that was deleted by acknowledgement
    counts: dict[Priority, int]  # per lane, notices left out
    tops: dict[Priority, int]  # per lane the highest sequence that is there
    identity: Identity


def open_store(cursor: sqlite3.Cursor, path: Path) -> Opened:
    """Brings the file to the newest schema and reads where it stands.

    Raises:
        NewerSchemaError: a newer notifyd wrote it.
    """
    # Debian's SQLite overwrites what is deleted with zeros, which costs as much as writing it.
    cursor.execute("PRAGMA secure_delete=OFF").fetchall()
    database.migrate(cursor, MIGRATIONS)
    cursor.execute("BEGIN IMMEDIATE")
    meta = cursor.execute(f"SELECT spool, last, {_ACKED} FROM meta").fetchone()
    if meta is None:
        meta = (secrets.token_hex(4), 0, 0, 0, 0)
        cursor.execute(f"INSERT INTO meta (spool, last, {_ACKED}) VALUES (?, ?, ?, ?, ?)", meta)
    counts, tops = {}, {}
    for lane in LANES:
        count, top = cursor.execute(f"SELECT count(*), coalesce(max(sequence), 0) FROM {lane}").fetchone()
        # A notice whose row is gone (someone has emptied the spool by hand) tells nobody anything.
        cursor.execute(
            f"DELETE FROM notice WHERE lane = ? AND sequence NOT IN (SELECT sequence FROM {lane})", (lane.value,)
        )
        notices = cursor.execute("SELECT count(*) FROM notice WHERE lane = ?", (lane.value,)).fetchone()[0]
        counts[lane], tops[lane] = count - notices, top
    database.sync_folder(path.parent)
    acked = dict(zip(LANES, meta[2:], strict=True))
    last = max(meta[1], *tops.values(), *acked.values())
    return Opened(meta[0], last, acked, counts, tops, identity(path))


# --- reading ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Batch:
    """Events of one lane in ascending order: their lines, each with its LF, and their sequences."""

    lane: Priority
    lines: bytes
    count: int
    last: int
    _sequences: str
    _ends: list[int] | None = None

    def locate(self, index: int) -> tuple[int, int]:
        """Gives the sequence of the event at ``index``, and how many bytes the events up to it have."""
        if self._ends is None:
            end = 0
            self._ends = [end := end + len(line) + 1 for line in self.lines[:-1].split(b"\n")]
        return int(self._sequences.split(",", index + 1)[index]), self._ends[index]


def read(cursor: sqlite3.Cursor, lane: Priority, after: int, rows: int, room: int) -> tuple[Batch | None, bool]:
    """Reads the next events of a lane, as one value: a row at a time would fight for the interpreter's lock.

    Args:
        cursor: in a transaction or not.
        lane: the lane.
        after: the sequence after which to begin.
        rows: how many events at most.
        room: how many bytes at most, line ends included.

    Returns:
        The events, None where the first has no room; and whether there is any at all.
    """
    count, sequences, joined = cursor.execute(
        f"SELECT count(*), group_concat(sequence), CAST(group_concat(line, char(10)) AS BLOB) FROM"
        f" (SELECT sequence, line FROM {lane} WHERE sequence > ? ORDER BY sequence LIMIT ?)",
        (after, rows),
    ).fetchone()
    if not count:
        return None, False
    lines = joined + b"\n"
    if len(lines) > room:
        lines = lines[: lines.rfind(b"\n", 0, room) + 1]
        count = lines.count(b"\n")
        if not count:
            return None, True
    last = sequences.split(",", count)[count - 1]
    return Batch(lane, lines, count, int(last), sequences), True


# --- writing ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Shift:
    """Events that the hub cannot have, but under numbers that it holds: they are given higher ones."""

    above: Mapping[Priority, int]
    delta: int


@dataclasses.dataclass(frozen=True)
class Job:
    """All that one commit does."""

    path: Path
    identity: Identity
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
    open_notices: Mapping[Priority, int | None]


@dataclasses.dataclass
class Outcome:
    """What a commit has changed."""

    counts: dict[Priority, int]
    open_notices: dict[Priority, int | None]
    tops: dict[Priority, int]
    acknowledged: int = 0
    dropped: int = 0


def commit(cursor: sqlite3.Cursor, job: Job) -> Outcome:
    """Writes what has gathered; the caller commits.

    Raises:
        ReplacedError: the file is no longer the one under its name.
    """
    if identity(job.path) != job.identity:
        raise ReplacedError(f"{job.path} was replaced")
    cursor.execute("BEGIN IMMEDIATE")
    outcome = Outcome(dict(job.counts), dict(job.open_notices), dict.fromkeys(LANES, 0))
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
    up_to = job.acked.get(lane, 0) if job.told is None else job.told[lane]
    if up_to:
        rows = cursor.execute(f"DELETE FROM {lane} WHERE sequence <= ?", (up_to,)).rowcount
        notices = cursor.execute(
            "DELETE FROM notice WHERE lane = ? AND sequence <= ?", (lane.value, up_to)
        ).rowcount
        outcome.counts[lane] -= rows - notices
        outcome.acknowledged += rows - notices
        if (sequence := outcome.open_notices[lane]) is not None and sequence <= up_to:
            outcome.open_notices[lane] = None
    if job.told is not None:
        # What was dropped here although the hub has it is not lost, and is not told as such.
        for sequence, dropped in _notices(cursor, lane):
            rest = dropped.above(up_to)
            if rest != dropped:
                _replace_notice(cursor, job, lane, outcome, sequence, rest)


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
    open_sequence = outcome.open_notices[lane]
    told = dict(_notices(cursor, lane)).get(open_sequence, Dropped()) if open_sequence is not None else Dropped()
    if oldest_after is None:
        whole = told.merge(new)
    else:
        each = new.ranges[0]
        after = max((r.last for r in told.ranges if oldest_after <= r.last < each.first), default=None)
        before = min((r.first for r in told.ranges if r.first > each.last), default=None)
        if before is not None and _any_between(cursor, lane, each.last, before):
            before = None
        whole = told.add(each, new.reasons[0], after=after, before=before)
    _replace_notice(cursor, job, lane, outcome, open_sequence if told.ranges else None, whole)
    outcome.open_notices[lane] = whole.last


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
        if outcome.open_notices[lane] == old:
            outcome.open_notices[lane] = dropped.last if dropped.ranges else None
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
        positions = [job.told[lane] for lane in LANES]
    else:
        assignments = ", ".join(f"acked_{lane} = max(acked_{lane}, ?)" for lane in LANES)
        positions = [job.acked.get(lane, 0) for lane in LANES]
    updated = cursor.execute(f"UPDATE meta SET spool = ?, last = ?, {assignments}", (job.spool, job.last, *positions))
    if updated.rowcount != 1:  # someone has emptied it by hand
        cursor.execute("DELETE FROM meta")
        cursor.execute(
            f"INSERT INTO meta (spool, last, {_ACKED}) VALUES (?, ?, ?, ?, ?)", (job.spool, job.last, *positions)
        )


def numbered(event: Event, spool: str, sequence: int) -> Event:
    """Gives ``event`` its place in a spool."""
    event.id = f"{spool}-{sequence}"
    event.sequence = f"{sequence:020d}"
    return event


def renumbered(row: Row, spool: str, sequence: int) -> Row:
    """Gives an event's row under another number."""
    return sequence, encode(numbered(decode(row[1]), spool, sequence))
