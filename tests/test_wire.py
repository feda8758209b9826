"""The wire: lines out of bytes, and every verb with every mistake that a peer can make in it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd import wire
from notifyd.wire import Gap, Hello, HelloOk, LineSplitter, ProtocolError, Subscribe, SubscribeOk

# --- lines ---------------------------------------------------------------------------------------------------


def model(data: bytes, limit: int) -> tuple[list[bytes], bool]:
    """Splits all at once, and gives whether a line was over the limit, and the lines before it."""
    lines = []
    *whole, rest = data.split(b"\n")
    for raw in whole:
        line = raw.removesuffix(b"\r")
        if len(line) > limit:
            return lines, True
        if line:
            lines.append(line)
    return lines, len(rest.removesuffix(b"\r")) > limit


@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", b"12345678", b"\x00", b" "]), max_size=30).map(
        b"".join
    ),
    st.lists(st.integers(0, 120), max_size=10),
    st.integers(1, 12),
)
def test_any_split_of_the_bytes_gives_the_same_lines(data: bytes, cuts: list[int], limit: int) -> None:
    """And finds the same line over the limit, though perhaps earlier; behind it nothing is given."""
    splitter = LineSplitter(limit)
    places = sorted(min(cut, len(data)) for cut in cuts)
    lines = []
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        lines += splitter.feed(data[start:end])
        assert len(splitter._rest) <= limit + 1
    expected, overflow = model(data, limit)
    assert lines == expected
    if splitter.overflow != overflow:
        assert splitter.overflow, "an overflow was missed"
        assert data.endswith(b"\r"), "only of a line that is not over yet may it be known too early"
    assert splitter.feed(b"more\n") == ([] if splitter.overflow else splitter_model(data, limit))


def splitter_model(data: bytes, limit: int) -> list[bytes]:
    """Gives the lines that one more line completes."""
    before, _ = model(data, limit)
    after, _ = model(data + b"more\n", limit)
    return after[len(before) :]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("cut", [1, 30_000, 65_535, 65_536, 65_537, 65_538])
def test_the_limit_is_exact(end: bytes, cut: int) -> None:
    """A line of 65,536 bytes is taken, with LF or CRLF, however it arrives; one byte more is not."""
    good, bad = b"x" * wire.MAX_LINE, b"x" * (wire.MAX_LINE + 1)
    splitter = LineSplitter(wire.MAX_LINE)
    stream = good + end
    assert splitter.feed(stream[:cut]) + splitter.feed(stream[cut:]) + splitter.feed(b"y\n") == [good, b"y"]
    assert not splitter.overflow
    stream = b"first\n" + bad + end + b"next\n"
    assert splitter.feed(stream[:cut]) + splitter.feed(stream[cut:]) == [b"first"]
    assert splitter.overflow
    assert splitter.feed(b"y\n") == []


def test_a_line_without_an_end_is_over_the_limit_as_soon_as_it_can_be_known() -> None:
    """Memory is bounded by one line."""
    splitter = LineSplitter(10)
    assert splitter.feed(b"x" * 10) == []
    assert not splitter.overflow
    assert splitter.feed(b"\r") == []
    assert not splitter.overflow, "a LF may follow"
    assert splitter.feed(b"x") == []
    assert splitter.overflow


# --- verbs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        (b"PING", ("PING", None)), (b"ACK 7", ("ACK", b"7")), (b"HELLO {}", ("HELLO", b"{}")), (b"A", ("A", None)),
        (b"REJECT 3 no such thing", ("REJECT", b"3 no such thing")), (b"ERROR  x", ("ERROR", b" x")),
        (b"X \xff", ("X", b"\xff")), (b"PING ", None), (b"ping", None), (b"PING\t", None), (b" PING", None),
        (b"PING2", None), (b"{}", None), (b"", None), (b"\xc3\x84", None), (b"Ping", None),
    ],
)  # fmt: skip
def test_a_verb_is_capital_letters_alone_or_before_a_space(line: bytes, verb: Any) -> None:
    """Everything else is left to whoever takes other lines."""
    assert wire.parse_verb(line) == verb


@pytest.mark.parametrize(
    ("verb", "message", "line"),
    [
        ("HELLO", Hello("ward3", "6f"), b'HELLO {"agent":"ward3","spool":"6f"}\n'),
        ("OK", HelloOk({"critical": 4}, 9), b'OK {"acked":{"critical":4},"window":9}\n'),
        ("SUBSCRIBE", Subscribe(after="7"), b'SUBSCRIBE {"after":"7"}\n'),
        ("SUBSCRIBE", Subscribe(name="n", since="t"), b'SUBSCRIBE {"since":"t","name":"n"}\n'),
        ("SUBSCRIBE", Subscribe(), b"SUBSCRIBE {}\n"),
        ("OK", SubscribeOk("critical", "7"), b'OK {"stream":"critical","after":"7"}\n'),
        ("GAP", Gap("7", "9", "expired"), b'GAP {"after":"7","before":"9","reason":"expired"}\n'),
        ("ACK", 7, b"ACK 7\n"), ("PING", None, b"PING\n"), ("ERROR", "no way", b"ERROR no way\n"),
    ],
)  # fmt: skip
def test_verbs_are_written_as_the_protocol_says_and_read_back(verb: str, message: Any, line: bytes) -> None:
    """Byte for byte."""
    assert wire.encode_verb(verb, message) == line
    parsed = wire.parse_verb(line[:-1])
    assert parsed is not None
    if isinstance(message, msgspec.Struct):
        assert wire.decode_payload(verb, parsed[1], type(message)) == message


@given(st.text(max_size=2000))
def test_a_reason_is_one_short_line_whatever_is_in_it(reason: str) -> None:
    """No peer's text can smuggle a line into an answer."""
    line = wire.encode_verb("ERROR", reason)
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert len(line) <= 4_100
    line.decode()


