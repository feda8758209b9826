"""SIA DC-09: alarm messages, and what they are answered."""

from __future__ import annotations

import re

import pytest

from notifyd.agent.framing import MAX_FRAME, MAX_REPLIES, Frame
from notifyd.agent.framing.dc09 import MAX_ENVELOPE, Dc09Framer
from tests.framings import NOW, crc, dc09

# The examples of the standard, without time, as the tests of pysiaalarm (github.com/eavanvalkenburg/pysiaalarm) cite
# them, and what panels of others sent: published in the sources of open receivers. All CRCs are as they stand there.
DC04 = b'CE110032"SIA-DCS"9876R579BDFL789ABC#12345A[#12345A|NFA129]'
DC05 = b'87CD0037"ADM-CID"9876R579BDFL789ABC#12345A[#12345A|1110 00 129]'
WITH_TIME = b'F92F0043"ADM-CID"0020R7896L7896#3456[#3456|1407 00 001]_17:01:14,07-26-2024'
NULL = b'D730002F"NULL"0000R7896L7896#3456[]_17:01:26,07-26-2024'
WITHOUT_RECEIVER = b'7B620035"SIA-DCS"0005L000#3044[3044|NOP1]_00:03:31,12-21-2023'


def framer() -> Dc09Framer:
    """One that gives damaged messages, with a clock that stands."""
    return Dc09Framer(bad_frames="send", now=lambda: NOW)


def fed(message: bytes) -> Frame:
    """The one frame of a message."""
    (frame,) = framer().feed(b"\n" + message + b"\r", 0.0)
    return frame


def fields_of(message: bytes) -> dict[str, str]:
    """What a message says."""
    frame = fed(message)
    assert frame.damaged is None
    return frame.fields or {}


@pytest.mark.parametrize("message", [DC04, DC05, WITH_TIME, NULL, WITHOUT_RECEIVER])
def test_published_messages_are_intact(message: bytes) -> None:
    """CRC and length are over what stands from the first quote on."""
    frame = fed(message)
    assert (frame.data, frame.damaged) == (message, None)


def test_a_contact_id_message_is_parsed() -> None:
    """A fire alarm of zone 129."""
    assert fields_of(DC05) == {
        "id": "ADM-CID", "sequence": "9876", "receiver": "579BDF", "line": "789ABC", "account": "12345A",
        "data": "#12345A|1110 00 129", "qualifier": "1", "kind": "event", "event": "110", "group": "00", "zone": "129",
    }  # fmt: skip


def test_a_sia_message_is_parsed() -> None:
    """Its code and zone; group and text where they are."""
    fields = fields_of(DC04)
    assert (fields["event"], fields["zone"]) == ("FA", "129")
    fields = fields_of(dc09(b'"SIA-DCS"0001L0#9998[9998|Nti12:30/ri3/BA01^Hall^][M0026B9E4268B]'))
    assert [fields[name] for name in ("event", "zone", "group", "text", "extended")] == [
        "BA", "01", "3", "Hall^", "[M0026B9E4268B]",
    ]  # fmt: skip
    assert fields["data"] == "9998|Nti12:30/ri3/BA01^Hall^"


def test_time_and_supervision_messages_are_understood() -> None:
    """A NULL message says that the line works."""
    fields = fields_of(NULL)
    assert (fields["id"], fields["data"], fields["timestamp"]) == ("NULL", "", "17:01:26,07-26-2024")
    assert "receiver" not in fields_of(WITHOUT_RECEIVER)


@pytest.mark.parametrize("data", [b"#1234|nonsense", b"", b"#1234|1110 00", b"|"])
def test_data_of_another_form_is_kept_as_it_is(data: bytes) -> None:
    """A message that is intact is acknowledged, whatever it means."""
    for name in (b"ADM-CID", b"SIA-DCS", b"SIA-PUL"):
        frame = fed(dc09(b'"%b"0001L0#1234[%b]' % (name, data)))
        assert frame.damaged is None
        assert (frame.fields or {})["data"] == data.decode()
        assert b'"ACK"' in frame.reply


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (DC05, b'"ACK"9876R579BDFL789ABC#12345A[]'), (WITHOUT_RECEIVER, b'"ACK"0005L000#3044[]'),
        (NULL, b'"ACK"0000R7896L7896#3456[]'),
    ],
)  # fmt: skip
def test_the_reply_of_a_frame_is_the_ack_of_its_sequence(message: bytes, answer: bytes) -> None:
    """It comes with the frame, and so is sent only once the event is stored."""
    assert fed(message).reply == b"\n" + dc09(answer) + b"\r"


