"""Lookups in a real PostgreSQL server that is stopped, killed, frozen, cut off, slow or locked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import pytest_twisted
from twisted.internet import reactor, task

from notifyd.event import decode
from notifyd.hub import breaker, lookup_query
from notifyd.hub.draft import Draft
from notifyd.hub.enrich import Enricher
from notifyd.hub.lookup import Lookup
from notifyd.hub.lookup_query import PoolQuery
from tests.lookups import BY_ZONE, ZONES, make_query, rows
from tests.postgres import Cluster
from tests.spooling import bounded

KITCHEN = [{"location": "Kitchen"}]


@pytest.fixture
def url(postgres: Cluster, postgres_url: str) -> str:
    """A schema with zones."""
    postgres.execute(ZONES, postgres_url)
    return postgres_url


@pytest_twisted.async_yield_fixture
async def make() -> Any:
    """Gives ``make(url, sql, timeout_s)``; whatever has become of the server, every query can be closed."""
    made: list[PoolQuery] = []

    def make(url: str, sql: str = BY_ZONE, timeout_s: float = 20.0) -> PoolQuery:
        made.append(make_query(url, sql, timeout_s))
        return made[-1]

    yield make
    for query in made:
        await bounded(query.close())


async def ask(query: PoolQuery, *keys: str) -> Any:
    """Asks; fails the test where no answer comes."""
    return await bounded(query.ask([(key,) for key in keys]), 30)


async def wait_until(condition: Callable[[], Any]) -> None:
    """Waits for something, but not for ever."""
    for _ in range(1500):
        if condition():
            return
        await task.deferLater(reactor, 0.02)
    raise AssertionError("it did not come to pass")


def backends(postgres: Cluster, what: str = "state <> 'idle'") -> list[int]:
    """Gives the server's processes for lookups."""
    sql = f"SELECT pid FROM pg_stat_activity WHERE application_name = 'notifyd lookup' AND {what}"
    return [pid for (pid,) in postgres.execute(sql)]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("how", ["restart", "killed", "terminated"])
async def test_a_connection_that_was_lost_between_questions_costs_no_event(
    postgres: Cluster, url: str, make: Any, how: str
) -> None:
    """It is made again at once: a restart at night must not cost the first alarm of the morning its context."""
    query = make(url)
    assert rows(await ask(query, "7")) == KITCHEN
    if how == "restart":
        postgres.restart()
    elif how == "killed":
        postgres.kill()
        postgres.start()
    else:
        (pid,) = backends(postgres, "true")
        postgres.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert rows(await ask(query, "7", "8")) == [*KITCHEN, {"location": "Hall"}]


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_stopped_is_told_with_its_reason(postgres: Cluster, url: str, make: Any) -> None:
    """And asked again when it is back, quietly."""
    query = make(url)
    for _ in range(2):
        postgres.stop()
        outcome = await ask(query, "7")
        assert "refused" in outcome.fault
        assert "\n" not in outcome.fault
        postgres.start()
        assert rows(await ask(query, "7")) == KITCHEN


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("how", ["terminated", "killed"])
async def test_a_connection_that_is_cut_in_mid_query(postgres: Cluster, url: str, make: Any, how: str) -> None:
    """The question ends, with an answer or with the reason, and the next one is answered."""
    sql = "SELECT location, pg_sleep(CASE WHEN zone = 'é' THEN 60 ELSE 0 END) FROM zone WHERE zone = :zone"
    query = make(url, sql)
    waiting = query.ask([("7",), ("é",), ("8",)])
    await wait_until(lambda: backends(postgres, "state = 'active'"))
    if how == "terminated":
        (pid,) = backends(postgres, "state = 'active'")
        postgres.execute(f"SELECT pg_terminate_backend({pid})")
    else:
        postgres.kill()
    outcome = await bounded(waiting, 30)
    assert outcome.fault is not None
    postgres.start()
    assert [row["location"] for row in rows(await ask(query, "7"))] == ["Kitchen"]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("connected", [True, False])
async def test_a_frozen_server_is_cut_off(postgres: Cluster, url: str, make: Any, connected: bool) -> None:
    """Which answers nothing and breaks no connection; thawed, it is asked as ever."""
    query = make(url, timeout_s=0.2)
    if connected:
        await wait_until_connected(query)
    postgres.freeze()
    assert (await ask(query, "7", "8")).fault is not None
    assert (await ask(query, "7")).fault is not None
    postgres.thaw()
    await wait_until_connected(query)


async def wait_until_connected(query: PoolQuery) -> None:
    """Asks until there is an answer: on a busy machine a server may take longer than a short timeout to let it in."""
    for _ in range(100):
        outcome = await ask(query, "7")
        if outcome.fault is None:
            assert rows(outcome) == KITCHEN
            return
    raise AssertionError(outcome.fault)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("connected", [True, False])
