"""Events: CloudEvents 1.0 in the JSON format, one event a line.

Sources: CloudEvents 1.0.2 specification, JSON event format, and the ``sequence`` extension. Which attribute is set by
whom, and what is refused, stands in ``docs/protocol.md``.
"""

from __future__ import annotations

import enum
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from notifyd.times import format_time as format_time  # for whoever deals with events
from notifyd.times import is_rfc3339 as is_rfc3339
from notifyd.times import parse_time as parse_time

MAX_NESTING = 1_000
"""Levels of objects and arrays in an event, the event itself included: more is refused."""

MAX_QUOTED_LINE = 8 * 1024
"""Bytes of a refused line that are kept in the event that tells of it."""


class Priority(enum.StrEnum):
    """How important an event is; also the name of the stream that carries it."""

    NORMAL = "normal"
    IMPORTANT = "important"
    CRITICAL = "critical"
    ERROR = "error"


LANES = (Priority.CRITICAL, Priority.IMPORTANT, Priority.NORMAL)
"""The priorities that a producer can give, most urgent first: the order in which an agent sends."""

HINTS = {lane.value: lane for lane in LANES}
DAMAGED_TYPE = "notifyd.frame.damaged"  # of an agent's event of a frame that was damaged on its way


class NotAcceptableError(Exception):
    """A line is no acceptable event; the text is the reason, for the producer's operator."""


class Event(msgspec.Struct, kw_only=True, gc=False):
    """One event. What is ``UNSET`` does not stand in its line; ``data`` is kept as it was written."""

    specversion: str | UnsetType = UNSET
    id: str
    source: str
    type: str
    time: str | UnsetType = UNSET
    priority: str | UnsetType = UNSET
    sequence: str | UnsetType = UNSET
    offset: str | UnsetType = UNSET
    received: str | UnsetType = UNSET
    rule: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    subject: Raw | UnsetType = UNSET
    datacontenttype: Raw | UnsetType = UNSET
    dataschema: Raw | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    data_base64: Raw | UnsetType = UNSET


class ExtendedEvent(Event, kw_only=True, gc=False):
    """An event with attributes that the hub does not know, or with known ones of unusual types."""

    extensions: dict[str, Raw]


class StrictEvent(Event, forbid_unknown_fields=True, gc=False):
    """What the fast decoder takes: only known attributes, each of its own type."""


_OPEN_BRACE = ord("{")
_FIELDS = frozenset(field for field in Event.__struct_fields__)
_HUB_ATTRIBUTES = frozenset({"offset", "received", "rule", "reason"})
_RAW_ATTRIBUTES = frozenset({"subject", "datacontenttype", "dataschema", "data", "data_base64"})
_decode_strict = msgspec.json.Decoder(StrictEvent).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_encoder = msgspec.json.Encoder()


_DEEP = 1_000 + 4 * MAX_NESTING


def go_deep() -> None:
    """Lets recursive parsers go ``MAX_NESTING`` deep; their depth has been checked before.

    The limit is the whole process's: it is raised once, by a program at its start or when it is needed, and not lowered
    under another thread.
    """
    if sys.getrecursionlimit() < _DEEP:
        sys.setrecursionlimit(_DEEP)


# --- decoding --------------------------------------------------------------------------------------------


def decode(line: bytes) -> Event:
    """Parses one event line, without its line end.

    Attributes that the hub sets itself are left out, ``data`` that is no object is put under ``value``,
    and a null attribute counts as missing. Of a repeated key the last counts.

    Raises:
        NotAcceptableError: the line is no acceptable event.
    """
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise NotAcceptableError(f"invalid UTF-8 at byte {error.start}") from None
    if may_be_deep(line) and _nesting(line) > MAX_NESTING:
        raise NotAcceptableError(f"nested deeper than {MAX_NESTING} levels")
    event: Event
    try:
        # A NUL that is written out may stand in data but in no attribute: the slow way tells them apart.
        event = _decode_slowly(line) if b"\\" in line and b"\\u0000" in line else _decode_strict(line)
    except (msgspec.MsgspecError, RecursionError):
        event = _decode_slowly(line)
    event.offset = event.received = event.rule = event.reason = UNSET
    if not (event.id and event.source and event.type):
        empty = next(name for name in ("id", "source", "type") if not getattr(event, name))
        raise NotAcceptableError(f"attribute {empty} is empty")
    if event.time is not UNSET and not is_rfc3339(event.time):
        raise NotAcceptableError("attribute time is no RFC 3339 time")
    if event.data is not UNSET and memoryview(event.data)[0] != _OPEN_BRACE:
        event.data = Raw(b'{"value":' + bytes(event.data) + b"}")
    return event


