"""Events: what is acceptable, what is refused, and that nothing of an event changes on its way."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from notifyd import event as events
from notifyd.event import MAX_NESTING, Event, NotAcceptableError, decode, encode, quote_line

HEAD = b'{"specversion":"1.0","id":"1","source":"/a/b","type":"t"'


def members(line: bytes) -> Any:
    """Gives an event's members as they leave the hub."""
    return json.loads(encode(decode(line)))


def refusal(line: bytes) -> str:
    """Gives the reason for which a text is refused."""
    with pytest.raises(NotAcceptableError) as refused:
        decode(line)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def at_depth(depth: int, work: Callable[[], Any]) -> Any:
    """Calls with that many frames on the stack: a reactor's callbacks may be deep when a line is parsed."""
    return work() if depth <= 0 else at_depth(depth - 1, work)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"ALARM 7", b"{", b"{}x", b"[]", b'["id"]', b'"id"', b"1", b"null", b"true", b"nan", b"\x00", b"{'id':1}",
        HEAD + b",}", HEAD + b"} {}", HEAD, HEAD + b',"data":tru}', HEAD + b',"x":01}', HEAD + b',"x":"\t"}',
        HEAD + b',"data":"\\q"}', HEAD + b',"data":{"a":.5}}', HEAD + b',"data":"\x01"}', b"\xef\xbb\xbf" + HEAD + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(line: bytes) -> None:
    """A line that a person or a broken program typed is told to be no JSON object, or no JSON at all."""
    assert "JSON" in refusal(line)


@pytest.mark.parametrize("name", ["id", "source", "type"])
@pytest.mark.parametrize("value", [None, "", 5, 1.5, True, [], {}, ["a"], ...])
@pytest.mark.parametrize("extra", [{}, {"unknown": 1}])
def test_an_event_needs_id_source_and_type(name: str, value: Any, extra: dict[str, Any]) -> None:
    """Each of the three has to be there, to be text, and not to be empty, also beside unknown attributes."""
    document = {"id": "1", "source": "/a", "type": "t", **extra, name: value}
    if value is ...:
        del document[name]
    assert name in refusal(json.dumps(document).encode())


@pytest.mark.parametrize(
    "time",
    [
        "", "now", "2026-11-22", "2026-11-22T10:00:00", "2026-11-22 10:00:00Z", "2026-11-22T24:00:00Z",
        "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-11-22T10:60:00Z",
        "2026-11-22T10:00:61Z", "2026-11-22T10:00:00.Z", "2026-11-22T10:00:00+2:00", "2026-11-22T10:00:00+24:00",
        "2026-11-22T10:00Z", "2026-11-22T10:00:00Z ", "2026-11-22T10:00:00Z\n", "20261122T100000Z",
        "2026-11-22T10:00:00,5Z", "٢٠٢٦-11-22T10:00:00Z", "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
    ],
)  # fmt: skip
def test_a_time_that_is_not_rfc3339_is_refused(time: str) -> None:
    """A time that a reader might take for another one is refused, by name."""
    assert not events.is_rfc3339(time)
    assert "time" in refusal(json.dumps({"id": "1", "source": "/a", "type": "t", "time": time}).encode())
    with pytest.raises(ValueError, match="RFC 3339"):
        events.parse_time(time)


@pytest.mark.parametrize("value", [5, 1.5, True, [], {}])
def test_a_time_that_is_no_text_is_refused(value: Any) -> None:
    """A number of seconds is no RFC 3339 time."""
    assert "time" in refusal(json.dumps({"id": "1", "source": "/a", "type": "t", "time": value}).encode())


