"""The event log in PostgreSQL, with a server that goes away and connections that are lost at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import pytest_twisted
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from notifyd import postgresql
from notifyd.database import StateError
from notifyd.hub.backend_postgresql import PostgresqlBackend
from notifyd.hub.entries import Entries
from notifyd.hub.pace import Pace
from notifyd.hub.readback import Reader
from notifyd.hub.records import Batch
from tests.pglog import (
    START,
    Log,
    bounded,
    offsets,
    opened,
    quick,  # noqa: F401 - a fixture of every test here
    turn,
)
from tests.pgproxy import Proxy, at, within
from tests.postgres import Cluster
from tests.test_log import entry


@pytest_twisted.ensureDeferred
async def test_a_server_that_was_restarted_needs_no_restart_of_the_hub(
    postgres: Cluster, postgres_url: str, logged: Any
) -> None:
    """Stopped or killed, idle or not: the next batch is stored, and what is said is one line for each change."""
    async with opened(postgres_url) as made:
        reader = Reader(made.backend, reactor, Pace(reactor, lambda: False, 0.0))
        for n, end in enumerate((postgres.stop, lambda: postgres.stop("immediate"), postgres.kill)):
            end()
            storing = Deferred.fromCoroutine(made.append(Batch(Entries.of([entry(START + n)]))))
            while not made.away:
                await turn()
            postgres.start()
            await bounded(storing)
            # Also what was idle when the server went is of use at once.
            assert (await bounded(reader.page("all", 0, 10**16))).last == 10**16
        reader.close()
    assert offsets(postgres, postgres_url) == [START + n for n in range(3)]
    lost = [text for text in logged.text() if "cannot be used" in text]
    assert len(lost) == 3
    assert "\n" not in "".join(lost)
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
        await bounded(made.append(Batch(Entries.of([entry(START)]))))
        setattr(proxy, way, at(b"COMMIT", reached))
        proxy.keeps = keeps
        await bounded(made.append(Batch(Entries.of([entry(START + n) for n in (1, 2)]))))
        await bounded(made.append(Batch(Entries.of([entry(START + 3)]))))
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
                await bounded(made.append(Batch(Entries.of([entry(each) for each in new]))))
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
        await bounded(made.append(Batch(Entries.of([entry(START)]))))
        postgres.freeze()
        storing = Deferred.fromCoroutine(made.append(Batch(Entries.of([entry(START + 1)]))))
        while not made.away:
            await turn()
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
    storing = Deferred.fromCoroutine(made.append(Batch(Entries.of([entry(START)]))))
    reading = readers.runQuery(select)
    while not (made._pool._begun and readers._begun):
        await turn()
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
async def test_a_session_that_ended_while_it_was_idle_is_no_outage(
    postgres: Cluster, postgres_url: str, logged: Any
) -> None:
    """The server was restarted between two events: nobody has to know."""
    async with opened(postgres_url) as made:
        for n, restart in enumerate((postgres.restart, lambda: (postgres.kill(), postgres.start()))):
            restart()
            await bounded(made.append(Batch(Entries.of([entry(START + n)]))))
    assert offsets(postgres, postgres_url) == [START, START + 1]
    assert [text for text in logged.text() if "database can" in text] == []


@pytest_twisted.ensureDeferred
async def test_a_server_that_takes_connections_and_says_nothing_counts_as_away(logged: Any) -> None:
    """Each attempt to connect ends by itself."""
    silent = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")  # type: ignore[attr-defined]
    made = Log(f"postgresql://me@127.0.0.1:{silent.getHost().port}/x?connect_timeout=1")
    opening = Deferred.fromCoroutine(made.open())
    while not made.away:
        await turn()
    assert "timeout expired" in "".join(logged.text("error"))
    made.close()
    with pytest.raises(StateError, match="is closed"):
        await bounded(opening)
    await silent.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_pool_cuts_only_who_waits_too_long(postgres: Cluster, postgres_url: str) -> None:
    """What has just begun, or waits for its turn, is left alone."""
    made = Log(postgres_url)
    await bounded(made.open())
    pool = made._pool
    slow = pool.runInteraction(lambda cursor: cursor.execute("SELECT pg_sleep(60)"))
    queued = pool.runInteraction(lambda cursor: cursor.execute("SELECT 7").fetchone()[0])
    while not pool._begun:
        await turn()
    pool.cut(30.0)
    await turn()
    assert not slow.called
    pool.cut(0.0)
    with pytest.raises(psycopg.OperationalError):
        await bounded(slow)
    # The lock is still that of the session that sleeps; the new one ends it.
    assert await bounded(queued) == 7
    made.close()
