"""The hub's event log for commands that only read it, beside a hub that runs or not."""

from __future__ import annotations

import heapq
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from notifyd import config
from notifyd.config import ConfigurationError, Duration
from notifyd.config_hub import HubConfig, parse_hub
from notifyd.ctl.say import CommandError
from notifyd.daemon import read_configuration
from notifyd.database import Fault, StateError
from notifyd.event import format_time, parse_time
from notifyd.hub.backend import Backend, SqliteBackend, open_backend
from notifyd.hub.readback import search
from notifyd.hub.records import ClientRow
from notifyd.hub.statements import EVENT_COLUMNS

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

PAGE_BYTES = 2**20
"""Characters of event lines that are read at once: bounds memory, and for how long one statement lasts."""

SEARCH_STEP = 20_000
"""Events among which an id is looked for with one statement."""

MAX_OFFSET = 2**63 - 1
"""What the database's integers hold."""


class StoredRow(NamedTuple):
    """A row of table ``event``."""

    offset: int
    id: str
    source: str
    type: str
    priority: str
    time: str
    received: str
    agent: str | None
    rule: str
    body: str
    hint: str | None
    suppressed: bool


@dataclass(frozen=True)
class LogPlace:
    """Where a log is, and the configuration that says so.

    Attributes:
        settings: of ``hub.toml``, or the defaults.
        path: of that file, for messages.
        url: of the log's database; None for ``hub.db`` in the state folder.
        state: the state folder.
    """

    settings: HubConfig
    path: str
    url: str | None
    state: Path


def log_options(command: F) -> F:
    """Adds ``--config FILE`` and ``--database URL`` to a command."""
    url = click.option("--database", metavar="URL", help="Read the event log there, and not where the file says.")
    help_text = "The hub's hub.toml. Default: as a hub without one, its log in $STATE_DIRECTORY or below your home."
    return click.option("--config", "config_path", metavar="FILE", help=help_text)(url(command))


def period_options(command: F) -> F:
    """Adds ``--since WHEN`` and ``--until WHEN`` to a command."""
    until = click.option("--until", metavar="WHEN", help="Only what the hub received before then.")
    help_text = "Begin with what the hub received then: 2026-11-22T10:00:00Z, or how long ago, as 30m, 2h or 7d."
    return click.option("--since", metavar="WHEN", help=help_text)(until(command))


def find_log(config_path: str | None, database: str | None = None) -> LogPlace:
    """Reads a configuration and finds the log.

    Args:
        config_path: ``hub.toml``; None for the settings of a hub without one.
        database: the URL of a log, in the place of the one that the file names.

    Raises:
        click.BadParameter: ``database`` is no URL of a database.
        CommandError: the file cannot be used.
    """
    try:
        settings = parse_hub("", "defaults") if config_path is None else read_configuration(config_path, parse_hub)
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    if database is not None:
        try:
            config.check_database_url(database)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--database") from None
    state = config.state_folder(settings.state, os.environ, "notify-hub")
    return LogPlace(settings, config_path or "defaults", database or settings.database.url, state)


def moment(option: str, text: str | None, now: Callable[[], float] = time.time) -> str | None:
    """Gives a time, or a length of time before now, in the hub's own format; None for None.

    Raises:
        click.BadParameter: it is neither.
    """
    if text is None:
        return None
    try:
        return format_time(now() - Duration.parse(text))
    except ValueError:
        pass
    try:
        return format_time(parse_time(text))
    except ValueError:
        reason = f"{text!r} is no time such as 2026-11-22T10:00:00Z, and no length of time such as 30m, 2h or 7d"
        raise click.BadParameter(reason, param_hint=option) from None


