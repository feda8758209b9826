"""Reading the spool for the uplink, and what keeps the spool from being read or written for a while."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from notifyd.agent import spool_store
from notifyd.agent.positions import Positions
from notifyd.agent.spool_file import SpoolFile, judge
from notifyd.agent.spool_store import Batch
from notifyd.database import Fault
from notifyd.event import Priority
from notifyd.wire import MAX_LINE

RETRY_MIN_S, RETRY_MAX_S = 0.1, 5.0
"""The first and the longest wait before a file that cannot be written, or read, is tried again."""

REOPEN_AFTER = 3
"""Failures in a row after which the file is opened anew: some faults are the connection's."""

READ_BYTES = 256 * 1024
"""Bytes that are read at once: enough to make the cost of a read small, and a quarter of the hub's window."""


class Trouble:
    """Failures in a row: one line when they begin, one when they are over.

    Args:
        file: what fails.
        written: says what cannot be done, as in ``written``.
        meanwhile: says what that leads to.
    """

    log = Logger("notifyd.agent")

    def __init__(self, file: SpoolFile, written: str, meanwhile: str) -> None:
        self.failures = 0
        self._file, self._written, self._meanwhile = file, written, meanwhile

    def __bool__(self) -> bool:
        return self.failures > 0

    @property
    def delay_s(self) -> float:
        """How long to wait before the next try."""
        return min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(max(self.failures - 1, 0), 16))

    def note(self, error: Exception, *, is_told: bool = False) -> None:
        """Counts a failure; ``is_told`` when somebody else has logged it."""
        self.failures += 1
        if is_told:
            return
        if self.failures == 1:
            self.log.warn(
                "The spool {path} cannot be {written}, {meanwhile}: {reason}",
                path=self._file.path,
                written=self._written,
                meanwhile=self._meanwhile,
                reason=str(error) or type(error).__name__,
            )
        elif self.failures % REOPEN_AFTER == 0:
            self._file.close()

    def over(self) -> None:
        """It works."""
        if self.failures:
            self.failures = 0
            self.log.info("The spool {path} is {written} again.", path=self._file.path, written=self._written)


class SpoolReader:
    """Reads for one connection after the other.

    Args:
        file: the spool's.
        positions: how far everything is; reading moves it.
        clock: for the wait after a failure.
        on_corrupt: is called with the error when the file is of no use any more.
        on_again: is called when a wait is over.
    """

    def __init__(
        self,
        file: SpoolFile,
        positions: Positions,
        clock: Any,
        on_corrupt: Callable[[Exception], None],
        on_again: Callable[[], None],
    ) -> None:
        self._file, self._at, self._clock = file, positions, clock
        self._on_corrupt, self._on_again = on_corrupt, on_again
        self._trouble = Trouble(file, "read", "nothing is sent")
        self._pause: Any = None
        self._is_closed = False
        self._bytes_per_line = 8 * 1024.0  # a first guess on the high side: the first read is a small one

    async def next(self, room: int, is_held: Callable[[], bool]) -> Batch | None:
        """Reads the most urgent events that the connection has not had.

        Args:
            room: how many bytes they may have, line ends included.
            is_held: whether nothing may be read just now.
        """
        connection = self._at.connection
        await self._file.turn.acquire()
        try:
            while (lane := self._at.next_lane()) is not None:
                is_away = self._pause is not None or not self._file.is_open
                if is_away or is_held() or connection != self._at.connection:
                    return None
                batch, is_empty = await self._read(lane, room)
                if connection != self._at.connection or (batch is None and not is_empty):
                    return None
                self._at.note_read(lane, batch)
                if batch is not None:
                    return batch
        except Exception as error:  # noqa: BLE001 - whatever the database raises is judged
            self._judge(error)
        finally:
            self._file.turn.release()
        return None

    async def _read(self, lane: Priority, room: int) -> tuple[Batch | None, bool]:
        size = min(room, max(READ_BYTES, MAX_LINE + 1))
        rows = int(size / self._bytes_per_line) + 1
        work = functools.partial(spool_store.read, lane=lane, after=self._at.read[lane], rows=rows, room=size)
        batch, any_left = await self._file.run(work)
        self._trouble.over()
        if batch is not None:
            self._bytes_per_line = len(batch.lines) / batch.count
        return batch, not any_left

    def _judge(self, error: Exception) -> None:
        if judge(error) is Fault.CORRUPT:
            self._on_corrupt(error)
            return
        self._trouble.note(error)
        if not self._is_closed:
            self._pause = self._clock.callLater(self._trouble.delay_s, self._again)

    def _again(self) -> None:
        self._pause = None
        self._on_again()

    def close(self) -> None:
        """Stops waiting."""
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
