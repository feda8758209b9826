"""The spool's file from inside: its schema, where it stands, and reading. Runs in the database's thread."""

# ruff: noqa: S608 - the names of tables are those of the lanes

from __future__ import annotations

import dataclasses
import secrets
import sqlite3
from pathlib import Path

from notifyd import database
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

ACKED = ", ".join(f"acked_{lane}" for lane in LANES)


@dataclasses.dataclass(frozen=True)
class Opened:
    """What stands in a spool that was just opened."""

    spool: str
    last: int  # the highest sequence that was ever given
    acked: dict[Priority, int]  # per lane the highest sequence that was deleted by acknowledgement
    counts: dict[Priority, int]  # per lane, notices left out
    tops: dict[Priority, int]  # per lane the highest sequence that is there


def open_store(cursor: sqlite3.Cursor, path: Path) -> Opened:
    """Brings the file to the newest schema and reads where it stands.

    Raises:
        NewerSchemaError: a newer notifyd wrote it.
    """
    # Debian's SQLite overwrites what is deleted with zeros, which costs as much as writing it.
    cursor.execute("PRAGMA secure_delete=OFF").fetchall()
    database.migrate(cursor, MIGRATIONS)
    cursor.execute("BEGIN IMMEDIATE")
    meta = cursor.execute(f"SELECT spool, last, {ACKED} FROM meta").fetchone()
    if meta is None:
        meta = (secrets.token_hex(4), 0, 0, 0, 0)
        cursor.execute(f"INSERT INTO meta (spool, last, {ACKED}) VALUES (?, ?, ?, ?, ?)", meta)
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
    return Opened(meta[0], last, acked, counts, tops)


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


# --- numbers ------------------------------------------------------------------------------------------


def numbered(event: Event, spool: str, sequence: int) -> Event:
    """Gives ``event`` its place in a spool."""
    event.id = f"{spool}-{sequence}"
    event.sequence = f"{sequence:020d}"
    return event


def renumbered(row: Row, spool: str, sequence: int) -> Row:
    """Gives an event's row under another number."""
    return sequence, encode(numbered(decode(row[1]), spool, sequence))
