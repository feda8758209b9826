"""ESPA 4.4.4: the agent is the paging system that a nurse call or fire alarm system calls."""

from __future__ import annotations

import pytest

from notifyd.agent.framing import MAX_FRAME, MAX_REPLIES, Frame
from notifyd.agent.framing.espa import MAX_FIELDS, POLL_S, SELECTED_S, Espa444Framer
from tests.framings import block

ACK, NAK, EOT = b"\x06", b"\x15", b"\x04"
SELECT = b"1\x052\x05"

# The block that Zenitel publishes as what its AlphaCom sends (wiki.zenitel.com/wiki/ESPA_4.4.4), without the blank
# that its hexadecimal form has before the first record.
ZENITEL = b"1\x021\x1f550\x1e2\x1fCALL ME 101\x1e3\x1f3\x1e4\x1f3\x1e5\x1f3\x1e6\x1f3"


def selected(bad_frames: str = "send") -> Espa444Framer:
    """A station that has been selected."""
    framer = Espa444Framer(bad_frames=bad_frames)  # type: ignore[arg-type]
    assert framer.feed(SELECT, 0.0) == []
    assert framer.replies() == ACK
    return framer


def test_a_call_is_parsed_and_acknowledged_with_its_frame() -> None:
    """The ACK is the frame's reply, and so is sent only once the event is stored."""
    framer = selected()
    (frame,) = framer.feed(block(ZENITEL) + EOT, 0.1)
    assert (frame.data, frame.reply, framer.replies()) == (ZENITEL, ACK, b"")
    assert frame.fields == {
        "header": "1", "kind": "call to pager", "call_address": "550", "display_message": "CALL ME 101",
        "beep_coding": "3", "call_type": "3", "transmissions": "3", "priority": "3",
    }  # fmt: skip


def test_the_published_block_is_read_with_the_blank_of_its_hexadecimal_form() -> None:
    """A blank beside an identifier means nothing."""
    published = bytes.fromhex(
        "01 31 02 20 31 1F 35 35 30 1E 32 1F 43 41 4C 4C 20 4D 45 20"
        "31 30 31 1E 33 1F 33 1E 34 1F 33 1E 35 1F 33 1E 36 1F 33 03"
    )
    content = published[1:-1]
    (frame,) = selected().feed(block(content), 0.1)
    assert block(content)[:-1] == published
    assert frame.fields is not None
    assert (frame.fields["call_address"], frame.fields["priority"]) == ("550", "3")


def test_the_bcc_is_the_xor_of_all_behind_soh_with_the_etx() -> None:
    """By hand: 31 ^ 02 ^ 31 ^ 1F ^ 41 ^ 03 is 5F."""
    (frame,) = selected().feed(b"\x011\x021\x1fA\x03\x5f", 0.1)
    assert frame.damaged is None


def test_a_poll_is_answered_with_eot_and_other_stations_with_nothing() -> None:
    """The agent never has anything to send, and does not speak for others."""
    framer = Espa444Framer()
    assert framer.feed(b"2\x05", 0.0) == []
    assert framer.replies() == EOT
    framer.feed(EOT + b"3\x05", 0.1)
    assert framer.replies() == b""
    framer.feed(EOT + b"1\x053\x05" + block(ZENITEL), 0.2)
    assert framer.replies() == b""
    assert framer.skipped_bytes == len(block(ZENITEL))


def test_the_station_has_the_address_that_is_set() -> None:
    """There may be several on a line."""
    framer = Espa444Framer("12")
    framer.feed(b"1\x052\x05", 0.0)
    assert framer.replies() == b""
    framer.feed(EOT + b"1\x0512\x05", 0.1)
    assert framer.replies() == ACK


def test_a_block_with_a_bad_bcc_is_refused_at_once_and_taken_when_it_is_sent_again() -> None:
    """The caller retries after NAK; the prefix 1 says that it was the line."""
    framer = selected()
    bad = block(ZENITEL).replace(b"550", b"551")
    (frame,) = framer.feed(bad, 0.1)
    assert frame.damaged is not None
    assert (frame.data, frame.reply, framer.replies()) == (bad, b"", b"1" + NAK)
    (again,) = framer.feed(block(ZENITEL), 0.2)
    assert (again.damaged, again.reply) == (None, ACK)
    assert "repeat" not in (again.fields or {})