def open_log(place: LogPlace) -> LogReader:
    """Opens a log for reading; it is checked that this notifyd can read it.

    Raises:
        CommandError: there is none, or it cannot be read; or there is nothing to write to.
    """
    if sys.stdout is None:  # its descriptor would be the database's, and be written to
        raise CommandError("standard output is closed")
    from twisted.internet import reactor

    try:
        backend = open_backend(place.url, place.state)
        if isinstance(backend, SqliteBackend):
            _check_file(backend.path)
        reader = LogReader(backend, backend.open_reader(reactor, 1))
    except StateError as error:
        raise CommandError(f"the event log cannot be read: {error}") from None
    reader.check_schema()
    return reader


def _check_file(path: Path) -> None:
    """Says what SQLite would not: why a file cannot be opened."""
    try:
        with open(path, "rb"):
            return
    except FileNotFoundError:
        advice = "name the hub's file with --config, or the log with --database"
        if not os.environ.get("STATE_DIRECTORY"):
            advice += "; of a hub under systemd: STATE_DIRECTORY=/var/lib/notify-hub"
        raise CommandError(f"there is no event log {path}: {advice}") from None
    except PermissionError:
        raise CommandError(f"you may not read the event log {path}: {_AS_ITS_USER}") from None
    except OSError as error:
        raise CommandError(f"the event log {path} cannot be read: {error.strerror or error}") from None


_AS_ITS_USER = "run notifyctl as the hub's user, as in sudo -u notify-hub notifyctl"


