"""Reading back from the log: resuming, catching up and finding a time, on a read-only pool of its own."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from notifyd.database import interact, open_pool
from notifyd.hub.backplane import ALL, CHUNK
from notifyd.wire import Gap

READERS = 2
"""Pages that are read at once."""


class Page(NamedTuple):
    """Some events of a stream from the log.

    ``data`` has their lines, each with its LF; ``last`` is the offset up to which nothing of the stream is left out;
    ``gap`` tells what is no longer held in front of them.
    """

    gap: Gap | None
    data: bytes
    last: int


class Reader:
    """Reads the log beside its writer.

    Args:
        path: the SQLite file; its schema must be up to date.
        reactor: its threads and shutdown are used.
    """

    def __init__(self, path: Path, reactor: Any) -> None:
        self._pool = open_pool(path, reactor=reactor, read_only=True, threads=READERS)

    def close(self) -> None:
        """Closes the pool."""
        self._pool.close()

    def page(self, stream: str, after: int, until: int) -> Deferred[Page]:
        """Reads the events of ``stream`` behind ``after`` up to ``until``, as many as one chunk holds."""
        return interact(self._pool, lambda cursor: _page(cursor, stream, after, until))

    def first(self, stream: str, end: int) -> Deferred[int]:
        """Gives the offset behind which the oldest event held of the stream comes; ``end`` where there is none."""
        return interact(self._pool, lambda cursor: _before_first(cursor, stream, end))

    def since(self, stream: str, moment: str, end: int) -> Deferred[int]:
        """Gives the offset behind which the first event with ``received`` at or after ``moment`` comes.

        Args:
            stream: whose events are asked for.
            moment: RFC 3339 in the hub's own format, so that times compare as text.
            end: the answer where there is no such event.
        """
        return interact(self._pool, lambda cursor: _since(cursor, stream, moment, end))


def _of(stream: str) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if stream == ALL else ("priority = ? AND ", (stream,))


def _page(cursor: sqlite3.Cursor, stream: str, after: int, until: int) -> Page:
    cursor.execute("BEGIN")  # one snapshot: what expires meanwhile is seen by both statements or by none
    condition, arguments = _of(stream)
    gap = None
    expired = cursor.execute('SELECT "offset" FROM expired WHERE stream = ?', (stream,)).fetchone()
    if expired is not None and after < expired[0]:
        first = _before_first(cursor, stream, expired[0]) + 1
        gap = Gap(str(after), str(first), "expired")
        after = first - 1
    rows = cursor.execute(
        f'SELECT "offset", body FROM event WHERE {condition}"offset" > ? AND "offset" <= ? ORDER BY "offset"',  # noqa: S608
        (*arguments, after, until),
    )
    lines: list[str] = []
    size = 0
    last = after
    for offset, body in rows:
        lines.append(body)
        last = offset
        size += len(body) + 1
        if size >= CHUNK:
            break
    else:
        last = max(after, until)
    lines.append("")
    return Page(gap, "\n".join(lines).encode(), last)


def _before_first(cursor: sqlite3.Cursor, stream: str, otherwise: int) -> int:
    condition, arguments = _of(stream)
    row = cursor.execute(
        f'SELECT "offset" FROM event WHERE {condition}"offset" > ? ORDER BY "offset" LIMIT 1',  # noqa: S608 - constants
        (*arguments, 0),
    ).fetchone()
    return otherwise if row is None else int(row[0]) - 1


def _since(cursor: sqlite3.Cursor, stream: str, moment: str, end: int) -> int:
    """Searches the log by halves: ``received`` ascends with the offset, save where the clock was set back."""
    cursor.execute("BEGIN")
    expired = cursor.execute("SELECT received FROM expired WHERE stream = ?", (stream,)).fetchone()
    if expired is not None and expired[0] >= moment:
        return 0  # some of what is asked for has expired: reading from the very beginning tells the gap
    low = cursor.execute('SELECT coalesce(min("offset"), 0) FROM event').fetchone()[0]
    high = end + 1
    while low < high:
        middle = (low + high) // 2
        row = cursor.execute(
            'SELECT "offset", received FROM event WHERE "offset" >= ? ORDER BY "offset" LIMIT 1', (middle,)
        ).fetchone()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    return min(low - 1, end) if low else end
