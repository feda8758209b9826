"""The backplane: per stream, the lines of recent events, encoded once and kept once for whoever reads them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, chain, compress, pairwise, repeat
from typing import NamedTuple, Protocol

CHUNK = 64 * 1024
"""Bytes of lines that are joined to one chunk: what a subscriber is sent at once. One that is slow copies nothing, but
keeps the chunk that it has not taken whole from being freed."""

ALL = "all"
"""The stream that carries the events of every priority."""


class Chunk:
    """Some events of one stream, joined, each line with its LF.

    Args:
        offsets: of the events, ascending.
        data: the lines.
    """

    __slots__ = ("data", "first", "last", "offsets")

    def __init__(self, offsets: Sequence[int], data: bytes) -> None:
        self.data = data
        self.first = offsets[0]
        self.last = offsets[-1]
        # Offsets without a hole, as those of a batch of one priority, need no list.
        whole = self.last - self.first + 1 == len(offsets)
        self.offsets: Sequence[int] = range(self.first, self.last + 1) if whole else array("Q", offsets)

    @property
    def memory(self) -> int:
        """Bytes that it takes, nearly."""
        return len(self.data) + (0 if isinstance(self.offsets, range) else 8 * len(self.offsets)) + 300

    def behind(self, offset: int) -> tuple[int, int]:
        """Gives where in ``data`` the lines behind ``offset`` begin, and how many they are."""
        index = bisect_right(self.offsets, offset)
        if index == 0:
            return 0, len(self.offsets)
        return len(self.data) - len(self.data.split(b"\n", index)[index]), len(self.offsets) - index


class Lines(NamedTuple):
    """Lines of events, joined, each with its LF; their offsets, which ascend, and the bytes of each."""

    offsets: Sequence[int]
    data: bytes
    sizes: Sequence[int]

    def only(self, wanted: Sequence[bool]) -> Lines:
        """Gives those that are wanted."""
        sizes = list(compress(self.sizes, wanted))
        places = compress(pairwise(accumulate(self.sizes, initial=0)), wanted)
        data = b"".join([self.data[start:end] for start, end in places])
        return Lines(list(compress(self.offsets, wanted)), data, sizes)


def make_chunks(lines: Lines) -> list[Chunk]:
    """Cuts lines into chunks of at most :data:`CHUNK` bytes, a longer line by itself."""
    offsets, data, sizes = lines
    if not sizes:
        return []
    if len(data) <= CHUNK:
        return [Chunk(offsets, data)]
    ends = list(accumulate(sizes))
    chunks: list[Chunk] = []
    start = place = 0
    while start < len(ends):
        stop = max(bisect_right(ends, place + CHUNK, start), start + 1)
        chunks.append(Chunk(offsets[start:stop], data[place : ends[stop - 1]]))
        start, place = stop, ends[stop - 1]
    return chunks


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
        if not self._chunks or self._chunks[-1].last <= after:
            return None  # what a subscriber that has caught up is told each time
        low, high = 0, len(self._chunks)
        while low < high:
            middle = (low + high) // 2
            if self._chunks[middle].last > after:
                high = middle
            else:
                low = middle + 1
        return self._chunks[low]


class Backplane:
    """All streams of the hub.

    Args:
        streams: names of the streams that are served.
        end: the log's last offset when the hub starts.
        stream_memory: bytes for each.
    """

    def __init__(self, streams: Sequence[str], end: int, stream_memory: int) -> None:
        self.streams = {name: Stream(name, end, stream_memory) for name in streams}

    def publish(self, lines: Lines, runs: Sequence[tuple[str, int]], end: int) -> None:
        """Publishes a stored batch.

        Args:
            lines: of its events.
            runs: their priorities, and how many in a row have each.
            end: the last offset of the batch, also of what is sent to nobody.
        """
        chunks = {ALL: make_chunks(lines)}
        kinds = {priority for priority, _ in runs}
        for kind in kinds:
            if len(kinds) == 1:
                chunks[kind] = chunks[ALL]  # the usual case: the same objects
            else:
                wanted = chain.from_iterable(repeat(priority == kind, count) for priority, count in runs)
                chunks[kind] = make_chunks(lines.only(list(wanted)))
        for name, stream in self.streams.items():
            stream.publish(chunks.get(name, ()), end)
