"""The event log in PostgreSQL: one session that holds the log's lock writes it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger

from notifyd import postgresql
from notifyd.database import Fault, StateError
from notifyd.hub.backend import read_rows
from notifyd.hub.records import Batch, Found
from notifyd.hub.statements import EVENT_COLUMNS, MIGRATIONS, write_rest, write_states

ANSWER_TIMEOUT_S = 30.0
"""How long one interaction may wait for the server; then the connection is given up and the batch tried again."""

LOCK_PATIENCE_S = 3.0
"""How long the lock may be held by someone else: the session of a hub that was killed ends within moments."""

_LOCK_PAUSE_S = 0.1
_LOCK_CLASS = 0x6E6F7469
"""The first key of the advisory lock, "noti"; the second is made from the schema, so that each can have a log."""

_COPY = f"COPY event ({EVENT_COLUMNS}) FROM STDIN"

# A session is known by what it calls itself, since the server may not know yet that its client is gone.
_HOLDER = """
    SELECT a.pid, coalesce(a.application_name, 'of another user'), coalesce(a.client_addr::text, 'this machine')
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.classid = %s AND l.objid = hashtext(current_schema())::bigint & 4294967295
"""


def _ddl(script: str) -> str:
    """Gives a script of SQLite's with PostgreSQL's types; times compare as text, whatever the database's order."""
    # A new index on a large log takes longer than any other statement may.
    return "SET LOCAL statement_timeout = 0;" + (
        script.replace("INTEGER", "BIGINT")
        .replace(" WITHOUT ROWID", "")
        .replace("received TEXT", 'received TEXT COLLATE "C"')
    )


class PostgresqlBackend:
    """A log in a PostgreSQL database, in the first schema of the session's search path.

    Args:
        url: of the database.

    Raises:
        StateError: psycopg is not installed, or cannot use the URL.
    """

    log = Logger("notifyd.hub.log")
    begin_write = ""  # psycopg begins a transaction with the first statement
    begin_snapshot = ""  # and the readers' sessions are of isolation level repeatable read
    page_rows = 250  # psycopg fetches a whole result
    answer_timeout_s: float | None = ANSWER_TIMEOUT_S
    table = "event"
    migrations: Sequence[str] = [_ddl(script) for script in MIGRATIONS]

    def __init__(self, url: str) -> None:
        try:
            self.name = postgresql.describe(url)
        except ValueError as error:
            raise StateError(f"the database's URL cannot be used: {error}") from None
        self.sessions = 0
        self._url = url
        self._application = f"notify-hub {secrets.token_hex(8)}"

    def acquire(self) -> None:
        """Does nothing: the lock is the session's, and taken with each new connection."""

    def release(self) -> None:
        """Does nothing: the lock ends with the session."""

    def open_writer(self, reactor: Any) -> Any:
        """Gives the pool that writes; one thread keeps interactions in order."""
        return postgresql.Pool(
            self._url,
            reactor=reactor,
            threads=1,
            application=self._application,
            settings={
                "statement_timeout": f"{ANSWER_TIMEOUT_S:.0f}s",
                "idle_in_transaction_session_timeout": f"{2 * ANSWER_TIMEOUT_S:.0f}s",
                "default_transaction_read_only": "off",
                # The server finds within 15 s that this machine is gone, and gives the lock back.
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "5",
            },
            prepare=self._prepare_writer,
        )

    def open_reader(self, reactor: Any, threads: int) -> Any:
        """Gives a pool that can only read."""
        return postgresql.Pool(
            self._url,
            reactor=reactor,
            threads=threads,
            application="notify-hub reader",
            settings={
                "statement_timeout": f"{ANSWER_TIMEOUT_S:.0f}s",
                "default_transaction_read_only": "on",
                "default_transaction_isolation": r"repeatable\ read",
            },
        )

    def cut(self, pool: Any) -> None:
        """Ends what has waited in a pool's thread for ``answer_timeout_s``, with an error."""
        pool.cut(self.answer_timeout_s)

    def judge(self, error: BaseException) -> Fault:
        """Tells what an error asks for."""
        return postgresql.judge(error)

    def opened(self) -> None:
        """Does nothing: the server looks after its files."""

    def check(self) -> None:
        """Does nothing, as before."""

    def sql(self, text: str) -> str:
        """Gives a statement with psycopg's parameters; it is for executing with some."""
        return text.replace("%", "%%").replace("?", "%s")

    def write(self, cursor: Any, batch: Batch) -> None:
        """Writes a batch, its events with COPY, which takes twice the rows a second of the next best way."""
        if batch.entries:
            with cursor.copy(_COPY) as copy:
                for entry in batch.entries:
                    copy.write_row(entry.row())
        write_states(cursor, self, batch)
        write_rest(cursor, self, batch)

    def read_events(
        self, cursor: Any, stream: str, condition: str, arguments: Sequence[object], size: int, rows: int | None
    ) -> Found:
        """Reads events, of which the driver fetches ``page_rows`` at once, however many are expected."""
        return read_rows(cursor, self, stream, condition, arguments, size)

    def _prepare_writer(self, connection: Any) -> None:
        """Sees that the session can keep the promise, and takes the log's lock."""
        cursor = connection.cursor()
        for setting, wanted in (("server_encoding", "UTF8"), ("synchronous_commit", "on"), ("fsync", "on")):
            value = cursor.execute(f"SHOW {setting}").fetchone()[0]
            if setting == "server_encoding" and value != wanted:
                raise StateError(f"the database {self.name} has the encoding {value}: notifyd needs {wanted}")
            if setting == "synchronous_commit" and value == "off":
                cursor.execute("SET synchronous_commit = on")
            if setting == "fsync" and value != wanted and not self.sessions:
                self.log.warn("The database server runs with fsync=off: a power loss can cost it what it has stored.")
        connection.commit()
        self._lock(connection, cursor)
        self.sessions += 1

    def _lock(self, connection: Any, cursor: Any) -> None:
        end = time.monotonic() + LOCK_PATIENCE_S
        while True:
            query = "SELECT pg_try_advisory_lock(%s, hashtext(current_schema())), current_schema()"
            locked, schema = cursor.execute(query, (_LOCK_CLASS,)).fetchone()
            if schema is None:
                raise StateError(f"the database {self.name} has no schema in which this user can have tables")
            holder = None if locked else cursor.execute(_HOLDER, (_LOCK_CLASS,)).fetchone()
            if holder is not None and holder[1] == self._application:
                # An earlier session of this very hub, whose connection is lost: what it was doing ends with it.
                cursor.execute("SELECT pg_terminate_backend(%s)", (holder[0],))
            connection.commit()
            if locked:
                return
            if time.monotonic() > end:
                break
            time.sleep(_LOCK_PAUSE_S)
        if holder is None or holder[1] == self._application:
            raise postgresql.psycopg().OperationalError("the lock of the event log is not free yet")
        raise StateError(
            f"another hub ({holder[1]}, process {holder[0]} of the server, from {holder[2]}) uses the event log"
            f" in {self.name}"
        )
