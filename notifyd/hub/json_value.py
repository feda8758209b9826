"""Values from the operator's own code, checked and copied into what JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from notifyd.frozen import FrozenList

MAX_ADDED = 64 * 1024
"""Bytes, as JSON, that a filter may add to one event: with more, no line to a client would have room for them."""

MAX_DEPTH = 100
"""Levels of objects and arrays in a value: it ends one that contains itself."""

MAX_INTEGER_BITS = 14_000
"""Bits of a whole number: Python writes no more than 4,300 figures."""

Member = tuple[str, Any, bytes]
"""A name, its value, and the value as JSON."""

_encode = msgspec.json.Encoder().encode


class NotJsonError(Exception):
    """A value cannot be written as JSON.

    Args:
        what: what is wrong, for ``… gave what an event cannot hold: a value of type datetime at zone.since``.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"{self.what} at {'.'.join(reversed(self.path))}" if self.path else self.what


def json_members(mapping: Mapping[Any, Any]) -> list[Member]:
    """Gives a mapping's members, each a copy that holds plain JSON and nothing else.

    Raises:
        NotJsonError: one cannot be written as JSON, or all together are longer than :data:`MAX_ADDED`.
        Exception: whatever the mapping itself raises.
    """
    copier = _Copier()
    members = copier.members(mapping, MAX_DEPTH)
    written: list[Member] = []
    size = 0
    for name, value in members.items():
        try:
            name_size = len(name.encode())
            encoded = _encode(value)
        except UnicodeEncodeError:
            raise NotJsonError("an unpaired surrogate") from None
        size += name_size + len(encoded)
        if size > MAX_ADDED:
            raise _too_long()
        written.append((name, value, encoded))
    return written


def _too_long() -> NotJsonError:
    return NotJsonError(f"more than {MAX_ADDED // 1024} KiB")


class _Copier:
    """Copies, and counts what it copies: each value takes a byte at least, so that it ends whatever it is given."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_ADDED

    def members(self, mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for name, value in mapping.items():
            if type(name) is not str:
                if not isinstance(name, str):
                    raise NotJsonError(f"a name of type {type(name).__name__}")
                name = str.__str__(name)
            self.spend(len(name))
            try:
                copied[name] = self.value(value, depth)
            except NotJsonError as error:
                error.path.append(name)
                raise
        return copied

    def value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            self.spend(1 + len(value))
            return value
        self.spend(1)
        if value is None or kind is bool:
            return value
        if kind is int:
            return self.integer(value)
        if kind is float:
            return self.floating(value)
        if depth == 0:
            raise NotJsonError(f"more than {MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            return self.members(value, depth - 1)
        if isinstance(value, list | tuple | FrozenList):
            return self.items(value, depth - 1)
        return self.subclass(value)

    def items(self, items: list[Any] | tuple[Any, ...] | FrozenList, depth: int) -> list[Any]:
        copied: list[Any] = []
        for number, item in enumerate(items):
            try:
                copied.append(self.value(item, depth))
            except NotJsonError as error:
                error.path.append(str(number))
                raise
        return copied

    def subclass(self, value: Any) -> Any:
        """Gives a member of an enum, or of a subclass, as what it is underneath."""
        if isinstance(value, str):
            return self.value(str.__str__(value), 1)
        if isinstance(value, int):
            return self.integer(int.__int__(value))
        if isinstance(value, float):
            return self.floating(float.__float__(value))
        raise NotJsonError(f"a value of type {type(value).__name__}")

    def integer(self, value: int) -> int:
        if value.bit_length() > MAX_INTEGER_BITS:
            raise NotJsonError("a number of too many figures")
        return value

    def floating(self, value: float) -> float:
        if not math.isfinite(value):
            raise NotJsonError("NaN or Infinity")
        return value

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise _too_long()
