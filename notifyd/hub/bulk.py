"""Many rows at once into SQLite, and out of it: one statement cuts them out of one blob, one joins them.

Python's sqlite3 holds the interpreter's lock while it binds parameters, and gives it up while a statement runs. A
statement with a parameter for each value is therefore slow beside a busy reactor: 13 us an event, where this one takes
3 to 5 us, of which 0.4 us hold the lock (measured on two cores). Reading gives it up for each row in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any

from notifyd.database import StateError
from notifyd.hub.records import Entry, Found

MOST_ROWS = 4_096
MOST_BYTES = 16 * 2**20
"""Rows, and bytes of their bodies, that one statement inserts, nearly."""

_START, _LENGTH, _KIND = 9, 9, 4
"""Figures of where a body begins in the blob, of its length and of its kind; a SQLite blob has 10^9 bytes at most."""

_PLACE = b"%%0%dd%%0%dd" % (_START, _LENGTH)
_PLACE_KIND = _PLACE + b"%%0%dd" % _KIND
_COLUMNS = '"offset", priority, hint, agent, suppressed, body'


def _body(width: int) -> str:
    """Gives the expression that cuts a body out of blob ``?2`` by the ``width`` figures for it in blob ``?3``."""
    start = f"CAST(substr(?3, n.i * {width} + 1, {_START}) AS INTEGER)"
    length = f"CAST(substr(?3, n.i * {width} + {_START + 1}, {_LENGTH}) AS INTEGER)"
    return f"CAST(substr(?2, {start}, {length}) AS TEXT)"


_ONE_KIND = (
    f"INSERT INTO entry ({_COLUMNS}) SELECT ?1 + n.i, ?5, ?6, ?7, ?8, {_body(_START + _LENGTH)}"  # noqa: S608 - constants
    " FROM temp.number n WHERE n.i < ?4"
)
_MANY_KINDS = (
    f"INSERT INTO entry ({_COLUMNS}) SELECT ?1 + n.i, k.priority, k.hint, k.agent, k.suppressed,"  # noqa: S608
    f" {_body(_START + _LENGTH + _KIND)} FROM temp.number n CROSS JOIN temp.kind k"
    f" ON k.kind = CAST(substr(?3, n.i * {_START + _LENGTH + _KIND} + {_START + _LENGTH + 1}, {_KIND}) AS INTEGER)"
    " WHERE n.i < ?4"
)
_SESSION = (
    "CREATE TEMP TABLE IF NOT EXISTS number (i INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS kind (kind INTEGER PRIMARY KEY, priority, hint, agent, suppressed)",
    "INSERT OR IGNORE INTO temp.number WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT"  # noqa: S608 - constants
    f" {MOST_ROWS}) SELECT i FROM n",
)
_line_of = attrgetter("line")
_COMMON = ("event.priority", "hint", "suppressed")
"""What many entries have in common, beside their agent."""

# The innermost query bounds what is looked at, the one around it counts the characters in front of each row.
_READ = """
    SELECT max(CASE WHEN before < ? THEN "offset" END), total(before < ?), count(*),
           CAST(group_concat(CASE WHEN before < ? THEN body END, char(10)) AS BLOB)
    FROM (SELECT "offset", body, sum(length(body) + 1) OVER (ORDER BY "offset" ROWS UNBOUNDED PRECEDING)
                 - length(body) - 1 AS before
          FROM (SELECT "offset", body FROM entry WHERE {} ORDER BY "offset" LIMIT ?))
