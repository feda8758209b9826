"""The client's side of Telnet with control of the line, byte by byte as the RFCs have it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.agent.linecounters import LineCounters
from notifyd.agent.telnet import MAX_ANSWERS, MAX_PREAMBLE, MAX_SUBNEGOTIATION, LineSettings, Telnet

IAC, DONT, DO, WONT, WILL, SB, SE, BREAK = 255, 254, 253, 252, 251, 250, 240, 243
BINARY, ECHO, NO_GO_AHEAD, TERMINAL, COM_PORT = 0, 1, 3, 24, 44


def say(verb: int, option: int) -> bytes:
    """A word of negotiation."""
    return bytes([IAC, verb, option])


def sub(code: int, value: bytes) -> bytes:
    """A subnegotiation of the line's option."""
    return bytes([IAC, SB, COM_PORT, code]) + value.replace(b"\xff", b"\xff\xff") + bytes([IAC, SE])


BAUDRATE_9600 = sub(101, bytes([0, 0, 0x25, 0x80]))
CONFIRMED = BAUDRATE_9600 + sub(102, b"\x08") + sub(103, b"\x01") + sub(104, b"\x01")
AGREED = say(DO, BINARY) + say(WILL, BINARY) + say(DO, NO_GO_AHEAD) + say(WILL, NO_GO_AHEAD) + say(DO, COM_PORT)


def ready(settings: LineSettings | None = None) -> Telnet:
    """A connection whose line is set."""
    telnet = Telnet(settings or LineSettings())
    telnet.begin()
    telnet.receive(AGREED + CONFIRMED)
    assert telnet.is_ready
    return telnet


def test_the_line_is_set_once_the_server_has_agreed_to_it() -> None:
    """All settings, DTR and RTS, and which errors are to be told."""
    settings = LineSettings(115_200, 7, "E", 1.5, xonxoff=True)
    telnet = Telnet(settings)
    assert say(WILL, COM_PORT) in telnet.begin()
    _, answer = telnet.receive(say(DO, COM_PORT))
    assert answer == (
        sub(1, bytes([0, 1, 0xC2, 0]))
        + sub(2, b"\x07")
        + sub(3, b"\x03")
        + sub(4, b"\x03")
        + sub(5, b"\x02")
        + sub(5, b"\x08")
        + sub(5, b"\x0b")
        + sub(10, b"\x1e")
    )
    assert telnet.receive(say(DO, COM_PORT)) == (b"", b"")


def test_hardware_flow_control_is_asked_for_and_has_rts_for_itself() -> None:
    """The server moves RTS then."""
    telnet = Telnet(LineSettings(rtscts=True))
    _, answer = telnet.receive(say(DO, COM_PORT))
    assert sub(5, b"\x03") in answer
    assert sub(5, b"\x0b") not in answer


def test_a_value_that_looks_like_a_command_is_escaped() -> None:
    """A speed may have a byte 255."""
    telnet = Telnet(LineSettings(baudrate=0xFF00))
    _, answer = telnet.receive(say(DO, COM_PORT))
    assert bytes([IAC, SB, COM_PORT, 1, 0, 0, IAC, IAC, 0, IAC, SE]) in answer
    telnet.receive(sub(101, bytes([0, 0, 0xFF, 0])) + sub(102, b"\x08") + sub(103, b"\x01") + sub(104, b"\x01"))
    assert telnet.is_ready


def test_a_server_may_offer_the_line_by_itself() -> None:
    """Some say WILL instead of DO."""
    telnet = Telnet(LineSettings())
    telnet.begin()
    _, answer = telnet.receive(say(WILL, COM_PORT))
    assert answer.startswith(say(DO, COM_PORT))
    assert sub(2, b"\x08") in answer


