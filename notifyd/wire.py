"""The wire: lines, verbs and their payloads, for both ends of every port.

A verb is a line of capital letters, alone or followed by one space and an argument. Which verb goes
which way on which port, with an example of each, stands in ``docs/protocol.md``; an event line is left
to :mod:`notifyd.event`.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from notifyd import event as events

MAX_LINE = 65_536
"""Bytes of a line towards the hub, its line end not counted."""

MAX_HUB_LINE = 128 * 1024
"""Bytes of a line from the hub, its line end not counted."""

WINDOW = 1024 * 1024
"""Bytes of unacknowledged lines that the hub grants a producer that said HELLO."""

MAX_ANSWERS = 64 * 1024
"""Bytes of answers that may wait for a peer before it is no longer read from."""

MAX_NAME = 255
"""Characters of an agent's, a spool's or a registered client's name."""


class ProtocolError(Exception):
    """The peer broke the protocol; the text goes to it after ``ERROR``."""


class LineSplitter:
    """Turns bytes, however they arrive, into lines; holds at most one line that is not complete.

    A CR before the LF is taken off and empty lines are left out. When a line exceeds the limit,
    ``overflow`` is set, the lines before it are still given, and nothing that follows is.

    Args:
        limit: bytes of a line, its line end not counted.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.overflow = False
        self._rest = b""

    @property
    def held(self) -> int:
        """Bytes of the line that is not complete."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Gives the lines that ``data`` completes."""
        if self.overflow:
            return []
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        if b"\r" in data or (lines and lines[0].endswith(b"\r")):
            lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
        if len(data) + (len(lines[0]) if lines else 0) > self.limit:
            lines = self._within_limit(lines)
        if len(self._rest) > self.limit + 1 or (len(self._rest) > self.limit and not self._rest.endswith(b"\r")):
            self.overflow = True
        if self.overflow:
            self._rest = b""
        return [line for line in lines if line] if b"" in lines else lines

    def _within_limit(self, lines: list[bytes]) -> list[bytes]:
        for index, line in enumerate(lines):
            if len(line) > self.limit:
                self.overflow = True
                return lines[:index]
        return lines


_VERB = re.compile(rb"([A-Z]+)(?: (.+))?", re.DOTALL)


def parse_verb(line: bytes) -> tuple[str, bytes | None] | None:
    """Gives a verb line's verb and argument (None where it has none); None where ``line`` is no verb."""
    match = _VERB.fullmatch(line)
    return None if match is None else (match[1].decode(), match[2])


# --- payloads ------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True):
    """``HELLO {"agent":"ward3","spool":"6f1c2a9e"}``: producer to hub, first, once."""

    agent: str
    spool: str


class HelloOk(msgspec.Struct, frozen=True):
    """``OK {"acked":{"critical":41,"important":0,"normal":12},"window":1048576}``: answers HELLO."""

    acked: dict[str, int]
    window: int


class Subscribe(msgspec.Struct, frozen=True, omit_defaults=True):
    """``SUBSCRIBE {"after":"1207"}``: client to hub, once.

    ``after`` is an offset, ``first`` or ``now``; ``since`` an RFC 3339 time; ``name`` registers the client.
    """

    after: str | None = None
    since: str | None = None
    name: str | None = None


class SubscribeOk(msgspec.Struct, frozen=True):
    """``OK {"stream":"critical","after":"1207"}``: answers SUBSCRIBE."""

    stream: str
    after: str


class Gap(msgspec.Struct, frozen=True):
    """``GAP {"after":"1207","before":"1501","reason":"expired"}``: hub to client."""

    after: str
    before: str
    reason: str


_Payload = TypeVar("_Payload", Hello, HelloOk, Subscribe, SubscribeOk, Gap)


def encode_verb(verb: str, payload: msgspec.Struct | int | str | None = None) -> bytes:
    """Gives a verb's line with its LF; text is put on one line, and is cut at 1,000 characters."""
    if payload is None:
        argument = b""
    elif isinstance(payload, str):
        argument = b" " + " ".join(payload.split())[:1000].encode("utf-8", "replace")
    else:
        argument = b" " + msgspec.json.encode(payload)
    return verb.encode() + argument + b"\n"


def decode_payload(verb: str, argument: bytes | None, kind: type[_Payload]) -> _Payload:
    """Parses a verb's JSON argument; members that are not known are ignored.

    Raises:
        ProtocolError: it is no JSON object of that kind.
    """
    if argument is None:
        raise ProtocolError(f"{verb} needs a JSON object")
    try:
        argument.decode()
        return msgspec.json.decode(argument, type=kind)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ProtocolError(f"{verb}: {error}") from None


def decode_hello(argument: bytes | None) -> Hello:
    """Parses HELLO's argument.

    Raises:
        ProtocolError: it is malformed, or a name in it is.
    """
    hello = decode_payload("HELLO", argument, Hello)
    _check_name("HELLO", "agent", hello.agent)
    _check_name("HELLO", "spool", hello.spool)
    return hello


def decode_subscribe(argument: bytes | None) -> Subscribe:
    """Parses SUBSCRIBE's argument.

    Raises:
        ProtocolError: it is malformed, names both an offset and a time, or a name in it is no name.
    """
    subscribe = decode_payload("SUBSCRIBE", argument, Subscribe)
    if subscribe.after is not None and subscribe.since is not None:
        raise ProtocolError("SUBSCRIBE: after and since exclude each other")
    if subscribe.after is not None and subscribe.after not in ("first", "now"):
        parse_offset("SUBSCRIBE: after", subscribe.after)
    if subscribe.since is not None and not events.is_rfc3339(subscribe.since):
        raise ProtocolError("SUBSCRIBE: since is no RFC 3339 time")
    if subscribe.name is not None:
        _check_name("SUBSCRIBE", "name", subscribe.name)
    return subscribe


def parse_offset(what: str, text: str | None) -> int:
    """Gives the offset (or count) that decimal digits write.

    Raises:
        ProtocolError: ``text`` is no string of decimal digits, or has more than any offset.
    """
    if text is None or not text.isascii() or not text.isdigit():
        raise ProtocolError(f"{what} is no decimal string")
    digits = text.lstrip("0")
    if len(digits) > 19:
        raise ProtocolError(f"{what} is beyond the end of the log")
    return int(digits or "0")


def parse_count(verb: str, argument: bytes | None) -> int:
    """Gives the number after ``ACK``.

    Raises:
        ProtocolError: there is none.
    """
    return parse_offset(f"the argument of {verb}", None if argument is None else argument.decode("latin-1"))


def split_reject(argument: bytes | None) -> tuple[int, str]:
    """Gives ``n`` and the reason of ``REJECT n reason``.

    Raises:
        ProtocolError: there is no number.
    """
    number, _, reason = (argument or b"").partition(b" ")
    return parse_count("REJECT", number), reason.decode("utf-8", "replace")


def _check_name(verb: str, key: str, name: Any) -> None:
    if not name or len(name) > MAX_NAME:
        raise ProtocolError(f"{verb}: {key} must have 1 to {MAX_NAME} characters")
    if not name.isprintable():
        raise ProtocolError(f"{verb}: {key} has characters that cannot be printed")
