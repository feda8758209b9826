"""The event log in PostgreSQL: its lock, its sessions, and connections that are lost at any moment."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from notifyd import postgresql
from notifyd.database import Fault, StateError
from notifyd.hub import backend_postgresql
from notifyd.hub.backend import open_backend
from notifyd.hub.backend_postgresql import PostgresqlBackend
from notifyd.hub.entries import Entries
from notifyd.hub.pace import Pace
from notifyd.hub.readback import Page, Reader
from notifyd.hub.records import Batch
from tests.pglog import (
    START,
    Log,
    bounded,
    offsets,
    opened,
    quick,  # noqa: F401 - a fixture of every test here
    refusal,
    terminate,
    turn,
)
from tests.postgres import Cluster
from tests.test_log import entry

# --- opening -------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_is_stored_is_there_at_the_next_start(postgres: Cluster, postgres_url: str) -> None:
    """Also for others, at once; the statement that reads times compares them as text."""
    async with opened(postgres_url) as first:
        await bounded(first.append(Batch(Entries.of([entry(START), entry(START + 1)]))))
        assert offsets(postgres, postgres_url) == [START, START + 1]
    again = Log(postgres_url)
    assert (await bounded(again.open())).last == START + 1
    again.close()
    query = "SELECT DISTINCT collation_name FROM information_schema.columns WHERE column_name = 'received'"
    assert postgres.execute(query + " AND table_schema = current_schema()", postgres_url) == [("C",)]


@pytest_twisted.ensureDeferred
async def test_a_second_hub_on_the_same_log_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told who has it; once that one is gone it can be started."""
    monkeypatch.setattr(backend_postgresql, "LOCK_PATIENCE_S", 0.1)
    async with opened(postgres_url):
        refused = await refusal(postgres_url)
        assert "another hub (notify-hub " in refused
        assert "from 127.0.0.1" in refused
    async with opened(postgres_url):
        pass


@pytest_twisted.ensureDeferred
async def test_a_hub_that_ended_a_moment_ago_is_waited_for(postgres_url: str) -> None:
    """Its session needs a moment to end, too: the next hub is patient."""
    async with opened(postgres_url):
        second = Log(postgres_url)
        opening = Deferred.fromCoroutine(second.open())
        while second._pool is None or not second._pool._begun:
            await turn()
    await bounded(opening)
    second.close()


@pytest_twisted.ensureDeferred
async def test_each_schema_has_a_log_of_its_own(postgres: Cluster) -> None:
    """Two hubs share a database when their users or URLs lead into two schemas."""
    one, two = postgres.fresh_url(), postgres.fresh_url()
    async with opened(one) as first, opened(two) as second:
        await bounded(first.append(Batch(Entries.of([entry(START)]))))
        await bounded(second.append(Batch(Entries.of([entry(START + 7)]))))
        assert offsets(postgres, one) == [START]
        assert offsets(postgres, two) == [START + 7]


@pytest_twisted.ensureDeferred
async def test_a_database_of_another_encoding_is_refused(postgres: Cluster) -> None:
    """Not every event could be stored in it."""
    with contextlib.suppress(psycopg.errors.DuplicateDatabase):
        postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    refused = await refusal(postgres.url().replace("/postgres", "/latin"))
    assert "has the encoding LATIN1: notifyd needs UTF8" in refused


@pytest_twisted.ensureDeferred
async def test_a_database_without_a_schema_is_refused(postgres: Cluster) -> None:
    """The URL names one that is not there."""
    assert "has no schema in which this user can have tables" in await refusal(postgres.url("nowhere"))


@pytest_twisted.ensureDeferred
async def test_a_user_without_rights_is_refused(postgres: Cluster, postgres_url: str) -> None:
    """With the server's own reason."""
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgres.execute("CREATE ROLE stranger LOGIN")
    schema = postgres.execute("SELECT current_schema()", postgres_url)[0][0]
    postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO stranger")
    refused = await refusal(postgres_url.replace("notifyd@", "stranger@"))
    assert f"does not let its user do what the hub must: permission denied for schema {schema}" in refused


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In one clear line."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StateError, match=r"PostgreSQL needs psycopg, .*: pip install 'notifyd\[postgresql\]'"):
        open_backend("postgresql://db.example/notifyd", tmp_path)


