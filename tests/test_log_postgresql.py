"""The event log in PostgreSQL: its lock, its sessions, and connections that are lost at any moment."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_twisted
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from notifyd import postgresql
from notifyd.database import Fault, StateError
from notifyd.hub import backend_postgresql, log
from notifyd.hub.backend import open_backend
from notifyd.hub.backend_postgresql import PostgresqlBackend
from notifyd.hub.log import EventLog
from notifyd.hub.readback import Page, Reader
from notifyd.hub.records import Batch
from notifyd.hub.service import _refused
from tests.hubkit import T0
from tests.pgproxy import Proxy, at, within
from tests.postgres import Cluster
from tests.spooling import bounded as _bounded
from tests.test_log import entry

START = round(T0 * 1_000_000)


def bounded(work: Any) -> Any:
    """Waits for a coroutine or a Deferred, but not for ever."""
    return _bounded(work if isinstance(work, Deferred) else Deferred.fromCoroutine(work))


class Log(EventLog):
    """A log on a real pool."""

    def __init__(self, url: str, backend: PostgresqlBackend | None = None) -> None:
        self.backend = backend or PostgresqlBackend(url)
        super().__init__(self.backend, reactor, _refused, lambda: T0)

    async def show(self, what: str) -> Any:
        """Gives a setting of the writer's session."""
        return await bounded(self._interact(lambda cursor, _: cursor.execute(f"SHOW {what}").fetchone()[0]))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for long."""
    monkeypatch.setattr(log, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(log, "RETRY_MOST_S", 0.1)
    monkeypatch.setattr(backend_postgresql, "_LOCK_PAUSE_S", 0.01)


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Log]:
    """A log that is open."""
    made = Log(url)
    try:
        await bounded(made.open())
        yield made
    finally:
        made.close()


async def refusal(url: str) -> str:
    """Gives the sentence with which a log is refused."""
    made = Log(url)
    with pytest.raises(StateError) as caught:
        await bounded(made.open())
    made.close()
    return str(caught.value)


def offsets(postgres: Cluster, url: str) -> list[int]:
    """Gives the offsets that are stored."""
    return [row[0] for row in postgres.execute('SELECT "offset" FROM event ORDER BY "offset"', url)]


# --- opening -------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_is_stored_is_there_at_the_next_start(postgres: Cluster, postgres_url: str) -> None:
    """Also for others, at once; the statement that reads times compares them as text."""
    async with opened(postgres_url) as first:
        await bounded(first.append(Batch([entry(START), entry(START + 1)])))
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
            await _turn()
    await bounded(opening)
    second.close()


@pytest_twisted.ensureDeferred
async def test_each_schema_has_a_log_of_its_own(postgres: Cluster) -> None:
    """Two hubs share a database when their users or URLs lead into two schemas."""
    one, two = postgres.fresh_url(), postgres.fresh_url()
    async with opened(one) as first, opened(two) as second:
        await bounded(first.append(Batch([entry(START)])))
        await bounded(second.append(Batch([entry(START + 7)])))
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
    with pytest.raises(StateError, match=r"needs the extra notifyd\[postgresql\], which is not installed"):
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
        reader = Reader(made.backend, reactor)
        assert await bounded(reader.page("all", 0, 10)) == Page(None, b"", 10)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await bounded(reader._pool.runInteraction(lambda cursor: cursor.execute("DELETE FROM event")))
        reader.close()


@pytest_twisted.ensureDeferred
async def test_a_page_sees_one_state_of_the_log(postgres: Cluster, postgres_url: str) -> None:
    """What expires between its statements is not missed in silence."""
    async with opened(postgres_url) as made:
        await bounded(made.append(Batch([entry(START + n) for n in range(5)])))
        reader = Reader(made.backend, reactor)

        def look(cursor: Any) -> int:
            cursor.execute("SELECT 1 FROM expired").fetchall()
            postgres.execute("DELETE FROM event", postgres_url)
            return len(cursor.execute("SELECT 1 FROM event").fetchall())

        assert await bounded(reader._pool.runInteraction(look)) == 5
        assert await bounded(reader.first("all", 7)) == 7
        reader.close()


# --- connections that are lost -------------------------------------------------------------------------------


async def _turn() -> None:
    """Lets the reactor go round."""
    done: Deferred[None] = Deferred()
    reactor.callLater(0.005, done.callback, None)  # type: ignore[attr-defined]
    await done


async def terminate(postgres: Cluster, made: Log) -> None:
    """Has the server end the writer's session."""
    mine = f"WHERE application_name = '{made.backend._application}'"
    assert postgres.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity {mine}") == [(True,)]


@pytest_twisted.ensureDeferred
async def test_a_server_that_was_restarted_needs_no_restart_of_the_hub(
    postgres: Cluster, postgres_url: str, logged: Any
) -> None:
    """Stopped or killed, idle or not: the next batch is stored, and what is said is one line for each change."""
    async with opened(postgres_url) as made:
        reader = Reader(made.backend, reactor)
        for n, end in enumerate((postgres.stop, lambda: postgres.stop("immediate"), postgres.kill)):
            end()
            storing = Deferred.fromCoroutine(made.append(Batch([entry(START + n)])))
            while not made.away:
                await _turn()
            postgres.start()
            await bounded(storing)
            with contextlib.suppress(psycopg.OperationalError):  # what was idle when the server went
                await bounded(reader.page("all", 0, 1))
            assert (await bounded(reader.page("all", 0, 10**16))).last == 10**16
        reader.close()
    assert offsets(postgres, postgres_url) == [START + n for n in range(3)]
    assert len([text for text in logged.text() if "cannot be used" in text]) == 3
    assert len([text for text in logged.text() if "can be used again" in text]) == 3