async def test_closing_does_not_wait_for_a_frozen_server(
    postgres: Cluster, url: str, connected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked is told that it is over, and the thread is left to end by itself."""
    monkeypatch.setattr(lookup_query, "CLOSE_S", 0.1)
    before = set(threading.enumerate())
    query = make_query(url, BY_ZONE)
    if connected:
        assert rows(await ask(query, "7")) == KITCHEN
    postgres.freeze()
    waiting = query.ask([("7",)])
    if not connected:
        await task.deferLater(reactor, 0.05)
    await bounded(query.close())
    assert (await bounded(waiting)).fault is not None
    assert (await ask(query, "7")).fault == "it is closed"
    await bounded(query.close())
    postgres.thaw()
    await wait_until(lambda: not {each for each in threading.enumerate() if each not in before and each.is_alive()})


@pytest_twisted.ensureDeferred
async def test_a_slow_query_is_ended_by_the_server(postgres: Cluster, url: str, make: Any) -> None:
    """Which does not go on working for nobody; what was answered before it is kept, and so is the connection."""
    query = make(url, "SELECT pg_sleep(CASE WHEN zone = 'é' THEN 60 ELSE 0 END) FROM zone WHERE zone = :zone", 0.5)
    while (await ask(query, "7")).fault is not None:
        pass  # on a busy machine the server may take longer than that to let it in
    (pid,) = backends(postgres, "true")
    outcome = await ask(query, "é")
    assert outcome.fault == "it does not answer in time"
    assert backends(postgres, "state = 'active'") == []
    assert (await ask(query, "7")).fault is None
    assert backends(postgres, "true") == [pid]


@pytest_twisted.ensureDeferred
async def test_a_locked_table_is_waited_for_no_longer_than_the_timeout(postgres: Cluster, url: str, make: Any) -> None:
    """Somebody else's migration holds it."""
    query = make(url, timeout_s=0.5)
    await wait_until_connected(query)
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE zone IN ACCESS EXCLUSIVE MODE")
        assert (await ask(query, "7", "8")).fault == "it does not answer in time"
        holder.rollback()
    assert rows(await ask(query, "7")) == KITCHEN


@pytest_twisted.ensureDeferred
async def test_a_server_without_room_is_told(postgres: Cluster, url: str, make: Any) -> None:
    """Its words go on, without the password of the URL."""
    postgres.execute("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN CONNECTION LIMIT 0 PASSWORD 'secret'")
    outcome = await ask(make(url.replace("notifyd@", "guest:secret@")), "7")
    assert "too many connections" in outcome.fault
    assert "secret" not in outcome.fault


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", ["stop", "kill", "freeze"])
async def test_events_flow_whatever_the_server_does(
    postgres: Cluster, url: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes on in bounded time, marked while the server is away; it is told lost once, and restored once."""
    monkeypatch.setattr(breaker, "FIRST_TRIAL_S", 0.05)
    monkeypatch.setattr(breaker, "LAST_TRIAL_S", 0.1)
    told: list[str] = []
    lookup = Lookup(
        "zone", ["zone"], make_query(url, BY_ZONE, 0.3), reactor=reactor, tell=lambda kind, *_: told.append(kind),
        cache_s=0.01, cache_entries=10, timeout_s=0.3,
    )  # fmt: skip
    enricher = Enricher(reactor, [lookup])

    async def send() -> dict[str, Any]:
        """Sends a batch on its way and gives the data of its first event."""
        batch = [event(zone) for zone in ("7", "8")]
        for each in batch:
            each.received_s = time.time()
        waiting = enricher.enrich(batch)
        if waiting is not None:
            await bounded(waiting)
        draft = batch[0]
        draft.write_data()
        data: dict[str, Any] = json.loads(bytes(draft.event.data))  # type: ignore[arg-type]
        assert ("context" in data) != ("unavailable" in data)
        return data

    async def flow(until: Callable[[dict[str, Any]], bool]) -> None:
        for _ in range(3000):
            if until(await send()):
                return
            await task.deferLater(reactor, 0.02)
        raise AssertionError(told)

    await flow(lambda data: data.get("context") == {"zone": KITCHEN[0]})
    told.clear()
    getattr(postgres, fault)()
    await flow(lambda data: told == ["notifyd.lookup.lost"])
    assert (await send())["unavailable"] == ["zone"]
    postgres.start()
    await flow(lambda data: "context" in data)
    assert told == ["notifyd.lookup.lost", "notifyd.lookup.restored"]
    await enricher.stop()


def event(zone: str) -> Draft:
    """Gives an alarm of a zone."""
    data = {"fields": {"zone": zone}}
    return Draft(decode(json.dumps({"id": "1", "source": "/s", "type": "t", "data": data}).encode()))