def test_what_comes_before_the_line_is_set_is_no_devices() -> None:
    """It is kept, to a limit, since it often says what is wrong."""
    telnet = Telnet(LineSettings())
    telnet.begin()
    printed, _ = telnet.receive(b"Port in use\r\n" + AGREED + CONFIRMED + b"ALARM 7\r\n")
    assert printed == b"ALARM 7\r\n"
    assert telnet.preamble == b"Port in use\r\n"
    other = Telnet(LineSettings())
    for _ in range(100):
        other.receive(b"x" * 99)
    assert other.preamble == b"x" * MAX_PREAMBLE


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sub(101, bytes([0, 0, 0x4B, 0])), "the server keeps baudrate 19200 instead of 9600"),
        (sub(102, b"\x07"), "the server keeps bytesize 7 instead of 8"),
        (sub(103, b"\x03"), "the server keeps another parity"),
        (sub(104, b"\x02"), "the server keeps another stopbits"),
    ],
)
def test_a_setting_that_the_server_does_not_take_is_told(answer: bytes, reason: str) -> None:
    """At another speed than the device's there would be nothing but garbage."""
    telnet = Telnet(LineSettings())
    telnet.begin()
    telnet.receive(AGREED + answer)
    assert telnet.refusal == f"it does not take the settings: {reason}"
    telnet = ready()
    telnet.receive(answer)  # and when somebody changes it later
    assert telnet.refusal is not None


def test_flow_control_counts_only_where_it_was_asked_for() -> None:
    """Servers answer many things for none."""
    telnet = ready(LineSettings(rtscts=True))
    telnet.receive(sub(105, b"\x0b") + sub(105, b"\x03"))
    assert telnet.refusal is None
    telnet.receive(sub(105, b"\x01"))
    assert telnet.refusal == "it does not take the settings: the server does not do this flow control"
    telnet = ready()
    telnet.receive(sub(105, b"\x03"))
    assert telnet.refusal is None


def test_a_server_without_the_option_is_told_so() -> None:
    """The operator is told what to write instead."""
    telnet = Telnet(LineSettings())
    telnet.begin()
    telnet.receive(say(DONT, COM_PORT))
    assert telnet.refusal == "the server does not set lines (RFC 2217); name it socket:// instead"


def test_other_options_are_refused_and_known_ones_answered_once() -> None:
    """What is in force already is not answered: two sides must not answer each other for ever."""
    telnet = Telnet(LineSettings())
    telnet.begin()
    assert telnet.receive(say(WILL, ECHO) + say(DO, TERMINAL))[1] == say(DONT, ECHO) + say(WONT, TERMINAL)
    assert telnet.receive(say(WONT, ECHO) + say(DONT, TERMINAL))[1] == b""
    assert telnet.receive(say(DO, BINARY) + say(WILL, BINARY))[1] == b""
    assert telnet.receive(say(DONT, BINARY))[1] == say(WONT, BINARY)
    assert telnet.receive(say(DONT, BINARY))[1] == b""
    assert telnet.receive(say(DO, BINARY))[1] == say(WILL, BINARY)


def test_a_server_that_asks_without_end_is_not_answered_without_end() -> None:
    """Answers would fill the memory of whoever does not read them."""
    telnet = ready()
    answers = sum(len(telnet.receive(say(WILL, ECHO) * 100)[1]) for _ in range(100))
    assert 0 < answers <= 3 * MAX_ANSWERS


def test_errors_of_the_line_and_breaks_are_counted() -> None:
    """As the driver of a port of this machine counts them; a break also by Telnet's own command."""
    telnet = ready()
    telnet.receive(sub(106, b"\x02") + sub(106, b"\x0c") + sub(106, b"\x10") + sub(106, b"\x61") + bytes([IAC, BREAK]))
    assert telnet.counters == LineCounters(overrun=1, parity=1, frame=1, breaks=2)
    assert telnet.receive(sub(107, b"\xb0")) == (b"", b"")
    assert telnet.modem_state == 0xB0