HELLO_MISTAKES = [
    None, b"{", b"[]", b"7", b"null", b"{}", b'{"agent":"a"}', b'{"agent":1,"spool":"s"}', b'{"agent":"a","spool":""}',
    b'{"agent":"a","spool":"' + b"s" * 256 + b'"}', b'{"agent":"a\\tb","spool":"s"}', b'{"agent":"\xff","spool":"s"}',
    b'{"agent":"\\ud800","spool":"s"}', b'{"agent":"a","spool":"s"} x', b"[" * 30_000, b'{"agent":"a","spool":null}',
]  # fmt: skip


@pytest.mark.parametrize("argument", HELLO_MISTAKES)
def test_a_malformed_hello_is_a_protocol_error(argument: bytes | None) -> None:
    """With one sentence that begins with the verb."""
    with pytest.raises(ProtocolError, match=r"^HELLO"):
        wire.decode_hello(argument)


def test_members_that_are_not_known_are_left_to_later_versions() -> None:
    """Such as a token, also where they are nested or of any type."""
    assert wire.decode_hello(b'{"agent":"a b","spool":"s","token":[{"x":null}]}') == Hello("a b", "s")
    assert wire.decode_hello('{"agent":"Ä","spool":"s"}'.encode()) == Hello("Ä", "s")
    assert wire.decode_subscribe(b'{"token":"x","after":"7"}') == Subscribe(after="7")


@pytest.mark.parametrize("offset", ["", "-1", "+1", "1.0", "1e3", " 1", "1 ", "0x1", "٣", "²", "last", "1_0"])
def test_an_offset_is_decimal_digits_only(offset: str) -> None:
    """Nothing else that Python takes for a number."""
    with pytest.raises(ProtocolError, match="decimal"):
        wire.parse_offset("after", offset)
    with pytest.raises(ProtocolError, match="decimal"):
        wire.decode_subscribe(json.dumps({"after": offset}).encode())
    with pytest.raises(ProtocolError, match="decimal"):
        wire.parse_count("ACK", offset.encode())


def test_offsets_of_any_length_are_read() -> None:
    """Leading zeros count for nothing; what is beyond any log is told as such."""
    assert wire.parse_offset("after", "0") == 0
    assert wire.parse_offset("after", "0" * 10_000) == 0
    assert wire.parse_offset("after", "0" * 10_000 + "12") == 12
    assert wire.parse_count("ACK", b"7") == 7
    for digits in ("1" * 20, "9" * 50_000):
        with pytest.raises(ProtocolError, match="beyond"):
            wire.parse_offset("after", digits)
    with pytest.raises(ProtocolError, match="decimal"):
        wire.parse_count("ACK", None)
    with pytest.raises(ProtocolError, match="decimal"):
        wire.parse_offset("after", None)


@pytest.mark.parametrize(
    "wish",
    [
        {"after": "1", "since": "2026-11-22T10:00:00Z"}, {"since": "yesterday"}, {"since": ""}, {"name": ""},
        {"name": "x" * 256}, {"name": "a\0"}, {"name": "a\u202eb"}, {"after": 1}, {"since": 5}, {"name": []},
    ],
)  # fmt: skip
def test_a_malformed_subscribe_is_a_protocol_error(wish: dict[str, Any]) -> None:
    """With one sentence that begins with the verb."""
    with pytest.raises(ProtocolError, match=r"^SUBSCRIBE"):
        wire.decode_subscribe(json.dumps(wish).encode())


@pytest.mark.parametrize(
    "wish", [{}, {"after": "first"}, {"after": "now"}, {"after": "12"}, {"since": "2026-11-22T10:00:00+01:00"},
             {"name": "pager-7", "after": "first"}, {"after": None}, {"name": "x" * 255}],
)  # fmt: skip
def test_a_subscribe_is_read(wish: dict[str, Any]) -> None:
    """Every form of it."""
    assert wire.decode_subscribe(json.dumps(wish).encode()) == Subscribe(**wish)


def test_a_reject_is_split_into_number_and_reason() -> None:
    """As the agent reads it; a reason may be empty, a number may not."""
    assert wire.split_reject(b"7 no such thing") == (7, "no such thing")
    assert wire.split_reject(b"7 \xff") == (7, "\N{REPLACEMENT CHARACTER}")
    assert wire.split_reject(b"7") == (7, "")
    for bad in (None, b"", b"x y", b"-1 x"):
        with pytest.raises(ProtocolError):
            wire.split_reject(bad)


@given(
    st.binary(max_size=40) | st.text(max_size=40).map(lambda text: json.dumps({"after": text, "name": text}).encode())
)
def test_no_argument_raises_anything_but_a_protocol_error(argument: bytes) -> None:
    """Whatever a peer sends after a verb."""
    for decode in (wire.decode_hello, wire.decode_subscribe, wire.split_reject, lambda a: wire.parse_count("ACK", a)):
        try:
            decode(argument)
        except ProtocolError as error:
            assert wire.encode_verb("ERROR", str(error)).count(b"\n") == 1  # noqa: PT017 - either is right
