"""The backplane against a plain model: nothing lost, nothing reordered, memory under its limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.hub.backplane import ALL, CHUNK, Backplane, Chunk, Lines, Stream, make_chunks

NAMES = ("normal", "critical", ALL)
SIZES = st.sampled_from([1, 1_000, 30_000, CHUNK // 2, CHUNK - 1, CHUNK, 2 * CHUNK])
BATCHES = st.lists(st.lists(st.tuples(st.sampled_from(NAMES[:2]), SIZES, st.integers(1, 5)), max_size=6), max_size=6)


def batches_of(plan: list[list[tuple[str, int, int]]], end: int) -> Iterator[tuple[list[tuple[int, str, bytes]], int]]:
    """Gives batches of events with ascending offsets, and the end of each."""
    for rows in plan:
        batch = []
        for priority, size, step in rows:
            end += step
            batch.append((end, priority, b"%d:" % end + b"x" * size))
        end += 2  # the last event of a batch may be of another stream
        yield batch, end


def publish(plane: Backplane, batch: list[tuple[int, str, bytes]], end: int) -> None:
    """Publishes events that are given one by one."""
    offsets, priorities, lines = zip(*batch, strict=True) if batch else ((), (), ())
    plane.publish(joined(offsets, lines), [(priority, 1) for priority in priorities], end)


def joined(offsets: Sequence[int], lines: Sequence[bytes]) -> Lines:
    """Joins lines."""
    return Lines(offsets, b"".join(line + b"\n" for line in lines), [len(line) + 1 for line in lines])


def read_all(stream: Stream, after: int) -> bytes:
    """Reads everything behind a cursor."""
    read = b""
    while (chunk := stream.read(after)) is not None:
        start, events = chunk.behind(after)
        assert chunk.last > after
        assert events == chunk.data.count(b"\n", start)
        read += chunk.data[start:]
        after = chunk.last
    return read


@settings(max_examples=50, deadline=None)
@given(BATCHES, st.sampled_from([CHUNK, 3 * CHUNK, 10**7]), st.integers(0, 1000))
def test_a_cursor_anywhere_in_memory_reads_exactly_what_is_behind_it(
    plan: list[list[tuple[str, int, int]]], limit: int, start: int
) -> None:
    """For every offset that is not before the stream's start, after every batch."""
    plane = Backplane(NAMES, start, limit)
    published: list[tuple[int, str, bytes]] = []
    for batch, end in batches_of(plan, start):
        publish(plane, batch, end)
        published += batch
        for name, stream in plane.streams.items():
            mine = [(offset, line) for offset, priority, line in published if name in (ALL, priority)]
            assert stream.memory <= limit
            assert stream.end == end
            assert stream.start <= end
            for cursor in {stream.start, end, *(offset for offset, _ in mine), *(offset - 1 for offset, _ in mine)}:
                if cursor >= stream.start:
                    expected = b"".join(line + b"\n" for offset, line in mine if offset > cursor)
                    assert read_all(stream, cursor) == expected


class Reader:
    """A listener that goes away after so many chunks, as one that is paused does."""

    def __init__(self, stream: Stream, patience: int) -> None:
        self.stream, self.patience, self.read, self.last = stream, patience, b"", 0
        stream.listeners.add(self)

    def deliver(self, chunk: Chunk) -> None:
        assert chunk.first > self.last
        self.read += chunk.data
        self.last = chunk.last
        self.patience -= 1
        if not self.patience:
            self.stream.listeners.discard(self)


@settings(max_examples=50, deadline=None)
@given(BATCHES, st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_listeners_get_each_chunk_as_long_as_they_listen(
    plan: list[list[tuple[str, int, int]]], patience: list[int]
) -> None:
    """Also amid a batch; what one that stopped has not had, it can read from its cursor on."""
    plane = Backplane(NAMES, 0, 10**8)
    stream = plane.streams["normal"]
    readers = [Reader(stream, each) for each in patience]
    expected = b""
    for batch, end in batches_of(plan, 0):
        publish(plane, batch, end)
        expected += b"".join(line + b"\n" for _, priority, line in batch if priority == "normal")
    for reader in readers:
        assert reader.read + read_all(stream, reader.last) == expected


@given(st.lists(SIZES, max_size=20))
def test_chunks_are_bounded_and_hold_every_line_whole(sizes: list[int]) -> None:
    """A longer line stands by itself."""
    lines = [b"x" * size for size in sizes]
    chunks = make_chunks(joined(range(1, len(lines) + 1), lines))
    assert b"".join(chunk.data for chunk in chunks) == b"".join(line + b"\n" for line in lines)
    assert [offset for chunk in chunks for offset in chunk.offsets] == list(range(1, len(lines) + 1))
    assert all(len(chunk.data) <= CHUNK or len(chunk.offsets) == 1 for chunk in chunks)
    for chunk, after in pairwise(chunks):
        assert len(chunk.data) + after.data.index(b"\n") + 1 > CHUNK, "more would have had room"
    for chunk in chunks:
        assert chunk.behind(chunk.first - 1) == (0, len(chunk.offsets))
        assert chunk.behind(chunk.last) == (len(chunk.data), 0)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=20))
def test_offsets_with_holes_are_kept_as_those_without(steps: list[int]) -> None:
    """Of a chunk whose events are not all of one stream."""
    offsets = list(accumulate(steps))
    (chunk,) = make_chunks(joined(offsets, [b"%d" % offset for offset in offsets]))
    assert list(chunk.offsets) == offsets
    for after in range(offsets[-1] + 2):
        start, events = chunk.behind(after)
        assert chunk.data[start:].split() == [b"%d" % offset for offset in offsets if offset > after]
        assert events == sum(offset > after for offset in offsets)


def test_a_batch_of_one_priority_is_joined_once() -> None:
    """Its stream and that of all events share the chunks."""
    plane = Backplane(("normal", "critical", ALL), 0, 10**7)
    plane.publish(joined([1, 2], [b"a", b"b"]), [("normal", 2)], 2)
    assert plane.streams["normal"].read(0) is plane.streams[ALL].read(0)
    assert plane.streams["critical"].read(0) is None
    publish(plane, [(3, "normal", b"c"), (4, "critical", b"d")], 4)
    assert read_all(plane.streams["normal"], 0) == b"a\nb\nc\n"
    assert read_all(plane.streams["critical"], 0) == b"d\n"
    assert read_all(plane.streams[ALL], 0) == b"a\nb\nc\nd\n"


def test_a_chunk_that_exceeds_the_memory_by_itself_is_not_kept() -> None:
    """It has been delivered; who has not had it finds it in the log."""
    plane = Backplane(["normal"], 0, CHUNK)
    stream = plane.streams["normal"]
    reader = Reader(stream, 10)
    publish(plane, [(1, "normal", b"x" * CHUNK)], 1)
    assert len(reader.read) == CHUNK + 1
    assert (stream.memory, stream.start, stream.end) == (0, 1, 1)
    assert stream.read(1) is None
    publish(plane, [], 5)
    assert stream.end == 5
