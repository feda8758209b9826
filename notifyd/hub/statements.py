"""The log's schema and statements, in words that SQLite and PostgreSQL share; what differs is the backend's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from notifyd.database import StateError, migrate
from notifyd.hub.records import Batch, ClientRow, Memory
from notifyd.hub.windows import WindowRow

if TYPE_CHECKING:
    from notifyd.hub.backend import Backend

MIGRATIONS = (
    """
    CREATE TABLE event (
        "offset" INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        source TEXT NOT NULL,
        type TEXT NOT NULL,
        priority TEXT NOT NULL,
        time TEXT NOT NULL,
        received TEXT NOT NULL,
        agent TEXT,
        rule TEXT NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX event_by_priority ON event (priority, "offset");
    CREATE TABLE spool (
        spool TEXT NOT NULL,
        lane TEXT NOT NULL,
        agent TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (spool, lane)
    ) WITHOUT ROWID;
    CREATE TABLE subscriber (
        name TEXT PRIMARY KEY,
        stream TEXT NOT NULL,
        acked INTEGER NOT NULL,
        seen TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE agent (
        agent TEXT PRIMARY KEY,
        lost INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE expired (
        stream TEXT PRIMARY KEY,
        "offset" INTEGER NOT NULL,
        received TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    # The partial index keeps repeats that are sent to nobody out of the way of whoever reads a stream back.
    """
    ALTER TABLE event ADD COLUMN hint TEXT;
    ALTER TABLE event ADD COLUMN suppressed BOOLEAN NOT NULL DEFAULT FALSE;
    DROP INDEX event_by_priority;
    CREATE INDEX event_by_priority ON event (priority, "offset") WHERE NOT suppressed;
    CREATE TABLE suppression (
        "offset" INTEGER PRIMARY KEY,
        setting TEXT NOT NULL,
        kind TEXT NOT NULL,
        opened DOUBLE PRECISION NOT NULL,
        rule TEXT NOT NULL,
        source TEXT NOT NULL,
        type TEXT NOT NULL,
        priority TEXT NOT NULL,
        fields TEXT NOT NULL,
        truncated INTEGER NOT NULL,
        repeated INTEGER NOT NULL,
        "first" TEXT,
        "last" TEXT
    )
    """,
)

SQLITE_MIGRATIONS = (
    *MIGRATIONS,
    # Each value is written once, in the body; a row with columns of its own costs twice the time.
    """
    CREATE TABLE entry (
        "offset" INTEGER PRIMARY KEY,
        priority TEXT NOT NULL,
        hint TEXT,
        agent TEXT,
        suppressed BOOLEAN NOT NULL,
        body TEXT NOT NULL
    );
    INSERT INTO entry SELECT "offset", priority, hint, agent, suppressed, body FROM event ORDER BY "offset";
    DROP TABLE event;
    CREATE INDEX event_by_priority ON entry (priority, "offset") WHERE NOT suppressed;
    CREATE VIEW event AS SELECT
        "offset",
        CASE WHEN json_valid(body) THEN json_extract(body, '$.id') END AS id,
        CASE WHEN json_valid(body) THEN json_extract(body, '$.source') END AS source,
        CASE WHEN json_valid(body) THEN json_extract(body, '$.type') END AS type,
        priority,
        CASE WHEN json_valid(body) THEN json_extract(body, '$.time') END AS time,
        CASE WHEN json_valid(body) THEN json_extract(body, '$.received') END AS received,
        agent,
        CASE WHEN json_valid(body) THEN json_extract(body, '$.rule') END AS rule,
        body,
        hint,
        suppressed
    FROM entry
    """,
)
"""Of a log in SQLite: table ``event`` is a view there. PostgreSQL, which is asked by more people, keeps the columns."""

EVENT_COLUMNS = '"offset", id, source, type, priority, time, received, agent, rule, body, hint, suppressed'


WINDOW_COLUMNS = ", ".join(f'"{name}"' for name in WindowRow._fields)

_PUT_WINDOW = (
    f"INSERT INTO suppression ({WINDOW_COLUMNS}) VALUES ({', '.join('?' * len(WindowRow._fields))})"  # noqa: S608
    ' ON CONFLICT ("offset") DO UPDATE SET priority = excluded.priority, repeated = excluded.repeated,'
    ' "first" = excluded."first", "last" = excluded."last"'
)


PUT_POSITION = (
    "INSERT INTO spool (spool, lane, agent, sequence) VALUES (?, ?, ?, ?) ON CONFLICT (spool, lane)"
    " DO UPDATE SET agent = excluded.agent, sequence = excluded.sequence WHERE excluded.sequence > spool.sequence"
)
PUT_CLIENT = (
    "INSERT INTO subscriber (name, stream, acked, seen) VALUES (?, ?, ?, ?) ON CONFLICT (name)"
    " DO UPDATE SET acked = excluded.acked, seen = excluded.seen"
)
_PUT_AGENT = "INSERT INTO agent (agent, lost) VALUES (?, ?) ON CONFLICT (agent) DO UPDATE SET lost = excluded.lost"


def load(cursor: Any, backend: Backend) -> Memory:
    """Brings the schema up to date and gives what the hub has to know."""
    migrate(cursor, backend.migrations, begin=backend.begin_write)
    # An expired offset is counted too: the newest row stays, but a person may have deleted it.
    last = max(
        cursor.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()[0]  # noqa: S608 - constants
        for column, table in (('"offset"', "event"), ('"offset"', "expired"), ("acked", "subscriber"))
    )
    clients = [ClientRow(*row) for row in cursor.execute("SELECT name, stream, acked, seen FROM subscriber").fetchall()]
    known = {agent: False for (agent,) in cursor.execute("SELECT DISTINCT agent FROM spool").fetchall()}
    lost = {agent: bool(lost) for agent, lost in cursor.execute("SELECT agent, lost FROM agent").fetchall()}
    windows = cursor.execute(f"SELECT {WINDOW_COLUMNS} FROM suppression").fetchall()  # noqa: S608 - a constant
    return Memory(last, clients, known | lost, [WindowRow(*row) for row in windows])


def write(cursor: Any, backend: Backend, batch: Batch, again: bool) -> None:
    """Stores a batch.

    Args:
        cursor: its transaction is committed afterwards.
        backend: of the database.
        batch: what is stored; offsets are above all that is stored.
        again: whether it may be there already: an earlier attempt was committed, but its answer was lost.

    Raises:
        StateError: somebody else writes this log.
    """
    if again and batch.entries and _is_stored(cursor, batch):
        return
    backend.write(cursor, batch)


def write_states(cursor: Any, backend: Backend, batch: Batch) -> None:
    """Writes the positions of spools and of clients that come with a batch."""
    positions = [(each.spool, each.lane, each.agent, each.sequence) for each in batch.positions]
    _execute_many(cursor, backend, ((PUT_POSITION, positions), (PUT_CLIENT, batch.clients)))


def write_rest(cursor: Any, backend: Backend, batch: Batch) -> None:
    """Writes what seldom comes with a batch: whether agents are lost, and windows of repeats."""
    changed, ended = batch.windows
    statements = (
        (_PUT_AGENT, [(agent, int(lost)) for agent, lost in batch.agents.items()]),
        (_PUT_WINDOW, changed),
        ('DELETE FROM suppression WHERE "offset" = ?', [(offset,) for offset in ended]),
    )
    _execute_many(cursor, backend, statements)


def _execute_many(
    cursor: Any, backend: Backend, statements: Iterable[tuple[str, Sequence[tuple[object, ...]]]]
) -> None:
    for statement, rows in statements:
        if rows:
            cursor.executemany(backend.sql(statement), list(rows))


def _is_stored(cursor: Any, batch: Batch) -> bool:
    newest = cursor.execute('SELECT max("offset") FROM event').fetchone()[0]
    if newest is None or newest < batch.entries.first:
        return False
    if newest != batch.entries.last:
        raise StateError("another hub has written to the event log: only one may")
    return True


def positions(cursor: Any, backend: Backend, spool: str) -> dict[str, int]:
    """Gives the highest stored sequence of each lane of a spool."""
    cursor.execute(backend.sql("SELECT lane, sequence FROM spool WHERE spool = ?"), (spool,))
    return dict(cursor.fetchall())


def expire(cursor: Any, backend: Backend, cutoff: str, most: int) -> dict[str, int]:
    """Deletes the oldest events whose ``received`` is before ``cutoff``, ``most`` at most; counts them by priority."""
    if backend.begin_write:
        cursor.execute(backend.begin_write)
    cursor.execute(backend.sql('SELECT "offset", priority, received FROM event ORDER BY "offset" LIMIT ?'), (most + 1,))
    rows = cursor.fetchall()
    # Only a prefix goes, and what was read last is never part of it: it is the newest row, or the next sweep's.
    gone: list[tuple[int, str, str]] = []
    unknown: list[tuple[int, str]] = []
    for offset, priority, received in rows[:-1]:
        # SQLite cannot read a line that is nested too deeply for it, or was spoilt: it goes with what came after it.
        unknown.append((offset, priority))
        if received is None:
            continue
        if received >= cutoff:
            break
        gone += [(*each, received) for each in unknown]
        unknown.clear()
    else:
        gone += _expired_with_next(cursor, backend, unknown, cutoff)
    if not gone:
        return {}
    last_of: dict[str, tuple[int, str]] = {}
    counts: dict[str, int] = {}
    for offset, priority, received in gone:
        last_of[priority] = last_of["all"] = (offset, received)
        counts[priority] = counts.get(priority, 0) + 1
    cursor.execute(backend.sql(f'DELETE FROM {backend.table} WHERE "offset" <= ?'), (gone[-1][0],))  # noqa: S608 - a constant
    cursor.executemany(
        backend.sql(
            'INSERT INTO expired (stream, "offset", received) VALUES (?, ?, ?) ON CONFLICT (stream)'
            ' DO UPDATE SET "offset" = excluded."offset", received = excluded.received'
        ),
        [(stream, *last) for stream, last in last_of.items()],
    )
    return counts


def _expired_with_next(
    cursor: Any, backend: Backend, unknown: Sequence[tuple[int, str]], cutoff: str
) -> list[tuple[int, str, str]]:
    """Gives those of rows without a time that have expired: all, where the next one with a time has."""
    if not unknown:
        return []
    condition = '"offset" > ? AND received IS NOT NULL'
    query = backend.sql(f'SELECT received FROM event WHERE {condition} ORDER BY "offset" LIMIT 1')  # noqa: S608 - a constant
    row = cursor.execute(query, (unknown[-1][0],)).fetchone()
    return [(*each, row[0]) for each in unknown] if row is not None and row[0] < cutoff else []