def test_the_server_can_hold_what_is_sent_to_it() -> None:
    """Flow control between client and server, in the RFC's own words."""
    telnet = ready()
    telnet.receive(bytes([IAC, SB, COM_PORT, 108, IAC, SE]))
    assert telnet.is_suspended
    telnet.receive(bytes([IAC, SB, COM_PORT, 109, IAC, SE]))
    assert not telnet.is_suspended


def test_a_break_can_be_set() -> None:
    """On, and off again."""
    assert ready().set_break(True) == sub(5, b"\x05")
    assert ready().set_break(False) == sub(5, b"\x06")


def test_without_binary_a_carriage_return_alone_has_a_nul_behind_it() -> None:
    """RFC 854; both ways, and cut between the two."""
    telnet = Telnet(LineSettings())
    telnet.begin()
    telnet.receive(say(DONT, BINARY) + say(WONT, BINARY) + say(DO, COM_PORT) + CONFIRMED)
    assert telnet.encode(b"a\rb\r\nc\r") == b"a\r\0b\r\nc\r\0"
    assert telnet.receive(b"a\r\0b\r")[0] + telnet.receive(b"\0c\r\n\0")[0] == b"a\rb\rc\r\n\0"
    assert ready().encode(b"a\rb\xff") == b"a\rb\xff\xff"
    assert ready().receive(b"a\r\0b")[0] == b"a\r\0b"


def test_a_subnegotiation_that_does_not_end_ends_the_connection() -> None:
    """What the device prints would be taken for a part of it."""
    telnet = ready()
    telnet.receive(bytes([IAC, SB, COM_PORT]))
    for _ in range(MAX_SUBNEGOTIATION):
        assert telnet.refusal is None
        telnet.receive(b"x")
    assert telnet.refusal == "the server does not speak Telnet (a subnegotiation does not end)"


def test_a_subnegotiation_that_is_cut_short_costs_only_itself() -> None:
    """Another command ends it."""
    telnet = ready()
    printed, _ = telnet.receive(bytes([IAC, SB, COM_PORT, 106, 2]) + say(WILL, BINARY) + b"ALARM\n")
    assert printed == b"ALARM\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cuts bytes at places, wherever they are."""
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([CONFIRMED, sub(106, b"\xff"), AGREED])),
    st.lists(st.integers(0, 500)),
)
def test_the_device_is_heard_whatever_stands_between_and_wherever_it_is_cut(
    pieces: list[bytes], places: list[int]
) -> None:
    """Commands are taken out, and nothing else is."""
    commands = (CONFIRMED, AGREED, sub(106, b"\xff"))
    data = b"".join(piece if piece in commands else piece.replace(b"\xff", b"\xff\xff") for piece in pieces)
    telnet = ready()
    got = b"".join(telnet.receive(piece)[0] for piece in cut(data, places))
    assert got == b"".join(piece for piece in pieces if piece not in commands)
    assert telnet.refusal is None


@given(st.lists(st.binary() | st.builds(lambda tail: b"\xff\xfa\x2c" + tail, st.binary()), max_size=50))
def test_no_bytes_at_all_raise_or_fill_the_memory(pieces: list[bytes]) -> None:
    """The server may be anything that listens on the port."""
    telnet = Telnet(LineSettings())
    telnet.begin()
    answered = 0
    for piece in pieces:
        printed, answer = telnet.receive(piece)
        assert len(printed) <= len(piece)
        answered += len(answer)
    assert answered <= 3 * MAX_ANSWERS + 100
    assert len(telnet._sub) <= 2 * MAX_SUBNEGOTIATION + 2


@given(st.binary())
def test_what_is_sent_is_understood_by_the_rfc(data: bytes) -> None:
    """A server that undoes the escapes has what was to be sent."""
    sent = ready().encode(data)
    assert sent.replace(b"\xff\xff", b"\xff") == data
    assert not re.search(rb"(?<!\xff)(?:\xff\xff)*\xff(?!\xff)", sent)
