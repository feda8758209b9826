"""Many events at once: decoded and encoded together, at a fraction of what each costs by itself.

What is not like most events are is left to :mod:`notifyd.event`, which has the same answers for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from notifyd.event import MAX_NESTING, Event, ExtendedEvent, StrictEvent, encode, may_be_deep
from notifyd.times import are_rfc3339

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Plain(StrictEvent, kw_only=True, gc=False):
    """What is decoded in bulk: none of the hub's own attributes, which no text without a NUL can be a value of here.

    Of what is the same in most events no copy is made.
    """

    id: _Text
    source: _Text
    type: _Text

    specversion: Literal["1.0"] | UnsetType = UNSET
    priority: Literal["normal", "important", "critical"] | UnsetType = UNSET
    offset: Literal["\0"] | UnsetType = UNSET
    received: Literal["\0"] | UnsetType = UNSET
    rule: Literal["\0"] | UnsetType = UNSET
    reason: Literal["\0"] | UnsetType = UNSET


class _Complete(_Plain, kw_only=True, gc=False):
    """What is decoded in bulk and lacks nothing that the hub would have to add."""

    specversion: Literal["1.0"]
    time: str
    data: Raw


_decode_complete = msgspec.json.Decoder(_Complete).decode
_decode_plain = msgspec.json.Decoder(_Plain).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode
_encoder = msgspec.json.Encoder()


def decode_all(lines: Sequence[bytes], *, complete: bool = False) -> list[Event] | None:
    """Parses lines of which each is an event like most are.

    Args:
        lines: at least one.
        complete: each has to have ``specversion``, ``time`` and ``data``.

    Returns:
        What :func:`notifyd.event.decode` would give for each; None where one of them has to be looked at more closely.
    """
    whole = b"\n".join(lines)
    if b"\\" in whole and b"\\u0000" in whole:
        return None
    if len(max(lines, key=len)) > MAX_NESTING and any(map(may_be_deep, lines)):
        return None
    try:
        whole.decode()  # each line is UTF-8 if all are: no character's bytes have a line end among them
        found: list[Event] = list(map(_decode_complete if complete else _decode_plain, lines))
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return None
    data: list[Any] = [event.data for event in found]
    times: list[Any] = [event.time for event in found]
    if not complete and (UNSET in data or UNSET in times):
        data, times = ([each for each in column if each is not UNSET] for column in (data, times))
    if (b"\n" + b"\n".join(data)).count(b"\n{") < len(data):  # a line has no line end inside
        return None
    return found if are_rfc3339(times) else None


def data_objects(some: Sequence[Event]) -> list[dict[str, Any]] | None:
    """Gives what :func:`notifyd.event.data_object` gives for each; None where one has to be parsed by itself."""
    data = [event.data for event in some]
    try:
        # Each is JSON by itself, so that they are a list together.
        return _decode_objects(b"[" + b",".join(data) + b"]")  # type: ignore[arg-type]  # UNSET is a TypeError
    except (TypeError, msgspec.MsgspecError, RecursionError):
        return None


def encode_all(some: Sequence[Event], lines: Sequence[bytes] = ()) -> tuple[bytes, list[int]]:
    """Encodes as :func:`notifyd.event.encode` does.

    Args:
        some: events.
        lines: what they were decoded from, where nothing was done to their data: tells how long each may have become.

    Returns:
        The lines, each with its LF, and the bytes of each.
    """
    if ExtendedEvent not in map(type, some):
        data = _encoder.encode_lines(some)
        if lines and (sizes := _sizes_like(data, lines)):
            return data, sizes
        sizes = [len(line) + 1 for line in data.split(b"\n")]
        sizes.pop()
        if len(sizes) == len(some):  # none has a line end among its white space
            return data, sizes
    return join_lines(list(map(encode, some)))


def _sizes_like(data: bytes, lines: Sequence[bytes]) -> list[int]:
    """Gives the sizes of encoded lines, where each is as much longer than its like as the first is; else nothing."""
    longer = data.index(b"\n") + 1 - len(lines[0])
    sizes = [len(line) + longer for line in lines]
    ends = list(accumulate(sizes, initial=-1))
    # The ends ascend, and there are as many LF as lines: those that stand at the ends are all.
    if (
        min(sizes) > 0
        and ends[-1] == len(data) - 1
        and bytes(map(data.__getitem__, ends[1:])).count(b"\n") == len(lines)
    ):
        return sizes
    return []


def join_lines(lines: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """Gives lines joined, each with an LF, and the bytes of each."""
    return b"\n".join((*lines, b"")), [len(line) + 1 for line in lines]
