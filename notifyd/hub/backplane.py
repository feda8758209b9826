"""The backplane: per stream, the lines of recent events, encoded once and kept once for whoever reads them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Protocol

CHUNK = 64 * 1024
"""Bytes that are handed to a subscriber at once: what a slow one can have waiting beyond its socket's buffer."""

ALL = "all"
"""The stream that carries the events of every priority."""


class Chunk:
    """Some events of one stream, joined, each line with its LF.

    Args:
        offsets: of the events, ascending.
        ends: where each line ends in ``data``.
        data: the lines.
    """

    __slots__ = ("data", "ends", "offsets")

    def __init__(self, offsets: Sequence[int], ends: Sequence[int], data: bytes) -> None:
        self.offsets = array("Q", offsets)
        self.ends = array("I", ends)
        self.data = data

    @property
    def first(self) -> int:
        """The offset of the first event."""
        return self.offsets[0]

    @property
    def last(self) -> int:
        """The offset of the last event."""
        return self.offsets[-1]

    @property
    def memory(self) -> int:
        """Bytes that it takes, nearly."""
        return len(self.data) + 12 * len(self.offsets) + 300

    def after(self, offset: int) -> bytes:
        """Gives the lines behind ``offset``."""
        index = bisect_right(self.offsets, offset)
        return self.data[self.ends[index - 1] :] if index else self.data


def make_chunks(offsets: Sequence[int], lines: Sequence[bytes]) -> list[Chunk]:
    """Joins lines (without line ends) to chunks of at most :data:`CHUNK` bytes, a longer line by itself."""
    chunks: list[Chunk] = []
    start = size = 0
    ends: list[int] = []
    for index, line in enumerate(lines):
        length = len(line) + 1
        if ends and size + length > CHUNK:
            chunks.append(_join(offsets[start:index], ends, lines[start:index]))
            start, size, ends = index, 0, []
        size += length
        ends.append(size)
    if ends:
        chunks.append(_join(offsets[start:], ends, lines[start:]))
    return chunks


def _join(offsets: Sequence[int], ends: Sequence[int], lines: Sequence[bytes]) -> Chunk:
    return Chunk(offsets, ends, b"\n".join(lines) + b"\n")


class Listener(Protocol):
    """A subscriber that has everything of its stream and can take more at once."""

    def deliver(self, chunk: Chunk) -> None:
        """Takes the chunk behind what it has."""


class Stream:
    """The events of one priority, or of all, as far as they fit into memory.

    ``end`` is the offset up to which everything of the hub is published: a cursor at ``end`` has it all.
    ``start`` is the offset behind which everything of this stream is in memory.

    Args:
        name: of the stream.
        end: the log's last offset when the hub starts.
        max_bytes: memory for its chunks; the oldest go when it is exceeded.
    """

    def __init__(self, name: str, end: int, max_bytes: int) -> None:
        self.name = name
        self.start = self.end = end
        self.memory = 0
        self.listeners: set[Listener] = set()
        self._chunks: deque[Chunk] = deque()
        self._max_bytes = max_bytes

    def publish(self, chunks: Sequence[Chunk], end: int) -> None:
        """Adds chunks, and moves ``end``; a listener gets each chunk as long as it stays one."""
        for chunk in chunks:
            self._chunks.append(chunk)
            self.memory += chunk.memory
            self.end = chunk.last
            for listener in tuple(self.listeners):
                listener.deliver(chunk)
        self.end = end
        while self.memory > self._max_bytes:
            oldest = self._chunks.popleft()
            self.memory -= oldest.memory
            self.start = oldest.last

    def read(self, after: int) -> Chunk | None:
        """Gives the first chunk with an event behind ``after``; None where there is none in memory.

        Only asked for an ``after`` that is not before ``start``; else the answer is in the log.
        """
        low, high = 0, len(self._chunks)
        while low < high:
            middle = (low + high) // 2
            if self._chunks[middle].last > after:
                high = middle
            else:
                low = middle + 1
        return self._chunks[low] if low < len(self._chunks) else None


class Backplane:
    """All streams of the hub.

    Args:
        streams: names of the streams that are served.
        end: the log's last offset when the hub starts.
        stream_memory: bytes for each.
    """

    def __init__(self, streams: Sequence[str], end: int, stream_memory: int) -> None:
        self.streams = {name: Stream(name, end, stream_memory) for name in streams}

    def publish(self, events: Sequence[tuple[int, str, bytes]], end: int) -> None:
        """Publishes a stored batch.

        Args:
            events: offset, priority and line of each, in the order of the offsets.
            end: the last offset of the batch.
        """
        for name, stream in self.streams.items():
            mine = events if name == ALL else [event for event in events if event[1] == name]
            stream.publish(make_chunks([event[0] for event in mine], [event[2] for event in mine]), end)
