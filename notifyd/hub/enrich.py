"""Enrichment: what databases know about a batch of events, without any of them holding one up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from notifyd import sqltext
from notifyd.config import is_postgresql, sqlite_path
from notifyd.config_hub import Lookup as Settings
from notifyd.hub.breaker import Tell
from notifyd.hub.draft import Draft
from notifyd.hub.lookup import Lookup
from notifyd.hub.lookup_cache import Entry, Key
from notifyd.hub.lookup_postgresql import PostgresqlConnector
from notifyd.hub.lookup_query import Connector, PoolQuery
from notifyd.hub.lookup_sqlite import SqliteConnector

GRACE_S = 0.05
"""What a database is given at least, also for events that have waited longer than the timeout for something else."""


def make_lookup(
    settings: Settings,
    own_url: str,
    *,
    reactor: Any,
    tell: Tell,
    matches: Callable[[Draft], bool] | None = None,
) -> Lookup:
    """Puts a lookup together; nothing is opened before an event asks for it.

    Args:
        settings: its table in ``hub.toml``.
        own_url: of the hub's own database, for a lookup that names none.
        reactor: for threads, clock and timers.
        tell: queues an event of the hub's own.
        matches: tells which events it is for; None: for every one.

    Raises:
        ValueError: its statement is none; the text is the reason.
        StateError: its database cannot be asked by this installation.
    """
    url = own_url if settings.database is None else settings.database
    select = sqltext.parse(settings.sql, postgresql=is_postgresql(url))
    connector: Connector
    if is_postgresql(url):
        connector = PostgresqlConnector(url, select, settings.timeout)
    else:
        connector = SqliteConnector(sqlite_path(url), select, settings.timeout)
    return Lookup(
        settings.name, select.names, PoolQuery(connector, settings.timeout, reactor), reactor=reactor, tell=tell,
        cache_s=settings.cache, cache_entries=settings.cache_entries, timeout_s=settings.timeout, matches=matches,
    )  # fmt: skip


class Enricher:
    """Fills ``context`` and ``unavailable`` of events in.

    Args:
        reactor: its clock and timers are used.
        lookups: each is asked for each event that it is for.
        now: the wall clock, as it is used for ``received``.
    """

    logger = Logger("notifyd.hub.enrich")

    def __init__(self, reactor: Any, lookups: Sequence[Lookup], now: Callable[[], float] = time.time) -> None:
        self._clock = reactor
        self._lookups = tuple(lookups)
        self._now = now

    def enrich(self, drafts: Sequence[Draft]) -> Deferred[None] | None:
        """Fills drafts in.

        Args:
            drafts: the events.

        Returns:
            None when it is done, which it is where everything is cached; else a Deferred that fires in bounded time,
            and never fails.
        """
        now_s = self._clock.seconds()
        lookups = self._lookups
        missed: dict[Lookup, _Wait] = {}
        for draft in drafts:
            try:
                draft.disown_context()
                for lookup in lookups:
                    key = lookup.fill(draft, now_s)
                    if key is not None:
                        wait = missed.get(lookup)
                        if wait is None:
                            wait = missed[lookup] = _Wait(lookup, draft.received_s)
                        wait.add(key, draft)
            except Exception:  # noqa: BLE001 - a mistake of ours must cost one event's context, not the hub
                self.logger.failure("An event could not be looked up.")
        if not missed:
            return None
        waits = [wait for wait in missed.values() if wait.begin(self._clock, self._now())]
        if not waits:
            return None
        return DeferredList([wait.done for wait in waits]).addCallback(lambda _: None)

    async def stop(self) -> None:
        """Ends all lookups, side by side and in bounded time; drafts that wait go on without them."""
        await DeferredList([lookup.stop() for lookup in self._lookups])


class _Wait:
    """Drafts of one batch that wait for one lookup."""

    def __init__(self, lookup: Lookup, received_s: float) -> None:
        self.done: Deferred[None] = Deferred()
        self._lookup = lookup
        self._oldest_s = received_s
        self._drafts: dict[Key, list[Draft]] = {}
        self._timer: Any = None
        self._begun = False

    def add(self, key: Key, draft: Draft) -> None:
        self._drafts.setdefault(key, []).append(draft)
        self._oldest_s = min(self._oldest_s, draft.received_s)

    def begin(self, clock: Any, now_s: float) -> bool:
        """Asks; tells whether there is anything left to wait for."""
        self._lookup.ask(list(self._drafts), self._answered)
        if not self._drafts:
            return False
        timeout_s = self._lookup.timeout_s
        left_s = self._oldest_s + timeout_s - now_s
        self._begun = True
        # Not longer than the timeout either, should the wall clock have been set back.
        self._timer = clock.callLater(max(GRACE_S, min(left_s, timeout_s)), self._expire)
        return True

    def _answered(self, key: Key, entry: Entry | None) -> None:
        for draft in self._drafts.pop(key, ()):
            self._lookup.give(draft, entry)
        if self._begun and not self._drafts:
            self._end()

    def _expire(self) -> None:
        drafts, self._drafts = self._drafts, {}
        for waiting in drafts.values():
            for draft in waiting:
                self._lookup.give(draft, None)
        self._lookup.overdue()
        self._end()

    def _end(self) -> None:
        self._begun = False
        if self._timer.active():
            self._timer.cancel()
        self.done.callback(None)
