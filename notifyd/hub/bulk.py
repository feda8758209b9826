"""Many rows at once into SQLite, and out of it: one statement cuts them out of one blob, one joins them.

Python's sqlite3 gives up the interpreter's lock while a statement runs, and holds it while parameters are bound. A
statement with a parameter for each value is therefore slow beside a busy reactor: 13 us an event, where this one takes
3 to 5 us, of which 0.2 us hold the lock (measured on two cores). Each time that the lock is wanted back it has to be
waited for, up to half a millisecond: what is in nearly every batch is written, and committed, with one statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from notifyd.database import StateError
from notifyd.hub.entries import START, Entries, Kind, starts_of
from notifyd.hub.records import Batch, Found
from notifyd.hub.statements import PUT_CLIENT, PUT_POSITION

MOST_ROWS = 4_096
MOST_BYTES = 16 * 2**20
"""Rows, and bytes of their bodies, that one statement inserts, nearly."""

_KIND = 4
"""Figures of the number of a kind."""

_COLUMNS = '"offset", priority, hint, agent, suppressed, body'
# The lines are cut by the figures that tell where each begins; behind the last one's there are those of a next one.
_BEGINS = f"CAST(substr(NEW.starts, n.i * {START} + 1, {START}) AS INTEGER)"
_ENDS = f"CAST(substr(NEW.starts, n.i * {START} + {START + 1}, {START}) AS INTEGER)"
_BODY = f"CAST(substr(NEW.lines, {_BEGINS}, {_ENDS} - {_BEGINS} - 1) AS TEXT)"
_NUMBER = f"CAST(substr(NEW.numbers, n.i * {_KIND} + 1, {_KIND}) AS INTEGER)"


def _members(count: int) -> str:
    """Gives the expressions for the items of a JSON list."""
    return ", ".join(f"json_extract(value, '$[{index}]')" for index in range(count))


def _put(statement: str, count: int, column: str) -> str:
    """Gives a statement that puts a row as one that puts all rows of a JSON list."""
    values = f"VALUES ({', '.join('?' * count)})"
    # WHERE tells the parser that ON does not belong to a join.
    return statement.replace(values, f"SELECT {_members(count)} FROM json_each(NEW.{column}) WHERE true")  # noqa: S608 - constants


_NOT_ALL = "notifyd: not every event was taken"
_CHECK = f"SELECT RAISE(ABORT, '{_NOT_ALL}') WHERE changes() <> NEW.count"
_TRIGGERS = "notifyd: somebody's triggers"
_GUARD = (
    f"SELECT RAISE(ABORT, '{_TRIGGERS.replace(chr(39), chr(39) * 2)}')"  # noqa: S608 - constants
    " WHERE NEW.guarded AND EXISTS (SELECT 1 FROM main.sqlite_master WHERE type = 'trigger')"
)
"""A trigger of somebody else may ``RAISE(FAIL)``, which would leave a part of a statement that is a transaction."""

_STATES = f"{_put(PUT_POSITION, 4, 'positions')}; {_put(PUT_CLIENT, 4, 'clients')}"
_SESSION = (
    "CREATE TEMP TABLE IF NOT EXISTS number (i INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS kind (kind INTEGER PRIMARY KEY, priority, hint, agent, suppressed)",
    "INSERT OR IGNORE INTO temp.number WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT"  # noqa: S608 - constants
    f" {MOST_ROWS}) SELECT i FROM n",
    "CREATE TEMP VIEW IF NOT EXISTS batch AS SELECT NULL AS first, NULL AS count, NULL AS lines, NULL AS starts,"
    " NULL AS priority, NULL AS hint, NULL AS agent, NULL AS suppressed, NULL AS kinds, NULL AS numbers,"
    " NULL AS positions, NULL AS clients, NULL AS guarded",
    "CREATE TEMP TRIGGER IF NOT EXISTS one_kind INSTEAD OF INSERT ON batch WHEN NEW.kinds IS NULL BEGIN"  # noqa: S608
    f" {_GUARD}; INSERT INTO entry ({_COLUMNS}) SELECT NEW.first + n.i, NEW.priority, NEW.hint, NEW.agent,"
    f" NEW.suppressed, {_BODY} FROM temp.number n WHERE n.i < NEW.count; {_CHECK}; {_STATES}; END",
    "CREATE TEMP TRIGGER IF NOT EXISTS many_kinds INSTEAD OF INSERT ON batch WHEN NEW.kinds IS NOT NULL BEGIN"  # noqa: S608
    f" {_GUARD}; DELETE FROM kind; INSERT INTO kind SELECT key, {_members(4)} FROM json_each(NEW.kinds);"
    f" INSERT INTO entry ({_COLUMNS}) SELECT NEW.first + n.i, k.priority, k.hint, k.agent, k.suppressed,"
    f" {_BODY} FROM temp.number n CROSS JOIN temp.kind k"
    f" ON k.kind = {_NUMBER} WHERE n.i < NEW.count; {_CHECK}; {_STATES}; END",
)
_INSERT = "INSERT INTO temp.batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_LF = "'\n'"
"""An LF as SQL; ``char(10)`` would be computed for each row."""

_SOME = '(SELECT "offset", body FROM entry WHERE {0} ORDER BY "offset" LIMIT ?)'
_EXPIRED = '(SELECT "offset" FROM expired WHERE stream = ?)'
_READ = f"""
    SELECT last, seen, size, CASE WHEN size <= ? OR seen = 1
        THEN (SELECT CAST(group_concat(body, {_LF}) || {_LF} AS BLOB) FROM {_SOME}) END, {_EXPIRED}
    FROM (SELECT max("offset") AS last, count(*) AS seen, total(length(CAST(body AS BLOB)) + 1) AS size FROM {_SOME})
