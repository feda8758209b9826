"""The format of recordings: what is written comes back, and whatever is read, nothing breaks."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from notifyd.agent import recording
from notifyd.agent.recording import Entry, Header, Kind, Playback, Reader, RecordingError, encode, encode_header
from tests.serialtools import settings

BEGIN = "2026-11-22T10:00:00.000000Z"
HEADER = encode_header(settings(), BEGIN, "0.1.0")

times = st.lists(st.integers(0, 10**15), max_size=20).map(sorted)
things = st.one_of(
    st.just((Kind.OPEN, b"", "", 0)),
    st.builds(lambda data: (Kind.DATA, data, "", 0), st.binary(max_size=600)),
    st.builds(lambda text: (Kind.CLOSE, b"", text, 0), st.text(st.characters(max_codepoint=255), max_size=200)),
    st.builds(lambda lost: (Kind.LOST, b"", "", lost), st.integers(0, 10**14)),
)


def joined(entries: list[Entry]) -> list[Entry]:
    """Puts together what one read gave in several lines."""
    result: list[Entry] = []
    for entry in entries:
        last = result[-1] if result else None
        if last is not None and (last.kind, last.at_s, entry.kind) == (Kind.DATA, entry.at_s, Kind.DATA):
            result[-1] = Entry(last.at_s, Kind.DATA, last.data + entry.data)
        else:
            result.append(entry)
    return result


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Gives a file's content as it is read."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


@hypothesis_settings(deadline=None)
@given(times, st.data(), st.integers(1, 3000))
def test_what_was_recorded_comes_back(microseconds: list[int], data: st.DataObject, size: int) -> None:
    """Every byte and every time, however the file is read; each line is one that mail does not break."""
    written = [Entry(moment / 1e6, *data.draw(things)) for moment in microseconds]
    text = HEADER + b"".join(map(encode, written))
    assert all(len(line) < 998 and not line.endswith(b" ") for line in text.split(b"\n"))
    assert set(text) <= set(range(0x20, 0x7F)) | {0x0A}
    playback = Playback(pieces(text, size))
    assert joined(list(playback)) == joined(written)
    assert playback.header is not None
    assert (playback.header.begin, playback.header.source_name, playback.header.baudrate) == (BEGIN, "panel", 9600)
    assert not playback.is_torn


@hypothesis_settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 100))
@example(HEADER + b"1.0 data \\x4", 7)
@example(HEADER + b"1.0 data \\u0041\n", 7)
@example(b"notifyd recording 1 " + b"[" * 20_000 + b"\n", 100)
@example(b"notifyd recording 99999999999999999999 {}\n", 5)
def test_a_file_of_any_bytes_is_read_or_refused(data: bytes, size: int) -> None:
    """Nothing but RecordingError leaves the reader."""
    for content in (data, HEADER + data, recording.MAGIC + data):
        refused, played = None, b""
        try:
            played = b"".join(entry.data for entry in Playback(pieces(content, size)))
        except RecordingError as error:
            refused = error
        if refused is not None:
            assert str(refused).startswith(f"line {refused.line}: ")
        elif not recording.is_recording(content):
            assert played == content


@hypothesis_settings(deadline=None)
@given(st.integers(0, 400), st.randoms())
def test_a_damaged_recording_is_read_or_refused(flips: int, rng: random.Random) -> None:
    """Also where it still looks like one."""
    text = bytearray(HEADER + b"".join(encode(Entry(i / 7, Kind.DATA, bytes([i] * i))) for i in range(60)))
    for _ in range(flips % 5):
        text[rng.randrange(len(recording.MAGIC), len(text))] = rng.randrange(256)
    with contextlib.suppress(RecordingError):
        entries = list(Playback(pieces(bytes(text[: len(text) - flips]), 50)))
        assert [entry.at_s for entry in entries] == sorted(entry.at_s for entry in entries)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"data x", "expected a time and"),
        (b"1.0 dota x", "expected a time and"),
        (b"1.0 data \\q", "stands for none"),
        (b"1.0 data \xff", "stands for none"),
        (b"1.0 data \\X41", "stands for none"),
        (b"0.5 data x", "is before that of the line above"),
        (b"1.0 lost many", "how many bytes"),
        (b"1.0 open sesame", "nothing behind open"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(line: bytes, reason: str) -> None:
    """Whoever edited a recording by hand finds the place; what stands before it was played."""
    text = HEADER + b"0.7 data before\n" + line + b"\n"
    reader = Reader()
    entries = reader.feed(text)
    assert next(entries).data == b"before"
    with pytest.raises(RecordingError, match=f"^line 3: .*{reason}"):
        next(entries)


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    """It is refused as soon as it is too long, be it the first one or another."""
    for beginning in (HEADER + b"0.1 data ", recording.MAGIC):
        held = 0

        def endless(beginning: bytes = beginning) -> Iterator[bytes]:
            nonlocal held
            yield beginning
            while True:
                held += 1000
                yield b"x" * 1000

        with pytest.raises(RecordingError, match="longer than"):
            list(Playback(endless()))
        assert held <= recording.MAX_LINE + 2000


def test_a_torn_last_line_is_left_out_and_told() -> None:
    """As a machine leaves it that has lost its power."""
    playback = Playback([HEADER + b"0.1 data whole\\n\n0.2 data to"])
    assert [entry.data for entry in playback] == [b"whole\n"]
    assert playback.is_torn
    with pytest.raises(RecordingError, match="ends in its first line"):
        Playback([HEADER[:-1]])


def test_what_mail_does_to_a_recording_does_no_harm() -> None:
    """CR LF at the ends of lines, and an empty line at the end."""
    text = HEADER + encode(Entry(0.5, Kind.DATA, b"a line \r\n"))
    assert list(Playback([text.replace(b"\n", b"\r\n") + b"\r\n"])) == [Entry(0.5, Kind.DATA, b"a line \r\n")]


def test_a_recording_of_a_newer_notifyd_is_refused() -> None:
    """With what this one reads."""
    with pytest.raises(RecordingError, match="has version 2, this notifyd reads 1"):
        Playback([HEADER.replace(b"recording 1", b"recording 2")])


def test_the_header_tells_no_secrets() -> None:
    """What is sent to the device, and who logs in at a port in the network, may be a password."""
    source = settings(
        "rfc2217://user:secret@gate:4000", on_open="LOGIN secret\r", poll={"send": "secret?", "every": "5s"}, gap="20ms"
    )
    text = encode_header(source, BEGIN, "0.1.0")
    assert b"secret" not in text
    (header,) = [Playback([text]).header]
    assert header is not None
    assert (header.source["port"], header.source["gap"]) == ("rfc2217://gate:4000", 0.02)


def test_a_header_with_any_name_is_ascii() -> None:
    """The name comes back."""
    text = encode_header(settings(name="Station Süd 🛗"), BEGIN, "0.1.0")
    assert text.isascii()
    header = Playback([text]).header
    assert header is not None
    assert header.source_name == "Station Süd 🛗"
    assert Header(source={"name": 5, "baudrate": "fast"}).source_name is None
    assert Header(source={"baudrate": -1}).baudrate is None


def test_a_file_without_times_is_played_at_the_rate_that_is_told() -> None:
    """4,800 baud are 480 characters a second, in steps that are too small to be seen."""
    rate = recording.bytes_per_second(4800)
    assert rate == 480
    assert recording.bytes_per_second(4800, {"bytesize": 7, "parity": "E", "stopbits": 2}) == pytest.approx(
        436.36, 0.01
    )
    entries = list(Playback([b"x" * 700, b"y" * 260], rate))
    assert b"".join(entry.data for entry in entries) == b"x" * 700 + b"y" * 260
    assert entries[-1].at_s == pytest.approx(2.0)
    assert max(len(entry.data) for entry in entries) <= rate * recording.PIECE_S
    assert {entry.at_s for entry in Playback([b"a" * 50, b"b"])} == {0.0}
    assert list(Playback([])) == []
