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


class _Bare(_Complete, kw_only=True, gc=False):
    """What has no attributes but those that an agent gives."""

    subject: Literal["\0"] | UnsetType = UNSET  # type: ignore[assignment]  # it is never anything but UNSET
    datacontenttype: Literal["\0"] | UnsetType = UNSET  # type: ignore[assignment]  # so is this
    dataschema: Literal["\0"] | UnsetType = UNSET  # type: ignore[assignment]  # and this
    data_base64: Literal["\0"] | UnsetType = UNSET  # type: ignore[assignment]  # and this


_decode_bare = msgspec.json.Decoder(_Bare).decode
_decode_complete = msgspec.json.Decoder(_Complete).decode
_decode_plain = msgspec.json.Decoder(_Plain).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode
_encoder = msgspec.json.Encoder()

_FEW = 10_000
_LAST_FIGURES = [b"%04d" % number for number in range(_FEW)]
"""What offsets end with: most events that are dealt with together have the same figures before."""


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
        found: list[Event] = _decode_complete_all(lines) if complete else list(map(_decode_plain, lines))
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return None
    data: list[Any] = [event.data for event in found]
    times: list[Any] = [event.time for event in found]
    if not complete and (UNSET in data or UNSET in times):
        data, times = ([each for each in column if each is not UNSET] for column in (data, times))
    if (b"\n" + b"\n".join(data)).count(b"\n{") < len(data):  # a line has no line end inside
        return None
    return found if are_rfc3339(times) else None


def _decode_complete_all(lines: Sequence[bytes]) -> list[Event]:
    try:
        return list(map(_decode_bare, lines))
    except msgspec.MsgspecError:
        return list(map(_decode_complete, lines))


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


def append_members(
    some: Sequence[Event], lines: Sequence[bytes], first: int, members: bytes
) -> tuple[bytes, list[int]] | None:
    """Adds members to lines as they are, where there is nothing in them but events' attributes, each once.

    Encoding those events would give the same, in another order.

    Args:
        some: events, at least one, that were decoded from the lines as complete ones; of one type, source and priority,
            with sequences of as many figures.
        lines: of the events.
        first: the first one's ``offset``, which is added; the next one's is one more.
        members: what comes behind the offset, from the comma on.

    Returns:
        The lines, each with its LF, and the bytes of each; None where they have to be encoded.
    """
    whole = b"".join(lines)
    if type(some[0]) is not _Bare or not whole.isascii() or b"\\" in whole:
        return None
    # No line with these values and without escapes can be shorter than its encoded event is. Where all have no more
    # bytes together, none has white space or a key that is repeated.
    own = [len(event.id) + len(event.time) + len(event.data) for event in some]  # type: ignore[arg-type]  # complete ones
    if len(whole) != sum(own) + len(some) * (len(_encoder.encode(some[0])) - own[0]):
        return None
    high, low = divmod(first, _FEW)
    offsets = _LAST_FIGURES[low : low + len(lines)]
    if not high or len(offsets) < len(lines):
        return None
    before, behind = b',"offset":"%d' % high, b'"' + members + b"}\n"
    longer = len(before) + len(offsets[0]) + len(behind) - 1
    data = behind.join(map(before.join, zip([line[:-1] for line in lines], offsets, strict=True))) + behind
    return data, [len(line) + longer for line in lines]


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