"""
_FEW, _MANY = 16, 1_024
"""Rows that are looked at: few first, since each may have 128 KiB; then as many as will do, by what was found."""


def read_bulk(cursor: Any, condition: str, arguments: Sequence[object], size: int, most: int) -> Found:
    """Reads events.

    Args:
        cursor: in a transaction that only reads.
        condition: for table ``entry``.
        arguments: for the condition, whose last but one is the offset behind which events are read.
        size: characters of lines that are enough.
        most: rows at once.
    """
    *given, after, until = arguments
    query = _READ.format(condition)
    pieces: list[bytes] = []
    events, rows = 0, min(_FEW, most)
    while size > 0:
        last, taken, seen, data = cursor.execute(query, (size, size, size, *given, after, until, rows)).fetchone()
        if data is None:
            return Found(b"".join(pieces), None, events)
        pieces += (data, b"\n")
        events += int(taken)
        size -= len(data) + 1
        after = last
        if taken == seen < rows:
            return Found(b"".join(pieces), None, events)
        if rows == most:
            break
        rows = min(most, _MANY, 4 * rows, max(_FEW, size * int(taken) // len(data)))
    return Found(b"".join(pieces), last, events)


class BulkInsert:
    """Inserts entries into table ``entry``; each connection is prepared when it is first used."""

    def __init__(self) -> None:
        self._prepared: Any = None

    def insert(self, cursor: Any, entries: Sequence[Entry]) -> None:
        """Inserts entries.

        Args:
            cursor: in a transaction in which nothing was written yet.
            entries: at least one; their offsets ascend.

        Raises:
            StateError: the database is not written in UTF-8, or has not taken every row.
        """
        self._prepare(cursor)
        for rows in _pieces(entries):
            lines = list(map(_line_of, rows))
            agents = [None if entry.position is None else entry.position.agent for entry in rows]
            priorities, hints, suppressed = (map(attrgetter(name), rows) for name in _COMMON)
            kinds = list(zip(priorities, hints, agents, suppressed, strict=True))
            distinct = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
            lengths = list(map(len, lines))
            starts = accumulate(lengths[:-1], initial=1)
            given = (rows[0].offset, b"".join(lines))
            if len(distinct) == 1:
                places = (_PLACE * len(rows)) % _flat(starts, lengths)
                cursor.execute(_ONE_KIND, (*given, places, len(rows), *kinds[0]))
            else:
                cursor.execute("DELETE FROM temp.kind")
                numbered = [(number, *kind) for kind, number in distinct.items()]
                cursor.executemany("INSERT INTO temp.kind VALUES (?, ?, ?, ?, ?)", numbered)
                places = (_PLACE_KIND * len(rows)) % _flat(starts, lengths, map(distinct.__getitem__, kinds))
                cursor.execute(_MANY_KINDS, (*given, places, len(rows)))
            if cursor.rowcount != len(rows):
                raise StateError(f"the database has taken {cursor.rowcount} of {len(rows)} events at once")

    def _prepare(self, cursor: Any) -> None:
        connection = cursor.connection
        if self._prepared is connection:
            return
        (encoding,) = cursor.execute("PRAGMA encoding").fetchone()
        if encoding != "UTF-8":
            raise StateError(f"the database has the encoding {encoding}: notifyd needs UTF-8")
        # Not before: a migration sorts an index, which has to go to the disk where the log is long.
        cursor.execute("PRAGMA temp_store=MEMORY")
        for statement in _SESSION:
            cursor.execute(statement)
        connection.commit()  # or a batch that fails would take these rows along
        self._prepared = connection


def _flat(*columns: Iterable[int]) -> tuple[int, ...]:
    """Gives the first value of each column, then the second of each, and so on."""
    return tuple(chain.from_iterable(zip(*columns, strict=True)))


def _pieces(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cuts entries so that each piece has consecutive offsets, and no more than one statement takes."""
    whole = entries[-1].offset - entries[0].offset == len(entries) - 1
    if whole and len(entries) <= MOST_ROWS and sum(map(len, map(_line_of, entries))) <= MOST_BYTES:
        yield entries
        return
    start = size = 0
    for index, entry in enumerate(entries):
        full = index - start == MOST_ROWS or size + len(entry.line) > MOST_BYTES
        if index > start and (full or entry.offset != entries[index - 1].offset + 1):
            yield entries[start:index]
            start, size = index, 0
        size += len(entry.line)
    yield entries[start:]
