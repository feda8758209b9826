"""What alarm receivers print: Contact ID lines, and the messages of Sur-Gard."""

from __future__ import annotations

import pytest

from notifyd.agent.framing import MAX_FRAME, Frame
from notifyd.agent.framing.contact_id import ContactIdFramer, SurgardFramer

# The examples of SIA DC-05: a perimeter burglary in zone 15 of partition 1, and a closing by user 15.
BURGLARY, CLOSING = b"1234 18 1131 01 015 8", b"6556 18 3402 01 015 D"


def fed(data: bytes, framer: ContactIdFramer | SurgardFramer | None = None) -> list[Frame]:
    """What one read gives, damaged messages too."""
    return (framer or ContactIdFramer(bad_frames="send")).feed(data, 0.0)


def test_the_examples_of_the_standard_are_parsed() -> None:
    """Their checksums are right."""
    first, second = fed(BURGLARY + b"\r\n" + CLOSING + b"\r\n")
    assert first.data == BURGLARY
    assert first.fields == {
        "account": "1234", "format": "18", "qualifier": "1", "kind": "event", "event": "131", "group": "01",
        "zone": "015", "checksum": "8",
    }  # fmt: skip
    assert second.fields is not None
    assert (second.fields["kind"], second.fields["event"], second.fields["zone"]) == ("restore", "402", "015")


@pytest.mark.parametrize("line", [b"1234181131010158", b"1234 98 1131 01 015 F", b" 1234 18 1131 01 0158 "])
def test_blanks_and_the_newer_format_number_change_nothing(line: bytes) -> None:
    """Receivers print both."""
    (frame,) = fed(line + b"\n")
    assert (frame.data, frame.damaged) == (line, None)


def test_a_wrong_checksum_is_damage() -> None:
    """A figure that was changed is found."""
    (frame,) = fed(BURGLARY.replace(b"015", b"016") + b"\n")
    assert frame.damaged == "checksum 8, which is wrong"


def test_a_message_without_a_checksum_is_taken_until_one_had_one() -> None:
    """A receiver prints it always or never."""
    framer = ContactIdFramer(bad_frames="send")
    plain = BURGLARY[:-2]
    assert [frame.damaged for frame in fed(b"%b\n%b\n%b\n" % (plain, BURGLARY, plain), framer)] == [
        None, None, "no checksum",
    ]  # fmt: skip
    framer.flush()
    assert fed(plain + b"\n", framer)[0].damaged is None


def test_any_other_line_is_damage() -> None:
    """Too long a one as well."""
    framer = ContactIdFramer(bad_frames="send")
    assert [frame.damaged for frame in fed(b"hello\n" + b"1" * (MAX_FRAME + 5) + b"\n", framer)] == [
        "no Contact ID message", "no end within 8192 bytes",
    ]  # fmt: skip
    assert (framer.damaged_frames, framer.skipped_bytes) == (2, 5)
    fed(BURGLARY[:4], framer)
    rest = framer.flush()
    assert rest is not None
    assert (rest.data, rest.truncated) == (b"1234", True)


def test_an_event_of_a_surgard_receiver_is_parsed_and_acknowledged_with_its_frame() -> None:
    """The ACK is the frame's reply, and so is sent only once the event is stored; both orders are in use."""
    for message in (b"5011 181234E13001015", b"5011 123418E13001015"):
        (frame,) = fed(message + b"\x14", SurgardFramer())
        assert (frame.data, frame.reply) == (message, b"\x06")
        assert frame.fields == {
            "format": "contact-id", "receiver": "01", "line": "1", "account": "1234", "qualifier": "E",
            "kind": "event", "event": "130", "group": "01", "zone": "015",
        }  # fmt: skip


def test_a_line_number_may_have_three_figures() -> None:
    """As of the MLR2000."""
    (frame,) = fed(b"501A23 181234R40100002\x14", SurgardFramer())
    assert frame.fields is not None
    assert (frame.fields["line"], frame.fields["kind"]) == ("A23", "restore")


def test_a_heartbeat_is_a_frame_that_a_rule_can_leave_out() -> None:
    """It must be answered, or the receiver says that the computer is gone."""
    (frame,) = fed(b"1011           @    \x14", SurgardFramer())
    assert frame.reply == b"\x06"
    assert frame.fields == {"format": "heartbeat", "receiver": "01", "line": "1"}


def test_a_message_of_another_kind_is_given_with_its_text() -> None:
    """Such as one of SIA; the line end that some put before it is no part of it."""
    (frame,) = fed(b"\r\nS014[#1234|NBA01]\x14", SurgardFramer())
    assert frame.data == b"S014[#1234|NBA01]"
    assert frame.fields == {"format": "S", "receiver": "01", "line": "4", "text": "[#1234|NBA01]"}


@pytest.mark.parametrize("message", [b"5011 18123\xff", b"5011 181234X13001015", b"hello", b"\x02"])
def test_a_damaged_message_is_refused_at_once(message: bytes) -> None:
    """The receiver sends it again."""
    framer = SurgardFramer(bad_frames="send")
    (frame,) = fed(message + b"\x14", framer)
    assert frame == Frame(message, damaged="no message of a Sur-Gard receiver")
    assert framer.replies() == b"\x15"


def test_a_message_without_an_end_is_cut_and_its_rest_skipped() -> None:
    """The next one is whole; none is when the port is lost within the rest."""
    framer = SurgardFramer(bad_frames="send")
    (frame,) = fed(b"5" * (MAX_FRAME + 9), framer)
    assert (len(frame.data), frame.truncated, framer.held_bytes) == (MAX_FRAME, True, 0)
    assert [good.data for good in fed(b"55\x145011 181234E13001015\x14", framer)] == [b"5011 181234E13001015"]
    fed(b"5" * MAX_FRAME + b"5", framer)
    assert framer.flush() is None
    fed(b"5011", framer)
    rest = framer.flush()
    assert rest is not None
    assert rest.truncated
