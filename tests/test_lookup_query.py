"""Questions to real databases: what is bound, what comes back, and what a value or a row can do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from notifyd.config import is_postgresql
from notifyd.hub.lookup_query import Outcome, PoolQuery, Refused
from notifyd.hub.lookup_row import MAX_ROW, MAX_ROW_NESTING, Row
from notifyd.hub.lookup_sqlite import MAX_VALUE
from tests.lookups import BY_ZONE, ZONES, make_query, make_zones, rows
from tests.postgres import Cluster
from tests.spooling import bounded

Ask = Callable[..., Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind, with a table of zones."""
    if request.param == "sqlite":
        return make_zones(tmp_path)
    url: str = request.getfixturevalue("postgres_url")
    request.getfixturevalue("postgres").execute(ZONES, url)
    return url


@pytest_twisted.async_yield_fixture
async def ask() -> Any:
    """Gives ``ask(url, sql, *keys)``; connections are kept until the end of the test."""
    made: dict[tuple[str, str], PoolQuery] = {}

    async def ask(url: str, sql: str, *keys: Any) -> Outcome:
        query = made.setdefault((url, sql), make_query(url, sql))
        outcome: Outcome = await bounded(query.ask([tuple(query_plain(query, v) for v in key) for key in keys]), 30)
        return outcome

    yield ask
    for query in made.values():
        await bounded(query.close())


def query_plain(query: PoolQuery, value: Any) -> Any:
    """Gives a value as a lookup puts it into a key."""
    return value if isinstance(value, str) else query.plain(value)


async def value_of(ask: Ask, url: str, expression: str) -> Any:
    """Gives what an expression of SQL becomes in ``data.context``."""
    (row,) = rows(await ask(url, f"SELECT {expression} AS x", ()))
    return row["x"] if isinstance(row, dict) else row


# --- asking


@pytest_twisted.ensureDeferred
async def test_many_keys_are_asked_for_at_once(url: str, ask: Ask) -> None:
    """Each gets its own answer, in the order of the keys; one without a row gets none."""
    keys = [("7",), ("none",), ("8",), ("é",)] * 70
    expected = [{"location": "Kitchen"}, None, {"location": "Hall"}, {"location": "Café"}] * 70
    assert rows(await ask(url, BY_ZONE, *keys)) == expected
    assert rows(await ask(url, BY_ZONE)) == []


@pytest_twisted.ensureDeferred
async def test_only_the_first_row_counts(url: str, ask: Ask) -> None:
    """By the order that the statement asks for; a million others cost nothing."""
    sql = "SELECT location FROM zone ORDER BY number DESC;"
    assert rows(await ask(url, sql, ())) == [{"location": "Café"}]
    endless = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert rows(await ask(url, endless, ())) == [{"i": 1}]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("value", ["7", 7])
@pytest.mark.parametrize("column", ["zone", "number"])
async def test_a_number_finds_text_and_text_finds_a_number(url: str, ask: Ask, column: str, value: Any) -> None:
    """A field's "7" and a producer's 7 are the same zone, whatever type the column has."""
    sql = f"SELECT location FROM zone WHERE {column} = :zone"
    assert rows(await ask(url, sql, (value,))) == [{"location": "Kitchen"}]


def test_what_is_equal_is_bound_alike(tmp_path: Path) -> None:
    """In SQLite, where a truth value is a number; else one answer would be taken for the other's."""
    query = make_query(make_zones(tmp_path), BY_ZONE)
    plain = [query.plain(value) for value in (True, False, 7.0, 7, 7.5, 1e300, float("inf"), 2**70)]
    assert plain == [1, 0, 7, 7, 7.5, 1e300, float("inf"), 2**70]
    assert [type(value) for value in plain] == [int, int, int, int, float, float, float, int]


@pytest_twisted.ensureDeferred
async def test_truth_values_and_fractions_are_bound_as_what_they_are(url: str, ask: Ask) -> None:
    """Against columns of their types."""
    true = "true" if is_postgresql(url) else "1"
    sql = f"SELECT 'yes' AS x FROM (SELECT {true} AS b, 0.5 AS f) AS t WHERE b = :b AND f = :f"
    assert rows(await ask(url, sql, (True, 0.5), (False, 0.5))) == [{"x": "yes"}, None]