def may_be_deep(line: bytes) -> bool:
    """Tells whether a line's nesting has to be counted: each level takes a byte, so that most are short enough."""
    return len(line) > MAX_NESTING and line.count(b"[") + line.count(b"{") > MAX_NESTING


def _nesting(line: bytes) -> int:
    """Counts the levels of nesting outside of strings."""
    depth = deepest = 0
    for byte in re.sub(rb'"(?:[^"\\]|\\.)*"?', b"", line):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _decode_slowly(line: bytes) -> Event:
    """Parses what the fast decoder does not take, or says what is wrong with it."""
    go_deep()
    members = _members(line)
    attributes: dict[str, Any] = {}
    extensions: dict[str, Raw] = {}
    for name, raw in members.items():
        if name in _HUB_ATTRIBUTES:
            continue
        value = None if name in ("data", "data_base64") else _plain(raw)
        if isinstance(value, str):
            _check_text(name, value)
        _check_text("name", name)
        if name in _RAW_ATTRIBUTES:
            attributes[name] = raw
        elif name not in _FIELDS:
            extensions[name] = raw
        elif isinstance(value, str):
            attributes[name] = value
        elif value is not None:
            if name in ("id", "source", "type", "time"):
                raise NotAcceptableError(f"attribute {name} is not a string")
            extensions[name] = raw  # a priority, sequence or specversion that is judged, or passed on, as it is
    for name in ("id", "source", "type"):
        if name not in attributes:
            raise NotAcceptableError(f"attribute {name} is missing")
    return ExtendedEvent(**attributes, extensions=extensions)


def _members(line: bytes) -> dict[str, Raw]:
    """Splits an object into its members, each value as it was written."""
    if line.lstrip(b" \t\r\n")[:1] != b"{":
        raise NotAcceptableError("no JSON object")
    try:
        return _decode_members(line)
    except msgspec.MsgspecError as error:
        if b"\\ud" not in line.lower():
            raise NotAcceptableError(f"no valid JSON: {error}") from None
    # An unpaired surrogate, which only the standard library takes: allowed in data, and nowhere else.
    text = line.decode()
    try:
        _standard.decode(text)
    except ValueError as error:
        raise NotAcceptableError(f"no valid JSON: {error}") from None
    members: dict[str, Raw] = {}
    place = _BETWEEN.match(text).end()  # type: ignore[union-attr]  # it matches nothing, too
    while text[place] != "}":
        name, place = _standard.raw_decode(text, place)
        start = _BEFORE_VALUE.match(text, place).end()  # type: ignore[union-attr]
        _, end = _standard.raw_decode(text, start)
        members[name] = Raw(text[start:end].encode())
        place = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]
    return members


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


_standard = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str)
_BETWEEN = re.compile(r"[ \t\r\n{,]*")  # what may stand before a member's name in JSON that is valid
_BEFORE_VALUE = re.compile(r"[ \t\r\n:]*")


def _plain(raw: Raw) -> Any:
    try:
        return _decode_any(raw)
    except (msgspec.MsgspecError, RecursionError):
        pass  # too deep, an unpaired surrogate, or a number of very many figures
    go_deep()
    try:
        return _decode_any(raw)
    except msgspec.MsgspecError:
        return json.loads(bytes(raw), parse_int=_integer)


