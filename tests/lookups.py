"""What tests of lookups share: databases with a table of zones, and questions to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from notifyd import sqltext
from notifyd.config import is_postgresql, sqlite_path
from notifyd.hub.lookup_cache import Key
from notifyd.hub.lookup_postgresql import PostgresqlConnector
from notifyd.hub.lookup_query import Outcome, PoolQuery
from notifyd.hub.lookup_row import Row, make_row
from notifyd.hub.lookup_sqlite import SqliteConnector

ZONES = """
    CREATE TABLE zone (zone TEXT PRIMARY KEY, number INTEGER, location TEXT, priority TEXT);
    INSERT INTO zone VALUES ('7', 7, 'Kitchen', 'critical'), ('8', 8, 'Hall', 'normal'), ('é', 9, 'Café', NULL);
"""
BY_ZONE = "SELECT location FROM zone WHERE zone = :zone"


def make_zones(folder: Path) -> str:
    """Makes a SQLite file with zones and gives its URL."""
    path = folder / "zones.db"
    connection = sqlite3.connect(path)
    connection.executescript(ZONES)
    connection.close()
    return f"sqlite:///{path}"


def make_query(url: str, sql: str, timeout_s: float = 20.0) -> PoolQuery:
    """Gives a query in a thread of its own; the test closes it."""
    select = sqltext.parse(sql, postgresql=is_postgresql(url))
    if is_postgresql(url):
        return PoolQuery(PostgresqlConnector(url, select, timeout_s), timeout_s, reactor)
    return PoolQuery(SqliteConnector(sqlite_path(url), select, timeout_s), timeout_s, reactor)


def rows(outcome: Outcome) -> list[Any]:
    """Gives an outcome's answers: a row's value, None, or a refusal."""
    assert outcome.fault is None, outcome.fault
    return [answer.value if isinstance(answer, Row) else answer for answer in outcome.answers]


class FakeQuery:
    """A query that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[list[Key]] = []
        self.waiting: list[Deferred[Outcome]] = []
        self.cuts = 0
        self.closed = False

    def plain(self, value: int | float) -> str:
        return str(value)

    def ask(self, keys: Sequence[Key]) -> Deferred[Outcome]:
        self.asked.append(list(keys))
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self, *found: Any, fault: str | None = None) -> None:
        """Answers the oldest question: by a dict for a row, by anything else as it is."""
        answers = [make_row(list(each), list(each.values())) if isinstance(each, dict) else each for each in found]
        self.waiting.pop(0).callback(Outcome(answers, fault))

    def cut(self) -> None:
        self.cuts += 1

    def close(self) -> Deferred[None]:
        self.closed = True
        closed: Deferred[None] = Deferred()
        closed.callback(None)
        return closed
