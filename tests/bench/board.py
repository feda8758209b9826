"""Counters that processes share: a file of 64-bit numbers that each maps into its memory."""

from __future__ import annotations

import mmap
from pathlib import Path

STOP = 0
"""Set by the harness: end."""
READY = 1
"""Set by a process: it is connected."""
CLOSED = 2
"""Connections that ended by themselves, which none should."""
TOTAL = 3
"""Events that a drain has read, or a producer has sent."""
ACKED = 4
"""Events of a producer that are acknowledged."""
STUCK = 5
"""How many of a drain's first connections are not read from."""
GO = 6
"""Set by the harness: begin to send."""
DONE = 7
"""Set by a producer: all that it had to send is sent and acknowledged."""
HEADER = 16
"""Where the counters of the single connections begin."""


class Board:
    """The numbers of one process.

    Args:
        path: the file; it is made with room for ``connections`` where it is missing.
        connections: how many have a counter of their own.
    """

    def __init__(self, path: Path, connections: int = 0) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(8 * (HEADER + connections)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._numbers = memoryview(self._map).cast("Q")

    def __getitem__(self, slot: int) -> int:
        return self._numbers[slot]

    def __setitem__(self, slot: int, value: int) -> None:
        self._numbers[slot] = value

    def connections(self) -> list[int]:
        """Gives the events that each connection has read."""
        return self._numbers[HEADER:].tolist()

    def close(self) -> None:
        """Gives the memory back."""
        self._numbers.release()
        self._map.close()
