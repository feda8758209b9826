"""The event log on a real pool of PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from notifyd.database import StateError
from notifyd.hub import backend_postgresql, log
from notifyd.hub.backend_postgresql import PostgresqlBackend
from notifyd.hub.log import EventLog
from notifyd.hub.service import _refused
from tests.hubkit import T0
from tests.postgres import Cluster
from tests.spooling import bounded as _bounded

START = round(T0 * 1_000_000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for long."""
    monkeypatch.setattr(log, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(log, "RETRY_MOST_S", 0.1)
    monkeypatch.setattr(backend_postgresql, "_LOCK_PAUSE_S", 0.01)


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


async def turn() -> None:
    """Lets the reactor go round."""
    done: Deferred[None] = Deferred()
    reactor.callLater(0.005, done.callback, None)  # type: ignore[attr-defined]
    await done


async def terminate(postgres: Cluster, made: Log) -> None:
    """Has the server end the writer's session."""
    mine = f"WHERE application_name = '{made.backend._application}'"
    assert postgres.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity {mine}") == [(True,)]
