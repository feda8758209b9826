"""The text of a lookup's SELECT: which parameters it has, and what is no such statement."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.sqltext import parse

BOTH = pytest.mark.parametrize("postgresql", [False, True])


@BOTH
def test_parameters_are_found_in_their_order(postgresql: bool) -> None:
    """Each once, and written as the driver wants them."""
    found = parse("SELECT a FROM zone WHERE b = :zone AND c=:type OR d = :zone ;\n", postgresql=postgresql)
    assert found.names == ("zone", "type")
    if postgresql:
        assert found.text == "SELECT a FROM zone WHERE b = %(zone)s AND c=%(type)s OR d = %(zone)s"
    else:
        assert found.text == "SELECT a FROM zone WHERE b = :zone AND c=:type OR d = :zone"


@BOTH
@pytest.mark.parametrize(
    "quoted",
    ["':x'", "'it''s :x'", '":x"', '"a"":x"', "-- :x\n", "/* :x */", "/* ' */ 'x'", "'--' ':x'", "'\\' , ':x'"],
)
def test_nothing_is_a_parameter_within_quotes_and_comments(quoted: str, postgresql: bool) -> None:
    """What stands behind them is."""
    found = parse(f"SELECT {quoted} , :y", postgresql=postgresql)
    assert found.names == ("y",)
    assert quoted in found.text


@pytest.mark.parametrize(
    "quoted",
    [
        r"E'\':x'", r"e'\\' || E':x\''", "E'a'\n ':x\\''", "$$ :x ' $$", "$a$ :x $$ $b$ $a$", "/* /* */ :x */",
        "1::x", "x::int", "a[1:2]", "f(a := 1)", "U&'\\0041 :x'", "a$1", "d ? 'key'", "'a' @> '{:x}'", "a @ b",
    ],
)  # fmt: skip
def test_postgresql_has_quotations_of_its_own(quoted: str) -> None:
    """Escapes, dollars, casts, slices, comments in comments, and operators that are parameters elsewhere."""
    assert parse(f"SELECT {quoted} , :y", postgresql=True).names == ("y",)


@pytest.mark.parametrize("quoted", ["[:x]", "`:x`", "`a``:x`", "/* /* :x */", "a$b", "x'00'"])
def test_sqlite_has_quotations_of_its_own(quoted: str) -> None:
    """Names in brackets and backquotes."""
    assert parse(f"SELECT {quoted} , :y", postgresql=False).names == ("y",)


def test_a_backslash_escapes_only_where_the_database_says_so() -> None:
    """In E'…' of PostgreSQL, and nowhere else: a name may end in E."""
    assert parse(r"SELECT 'a\', :x", postgresql=True).names == ("x",)
    assert parse(r"SELECT typeE'a\', :x", postgresql=True).names == ("x",)
    assert parse(r"SELECT E'a\', :x'", postgresql=True).names == ()


def test_percent_signs_stay_what_they_are() -> None:
    """The driver of PostgreSQL takes them for its own parameters, also in quotes and comments."""
    sql = "SELECT '%(a)s', 5 % 2 /* 5% */ WHERE a LIKE :x || '%'"
    assert parse(sql, postgresql=True).text == "SELECT '%%(a)s', 5 %% 2 /* 5%% */ WHERE a LIKE %(x)s || '%%'"
    assert parse(sql, postgresql=False).text == sql


@BOTH
def test_what_ends_a_statement_is_cut_off(postgresql: bool) -> None:
    """Semicolon and comments, as it is put into another statement."""
    for end in ("", ";", " ; ", "; -- done", "-- done", "/* done */;", ";/* done */\n"):
        assert parse(f"SELECT 1{end}", postgresql=postgresql).text == "SELECT 1"
    assert parse("/* hint */ WITH a AS (SELECT 1) SELECT * FROM a", postgresql=postgresql).names == ()


@BOTH
@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("", "empty"), (" -- SELECT 1", "empty"), (";", "empty"), ("DELETE FROM zone", "no SELECT"),
        ("SELECTED", "no SELECT"), ("UPDATE zone SET a = 1", "no SELECT"), ("PRAGMA x", "no SELECT"),
        ("SELECT 1; DROP TABLE zone", "more than one"), ("SELECT 1;;", "more than one"),
        ("SELECT 1 ; SELECT 2", "more than one"), ("SELECT 'a", "not closed"), ('SELECT "a', "not closed"),
        ("SELECT (1", "not closed"), ("SELECT 1)", "too many"), ("SELECT 1) AS x, (SELECT 2", "too many"),
        ("SELECT $1", "no :name"), ("SELECT '\0'", "NUL"), ("SELECT '\ud800'", "surrogate"),
        ("SELECT :zoné", "name"), ("SELECT :a$b", "name"), ("SELECT :a€", "name"), ("SELECT :é", "name"),
    ],
)  # fmt: skip
def test_what_is_no_single_select_is_refused(sql: str, reason: str, postgresql: bool) -> None:
    """In one line that says why."""
    with pytest.raises(ValueError, match=reason) as refused:
        parse(sql, postgresql=postgresql)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("sql", ["SELECT ?", "SELECT ?1", "SELECT @a", "SELECT $a", "SELECT :1", "SELECT $a::b"])
def test_sqlite_has_other_parameters_which_are_refused(sql: str) -> None:
    """An event has names only."""
    with pytest.raises(ValueError, match="no :name"):
        parse(sql, postgresql=False)


@pytest.mark.parametrize("sql", ["SELECT /* a", "SELECT /* /* */", "SELECT $$ a", "SELECT $a$ $b$", "SELECT E'\\'"])
def test_postgresql_quotations_must_end(sql: str) -> None:
    """Else what is put behind the statement would be in them."""
    with pytest.raises(ValueError, match="not closed"):
        parse(sql, postgresql=True)


FRAGMENTS = st.lists(
    st.sampled_from(
        ["SELECT ", "'", '"', "`", "[", "]", "$$", "$a$", "E'", "\\", "--", "/*", "*/", "\n", ":x", "::", ":", ";", "(",
         ")", "?", "$1", "%", "a", " "]
    ) | st.text(max_size=3),
    max_size=20,
)  # fmt: skip


@given(FRAGMENTS, st.booleans())
def test_whatever_stands_in_the_file_is_taken_or_refused(fragments: list[str], postgresql: bool) -> None:
    """Nothing but ValueError is raised, and what is taken has all the same parameters when it is read again."""
    sql = "SELECT " + "".join(fragments)
    try:
        found = parse(sql, postgresql=postgresql)
    except ValueError:
        return
    if postgresql:
        assert found.text.replace("%%", "").count("%") == found.text.replace("%%", "").count("%(")
    else:
        assert parse(found.text, postgresql=False) == found


@given(st.text(max_size=30).filter(lambda text: "\0" not in text))
def test_a_value_in_quotes_has_no_parameters(text: str) -> None:
    """However it is written, once its quotes are doubled."""
    for quote in ("'", '"'):
        sql = f"SELECT {quote}{text.replace(quote, quote * 2)}{quote}"
        for postgresql in (False, True):
            assert parse(sql, postgresql=postgresql).names == ()
    assert parse(f"SELECT $zq$ {text} $zq$", postgresql=True).names == ()


@given(FRAGMENTS)
def test_sqlite_sees_the_same_parameters(fragments: list[str]) -> None:
    """What it compiles it finds exactly the names in that were found here."""
    try:
        found = parse("SELECT 1 AS a WHERE a " + "".join(fragments), postgresql=False)
    except ValueError:
        return
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(f"EXPLAIN {found.text}", dict.fromkeys(found.names))
        if found.names:
            with pytest.raises(sqlite3.ProgrammingError):
                connection.execute(f"EXPLAIN {found.text}", {})
    except sqlite3.OperationalError:
        return
    finally:
        connection.close()