@pytest_twisted.ensureDeferred
async def test_nothing_can_be_written(url: str, ask: Ask, postgres: Cluster) -> None:
    """Not even by what PostgreSQL's SELECT can do."""
    statements = ["SELECT nextval('s')", "WITH d AS (DELETE FROM zone RETURNING zone) SELECT zone FROM d"]
    if is_postgresql(url):
        postgres.execute("CREATE SEQUENCE s", url)
        for sql in [*statements, "SELECT zone FROM zone FOR UPDATE", "SELECT zone INTO other FROM zone"]:
            assert (await ask(url, sql, ())).fault is not None
    assert len(rows(await ask(url, "SELECT count(*) AS n FROM zone", ()))) == 1


# --- hostile values

HOSTILE = [
    "'; DROP TABLE zone; --", "' OR '1'='1", "\\'; DROP TABLE zone; --", "7' --", '"; DROP TABLE zone; --', "7); --",
    "%s", "%(zone)s", "%", ":zone", "$1", "?", "{}", "$$; DROP TABLE zone; $$", "7\0", "\0", "x" * 2**20, "\ud800",
    "7\udfff", "\ufffe", "", " 7", "NaN", "1e999", "9" * 400, "-1", "\N{ZERO WIDTH SPACE}7", "7\r\nDROP TABLE zone",
]  # fmt: skip


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("place", [0, 1])
async def test_hostile_values_find_nothing_and_spoil_nothing(url: str, ask: Ask, place: int, postgres: Cluster) -> None:
    """In every bound place: the table is still there, and the good keys between them are answered."""
    sql = "SELECT location FROM zone WHERE zone = :zone AND zone || :other = :zone"
    good = ("7", "")
    keys: list[Any] = []
    for hostile in HOSTILE:
        bad = (hostile, "") if place == 0 else ("7", hostile)
        keys += [good, bad]
    answers = rows(await ask(url, sql, *keys))
    assert answers[::2] == [{"location": "Kitchen"}] * len(HOSTILE)
    for hostile, answer in zip(HOSTILE, answers[1::2], strict=True):
        if hostile == "" and place == 1:
            assert answer == {"location": "Kitchen"}
        elif is_postgresql(url) and ("\0" in hostile or "\ud800" in hostile or "\udfff" in hostile):
            assert isinstance(answer, Refused)
        else:
            assert answer is None or isinstance(answer, Refused), hostile
    assert rows(await ask(url, "SELECT count(*) AS n FROM zone", ())) == [{"n": 3}]


@pytest_twisted.ensureDeferred
async def test_a_value_that_a_column_does_not_take_is_the_fault_of_its_key(url: str, ask: Ask) -> None:
    """The others of the question are answered, and the database is well."""
    cast = "CAST(:zone AS integer)" if is_postgresql(url) else "json_extract(:zone, '$')"
    sql = f"SELECT location FROM zone WHERE number = {cast}"
    answers = rows(await ask(url, sql, ("7",), ("seven",), ("8",), ("9" * 30 + "x",)))
    assert answers[0] == {"location": "Kitchen"}
    assert answers[2] == {"location": "Hall"}
    assert isinstance(answers[1], Refused)
    assert isinstance(answers[3], Refused)


@pytest_twisted.ensureDeferred
async def test_a_value_that_is_too_deep_for_the_server_is_the_fault_of_its_key(postgres_url: str, ask: Ask) -> None:
    """Who sends brackets shall not take the lookup from everyone: the server says 54001, and is well."""
    answers = rows(await ask(postgres_url, "SELECT CAST(:zone AS jsonb) AS found", ("[" * 60_000,), ("[7]",)))
    assert isinstance(answers[0], Refused)
    assert answers[1] == {"found": [7]}


@pytest_twisted.ensureDeferred
async def test_numbers_beyond_the_database_are_the_fault_of_their_key(url: str, ask: Ask) -> None:
    """Beyond 64 bits, and beyond what is finite."""
    sql = "SELECT location FROM zone WHERE number = :zone"
    answers = rows(await ask(url, sql, (2**63,), (-(2**63) - 1,), (1e300,), (float("inf"),), (7,)))
    assert answers[-1] == {"location": "Kitchen"}
    assert all(answer is None or isinstance(answer, Refused) for answer in answers[:-1])
    assert isinstance(answers[0], Refused)


@pytest_twisted.ensureDeferred
async def test_a_statement_that_is_wrong_is_the_fault_of_the_database(url: str, ask: Ask) -> None:
    """A table that is missing, and one that is there later is found without a new start."""
    outcome = await ask(url, "SELECT a FROM later WHERE a = :zone", ("7",), ("8",))
    assert outcome.fault is not None
    assert "later" in outcome.fault
    assert "\n" not in outcome.fault
    assert rows(await ask(url, BY_ZONE, ("7",))) == [{"location": "Kitchen"}]