def _integer(text: str) -> int | str:
    """Gives an integer; one of more digits than Python reads stays as it is written."""
    try:
        return int(text)
    except ValueError:
        return text


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        raise NotAcceptableError(f"a NUL in attribute {name.encode('ascii', 'backslashreplace').decode()}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = name.encode("ascii", "backslashreplace").decode()
            raise NotAcceptableError(f"an unpaired surrogate in attribute {shown}") from None


# --- reading and encoding ----------------------------------------------------------------------------


def extension(event: Event, name: str) -> Any:
    """Gives the attribute ``name`` that the hub does not know or that is of an unusual type, else None."""
    if isinstance(event, ExtendedEvent) and name in event.extensions:
        return _plain(event.extensions[name])
    return None


class Columns(msgspec.Struct, gc=False):
    """Of an event that the hub has encoded, what a table has columns for and has to be read from its line."""

    id: str
    source: str
    type: str
    time: str
    received: str
    rule: str


_decode_columns = msgspec.json.Decoder(Columns).decode


def read_columns(line: bytes) -> Columns:
    """Reads the columns of an event that the hub has encoded; raises NotAcceptableError where it has not."""
    try:
        return _decode_columns(line)
    except (msgspec.MsgspecError, RecursionError):  # an unpaired surrogate or deep nesting in data
        go_deep()
        members = _members(line)
        missing = set(Columns.__struct_fields__) - members.keys()
        if missing:
            raise NotAcceptableError(f"attribute {min(missing)} is missing") from None
        return Columns(*[_plain(members[name]) for name in Columns.__struct_fields__])


def extension_names(event: Event) -> Collection[str]:
    """Gives the names of the attributes that :func:`extension` has."""
    return event.extensions if isinstance(event, ExtendedEvent) else ()


def data_object(event: Event) -> dict[str, Any]:
    """Parses ``data``; an event without one has an empty object."""
    data = event.data
    if data is UNSET:
        return {}
    try:
        return _decode_object(data)
    except (msgspec.MsgspecError, RecursionError):
        return _plain(data)  # type: ignore[no-any-return]  # the decoder has seen that it is an object


def raw_data(data: Mapping[str, object]) -> Raw:
    """Encodes ``data`` of an event of one's own."""
    return Raw(_encoder.encode(data))


def splice(data: Raw | UnsetType, added: Mapping[str, bytes], drop: Sequence[str] = ()) -> Raw:
    """Adds members to a JSON object without encoding the others again.

    Args:
        data: the object; UNSET for none.
        added: each member's value as JSON; it takes the place of one of the same name.
        drop: names of members that are taken out.
    """
    old = b"{}" if data is UNSET else bytes(data)
    if drop or any(b'"%b"' % name.encode() in old for name in added):
        go_deep()
        members = _members(old)
        kept = members.keys() - {*drop, *added}
        inside = b",".join(_encode_name(name) + b":" + bytes(raw) for name, raw in members.items() if name in kept)
    else:
        inside = old[1:-1]
    new = b",".join(_encoder.encode(name) + b":" + value for name, value in added.items())
    between = b"," if new and inside.strip() else b""
    return Raw(b"{" + inside + between + new + b"}")


def _encode_name(name: str) -> bytes:
    try:
        return _encoder.encode(name)
    except UnicodeEncodeError:  # an unpaired surrogate
        return json.dumps(name).encode()


def encode(event: Event) -> bytes:
    """Gives the event's line, without a line end."""
    if not isinstance(event, ExtendedEvent):
        return _encoder.encode(event)
    members = {name: getattr(event, name) for name in _FIELDS_IN_ORDER}
    # What the hub has given a value since then counts; what it has not stays as the producer wrote it.
    known = {name: value for name, value in members.items() if value is not UNSET}
    return _encoder.encode({**event.extensions, **known})


_FIELDS_IN_ORDER = Event.__struct_fields__


def quote_line(line: bytes) -> dict[str, object]:
    """Gives the ``data`` members that keep a refused line: ``line``, or ``raw`` (base64) where it is no UTF-8."""
    cut = line[:MAX_QUOTED_LINE]
    quoted: dict[str, object] = {"truncated": True} if len(line) > MAX_QUOTED_LINE else {}
    try:
        line.decode()
    except UnicodeDecodeError:
        return {"raw": cut, **quoted}  # msgspec writes bytes as base64
    return {"line": cut.decode("utf-8", "ignore"), **quoted}
