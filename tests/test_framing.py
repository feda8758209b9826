"""Framing: whatever a device prints and however it arrives, the frames are the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.agent.framing import MAX_FRAME, Frame, LineFramer
from tests.framings import split


def naive(data: bytes) -> tuple[list[Frame], int]:
    """Frames byte by byte, as the design says it; gives the frames, the flushed one too, and the bytes cut off."""
    frames: list[Frame] = []
    skipped = 0
    current = bytearray()
    for byte in [*data, None]:
        if byte is not None and byte not in b"\r\n":
            current.append(byte)
            continue
        if current:
            truncated = len(current) > MAX_FRAME or byte is None
            frames.append(Frame(bytes(current[:MAX_FRAME]), truncated))
        skipped += max(0, len(current) - MAX_FRAME)
        current.clear()
    return frames, skipped


def framed(pieces: list[bytes]) -> tuple[list[Frame], int]:
    """Feeds the pieces one by one, watching the memory, and flushes."""
    framer = LineFramer()
    frames: list[Frame] = []
    for piece in pieces:
        frames += framer.feed(piece, 0.0)
        assert framer.held_bytes <= MAX_FRAME
    rest = framer.flush()
    return frames + ([] if rest is None else [rest]), framer.skipped_bytes


runs = st.builds(
    lambda byte, length: byte * length,
    st.sampled_from([b"x", b"\x00", b"\xff", b"\x0b", b"\x85"]),
    st.sampled_from([1, 2, MAX_FRAME - 1, MAX_FRAME, MAX_FRAME + 1, 2 * MAX_FRAME, 3 * MAX_FRAME + 1]),
)
delimiters = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\r", b"\r\r\n"])
printed = st.lists(st.one_of(runs, delimiters, st.binary(max_size=20)), max_size=12).map(b"".join)
places = st.lists(st.integers(0, 10**6), max_size=20)


@settings(max_examples=200, deadline=None)
@given(printed, places)
def test_any_split_of_any_bytes_gives_the_frames_of_the_naive_model(data: bytes, where: list[int]) -> None:
    """It does not matter how the bytes arrive, and never more than one frame is held."""
    assert framed(split(data, where)) == naive(data)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"b" * MAX_FRAME]), max_size=6).map(b"".join))
def test_one_byte_at_a_time_gives_the_same_frames_as_one_read(data: bytes) -> None:
    """A slow line gives the same frames as a fast one."""
    framer = LineFramer()
    slowly = [frame for place in range(len(data)) for frame in framer.feed(data[place : place + 1], 0.0)]
    slowly += [rest for rest in [framer.flush()] if rest is not None]
    assert (slowly, framer.skipped_bytes) == framed([data])


@pytest.mark.parametrize("delimiter", [b"\n", b"\r", b"\r\n", b"\n\r", b"\r\r\n", b"\n\n\n"])
def test_each_line_end_that_devices_use_ends_a_frame(delimiter: bytes) -> None:
    """LF, CR, CRLF and sloppy mixtures of them all end a frame, and make no empty ones."""
    assert LineFramer().feed(b"one" + delimiter + b"two" + delimiter, 0.0) == [Frame(b"one"), Frame(b"two")]


def test_a_cr_ends_a_frame_at_once_and_the_lf_of_the_next_read_is_swallowed() -> None:
    """A device that ends its lines with CR is not a line behind, and CRLF split over two reads is one end."""
    framer = LineFramer()
    assert framer.feed(b"alarm\r", 0.0) == [Frame(b"alarm")]
    assert framer.feed(b"\nnext\r", 0.0) == [Frame(b"next")]


def test_no_other_byte_ends_a_frame() -> None:
    """Form feeds, NEL and the like are content: only CR and LF delimit."""
    content = bytes(byte for byte in range(256) if byte not in b"\r\n")
    assert LineFramer().feed(content + b"\n", 0.0) == [Frame(content)]


def test_a_frame_of_exactly_the_limit_is_whole() -> None:
    """8 KiB is still allowed."""
    assert LineFramer().feed(b"x" * MAX_FRAME + b"\n", 0.0) == [Frame(b"x" * MAX_FRAME)]


def test_a_frame_over_the_limit_is_cut_at_once_and_its_rest_skipped_and_counted() -> None:
    """A device that never ends its line is heard once, costs no memory, and is heard again after a line end."""
    framer = LineFramer()
    assert framer.feed(b"x" * MAX_FRAME, 0.0) == []
    assert framer.feed(b"y", 0.0) == [Frame(b"x" * MAX_FRAME, truncated=True)]
    assert framer.feed(b"z" * 1_000_000, 0.0) == []
    assert framer.held_bytes == 0
    assert framer.feed(b"zz\ngood\n", 0.0) == [Frame(b"good")]
    assert framer.skipped_bytes == 1_000_003


def test_what_is_left_is_given_as_truncated_when_the_port_is_lost() -> None:
    """The half line before an unplugged cable is not thrown away, and not joined with what comes later."""
    framer = LineFramer()
    assert framer.feed(b"whole\nhal", 0.0) == [Frame(b"whole")]
    assert framer.flush() == Frame(b"hal", truncated=True)
    assert framer.flush() is None
    assert framer.feed(b"f\n", 0.0) == [Frame(b"f")]


def test_after_a_loss_within_a_long_frame_the_next_line_is_a_frame() -> None:
    """What is skipped ends with the port: the first line after it is heard."""
    framer = LineFramer()
    framer.feed(b"x" * (MAX_FRAME + 1), 0.0)
    assert framer.flush() is None
    assert framer.feed(b"good\n", 0.0) == [Frame(b"good")]
