"""All framings: any bytes, split anywhere, and what noise on the line costs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.agent.framing import MAX_FRAME
from tests.framings import KINDS, Kind, run, split

MANY = settings(max_examples=1500, deadline=None)


@st.composite
def texts(draw: st.DrawFn, kind: Kind) -> bytes:
    """Gives a text that may stand in a frame of a kind."""
    return bytes(draw(st.lists(st.sampled_from(kind.alphabet), min_size=1, max_size=kind.longest)))


@st.composite
def streams(draw: st.DrawFn) -> tuple[Kind, list[bytes]]:
    """Gives a framing and what a device and a bad line make for it: frames, parts of them, noise, endless ones."""
    kind = draw(st.sampled_from(KINDS))
    frame = texts(kind).map(lambda text: kind.write(text)[0])
    changed = st.builds(
        lambda frame, at, byte: frame[: at % len(frame)] + byte + frame[at % len(frame) + 1 :],
        frame,
        st.integers(0, 200),
        st.binary(max_size=1),
    )
    special = st.sampled_from(kind.specials or b"x").map(lambda byte: bytes([byte]))
    run_of = st.builds(
        lambda byte, length: byte * length,
        st.one_of(special, st.just(b"x")),
        st.sampled_from([2, MAX_FRAME - 9, MAX_FRAME - 1, MAX_FRAME, MAX_FRAME + 1, 2 * MAX_FRAME + 3]),
    )
    extra = st.sampled_from(kind.extra or (b"x",))
    part = st.one_of(frame, changed, special, st.lists(special, max_size=6).map(b"".join), st.binary(max_size=9), extra)
    return kind, draw(st.lists(st.one_of(part, part, part, run_of), max_size=12))


@MANY
@given(streams(), st.lists(st.integers(0, 10**6), max_size=20))
def test_it_does_not_matter_how_the_bytes_arrive(stream: tuple[Kind, list[bytes]], places: list[int]) -> None:
    """Frames, replies and counters are the same, nothing is raised, and never more than one frame is held."""
    kind, parts = stream
    data = b"".join(parts)
    whole = run(kind.framer(), [data])
    assert run(kind.framer(), parts) == whole
    assert run(kind.framer(), split(data, places)) == whole


@settings(max_examples=200, deadline=None)
@given(streams())
def test_one_byte_at_a_time_gives_the_same(stream: tuple[Kind, list[bytes]]) -> None:
    """A slow line gives the same frames as a fast one."""
    kind, parts = stream
    data = b"".join(parts)[: MAX_FRAME + 200]
    assert run(kind.framer(), [data[at : at + 1] for at in range(len(data))]) == run(kind.framer(), [data])


@MANY
@given(streams())
def test_a_frame_whose_checksum_is_wrong_is_never_given_as_intact(stream: tuple[Kind, list[bytes]]) -> None:
    """And every frame that is given stands in what the device printed, in this order."""
    kind, parts = stream
    data = b"".join(parts)
    outcome = run(kind.framer(), [data])
    place = 0
    for frame in outcome.frames:
        if frame.damaged is None:
            assert frame.truncated or kind.is_intact(data, frame.data)
            if "dle" not in kind.name:
                place = data.index(frame.data, place) + len(frame.data)


@MANY
@given(streams())
def test_damaged_frames_are_counted_whether_they_are_sent_or_not(stream: tuple[Kind, list[bytes]]) -> None:
    """``bad_frames`` changes nothing but whether they are given."""
    kind, parts = stream
    sent, dropped = run(kind.framer(), parts), run(kind.framer(bad_frames="drop"), parts)
    damaged = [frame for frame in [*sent.frames, sent.rest] if frame is not None and frame.damaged is not None]
    assert len(damaged) == sent.damaged == dropped.damaged
    assert dropped.frames == [frame for frame in sent.frames if frame.damaged is None]
    assert (dropped.replies, dropped.skipped) == (sent.replies, sent.skipped)


@st.composite
def damaged_streams(draw: st.DrawFn) -> tuple[Kind, list[tuple[bytes, bytes]], int, int, int]:
    """Gives a framing, different frames (on the line, and their data), and which byte of which frame becomes what."""
    kind = draw(st.sampled_from([kind for kind in KINDS if kind.name != "gap"]))
    frames = draw(st.lists(texts(kind).map(kind.write), min_size=5, max_size=8, unique_by=lambda frame: frame[1]))
    number = draw(st.integers(0, len(frames) - 1))
    at = draw(st.integers(0, len(frames[number][0]) - 1))
    byte = draw(st.one_of(st.sampled_from(kind.specials or b"x"), st.integers(0, 255)))
    return kind, frames, number, at, byte


@MANY
@given(damaged_streams())
def test_one_damaged_byte_costs_at_most_its_frame_and_the_one_behind_it(
    stream: tuple[Kind, list[tuple[bytes, bytes]], int, int, int],
) -> None:
    """Whatever the byte becomes, all other frames arrive, in order."""
    kind, frames, number, at, byte = stream
    lines = [line for line, _ in frames]
    lines[number] = lines[number][:at] + bytes([byte]) + lines[number][at + 1 :]
    got = iter([frame.data for frame in run(kind.framer(), lines).frames if frame.damaged is None])
    others = [data for index, (_, data) in enumerate(frames) if index not in (number, number + 1)]
    assert all(data in got for data in others)  # one behind the other: what was found is not looked for again
    intact = [frame.data for frame in run(kind.framer(), [line for line, _ in frames]).frames]
    assert intact == [data for _, data in frames]