def test_the_name_in_messages_has_no_password() -> None:
    """Neither has the reason why a URL cannot be used."""
    assert PostgresqlBackend("postgresql://me:secret@db:5433/x?options=-ca%3Db").name == "postgresql://db:5433/x"
    with pytest.raises(StateError) as caught:
        PostgresqlBackend("postgresql://me:secret@db:5433/x?nonsense=1")
    assert "secret" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_a_server_that_may_lose_commits_is_told_once(postgres: Cluster, postgres_url: str, logged: Any) -> None:
    """With fsync=off, as the server of the tests; also when the hub has to connect again."""
    async with opened(postgres_url) as made:
        await terminate(postgres, made)
        await bounded(made.positions("s"))
        assert made.backend.sessions == 2
    assert len([text for text in logged.text("warn") if "fsync=off" in text]) == 1


@pytest_twisted.ensureDeferred
async def test_a_commit_is_waited_for_whatever_the_default(postgres_url: str) -> None:
    """synchronous_commit=off would acknowledge what a crash can lose; what the URL sets otherwise stays."""
    url = postgres_url + "%20-csynchronous_commit%3Doff%20-cwork_mem%3D9MB"
    async with opened(url) as made:
        assert await made.show("synchronous_commit") == "on"
        assert await made.show("work_mem") == "9MB"
        assert await made.show("search_path") in url
        assert await made.show("statement_timeout") == "30s"


# --- reading back --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_real_reader_cannot_write(postgres_url: str) -> None:
    """It has connections of its own that refuse to."""
    async with opened(postgres_url) as made:
        reader = Reader(made.backend, reactor, Pace(reactor, lambda: False, 0.0))
        assert await bounded(reader.page("all", 0, 10)) == Page(None, b"", 10, 0)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await bounded(reader._pool.runInteraction(lambda cursor: cursor.execute("DELETE FROM event")))
        reader.close()


@pytest_twisted.ensureDeferred
async def test_a_page_sees_one_state_of_the_log(postgres: Cluster, postgres_url: str) -> None:
    """What expires between its statements is not missed in silence."""
    async with opened(postgres_url) as made:
        await bounded(made.append(Batch(Entries.of([entry(START + n) for n in range(5)]))))
        reader = Reader(made.backend, reactor, Pace(reactor, lambda: False, 0.0))

        def look(cursor: Any) -> int:
            cursor.execute("SELECT 1 FROM expired").fetchall()
            postgres.execute("DELETE FROM event", postgres_url)
            return len(cursor.execute("SELECT 1 FROM event").fetchall())

        assert await bounded(reader._pool.runInteraction(look)) == 5
        assert await bounded(reader.first("all", 7)) == 7
        reader.close()


def test_errors_are_judged_by_what_they_ask_for() -> None:
    """By their SQLSTATE, and without one by their class."""
    errors = psycopg.errors
    away = [
        errors.AdminShutdown, errors.DiskFull, errors.DeadlockDetected, errors.QueryCanceled, errors.IoError,
        errors.ReadOnlySqlTransaction, errors.CannotConnectNow, psycopg.OperationalError, ConnectionResetError,
    ]  # fmt: skip
    refused = [errors.UniqueViolation, errors.CharacterNotInRepertoire, errors.RaiseException, psycopg.DataError]
    assert {postgresql.judge(kind()) for kind in away} == {Fault.AWAY}
    assert {postgresql.judge(kind()) for kind in refused} == {Fault.REFUSED}
    assert postgresql.judge(errors.UndefinedTable()) is Fault.FOREIGN
    assert postgresql.judge(errors.InsufficientPrivilege()) is Fault.DENIED
    assert postgresql.judge(errors.DataCorrupted()) is Fault.CORRUPT