class LogReader:
    """Reads a log, in short transactions, so that no snapshot of it is held for long.

    Args:
        backend: the database that holds it.
        pool: that the backend has opened for reading; it is used in this thread only.
    """

    def __init__(self, backend: Backend, pool: Any) -> None:
        self.name = backend.name
        self._backend = backend
        self._pool = pool

    def close(self) -> None:
        """Closes the connection."""
        self._pool.close()

    def check_schema(self) -> None:
        """Sees that this notifyd knows the log's schema; raises CommandError."""
        (version,) = self._ask(self._all, "SELECT coalesce(max(version), 0) FROM schema_version", ())[0]
        known = len(self._backend.migrations)
        if version > known:
            reason = f"its schema has version {version}, this notifyd knows {known}: install a newer notifyd"
            raise CommandError(f"the event log {self.name} cannot be read: {reason}")
        if version < known:
            reason = f"its schema has version {version}, and not {known}: a start of this version's hub updates it"
            raise CommandError(f"the event log {self.name} cannot be read: {reason}")

    def newest(self) -> int:
        """Gives the newest event's offset; 0 where there is none."""
        return int(self._ask(self._all, 'SELECT coalesce(max("offset"), 0) FROM event', ())[0][0])

    def after(self, since: str | None, end: int) -> int:
        """Gives the offset behind which the first event comes that was received at or after ``since``.

        Args:
            since: in the hub's own format; None for the beginning.
            end: the answer where there is no such event.
        """
        return 0 if since is None else self._ask(search, self._backend, since, end)

    def scan(
        self, after: int, until: int, *, priorities: Sequence[str] = (), suppressed: bool = True, reverse: bool = False
    ) -> Iterator[StoredRow]:
        """Gives events, page by page.

        Args:
            after: the offset behind which they begin.
            until: the last offset.
            priorities: only of these; none: of all.
            suppressed: also repeats that were sent to nobody.
            reverse: the newest first.
        """
        if priorities and not suppressed:  # there is an index for just that
            streams = [self._pages("priority = ? AND NOT suppressed AND ", (each,), after, until, reverse)
                       for each in dict.fromkeys(priorities)]  # fmt: skip
            yield from heapq.merge(*streams, key=itemgetter(0), reverse=reverse)
            return
        for row in self._pages("", (), after, until, reverse):
            if (suppressed or not row.suppressed) and (not priorities or row.priority in priorities):
                yield row

    def _pages(
        self, condition: str, arguments: tuple[object, ...], after: int, until: int, reverse: bool
    ) -> Iterator[StoredRow]:
        order = "DESC" if reverse else "ASC"
        query = (
            f"SELECT {EVENT_COLUMNS} FROM event WHERE {condition}"  # noqa: S608 - constants
            f'"offset" > ? AND "offset" <= ? ORDER BY "offset" {order} LIMIT ?'
        )
        while after < until:
            page = self._ask(self._page, query, (*arguments, after, until))
            if not page:
                return
            yield from page
            if reverse:
                until = page[-1].offset - 1
            else:
                after = page[-1].offset

    def _page(self, cursor: Any, query: str, arguments: tuple[object, ...]) -> list[StoredRow]:
        rows = []
        size = 0
        for row in cursor.execute(self._backend.sql(query), (*arguments, self._backend.page_rows)):
            rows.append(stored := StoredRow._make(row))
            size += len(stored.body)
            if size >= PAGE_BYTES:
                break
        return rows

    def _all(self, cursor: Any, query: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = cursor.execute(self._backend.sql(query), arguments).fetchall()
        return rows

    def event(self, offset: int) -> StoredRow | None:
        """Gives the event at an offset."""
        query = f'SELECT {EVENT_COLUMNS} FROM event WHERE "offset" = ?'  # noqa: S608 - a constant
        rows = self._ask(self._all, query, (offset,))
        return StoredRow._make(rows[0]) if rows else None

    def offsets_of(self, event_id: str, before: int) -> Iterator[tuple[int, list[int]]]:
        """Looks for an id from the newest event backwards, a step at a time.

        Args:
            event_id: the id.
            before: an offset above those that are looked at.

        Yields:
            the lowest offset that was looked at, and the offsets of the events with that id in this step.
        """
        step = f'SELECT "offset", id FROM event WHERE "offset" < ? ORDER BY "offset" DESC LIMIT {SEARCH_STEP}'  # noqa: S608
        query = (
            f'SELECT min("offset"), NULL FROM ({step}) AS a'  # noqa: S608 - constants
            f' UNION ALL SELECT "offset", id FROM ({step}) AS b WHERE id = ?'
        )
        while True:
            rows = self._ask(self._all, query, (before, before, event_id))
            lowest = next(offset for offset, name in rows if name is None)
            if lowest is None:
                return
            before = int(lowest)
            yield before, sorted((int(offset) for offset, name in rows if name is not None), reverse=True)

    def clients(self, stream: str) -> list[ClientRow]:
        """Gives the registered clients of a stream and of ``all``, by name."""
        query = "SELECT name, stream, acked, seen FROM subscriber WHERE stream IN (?, 'all') ORDER BY name"
        return [ClientRow(*row) for row in self._ask(self._all, query, (stream,))]

    def expired(self) -> tuple[int, str] | None:
        """Gives offset and ``received`` of the last event that has expired; None where none has."""
        query = "SELECT \"offset\", received FROM expired WHERE stream = 'all'"
        rows = self._ask(self._all, query, ())
        return (int(rows[0][0]), rows[0][1]) if rows else None

    def _ask(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs ``work`` with a cursor, in a transaction of its own; raises CommandError."""
        try:
            connection = self._pool.connect()
            cursor = connection.cursor()
            try:
                return work(cursor, *arguments)
            finally:
                cursor.close()
                connection.rollback()
        except StateError as error:
            raise CommandError(f"the event log cannot be read: {error}") from None
        except Exception as error:  # noqa: BLE001 - whatever the driver raises
            raise CommandError(self._complaint(error)) from None

    def _complaint(self, error: Exception) -> str:
        fault = self._backend.judge(error)
        reason = " ".join(str(error).split())
        if isinstance(error, AttributeError | TypeError):
            raise error
        if fault is Fault.FOREIGN:
            return f"{self.name} is no event log of notifyd: {reason}"
        if fault is Fault.CORRUPT:
            return f"the event log {self.name} is corrupt: {reason}"
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte of an extended code
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return f"the event log {self.name} cannot be read by you ({reason}): {_AS_ITS_USER}"
        return f"the event log {self.name} cannot be read now: {reason}"
