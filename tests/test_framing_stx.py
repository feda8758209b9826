"""Framings without a protocol of their own: a delimiter, STX and ETX, a length, a pause."""

from __future__ import annotations

import pytest

from notifyd.agent.framing import MAX_FRAME, Frame
from notifyd.agent.framing.fixed import FixedFramer, GapFramer
from notifyd.agent.framing.lines import DelimiterFramer
from notifyd.agent.framing.stx import StxEtxFramer

LONG = b"x" * (MAX_FRAME + 1)


def frames_of(framer: StxEtxFramer | DelimiterFramer, data: bytes) -> list[Frame]:
    """What one read gives."""
    return framer.feed(data, 0.0)


def test_only_the_delimiter_ends_a_frame() -> None:
    """CR and LF are content then, and empty frames are left out."""
    framer = DelimiterFramer(b"\x03")
    assert frames_of(framer, b"one\r\ntwo\x03\x03three") == [Frame(b"one\r\ntwo")]
    assert framer.flush() == Frame(b"three", truncated=True)
    assert framer.flush() is None


def test_a_delimiter_of_several_bytes_may_come_in_two_reads() -> None:
    """Half of it ends nothing."""
    framer = DelimiterFramer(b"END")
    assert frames_of(framer, b"oneE") == []
    assert frames_of(framer, b"NDtwoENEND") == [Frame(b"one"), Frame(b"twoEN")]


def test_a_frame_without_a_delimiter_is_cut_once_and_costs_no_memory() -> None:
    """And the one behind it is whole."""
    framer = DelimiterFramer(b"END")
    assert frames_of(framer, LONG + b"yy") == [Frame(b"x" * MAX_FRAME, truncated=True)]
    assert frames_of(framer, b"z" * 100_000) == []
    assert framer.held_bytes == 2
    assert frames_of(framer, b"ENDgoodEND") == [Frame(b"good")]
    assert framer.skipped_bytes == 3 + 100_000


@pytest.mark.parametrize("before_the_end", [b"", b"EN"])
def test_what_is_left_of_a_frame_that_was_cut_is_not_another(before_the_end: bytes) -> None:
    """The port may go while the rest of a long frame is skipped."""
    framer = DelimiterFramer(b"END")
    frames_of(framer, LONG + b"zz" + before_the_end)
    assert framer.flush() is None
    assert frames_of(framer, b"goodEND") == [Frame(b"good")]


@pytest.mark.parametrize(
    ("checksum", "line"),
    [
        ("none", b"\x02ALARM 7\x03"), ("xor", b"\x02ALARM 7\x03\x44"), ("sum8", b"\x02ALARM 7\x03\xc4"),
        ("bcc", b"\x02ALARM 7\x03\x47"),
    ],
)  # fmt: skip
def test_text_between_stx_and_etx_is_a_frame(checksum: str, line: bytes) -> None:
    """With its checksum, calculated by hand: xor and sum8 over the text, bcc over the ETX too."""
    framer = StxEtxFramer(checksum)
    assert frames_of(framer, b"\r\n" + line + b"\r\n" + line) == [Frame(b"ALARM 7")] * 2
    assert (framer.skipped_bytes, framer.damaged_frames) == (0, 0)


def test_a_wrong_checksum_is_counted_or_sent_with_what_is_wrong() -> None:
    """The default is to count it; sent, it has all of its bytes."""
    line = b"\x02ALARM 8\x03\x47"
    counting = StxEtxFramer("bcc")
    assert frames_of(counting, line) == []
    assert counting.damaged_frames == 1
    sending = StxEtxFramer("bcc", bad_frames="send")
    assert frames_of(sending, line) == [Frame(line, damaged="checksum 47, calculated 48")]


def test_dle_stands_for_itself_and_the_text_may_have_any_byte() -> None:
    """DLE STX and DLE ETX are the ends; a DLE in the text is sent twice."""
    framer = StxEtxFramer("xor", dle=True)
    assert frames_of(framer, b"\x10\x02a\x02\x03\x10\x10\x10\x03\x70") == [Frame(b"a\x02\x03\x10")]