# --- rows


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'text'", "text"), ("7", 7), ("NULL", None), ("1.5", 1.5), ("9223372036854775807", 2**63 - 1),
        ("''", ""), ("-7", -7),
    ],
)  # fmt: skip
async def test_columns_become_json(url: str, ask: Ask, expression: str, expected: Any) -> None:
    """What both databases have."""
    assert await value_of(ask, url, expression) == expected


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("true", True), ("12.50::numeric", 12.5), ("3::numeric(10,2)", 3), ("'NaN'::numeric", None),
        ("'Infinity'::float8", None), ("1e400::numeric", 10**400), ("1e400::numeric + 0.5", None),
        ("'2026-11-22'::date", "2026-11-22"), ("'2026-11-22 10:00'::timestamp", "2026-11-22T10:00:00"),
        ("'infinity'::timestamptz", "infinity"), ("'0044-03-15 BC'::date", "0044-03-15 BC"),
        ("'10:00:01'::time", "10:00:01"), ("'1 month 2 days'::interval", "1 mon 2 days"),
        ("'6f1c2a9e-0000-0000-0000-000000000001'::uuid", "6f1c2a9e-0000-0000-0000-000000000001"),
        ("'10.0.0.1'::inet", "10.0.0.1"), ("'10.0.0.0/8'::cidr", "10.0.0.0/8"), ("'\\x00ff'::bytea", "AP8="),
        ("""'{"a": [1, null, {"b": "é"}]}'::jsonb""", {"a": [1, None, {"b": "é"}]}), ("'[1, 2]'::json", [1, 2]),
        ("ARRAY[1.5, 2]", [1.5, 2]), ("ARRAY['2026-11-22'::date]", ["2026-11-22"]), ("'a'::char(3)", "a  "),
        ("int4range(1, 5)", "[1, 5)"), ("ROW(1, 'a')", ["1", "a"]),
    ],
)  # fmt: skip
async def test_columns_of_postgresql_become_json(postgres_url: str, ask: Ask, expression: str, expected: Any) -> None:
    """Numbers as numbers, dates as ISO, bytes as base64, JSON as it is, anything else as text."""
    assert await value_of(ask, postgres_url, expression) == expected


@pytest_twisted.ensureDeferred
async def test_columns_of_sqlite_become_json(ask: Ask, tmp_path: Path) -> None:
    """Bytes as base64, text that is no UTF-8 with the replacement character, infinity as null."""
    url = make_zones(tmp_path)
    assert await value_of(ask, url, "x'00ff'") == "AP8="
    assert await value_of(ask, url, "CAST(x'41ff' AS TEXT)") == "A\N{REPLACEMENT CHARACTER}"
    assert await value_of(ask, url, "9e999") is None


@pytest_twisted.ensureDeferred
async def test_the_encoded_row_is_the_row(url: str, ask: Ask) -> None:
    """With several columns, in their order."""
    (answer,) = (await ask(url, "SELECT number, location, priority FROM zone WHERE number = :n", (9,))).answers
    assert isinstance(answer, Row)
    assert answer.encoded.decode() == '{"number":9,"location":"Café","priority":null}'


@pytest_twisted.ensureDeferred
async def test_a_row_that_is_too_large_is_the_fault_of_its_key(url: str, ask: Ask) -> None:
    """Up to the limit it is taken; the others of the question are answered."""
    if is_postgresql(url):
        sql = "SELECT repeat('x', CAST(:n AS integer)) AS x"
    else:
        sql = "SELECT replace(substr(hex(zeroblob(CAST(:n AS INTEGER))), 1, :n), '0', 'x') AS x"
    fits = MAX_ROW - len('{"x":""}')
    answers = rows(await ask(url, sql, (str(fits),), (str(fits + 1),), (str(MAX_VALUE + 1),), ("1",)))
    assert answers[0] == {"x": "x" * fits}
    assert answers[3] == {"x": "x"}
    assert isinstance(answers[1], Refused)
    assert isinstance(answers[2], Refused)
    assert str(MAX_ROW) in answers[1].reason


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("levels", "taken"), [(MAX_ROW_NESTING, True), (MAX_ROW_NESTING + 1, False), (5000, False)])
async def test_json_that_is_nested_too_deeply_is_the_fault_of_its_key(
    postgres_url: str, ask: Ask, levels: int, taken: bool
) -> None:
    """Whatever a column of JSON holds, the thread comes back."""
    found = await value_of(ask, postgres_url, f"(repeat('[', {levels}) || repeat(']', {levels}))::json")
    assert isinstance(found, list) == taken
    assert isinstance(found, Refused) != taken