@pytest.mark.parametrize("constant", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize(
    "place", [b',"data":%s}', b',"data":{"a":[%s]}}', b',"x":%s}', b',"offset":%s}', b',"data":["\\ud800",%s]}']
)
def test_nan_and_infinity_are_refused(constant: bytes, place: bytes) -> None:
    """What is no JSON number is refused wherever it stands, since strict readers would choke on it."""
    assert "JSON" in refusal(HEAD + place % constant)


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"])
@pytest.mark.parametrize("place", [b',"data":"%s"}', b',"x":"%s"}', b',"%s":1}', b',"offset":"%s"}', b"}%s"])
def test_invalid_utf8_is_refused(bad: bytes, place: bytes) -> None:
    """Bytes that are no UTF-8 are refused wherever they stand, with the place of the first."""
    line = HEAD + place % bad
    assert refusal(line) == f"invalid UTF-8 at byte {line.index(bad)}"


@pytest.mark.parametrize("escape", [b"\\u0000", b"\\ud800", b"\\uDFFF", b"\\udc00\\ud800", b"\\ud83dx"])
@pytest.mark.parametrize(
    "place",
    [
        b'{"id":"a%s","source":"/a","type":"t"}', b'{"id":"1","source":"%s","type":"t"}',
        b'{"id":"1","source":"/a","type":"t%s"}', HEAD + b',"subject":"%s"}', HEAD + b',"unknown":"%s"}',
        HEAD + b',"%s":1}', HEAD + b',"priority":"%s"}', HEAD + b',"sequence":"%s"}', HEAD + b',"dataschema":"%s"}',
        HEAD + b',"datacontenttype":"%s"}',
    ],
)  # fmt: skip
def test_a_nul_or_an_unpaired_surrogate_in_an_attribute_is_refused(escape: bytes, place: bytes) -> None:
    """Databases and UTF-8 cannot hold them: an attribute with one is refused, and named."""
    assert ("NUL" if escape == b"\\u0000" else "unpaired surrogate") in refusal(place % escape)


@pytest.mark.parametrize("escape", ["\\u0000", "\\ud800", "\\uDFFF", "a\\ud83d", "\\\\ud800", "\\ud83d\\ude00"])
def test_data_may_hold_a_nul_or_an_unpaired_surrogate(escape: str) -> None:
    """In data both are only text: it passes through byte for byte, whatever stands around it."""
    data = f'{{"a": [ -0, 1e2,1E400 , 0.10000000000000000001,{"9" * 5000}], "s":"{escape}" , "t":"ü"}}'.encode()
    for line in (
        HEAD + b',"data": ' + data + b"}",
        HEAD + b' , "x" :1e2, "data":' + data + b" }",
        b' {"data":' + data + b"," + HEAD[1:] + b"}",
    ):
        event = decode(line)
        assert bytes(event.data) == data
        assert data in encode(event)
        assert (b'"x":1e2' in encode(event)) == (b'"x"' in line)


@pytest.mark.parametrize("depth", [0, 50, 300, 600, 900])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"1" + b"}")])
@pytest.mark.parametrize("name", [b"data", b"unknown", b"priority"])
def test_nesting_counts_the_event_and_ends_at_a_thousand(
    depth: int, brackets: tuple[bytes, bytes], name: bytes
) -> None:
    """A thousand levels are taken and a thousand and one are not, however deep the hub's own stack is."""

    def nested(levels: int) -> bytes:
        opening, closing = brackets
        inner = opening * levels + closing[:-1] + closing[-1:] * levels
        return HEAD + b',"' + name + b'":' + inner + b"}"

    limit = sys.getrecursionlimit()
    room = limit - depth - 60
    used = len_of_stack()
    event = at_depth(min(depth, room - used), lambda: decode(nested(MAX_NESTING - 1)))
    assert nested(MAX_NESTING - 1).split(b":", 5)[-1][:-1] in encode(event)
    for levels in (MAX_NESTING, 10_000, 60_000 // len(brackets[0] + brackets[1])):
        line = nested(levels)
        assert "nested" in at_depth(min(depth, room - used), lambda line=line: refusal(line))
    assert sys.getrecursionlimit() == limit


def len_of_stack() -> int:
    """Counts the frames on the stack."""
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def test_brackets_in_text_are_no_nesting() -> None:
    """A device may print as many brackets as it likes."""
    text = '[{\\"[' * 1_200
    event = decode(HEAD + b',"data":{"line":"' + text.encode() + b'"}}')
    assert events.data_object(event)["line"] == text.replace('\\"', '"')


def test_deep_nesting_with_a_surrogate_is_taken_and_refused_by_the_same_limit() -> None:
    """The slow way through has the same limit as the fast one."""
    for levels in (MAX_NESTING - 1, MAX_NESTING):
        line = HEAD + b',"data":' + b"[" * levels + b'"\\ud800"' + b"]" * levels + b"}"
        if levels == MAX_NESTING:
            assert "nested" in refusal(line)
        else:
            assert b'"\\ud800"' in encode(decode(line))


# --- what passes, and what becomes of it ---------------------------------------------------------------------


def test_of_a_repeated_key_the_last_counts() -> None:
    """As most JSON readers do, also where the earlier one would have been refused."""
    assert members(b'{"id":"a","source":"/a","type":"t","id":"b"}')["id"] == "b"
    assert members(b'{"id":5,"source":"/a","type":"t","id":"b"}')["id"] == "b"
    assert members(HEAD + b',"x":1,"x":2,"data":1,"data":{"a":1}}')["x"] == 2
    assert members(HEAD + b',"time":"x","time":"2026-11-22T10:00:00Z"}')["time"] == "2026-11-22T10:00:00Z"
    assert "id" in refusal(b'{"id":"a","source":"/a","type":"t","id":5}')
    assert "time" in refusal(HEAD + b',"time":"2026-11-22T10:00:00Z","time":"x"}')


@pytest.mark.parametrize("name", ["specversion", "time", "priority", "sequence"])
def test_a_null_attribute_counts_as_missing(name: str) -> None:
    """CloudEvents has no null attributes: the hub fills such a one in like a missing one."""
    event = decode(HEAD + f',"{name}":null}}'.encode())
    assert getattr(event, name) is UNSET


@pytest.mark.parametrize("value", [b'"9"', b"9", b"null", b"{}", b'"\\u0000"', b'"\\ud800"', b"[[1]]"])
@pytest.mark.parametrize("name", [b"offset", b"received", b"rule", b"reason"])
def test_what_a_producer_says_of_the_hubs_own_attributes_is_left_out(name: bytes, value: bytes) -> None:
    """offset, received, rule and reason are the hub's to say, of whatever type a producer gave them."""
    event = decode(HEAD + b',"' + name + b'":' + value + b',"unknown":1}')
    assert getattr(event, name.decode()) is UNSET
    assert members(HEAD + b',"' + name + b'":' + value + b"}") == json.loads(HEAD + b"}")


@pytest.mark.parametrize(
    "value",
    [
        b"1e2", b"-0", b"1E400", b"0.10000000000000000001", b"123456789012345678901234567890", b'"\\u00fc\\/"', b"null",
        b"true", b'{ "b" : [ 1 , 2 ] }', b'"\xc3\xbc"', b"[]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", [b"unknown", b"subject", b"datacontenttype", b"dataschema", b"data_base64", b"x-y z"])
def test_attributes_that_the_hub_does_not_know_pass_unchanged(name: bytes, value: bytes) -> None:
    """Byte for byte in value: the hub has no business with them."""
    assert b'"' + name + b'":' + value in encode(decode(HEAD + b',"' + name + b'":' + value + b"}"))


@pytest.mark.parametrize("value", [b"1", b"null", b'"text"', b"[1, 2]", b"false", b'"{}"', b"1E400", b'"\\u0000"'])
def test_data_that_is_no_object_is_kept_under_value(value: bytes) -> None:
    """Every event's data is an object for those who read it."""
    event = decode(HEAD + b',"data" : ' + value + b"}")
    assert bytes(event.data) == b'{"value":' + value + b"}"
    assert b'"data":{"value":' + value + b"}" in encode(event)


def test_data_that_is_an_object_stays_as_it_is() -> None:
    """Also one that is called value already."""
    for data in (b"{}", b'{ "value":1}', b'{"a": {"b": []}}'):
        assert bytes(decode(HEAD + b',"data":  ' + data + b"}").data) == data


def test_an_event_without_data_gets_none() -> None:
    """And reads as an empty object."""
    event = decode(HEAD + b"}")
    assert event.data is UNSET
    assert events.data_object(event) == {}


def test_an_attribute_of_an_unusual_type_can_still_be_read() -> None:
    """So that the reason can say what a priority of 5 was."""
    event = decode(HEAD + b',"priority":5,"sequence":[1],"specversion":1,"unknown":{"a":1}}')
    assert event.priority is UNSET
    assert events.extension(event, "priority") == 5
    assert events.extension(event, "unknown") == {"a": 1}
    assert events.extension(event, "other") is None
    assert events.extension(decode(HEAD + b"}"), "priority") is None
    assert members(HEAD + b',"priority":5}')["priority"] == 5
    event.priority = "normal"
    assert json.loads(encode(event))["priority"] == "normal"


def test_whitespace_around_an_event_is_taken() -> None:
    """As JSON allows it, on either way through the decoder."""
    for line in (HEAD + b"} \r", b"\r\t " + HEAD + b"}", b"\r\t " + HEAD + b', "x":1 }\t'):
        assert decode(line).id == "1"


def test_a_stranger_reads_what_is_encoded() -> None:
    """The cloudevents package parses an event of ours, attributes, extension and data."""
    line = HEAD + b',"time":"2026-11-22T10:00:00.000001Z","sequence":"7","subject":"zone 7","data":{"line":"ALARM"}}'
    read = JSONFormat().read(CloudEvent, encode(decode(line)))
    assert (read.get_id(), read.get_source(), read.get_extension("sequence")) == ("1", "/a/b", "7")
    assert read.get_data() == {"line": "ALARM"}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(id=TEXT, source=TEXT, type=TEXT, data=JSON, extra=st.dictionaries(TEXT, JSON, max_size=3), ascii=st.booleans())
def test_every_event_survives_decoding_and_encoding(
    id: str,  # noqa: A002 - the attribute's name
    source: str,
    type: str,  # noqa: A002 - the attribute's name
    data: Any,
    extra: dict[str, Any],
    ascii: bool,  # noqa: A002
) -> None:
    """What a producer says arrives as it was said, and encoding what was decoded changes nothing more."""
    known = set(Event.__struct_fields__)
    document = {key: value for key, value in extra.items() if key not in known}
    document |= {"id": id, "source": source, "type": type, "data": data}
    event = decode(json.dumps(document, ensure_ascii=ascii).encode())
    line = encode(event)
    assert b"\n" not in line
    assert json.loads(line) == document | {"data": data if isinstance(data, dict) else {"value": data}}
    assert encode(decode(line)) == line


@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.binary(max_size=9).map(lambda b: HEAD + b"," + b + b"}")
)
def test_any_line_is_decoded_or_refused(line: bytes) -> None:
    """No bytes whatever raise anything else; what is accepted is JSON that strict readers take."""
    try:
        event = decode(line)
    except NotAcceptableError:
        return
    json.loads(encode(event), parse_constant=lambda name: pytest.fail(name))


# --- quoting refused lines -----------------------------------------------------------------------------------


def test_a_refused_line_is_quoted_as_text() -> None:
    """A person sees what was sent."""
    assert quote_line("zu früh".encode()) == {"line": "zu früh"}


def test_a_refused_line_that_is_no_utf8_is_quoted_as_base64() -> None:
    """Byte for byte."""
    written = json.loads(bytes(events.raw_data(quote_line(b"a\xffb"))))
    assert base64.b64decode(written["raw"]) == b"a\xffb"
    assert "line" not in written


@pytest.mark.parametrize("character", ["a", "ü", "\N{SNOWMAN}", "\N{GRINNING FACE}"])
def test_a_long_refused_line_is_cut_at_8_kib(character: str) -> None:
    """And marked; a character is never cut in two."""
    line = b"x" + character.encode() * 9000
    quoted = quote_line(line)
    assert quoted["truncated"] is True
    assert isinstance(quoted["line"], str)
    assert 8189 <= len(quoted["line"].encode()) <= 8192
    assert line.startswith(quoted["line"].encode())
    raw = json.loads(bytes(events.raw_data(quote_line(line + b"\xff"))))
    assert base64.b64decode(raw["raw"]) == line[:8192]
    assert quote_line(b"x" * 8192) == {"line": "x" * 8192}


@given(st.binary(max_size=70_000))
def test_any_line_can_be_quoted(line: bytes) -> None:
    """Whatever was refused fits into an event of at most 128 KiB."""
    assert len(msgspec.json.encode(quote_line(line))) < 100_000
