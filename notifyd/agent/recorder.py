"""Records what a port delivers: takes it in the reactor, writes it in a thread, and never holds the reading up."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from notifyd import config_agent
from notifyd.agent.recording import Entry, Kind
from notifyd.agent.recording_files import RecordingFiles

FLUSH_S = 0.5
"""For how long what was read may wait to be written; a crash of the agent costs no more."""

WRITE_AT = 256 * 1024
"""Bytes that wait until they are written at once, without that pause."""

MAX_WAITING = 4 * 1024 * 1024
"""Bytes that wait while the disk is slow; beyond that what is read is counted, and not recorded."""

ENTRY_COST = 128
"""Bytes that an entry counts for beside its data: what Python needs for it, roughly."""

STOP_S = 2.0
"""How long a stop waits for the disk."""

Job = Callable[[], None]
Done = Callable[[Exception | None], None]


class NoRecorder:
    """Stands for a recorder where nothing is recorded."""

    def opened(self) -> None:
        """The port was opened."""

    def data(self, data: bytes) -> None:
        """The port has delivered bytes."""

    def closed(self, reason: str) -> None:
        """The port was lost, or, where there is no reason, closed."""


class Worker(Protocol):
    """Runs what blocks, one after the other, away from the reactor."""

    def run(self, job: Job, done: Done) -> None:
        """Runs ``job``; then calls ``done`` in the reactor, with what it has raised."""
        ...


class WriterThread:
    """One thread for all recordings, begun when it is needed.

    It is no thread of the reactor's pool: there, a disk that hangs would keep names from being resolved.

    Args:
        reactor: is called back.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._jobs: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, job: Job, done: Done) -> None:
        """Runs ``job``; then calls ``done`` in the reactor, with what it has raised."""
        if self._thread is None:
            # A daemon: a disk that does not answer must not keep the process from ending.
            self._thread = threading.Thread(target=self._work, name="recordings", daemon=True)
            self._thread.start()
        self._jobs.put((job, done))

    def stop(self) -> None:
        """Has the thread end after what it was given; does not wait for it."""
        if self._thread is not None:
            self._thread = None
            self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            raised: Exception | None = None
            try:
                job()
            except Exception as error:  # noqa: BLE001 - it is judged in the reactor
                raised = error
            self._reactor.callFromThread(done, raised)


class Recorder(NoRecorder):
    """Records one source.

    Args:
        reactor: gives the time, which must not go back, and runs the timer.
        source: the settings of the source.
        record: where and how much is kept.
        folder: of the recordings, where ``record`` names none.
        worker: writes.
        now: the wall clock, in seconds since 1970.

    Attributes:
        is_stopped: whether nothing is recorded any more, since it was stopped or cannot be written.
    """

    log = Logger("notifyd")

    def __init__(
        self,
        reactor: Any,
        source: config_agent.Source,
        record: config_agent.RecordSettings,
        folder: Path,
        worker: Worker,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.is_stopped = False
        self._folder = folder if record.folder is None else Path(record.folder).expanduser()
        self._reactor, self._name, self._worker = reactor, source.name, worker
        self._files = RecordingFiles(self._folder, source, record.max_size, record.max_files, now)
        self._waiting: list[Entry] = []
        self._waiting_bytes = 0
        self._lost_bytes = 0
        self._timer: Any = None
        self._is_writing = self._is_last = False
        self._done: Deferred[None] | None = None

    def opened(self) -> None:
        """The port was opened."""
        self._take(Entry(self._reactor.seconds(), Kind.OPEN))

    def data(self, data: bytes) -> None:
        """The port has delivered bytes."""
        if self._waiting_bytes + len(data) > MAX_WAITING:
            self._lost_bytes += len(data)
        else:
            self._take(Entry(self._reactor.seconds(), Kind.DATA, data))

    def closed(self, reason: str) -> None:
        """The port was lost, or, where there is no reason, closed."""
        self._take(Entry(self._reactor.seconds(), Kind.CLOSE, text=reason))

    def stop(self) -> Deferred[None]:
        """Writes what waits and closes the file; nothing more is recorded.

        Returns:
            Fires when that is done, and after ``STOP_S`` at the latest.
        """
        if self.is_stopped:
            return succeed(None)
        self.is_stopped = True
        done: Deferred[None] = Deferred()
        self._done = done
        if not self._is_writing:
            self._write()
        return done.addTimeout(STOP_S, self._reactor).addErrback(lambda failure: None)

    def _take(self, entry: Entry) -> None:
        if self.is_stopped or self._waiting_bytes > MAX_WAITING + ENTRY_COST:
            return  # beyond it not even what happened to the port is kept
        if self._lost_bytes:
            self._waiting.append(Entry(entry.at_s, Kind.LOST, lost=self._lost_bytes))
            self._lost_bytes = 0
        self._waiting.append(entry)
        self._waiting_bytes += len(entry.data) + ENTRY_COST
        if self._is_writing:
            return
        if self._waiting_bytes >= WRITE_AT:
            self._write()
        elif self._timer is None:
            self._timer = self._reactor.callLater(FLUSH_S, self._write)

    def _write(self) -> None:
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
        entries, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._lost_bytes:
            entries.append(Entry(self._reactor.seconds(), Kind.LOST, lost=self._lost_bytes))
            self._lost_bytes = 0
        self._is_writing, self._is_last = True, self.is_stopped
        is_last = self._is_last

        def job() -> None:
            try:
                self._files.write(entries)
            except BaseException:
                self._files.close()
                raise
            if is_last:
                self._files.close()

        self._worker.run(job, self._written)

    def _written(self, error: Exception | None) -> None:
        self._is_writing = False
        if error is not None:
            self._give_up(error)
        elif self.is_stopped and not self._is_last:
            self._write()
            return
        elif self._waiting_bytes >= WRITE_AT:
            self._write()
        elif self._waiting:
            self._timer = self._reactor.callLater(FLUSH_S, self._write)
        if self._done is not None and not self._done.called:
            self._done.callback(None)

    def _give_up(self, error: Exception) -> None:
        self.is_stopped = True
        self._waiting, self._waiting_bytes = [], 0
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        self.log.error(
            "Source {source} is not recorded any more: {folder} cannot be written: {reason}",
            source=self._name,
            folder=str(self._folder),
            reason=reason,
        )
