"""Many rows at once into SQLite and out of it, and the view that gives them columns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd import event as events
from notifyd.database import StateError, migrate
from notifyd.event import Event
from notifyd.hub import bulk
from notifyd.hub.backend import SqliteBackend, read_rows
from notifyd.hub.bulk import BulkInsert
from notifyd.hub.entries import Entries, Entry, Kind, Position
from notifyd.hub.readback import search
from notifyd.hub.records import Batch, ClientRow
from notifyd.hub.statements import MIGRATIONS, SQLITE_MIGRATIONS, expire


def connect(tmp_path: Path, scripts: Sequence[str] = SQLITE_MIGRATIONS) -> sqlite3.Connection:
    """Makes a log."""
    connection = sqlite3.connect(tmp_path / "hub.db", isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    migrate(connection.cursor(), scripts)
    return connection


def made(offset: int, kind: tuple[str, str | None, str | None, bool], text: str) -> Entry:
    """Makes an entry."""
    priority, hint, agent, suppressed = kind
    event = Event(id=str(offset), source="/ä", type="t", priority=priority, data=events.raw_data({"line": text}))
    event.time = event.received = "2026-11-22T10:00:00.000000Z"
    event.rule = "r"
    position = None if agent is None else Position("s", "normal", agent, offset)
    return Entry(offset, events.encode(event), Kind(priority, hint, agent, suppressed), position)


def insert(connection: sqlite3.Connection, *entries: Entry) -> None:
    """Writes entries with an insert of its own."""
    BulkInsert().write(connection.cursor(), Batch(Entries.of(entries)))
    connection.commit()


kinds = st.tuples(
    st.sampled_from(["normal", "error"]),
    st.sampled_from([None, "critical"]),
    st.sampled_from([None, "a", "ü"]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(kinds, st.text(max_size=9)), min_size=1, max_size=20),
    st.integers(1, 5),
    st.integers(100, 600),
)
def test_rows_are_what_was_given_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, what: list[Any], most_rows: int, most_bytes: int
) -> None:
    """Kinds that change, texts of any length and script; the view gives each column."""
    entries = [made(offset, kind, text) for offset, (kind, text) in enumerate(what, 7)]
    connection = connect(tmp_path_factory.mktemp("log"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "MOST_ROWS", most_rows)
        patch.setattr(bulk, "MOST_BYTES", most_bytes)
        bulk_insert = BulkInsert()
        for some in (entries[:-1], entries[-1:]):
            bulk_insert.write(connection.cursor(), Batch(Entries.of(some)))
            connection.commit()
    rows = connection.execute('SELECT * FROM event ORDER BY "offset"').fetchall()
    assert rows == [entry.row() for entry in entries]
    connection.close()


def test_a_batch_that_is_rolled_back_leaves_the_session_able_to_insert(tmp_path: Path) -> None:
    """What the statement joins with was not part of it."""
    connection = connect(tmp_path)
    bulk_insert = BulkInsert()
    entries = Entries.of(made(n, ("normal", None, agent, False), "x") for n, agent in ((1, None), (2, "a")))
    bulk_insert.write(connection.cursor(), Batch())
    for end in (connection.rollback, connection.rollback, connection.commit):
        connection.execute("BEGIN IMMEDIATE")
        bulk_insert.write(connection.cursor(), Batch(entries))
        end()
    assert connection.execute("SELECT count(*) FROM event").fetchone() == (2,)
    connection.close()


def test_a_session_that_could_not_be_prepared_is_prepared_later(tmp_path: Path) -> None:
    """A full disk may end the preparation anywhere; what is there of it is no obstacle."""
    connection = connect(tmp_path)
    for number in range(3):
        if number:
            connection.execute("DELETE FROM temp.number WHERE i % 2 = 0")
        for statement in bulk._SESSION[: number + 1]:
            connection.execute(statement)
        connection.commit()
    insert(connection, *[made(n, ("normal", None, None, False), "x") for n in range(1, 10)])
    assert connection.execute("SELECT count(*) FROM event").fetchone() == (9,)
    connection.close()


def test_rows_that_are_not_taken_are_noticed(tmp_path: Path) -> None:
    """Rather than acknowledged."""
    connection = connect(tmp_path)
    bulk_insert = BulkInsert()
    bulk_insert.write(connection.cursor(), Batch(Entries.of([made(1, ("normal", None, None, False), "x")])))
    connection.execute("DELETE FROM temp.number WHERE i > 1")
    for agent in (None, "a"):
        entries = Entries.of(made(n, ("normal", None, agent if n == 2 else None, False), "x") for n in (2, 3, 4))
        with pytest.raises(StateError, match="has not taken all of 3 events"):
            bulk_insert.write(connection.cursor(), Batch(entries))
    assert connection.execute("SELECT count(*) FROM event").fetchone() == (1,)
    connection.close()


def test_a_database_of_another_encoding_is_refused(tmp_path: Path) -> None:
    """Its texts would not be what was sent."""
    connection = sqlite3.connect(tmp_path / "hub.db")
    connection.execute("PRAGMA encoding = 'UTF-16'")
    migrate(connection.cursor(), SQLITE_MIGRATIONS)
    with pytest.raises(StateError, match="encoding UTF-16le: notifyd needs UTF-8"):
        insert(connection, made(1, ("normal", None, None, False), "x"))
    connection.close()


def test_a_log_with_columns_becomes_one_with_a_view(tmp_path: Path) -> None:
    """Each event is what it was, and the index goes with it."""
    connection = connect(tmp_path, MIGRATIONS)
    entries = [
        made(n, kind, "ü") for n, kind in ((3, ("error", None, "a", False)), (7, ("normal", "critical", None, True)))
    ]
    for entry in entries:
        connection.execute(f"INSERT INTO event VALUES ({','.join('?' * 12)})", entry.row())
    connection.commit()
    migrate(connection.cursor(), SQLITE_MIGRATIONS)
    assert connection.execute('SELECT * FROM event ORDER BY "offset"').fetchall() == [entry.row() for entry in entries]
    plan = "EXPLAIN QUERY PLAN SELECT body FROM event WHERE priority = 'error' AND NOT suppressed AND \"offset\" > 3"
    assert "event_by_priority" in str(connection.execute(plan).fetchall())
    connection.close()


def test_a_row_whose_body_somebody_has_spoilt_does_not_hide_the_others(tmp_path: Path) -> None:
    """Its columns are empty."""
    connection = connect(tmp_path)
    insert(connection, *[made(n, ("normal", None, None, False), "x") for n in (1, 2)])
    connection.execute("UPDATE entry SET body = 'x' WHERE \"offset\" = 1")
    assert connection.execute("SELECT id, body = 'x' FROM event ORDER BY \"offset\"").fetchall() == [
        (None, 1),
        ("2", 0),
    ]
    connection.close()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), kinds, st.sampled_from(["", "ü" * 40, "x" * 700])), min_size=1, max_size=40),
    st.sampled_from([1, 200, 2_000, 10_000]),
    st.sampled_from([1, 3, 17, 2**31]),
    st.sampled_from([None, 1, 5, 16, 1_000]),
    st.sampled_from(["", "priority = ? AND NOT suppressed AND "]),
)
def test_a_page_is_read_together_as_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, what: list[Any], size: int, most: int, rows: int | None, condition: str
) -> None:
    """Page by page everything comes, in order and once, and no page is much longer than was asked for."""
    entries, offset = [], 0
    for step, kind, text in what:
        offset += step
        entries.append(made(offset, kind, text))
    folder = tmp_path_factory.mktemp("log")
    connection = connect(folder)
    for each in entries:  # offsets have holes
        insert(connection, each)
    backend = SqliteBackend(folder / "hub.db")
    backend.page_rows = most
    condition += '"offset" > ? AND "offset" <= ?'
    given = ("normal",) if "priority" in condition else ()
    whole = [b"", b""]
    ways = (partial(backend.read_events, rows=rows), partial(read_rows, backend=backend))
    for number, read in enumerate(ways):
        after: int | None = 0
        while after is not None:
            found = read(
                connection.cursor(), stream="all", condition=condition, arguments=(*given, after, offset - 1), size=size
            )
            assert found.data.count(b"\n") == found.events <= most
            assert len(found.data) <= 2 * size + 1_000
            whole[number] += found.data
            after = found.last
    wanted = [e.line for e in entries[:-1] if not given or (e.kind.priority == "normal" and not e.kind.suppressed)]
    assert whole[0] == whole[1] == b"".join(line + b"\n" for line in wanted)
    connection.close()


def test_lines_that_sqlite_cannot_read_hold_up_neither_sweeps_nor_searches(tmp_path: Path) -> None:
    """Newer ones give up at 1,000 levels of nesting: such an event has no time for it, and goes with its neighbours."""
    connection = connect(tmp_path)
    insert(connection, *[made(n, ("normal", None, None, False), "x") for n in range(1, 9)])
    connection.execute("UPDATE entry SET body = 'x' WHERE \"offset\" IN (1, 4, 5, 8)")
    connection.commit()
    backend = SqliteBackend(tmp_path / "hub.db")
    for moment, found in (("2026", 0), ("2027", 7)):  # what may be newer is sent too
        assert search(connection.cursor(), backend, moment, 8) == found
    for cutoff, most, counts in (("2026", 100, {}), ("2027", 1, {"normal": 1}), ("2027", 100, {"normal": 6})):
        assert expire(connection.cursor(), backend, cutoff, most) == counts
        connection.commit()
    assert connection.execute('SELECT "offset" FROM entry').fetchall() == [(8,)]
    assert connection.execute("SELECT * FROM expired WHERE stream = 'all'").fetchone()[1] == 7
    connection.close()


def test_what_is_in_most_batches_is_one_statement_and_one_transaction(tmp_path: Path) -> None:
    """Else each further one costs a busy hub half a millisecond; what comes seldom is in the same transaction."""
    connection = connect(tmp_path)
    seen: list[str] = []
    batch = Batch(
        Entries.of(made(n, ("normal", None, "a", False), "x") for n in (1, 2, 3)),
        [ClientRow("c", "normal", 3, "t")],
        positions=[Position("s", "normal", "a", 2**63 - 1)],
    )
    bulk_insert = BulkInsert()
    bulk_insert.write(connection.cursor(), Batch())
    connection.set_trace_callback(seen.append)
    bulk_insert.write(connection.cursor(), batch)
    assert not connection.in_transaction
    # What its triggers do is traced as if it came again.
    assert {each[:22] for each in seen if not each.startswith("--")} == {"INSERT INTO temp.batch"}
    assert connection.execute("SELECT * FROM spool").fetchall() == [("s", "normal", "a", 2**63 - 1)]
    assert connection.execute("SELECT * FROM subscriber").fetchall() == [("c", "normal", 3, "t")]
    batch.entries, batch.agents = Entries(), {"a": True}
    bulk_insert.write(connection.cursor(), batch)
    assert connection.in_transaction
    connection.close()


def test_a_trigger_of_somebody_else_leaves_no_part_of_a_batch(tmp_path: Path) -> None:
    """``RAISE(FAIL)`` keeps what a statement has done before: with positions, events would never come again."""
    connection = connect(tmp_path)
    connection.execute(
        "CREATE TRIGGER mine BEFORE INSERT ON entry WHEN NEW.body LIKE '%bad%' BEGIN SELECT RAISE(FAIL, 'no'); END"
    )
    bulk_insert = BulkInsert()
    kind = ("normal", None, "a", False)
    batch = Batch(
        Entries.of(made(n, kind, "bad" if n == 3 else "good") for n in (1, 2, 3)),
        positions=[Position("s", "normal", "a", 3)],
    )
    with pytest.raises(sqlite3.IntegrityError, match="no"):
        bulk_insert.write(connection.cursor(), batch)
    connection.rollback()
    for table in ("entry", "spool"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    bulk_insert.write(connection.cursor(), Batch(Entries.of([made(1, kind, "good")]), positions=batch.positions))
    connection.commit()
    for table in ("entry", "spool"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("rows", [None, 1, 4, 4_000])
@pytest.mark.parametrize("small", [0, 1, 15, 16, 400, 5_000])
def test_long_lines_behind_short_ones_are_not_measured_over_and_over(
    tmp_path: Path, small: int, rows: int | None
) -> None:
    """A page takes few statements, and no more than was asked for, whatever stands behind what was looked at."""
    connection = connect(tmp_path)
    kind = ("normal", None, None, False)
    insert(connection, *[made(n, kind, "x" * (100 if n <= small else 120_000)) for n in range(1, small + 201)])
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    after: int | None = 0
    lines = pages = 0
    while after is not None:
        found = bulk.read_bulk(
            connection.cursor(), "all", '"offset" > ? AND "offset" <= ?', [after, 10**6], 500_000, 2**31, rows
        )
        lines += found.events
        pages += 1
        assert len(found.data) <= 500_000
        assert found.events == found.data.count(b"\n")
        after = found.last
    assert lines == small + 200
    assert len(seen) <= (6 if rows is None else 7) * pages
    connection.close()


def test_all_offsets_of_a_range_are_one_statement(tmp_path: Path) -> None:
    """Of other streams and repeats nothing comes; what is too much is read as if nothing were expected."""
    connection = connect(tmp_path)
    kinds = [("normal", None, None, False), ("critical", None, None, False), ("normal", None, None, True)]
    insert(connection, *[made(n, kinds[n % 3], "x" * 1_000) for n in range(1, 101)])
    seen: list[str] = []
    connection.set_trace_callback(seen.append)

    def read(after: int, until: int, size: int, rows: int) -> tuple[list[int], int | None]:
        seen.clear()
        condition = 'priority = ? AND NOT suppressed AND "offset" > ? AND "offset" <= ?'
        found = bulk.read_bulk(connection.cursor(), "normal", condition, ["normal", after, until], size, 2**31, rows)
        assert found.events == found.data.count(b"\n")
        assert len(found.data) <= size
        return [int(json.loads(line)["id"]) for line in found.data.splitlines()], found.last

    assert read(0, 40, 60_000, 40) == (list(range(3, 41, 3)), None)
    assert len(seen) == 1
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + seen[0])]
    assert "SEARCH entry USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan  # so the lines are in order
    assert read(40, 41, 60_000, 1) == ([], None)
    assert read(41, 42, 60_000, 1) == ([42], None)
    assert read(100, 140, 60_000, 40) == ([], None)
    assert len(seen) == 1
    some, last = read(0, 100, 10_000, 100)
    assert some == list(range(3, 3 * len(some) + 1, 3))
    assert 5 <= len(some) < 10
    assert last == some[-1]
    assert len(seen) > 1
    connection.close()


def test_what_is_expected_to_be_enough_is_one_statement(tmp_path: Path) -> None:
    """And no limit on what is read stays behind, whether it was enough or too much."""
    connection = connect(tmp_path)
    insert(connection, *[made(n, ("normal", None, None, False), "x" * 1_000) for n in range(1, 101)])
    usual = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
    seen: list[str] = []
    connection.set_trace_callback(seen.append)

    def read(after: int, size: int, rows: int) -> tuple[int, int | None]:
        seen.clear()
        found = bulk.read_bulk(
            connection.cursor(), "all", '"offset" > ? AND "offset" <= ?', [after, 1_000], size, 2**31, rows
        )
        assert found.events == found.data.count(b"\n")
        assert len(found.data) <= size
        assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == usual
        return found.events, found.last

    assert read(0, 60_000, 40) == (40, 40)
    assert len(seen) == 1
    assert read(40, 600_000, 80) == (60, None)
    assert len(seen) == 1
    assert read(100, 600_000, 80) == (0, None)
    assert len(seen) == 1
    few, last = read(0, 50_000, 80)
    assert 25 <= few < 50
    assert last == few
    assert len(seen) > 1
    connection.close()