def test_a_known_acknowledgement_has_the_crc_that_a_receiver_printed() -> None:
    """Published with the tests of an open receiver: the answer to sequence 1 of account 080027E62A64, with its time."""
    assert crc(b'"ACK"0001L0#080027E62A64[]_16:07:07,04-14-2015') == 0x2729


def test_a_wrong_crc_is_answered_with_nak_and_the_time_at_once() -> None:
    """The frame itself has no reply."""
    one = framer()
    (frame,) = one.feed(b"\n" + DC05.replace(b"129", b"128") + b"\r", 0.0)
    assert frame.damaged is not None
    assert re.fullmatch("checksum 87CD, calculated [0-9A-F]{4}", frame.damaged)
    assert frame.reply == b""
    assert one.replies() == b"\n" + dc09(b'"NAK"0000R0L0A0[]_22:02:03,11-22-2026') + b"\r"


def test_a_wrong_length_is_damage_too() -> None:
    """Even where the CRC is right."""
    assert fed(DC05.replace(b"0037", b"0038")).damaged == "length 0038, counted 0037"


def test_an_encrypted_message_is_told_as_such_and_answered_with_duh() -> None:
    """There is no key, and whoever configured the panel shall see it."""
    frame = fed(dc09(b'"*SIA-DCS"4480L0#EA1984[83F153789366885D5F83DD5A8D19F691'))
    assert frame.damaged is None
    assert frame.fields is not None
    assert (frame.fields["encrypted"], frame.fields["id"], frame.fields["account"]) == ("true", "SIA-DCS", "EA1984")
    assert frame.reply == b"\n" + dc09(b'"DUH"4480L0#EA1984[]') + b"\r"


@pytest.mark.parametrize("body", [b'"what"', b'"SIA-DCS"1L0#1234[]', b'"SIA-DCS"0001L0#1234[no end'])
def test_what_is_intact_but_no_message_is_answered_with_duh(body: bytes) -> None:
    """Sending it again would change nothing."""
    one = framer()
    (frame,) = one.feed(b"\n" + dc09(body) + b"\r", 0.0)
    assert frame.damaged is not None
    assert b'"DUH"' in one.replies()


def test_a_message_that_begins_within_another_is_found() -> None:
    """The first is damaged; a line feed alone is noise."""
    one = framer()
    first, second = one.feed(b"\n\n" + DC04 + b"\n" + DC05 + b"\r", 0.0)
    assert (first.damaged, second.data) == ("another message begins within it", DC05)
    assert one.replies().count(b'"NAK"') == 1


def test_noise_is_not_answered() -> None:
    """A device that prints empty lines is not talked to."""
    one = framer()
    assert one.feed(b"\n\r\nOK\r\nhello\r", 0.0) == []
    assert one.replies() == b""
    assert one.skipped_bytes == 7


def test_a_message_without_an_end_is_cut_and_answers_are_bounded() -> None:
    """Neither costs more than its limit."""
    one = framer()
    (frame,) = one.feed(b"\n" + b"x" * MAX_FRAME, 0.0)
    assert (len(frame.data), frame.truncated) == (MAX_FRAME, True)
    one.feed(b"\n0123456789" * 1000, 0.0)
    assert MAX_REPLIES - MAX_ENVELOPE < len(one.replies()) <= MAX_REPLIES


def test_the_longest_answer_is_within_its_limit() -> None:
    """Every part of it is bounded."""
    longest = fed(dc09(b'"SIA-DCS"0001RFFFFFFLFFFFFF#FFFFFFFFFFFFFFFF[]'))
    assert len(longest.reply) <= MAX_ENVELOPE


def test_what_is_left_when_the_port_is_lost_is_damaged() -> None:
    """Nothing of it is answered."""
    one = framer()
    one.feed(b"\n" + DC05, 0.0)
    rest = one.flush()
    assert rest is not None
    assert (rest.truncated, one.replies()) == (True, b"")
    one.feed(b"\n", 0.0)
    assert one.flush() is None