def test_an_stx_within_a_frame_begins_another() -> None:
    """The first one has lost its end; two of them in a row lose nothing."""
    framer = StxEtxFramer(bad_frames="send")
    assert frames_of(framer, b"\x02\x02one\x02two\x03") == [
        Frame(b"\x02one", damaged="another frame begins within it"),
        Frame(b"two"),
    ]


def test_a_stray_dle_damages_its_frame_only() -> None:
    """Behind a DLE only STX, ETX or another one may stand."""
    framer = StxEtxFramer(dle=True)
    assert frames_of(framer, b"\x10\x02on\x10e\x10\x03\x10\x02two\x10\x03") == [Frame(b"two")]
    assert framer.damaged_frames == 1


def test_a_frame_without_an_end_is_damaged_and_cut() -> None:
    """It is given once, and what follows is noise up to the next beginning."""
    framer = StxEtxFramer(bad_frames="send")
    (frame,) = frames_of(framer, b"\x02" + LONG)
    assert (len(frame.data), frame.truncated, frame.damaged) == (MAX_FRAME, True, "no end within 8192 bytes")
    assert frames_of(framer, b"zzz\x03\x02good\x03") == [Frame(b"good")]


def test_what_is_left_when_the_port_is_lost_is_damaged() -> None:
    """Its checksum did not come; what was noise is nothing."""
    framer = StxEtxFramer(bad_frames="send")
    frames_of(framer, b"noise\x02hal")
    rest = framer.flush()
    assert rest is not None
    assert (rest.data, rest.truncated, rest.damaged is None) == (b"\x02hal", True, False)
    assert frames_of(framer, b"f\x03\x02good\x03") == [Frame(b"good")]


def test_frames_of_a_fixed_length_need_no_delimiter() -> None:
    """However they are split."""
    framer = FixedFramer(3)
    assert framer.feed(b"abcdefg", 0.0) == [Frame(b"abc"), Frame(b"def")]
    assert framer.feed(b"hi", 100.0) == [Frame(b"ghi")]
    framer.feed(b"j", 100.0)
    assert framer.flush() == Frame(b"j", truncated=True)


def test_a_pause_begins_a_frame_of_fixed_length_anew() -> None:
    """A byte that was lost costs one frame, not all that follow."""
    framer = FixedFramer(3, gap_s=0.5, bad_frames="send")
    assert framer.feed(b"abcde", 1.0) == [Frame(b"abc")]
    assert framer.deadline_s == 1.5
    assert framer.tick(1.4) == []
    damaged = Frame(b"de", truncated=True, damaged="only 2 of 3 bytes came before a pause")
    assert framer.feed(b"ghi", 1.5) == [damaged, Frame(b"ghi")]
    assert framer.deadline_s is None


def test_a_pause_ends_a_frame() -> None:
    """By the timer, or by the read that comes late; bytes of one burst belong together."""
    framer = GapFramer(0.05)
    assert framer.feed(b"on", 1.0) == []
    assert framer.feed(b"e", 1.04) == []
    assert framer.deadline_s == pytest.approx(1.09)
    assert framer.tick(1.08) == []
    assert framer.tick(1.1) == [Frame(b"one")]
    assert framer.deadline_s is None
    framer.feed(b"two", 2.0)
    assert framer.feed(b"three", 3.0) == [Frame(b"two")]
    assert framer.flush() == Frame(b"three", truncated=True)
    assert framer.flush() is None


def test_a_device_that_never_pauses_is_cut_once() -> None:
    """The rest up to the pause is skipped and counted."""
    framer = GapFramer(0.05)
    assert framer.feed(LONG, 1.0) == [Frame(b"x" * MAX_FRAME, truncated=True)]
    assert framer.feed(LONG, 1.01) == []
    assert (framer.held_bytes, framer.skipped_bytes) == (0, MAX_FRAME + 2)
    assert framer.feed(b"good", 2.0) == []
    assert framer.tick(3.0) == [Frame(b"good")]