"""  # noqa: S608 - constants
_READ_AT_ONCE = f"""
    SELECT last, seen, CAST(lines || {_LF} AS BLOB), {_EXPIRED}
    FROM (SELECT max("offset") AS last, count(*) AS seen, group_concat(body, {_LF}) AS lines FROM {_SOME})
"""  # noqa: S608 - constants
_READ_RANGE = f"""
    SELECT NULL, count(*), CAST(group_concat(body, {_LF}) || {_LF} AS BLOB), {_EXPIRED}
    FROM entry NOT INDEXED WHERE {{0}}
"""  # noqa: S608 - constants
"""Where nearly all rows are of the stream it takes 0.3 us a row, and :data:`_READ_AT_ONCE` 0.5: the table is read in
its order, which is that of the offsets, and no row is looked up."""

_FEW, _MANY = 16, 1_024
"""Rows that are read: few first, where nothing is known of them, since each may have 128 KiB; then as many as will
do, by what was found."""


def read_bulk(
    cursor: Any,
    stream: str,
    condition: str,
    arguments: Sequence[object],
    size: int,
    most: int,
    expected: int | None = None,
) -> Found:
    """Reads events.

    What is expected to be enough is read at once, and fastest where no more offsets than rows are asked for. Where that
    is too much, or nothing is known, a statement measures events first, since each may have 128 KiB, and joins those
    that are not too much. Where several statements are needed, others may change the log between them, unless there is
    a transaction: what has expired is told as it is when the last one is read.

    Args:
        cursor: of a connection that only reads.
        stream: of which it is told what has expired.
        condition: for table ``entry``.
        arguments: for the condition, whose last but one is the offset behind which events are read.
        size: bytes of lines at most, save for one line that has more; half of them are enough.
        most: rows.
        expected: rows that have fewer bytes, but not by much, as far as is known; at least one.
    """
    if expected is not None:
        found = _read_expected(cursor, stream, condition, arguments, size, min(expected, most))
        if found is not None:
            return found
    *given, after, until = arguments
    query = _READ.format(condition)
    pieces: list[bytes] = []
    events, left, bound = 0, float(size), float("inf")
    reached: int | None = None
    rows = min(_FEW, most)
    while True:
        some = (*given, after, until, rows)
        last, seen, total, data, expired = cursor.execute(query, (left, *some, stream, *some)).fetchone()
        if not seen:
            return Found(b"".join(pieces), None, events, expired)
        if total > left and (seen > 1 or events):
            if seen == 1:
                return Found(b"".join(pieces), reached, events, expired)
            bound = seen - 1  # so many, from here on, may do
            rows = max(1, min(seen // 2, int(seen * left / total)))
            continue
        pieces.append(data)
        events, left, bound, after, reached = events + seen, left - total, bound - seen, last, last
        if seen < rows or events >= most or 2 * left <= size or bound < 1:
            whole = data if len(pieces) == 1 else b"".join(pieces)
            return Found(whole, None if seen < rows else last, events, expired)
        rows = max(1, int(min(most - events, _MANY, bound, 0.95 * seen * left / total)))


def _read_expected(
    cursor: Any, stream: str, condition: str, arguments: Sequence[object], size: int, rows: int
) -> Found | None:
    """Reads so many events; gives None where they have more than ``size`` bytes, and no more memory was taken."""
    *_, after, until = arguments
    is_range = until - after <= rows  # type: ignore[operator]  # both are offsets
    query, bound = (_READ_RANGE, ()) if is_range else (_READ_AT_ONCE, (rows,))
    limit = cursor.connection.setlimit
    usual = limit(sqlite3.SQLITE_LIMIT_LENGTH, size)
    try:
        row = cursor.execute(query.format(condition), (stream, *arguments, *bound)).fetchone()
    except sqlite3.DataError:  # "string or blob too big"
        return None
    finally:
        limit(sqlite3.SQLITE_LIMIT_LENGTH, usual)
    last, seen, lines, expired = row
    return Found(lines or b"", None if seen < rows else last, seen, expired)


class BulkInsert:
    """Writes batches; each connection is prepared when it is first used."""

    def __init__(self) -> None:
        self._prepared: Any = None

    def write(self, cursor: Any, batch: Batch) -> None:
        """Writes a batch.

        Args:
            cursor: of a connection in autocommit mode, outside of a transaction; one that was begun here because one
                statement does not do is left to the caller to commit.
            batch: what is written.

        Raises:
            StateError: the database is not written in UTF-8, or has not taken every row.
        """
        self._prepare(cursor)
        positions = [msgspec.structs.astuple(each) for each in batch.positions]
        states = [msgspec.json.encode(rows).decode() for rows in (positions, batch.clients)]
        statements = list(_insertions(batch.entries))
        guarded = not (len(statements) > 1 or batch.agents or any(batch.windows))
        try:
            self._execute(cursor, statements, states, guarded)
        except sqlite3.IntegrityError as error:
            if _TRIGGERS not in str(error):
                raise
            self._execute(cursor, statements, states, False)

    def _execute(
        self, cursor: Any, statements: Sequence[tuple[object, ...]], states: Sequence[str], guarded: bool
    ) -> None:
        if not guarded:
            cursor.execute("BEGIN IMMEDIATE")
        for statement in statements:
            try:
                cursor.execute(_INSERT, (*statement, *states, guarded))
            except sqlite3.IntegrityError as error:
                if _NOT_ALL in str(error):
                    raise StateError(f"the database has not taken all of {statement[1]} events at once") from None
                raise

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
        self._prepared = connection


def _insertions(entries: Entries) -> Iterator[tuple[object, ...]]:
    """Gives the parameters of each statement that is needed for a batch, save its states: at least one."""
    data, sizes = entries.data, entries.sizes
    kinds = list(dict.fromkeys(kind for kind, _ in entries.runs)) or [Kind("")]
    numbers = _numbers(entries, kinds) if len(kinds) > 1 else b""
    kinds_json = msgspec.json.encode(kinds).decode() if len(kinds) > 1 else ""
    place = 0
    for start, stop in _pieces(sizes):
        count, size = stop - start, sum(sizes[start:stop])
        if count == len(sizes):
            piece, starts = data, entries.starts
        else:
            piece, starts = data[place : place + size], starts_of((*sizes[start:stop], 0), 1)
        place += size
        if len(kinds) == 1:
            yield entries.first + start, count, piece, starts, *kinds[0], None, None
        else:
            some = numbers[start * _KIND : stop * _KIND]
            yield entries.first + start, count, piece, starts, None, None, None, None, kinds_json, some


def _numbers(entries: Entries, kinds: Sequence[Kind]) -> bytes:
    """Gives the number of each entry's kind among ``kinds``, in :data:`_KIND` figures each."""
    number_of = {kind: b"%0*d" % (_KIND, number) for number, kind in enumerate(kinds)}
    return b"".join([number_of[kind] * count for kind, count in entries.runs])


def _pieces(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts rows into pieces of no more than one statement takes; gives where each begins and ends."""
    if len(sizes) <= MOST_ROWS and sum(sizes) <= MOST_BYTES:
        yield 0, len(sizes)
        return
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == MOST_ROWS or total + size > MOST_BYTES):
            yield start, index
            start, total = index, 0
        total += size
    yield start, len(sizes)