# --- the connection


@pytest_twisted.ensureDeferred
async def test_a_sqlite_file_that_is_missing_or_replaced(ask: Ask, tmp_path: Path) -> None:
    """It is looked for each time, so that it may come later, and be replaced by a newer one."""
    url = f"sqlite:///{tmp_path / 'zones.db'}"
    outcome = await ask(url, BY_ZONE, ("7",))
    assert "zones.db" in (outcome.fault or "")
    make_zones(tmp_path)
    assert rows(await ask(url, BY_ZONE, ("7",))) == [{"location": "Kitchen"}]
    (tmp_path / "newer").mkdir()
    make_zones(tmp_path / "newer")
    newer = sqlite3.connect(tmp_path / "newer" / "zones.db")
    newer.executescript("UPDATE zone SET location = 'Attic'")
    newer.close()
    (tmp_path / "newer" / "zones.db").rename(tmp_path / "zones.db")
    assert rows(await ask(url, BY_ZONE, ("7",))) == [{"location": "Attic"}]


@pytest_twisted.ensureDeferred
async def test_a_change_is_seen_by_the_next_question(url: str, ask: Ask, postgres: Cluster, tmp_path: Path) -> None:
    """Nothing holds an old state of the table, and nothing holds the table."""
    assert rows(await ask(url, BY_ZONE, ("7",))) == [{"location": "Kitchen"}]
    change = "UPDATE zone SET location = 'Attic'"
    if is_postgresql(url):
        postgres.execute(change, url)
        postgres.execute("ALTER TABLE zone ALTER COLUMN location TYPE varchar(100)", url)
    else:
        writer = sqlite3.connect(tmp_path / "zones.db", timeout=0)
        writer.executescript(f"PRAGMA journal_mode=DELETE; {change}; VACUUM")
        writer.close()
    assert rows(await ask(url, BY_ZONE, ("7",))) == [{"location": "Attic"}]


@pytest_twisted.ensureDeferred
async def test_one_question_at_a_time(url: str) -> None:
    """A second one is turned away, and so is one after the end."""
    query = make_query(url, BY_ZONE)
    first = query.ask([("7",)])
    assert (await bounded(query.ask([("8",)]))).fault == "its last question is not answered"
    assert rows(await bounded(first)) == [{"location": "Kitchen"}]
    await bounded(query.close())
    await bounded(query.close())
    assert (await bounded(query.ask([("8",)]))).fault == "it is closed"


@pytest_twisted.ensureDeferred
async def test_a_query_that_was_never_asked_can_be_closed(url: str) -> None:
    """It has opened nothing."""
    before = len(reactor.getDelayedCalls())  # type: ignore[attr-defined]
    query = make_query(url, BY_ZONE)
    query.cut()
    await bounded(query.close())
    assert len(reactor.getDelayedCalls()) <= before + 1  # type: ignore[attr-defined]  # bounded's own


@pytest_twisted.ensureDeferred
async def test_a_sqlite_query_without_end_ends_with_its_time(tmp_path: Path) -> None:
    """By itself, so that the next question is answered."""
    url = make_zones(tmp_path)
    endless = (
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE :zone <> ''"
    )
    query = make_query(url, endless, timeout_s=0.2)
    assert (await bounded(query.ask([("7",), ("8",)]))).fault == "it does not answer in time"
    query_again = query.ask([("7",)])
    query.cut()
    assert (await bounded(query_again)).fault is not None
    closing = query.ask([("7",)])
    await bounded(query.close())
    assert (await bounded(closing)).fault is not None


@pytest_twisted.ensureDeferred
async def test_a_sqlite_file_that_is_locked_is_given_up_in_time(tmp_path: Path) -> None:
    """Another program may hold it for ever."""
    url = make_zones(tmp_path)
    holder = sqlite3.connect(tmp_path / "zones.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    query = make_query(url, BY_ZONE, timeout_s=0.2)
    assert "locked" in (await bounded(query.ask([("7",)]))).fault
    holder.execute("ROLLBACK")
    assert rows(await bounded(query.ask([("7",)]))) == [{"location": "Kitchen"}]
    holder.close()
    await bounded(query.close())