@pytest.fixture
def proxied(postgres: Cluster, postgres_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy, and the URL that leads through it."""
    proxy = Proxy(postgres.port)
    yield proxy, postgres_url.replace(f":{postgres.port}", f":{proxy.port}")
    pytest_twisted.blockon(Deferred.fromCoroutine(proxy.close()))


@pytest.mark.parametrize("keeps", [False, True], ids=["told", "untold"])
@pytest.mark.parametrize(
    ("way", "reached"),
    [("to_server", False), ("to_server", True), ("to_client", False)],
    ids=["before", "behind", "done"],
)
@pytest_twisted.ensureDeferred
async def test_a_commit_whose_answer_was_lost_is_not_repeated(
    postgres: Cluster, postgres_url: str, proxied: tuple[Proxy, str], way: str, reached: bool, keeps: bool
) -> None:
    """Whether it had reached the server or not, and whether the server knows that its client is gone."""
    proxy, url = proxied
    async with opened(url) as made:
        await bounded(made.append(Batch([entry(START)])))
        setattr(proxy, way, at(b"COMMIT", reached))
        proxy.keeps = keeps
        await bounded(made.append(Batch([entry(START + n) for n in (1, 2)])))
        await bounded(made.append(Batch([entry(START + 3)])))
        assert proxy.cuts == 1
        assert made.backend.sessions == 2
    assert offsets(postgres, postgres_url) == [START + n for n in range(4)]


CUT = st.tuples(
    st.sampled_from(["to_server", "to_client"]), st.integers(0, 12), st.sampled_from([0, 0.5, 1]), st.booleans()
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("to_client", 6, 0, False), ("to_client", 6, 0, True)])  # the answer to a commit
@given(st.lists(CUT, min_size=1, max_size=4))
@pytest_twisted.ensureDeferred
async def test_wherever_a_connection_is_cut_each_event_is_stored_once(
    postgres: Cluster, cuts: list[tuple[str, int, float, bool]]
) -> None:
    """In the statements, in the rows, in the commit, in its answer, and while it connects again."""
    url = postgres.fresh_url()
    proxy = Proxy(postgres.port)
    expected: list[int] = []
    async with opened(url.replace(f":{postgres.port}", f":{proxy.port}")) as made:
        for way, number, part, keeps in cuts:
            proxy.keeps = keeps
            setattr(proxy, way, within(number, part))
            for size in (3, 1):
                new = [START + len(expected) + n for n in range(size)]
                await bounded(made.append(Batch([entry(each) for each in new])))
                expected += new
    await proxy.close()
    assert offsets(postgres, url) == expected


@pytest_twisted.ensureDeferred
async def test_a_frozen_server_costs_the_connection_after_a_while(
    postgres: Cluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer is not waited for without an end; once the server goes on, so does the log."""
    monkeypatch.setattr(PostgresqlBackend, "answer_timeout_s", 0.1)
    async with opened(postgres_url) as made:
        await bounded(made.append(Batch([entry(START)])))
        postgres.freeze()
        storing = Deferred.fromCoroutine(made.append(Batch([entry(START + 1)])))
        while not made.away:
            await _turn()
        postgres.thaw()
        await bounded(storing)
    assert offsets(postgres, postgres_url) == [START, START + 1]


@pytest_twisted.ensureDeferred
async def test_closing_does_not_wait_for_a_frozen_server(postgres: Cluster, postgres_url: str) -> None:
    """A stop of the hub is bounded, whatever it waits for."""
    made = Log(postgres_url)
    await bounded(made.open())
    readers = made.backend.open_reader(reactor, 1)
    select = "SELECT 1"
    await bounded(readers.runQuery(select))
    postgres.freeze()
    storing = Deferred.fromCoroutine(made.append(Batch([entry(START)])))
    reading = readers.runQuery(select)
    while not (made._pool._begun and readers._begun):
        await _turn()
    begun = time.monotonic()
    readers.close()
    made.close()
    assert time.monotonic() - begun < postgresql.CONNECT_TIMEOUT_S / 2
    postgres.thaw()
    with pytest.raises(StateError, match="is closed"):
        await bounded(storing)
    with pytest.raises(psycopg.OperationalError):
        await bounded(reading)


@pytest_twisted.ensureDeferred
async def test_a_pool_cuts_only_who_waits_too_long(postgres: Cluster, postgres_url: str) -> None:
    """What has just begun, or waits for its turn, is left alone."""
    made = Log(postgres_url)
    await bounded(made.open())
    pool = made._pool
    slow = pool.runInteraction(lambda cursor: cursor.execute("SELECT pg_sleep(60)"))
    queued = pool.runInteraction(lambda cursor: cursor.execute("SELECT 7").fetchone()[0])
    while not pool._begun:
        await _turn()
    pool.cut(30.0)
    await _turn()
    assert not slow.called
    pool.cut(0.0)
    with pytest.raises(psycopg.OperationalError):
        await bounded(slow)
    # The lock is still that of the session that sleeps; the new one ends it.
    assert await bounded(queued) == 7
    made.close()


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