def test_a_block_that_is_sent_again_after_a_lost_ack_is_marked() -> None:
    """It is acknowledged again, and is an event that says so: it might have been meant."""
    framer = selected()
    first, second = framer.feed(block(ZENITEL) * 2, 0.1)
    assert (first.fields or {}) | {"repeat": "true"} == second.fields
    assert second.reply == ACK
    framer.feed(EOT + SELECT, 0.2)
    (third,) = framer.feed(block(ZENITEL), 0.3)
    assert "repeat" not in (third.fields or {})


def test_a_selection_ends_with_eot_and_with_time() -> None:
    """After both a block is not for this station."""
    framer = selected()
    assert framer.feed(EOT + block(ZENITEL), 0.1) == []
    framer = selected()
    assert framer.deadline_s == SELECTED_S
    assert framer.tick(SELECTED_S - 1) == []
    assert framer.feed(block(ZENITEL), SELECTED_S) == []
    framer = Espa444Framer()
    framer.feed(b"1\x05", 0.0)
    framer.feed(b"2\x05", POLL_S)
    assert framer.replies() == EOT


def test_a_block_that_stops_is_given_up_after_a_while() -> None:
    """A cable that was pulled does not join two calls."""
    framer = selected()
    assert framer.feed(block(ZENITEL)[:20], 0.1) == []
    (frame,) = framer.tick(0.1 + SELECTED_S)
    assert (frame.truncated, frame.damaged) == (True, "no end for 15 s")
    assert (framer.held_bytes, framer.deadline_s) == (0, None)


@pytest.mark.parametrize("control", [b"\x01", b"\x04", b"\x05"])
def test_a_block_that_another_control_character_cuts_short_is_refused(control: bytes) -> None:
    """SOH begins the next block; EOT and ENQ end the selection."""
    framer = selected()
    frames = framer.feed(b"\x011\x021\x1f5" + control, 0.1)
    assert [frame.damaged for frame in frames] == ["it has no end"]
    assert framer.replies() == b"1" + NAK


def test_a_block_without_an_end_is_cut() -> None:
    """It costs 8 KiB at most."""
    framer = selected()
    (frame,) = framer.feed(b"\x01" + b"x" * MAX_FRAME, 0.1)
    assert (len(frame.data), frame.truncated) == (MAX_FRAME, True)
    assert framer.held_bytes <= 16


def test_a_record_that_the_proposal_does_not_have_keeps_its_number() -> None:
    """Manufacturers add some; there are not more than a device needs."""
    (frame,) = selected().feed(block(b"9\x0299\x1fx\x1enonsense\x1e7\x1f1"), 0.1)
    assert frame.fields == {"header": "9", "record_99": "x", "call_status": "1"}
    many = b"1\x02" + b"\x1e".join(b"%d\x1fx" % number for number in range(10, 500))
    (frame,) = selected().feed(block(many), 0.1)
    assert len(frame.fields or {}) == MAX_FIELDS + 2


def test_answers_that_nobody_takes_are_bounded() -> None:
    """A device that only asks does not fill the memory."""
    framer = Espa444Framer()
    framer.feed(b"2\x05" * 10_000, 0.0)
    assert len(framer.replies()) == MAX_REPLIES
    assert framer.replies() == b""


def test_a_lost_port_ends_everything() -> None:
    """Nobody is selected when it is back, and what was to be said is not said."""
    framer = selected()
    framer.feed(b"2\x05" + block(ZENITEL)[:9], 0.1)
    rest = framer.flush()
    assert rest is not None
    assert (rest.truncated, framer.replies(), framer.deadline_s) == (True, b"", None)
    assert framer.feed(block(ZENITEL), 0.2) == []
    assert framer.flush() is None


def test_display_messages_are_read_in_the_sources_encoding() -> None:
    """Many callers send Latin-1, though the proposal has ISO 646."""
    framer = Espa444Framer(encoding="latin-1")
    framer.feed(SELECT, 0.0)
    (frame,) = framer.feed(block("1\x022\x1fK\xfcche".encode("latin-1")), 0.1)
    assert isinstance(frame, Frame)
    assert (frame.fields or {})["display_message"] == "K\xfcche"
