"""The durable, ordered event log: what is written to it, in which order, and what a failure means."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from notifyd.database import Fault, NewerSchemaError, StateError, in_one_line
from notifyd.event import NotAcceptableError, read_columns
from notifyd.hub import statements
from notifyd.hub.backend import Backend, ask
from notifyd.hub.entries import Entries, Entry
from notifyd.hub.records import Batch, Memory, highest

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 5.0


class EventLog:
    """Writes the log; the one writer, one batch at a time.

    Args:
        backend: the database that holds it.
        reactor: its clock, threads and shutdown are used.
        refused: gives the entry that is stored in place of one that the database refuses, and why.
        now: the wall clock, in seconds since 1970.
    """

    log = Logger("notifyd.hub.log")

    def __init__(
        self,
        backend: Backend,
        reactor: Any,
        refused: Callable[[Entry, str], Entry],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.away = False
        self._backend = backend
        self._reactor = reactor
        self._refused = refused
        self._now = now
        self._pool: Any = None
        self._session = 0  # in which a batch was written last

    async def open(self) -> Memory:
        """Opens the database and brings its schema up to date; waits for one that is locked, full or away.

        Raises:
            StateError: another process writes it, it is corrupt, or it is of a newer version.
        """
        self._backend.acquire()
        self._pool = self._backend.open_writer(self._reactor)
        try:
            # A new index on a large log takes its time: this is not bounded.
            memory: Memory = await self._persist(lambda: self._interact(statements.load, bounded=False))
        except NewerSchemaError as error:
            raise NewerSchemaError(f"the database {self._backend.name} cannot be used: {error}") from None
        self._backend.opened()
        self._session = self._backend.sessions
        memory.last = max(memory.last, int(self._now() * 1_000_000) - 1)
        return memory

    def close(self) -> None:
        """Closes the database; what is still under way, since the database is away, ends with an error."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._backend.release()

    async def append(self, batch: Batch) -> None:
        """Stores a batch, however long it takes; when this returns it is on the disk.

        An entry that the database refuses is replaced, in ``batch`` too, by an event that tells of it.

        Raises:
            StateError: the database is corrupt or gone, and no retry will help.
        """
        attempts = 0

        def attempt() -> Deferred[Any]:
            nonlocal attempts
            attempts += 1
            return self._interact(self._write, batch, attempts > 1)

        try:
            await self._persist(attempt)
        except StateError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the driver makes of bad data
            await self._append_halves(batch, error)
        self._backend.check()

    async def _append_halves(self, batch: Batch, error: Exception) -> None:
        """Finds the entry that the database refuses by halving the batch around it."""
        entries = list(batch.entries)
        if len(entries) > 1:
            middle = len(entries) // 2
            # Positions go with their events, and windows with the one that opened each: between the two halves the hub
            # may be killed. A window may then count what comes again; without it repeats would never be told.
            positions = highest(entry.position for entry in entries[:middle] if entry.position is not None)
            windows = [row for row in batch.windows[0] if row.offset < entries[middle].offset]
            first = Batch(Entries.of(entries[:middle]), positions=positions, windows=(windows, ()))
            second = replace(batch, entries=Entries.of(entries[middle:]))
            await self.append(first)
            await self.append(second)
            batch.entries = Entries.of((*first.entries, *second.entries))
        elif entries and not _is_refusal(entries[0]):
            words = in_one_line(error)
            self.log.error("The database refuses an event: {error}", error=words, offset=entries[0].offset)
            batch.entries = Entries.of([self._refused(entries[0], f"the database refuses it: {words}")])
            await self.append(batch)
        else:
            reason = f"refuses what every database takes: {in_one_line(error)}"
            raise StateError(f"the database {self._backend.name} {reason}") from error

    async def expire(self, cutoff: str, most: int) -> dict[str, int]:
        """Deletes the oldest events whose ``received`` is before ``cutoff``, never the newest one.

        Args:
            cutoff: an RFC 3339 time in the hub's own format.
            most: events at once, so that no batch waits for long.

        Returns:
            how many went of each priority.

        Raises:
            Exception: the database did not do it; nothing is changed then.
        """
        counts: dict[str, int] = await self._interact(statements.expire, cutoff, most)
        return counts

    async def positions(self, spool: str) -> dict[str, int]:
        """Gives the highest stored sequence of each lane of a spool; waits for a database that is away."""
        positions: dict[str, int] = await self._persist(lambda: self._interact(statements.positions, spool))
        return positions

    def _write(self, cursor: Any, backend: Backend, batch: Batch, again: bool) -> None:
        """Writes a batch, in the pool's thread; a new connection is a reason to look what is stored."""
        again = again or backend.sessions != self._session
        statements.write(cursor, backend, batch, again)
        self._session = backend.sessions

    def _interact(self, work: Callable[..., Any], *arguments: object, bounded: bool = True) -> Deferred[Any]:
        pool, backend = self._pool, self._backend
        if pool is None:
            raise StateError(f"the database {backend.name} is closed")
        return ask(self._reactor, backend, pool, lambda cursor: work(cursor, backend, *arguments), bounded=bounded)

    async def _persist(self, work: Callable[[], Any]) -> Any:
        """Tries again, with growing pauses, as long as only the connection or the disk is at fault."""
        pause = RETRY_FIRST_S
        while True:
            try:
                result = await work()
            except StateError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever no retry helps against is raised again
                self._judge(error)
                await deferLater(self._reactor, pause)
                pause = min(2 * pause, RETRY_MOST_S)
            else:
                if self.away:
                    self.away = False
                    self.log.info("The database can be used again.")
                return result

    def _judge(self, error: Exception) -> None:
        """Raises what no retry helps against; logs the beginning of everything else."""
        name, words = self._backend.name, in_one_line(error)
        fault = self._backend.judge(error)
        if fault is Fault.FOREIGN:
            raise StateError(f"the database {name} is not notifyd's, or was changed: {words}") from error
        if fault is Fault.DENIED:
            raise StateError(f"the database {name} does not let its user do what the hub must: {words}") from error
        if fault is Fault.CORRUPT:
            raise StateError(f"the database {name} is corrupt ({words}): restore it or move it aside") from error
        if fault is not Fault.AWAY:
            raise error
        if not self.away:
            self.away = True
            self.log.error("The database cannot be used; nothing is acknowledged until it can: {error}", error=words)


def _is_refusal(entry: Entry) -> bool:
    try:
        event = read_columns(entry.line)
    except NotAcceptableError:
        return False
    return (event.source, event.type) == ("/hub/ingest", "notifyd.rejected")
