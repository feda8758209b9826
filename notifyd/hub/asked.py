"""What rules ask of events' data: decoded for many events at once, and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from notifyd.conditions import ABSENT
from notifyd.event import Event

_Getters = dict[tuple[str, ...], Callable[[Any], Any]]
_Members = dict[str, Any]  # a member's name to those of the object that it is; to none where it is asked for itself


class Values:
    """What stands in the data of some events.

    Args:
        decoded: the data of each, of which there is at least one.
        getters: of members, out of what is decoded.
    """

    def __init__(self, decoded: Sequence[Any], getters: _Getters) -> None:
        # Events in a row have often the same: one then stands for all.
        self._decoded = decoded[:1] if decoded.count(decoded[0]) == len(decoded) else decoded
        self._getters = getters

    def at(self, steps: tuple[str, ...]) -> Sequence[Any]:
        """Gives what stands at a path in some event each, of different values all; nothing where that is not known."""
        found = self._decoded
        for depth in range(1, len(steps) + 1):
            getter = self._getters.get(steps[:depth])
            if getter is None:
                return ()
            found = list(map(getter, found))
            if UNSET in found:
                return [ABSENT] if found.count(UNSET) == len(found) else ()
        return found


class AskedData:
    """Decodes of data what stands at certain paths.

    Args:
        paths: names of members, from the outside in. What stands at a path is not known where a longer one leads
            through it, or where JSON has to escape one of its names, which msgspec takes no member by.
    """

    def __init__(self, paths: Iterable[tuple[str, ...]]) -> None:
        members: _Members = {}
        for path in paths:
            if not all(map(_is_plain, path)):
                continue
            inside = members
            for step in path:
                inside = inside.setdefault(step, {})
        self._getters: _Getters = {}
        self._decode = msgspec.json.Decoder(list[self._struct(members, ())]).decode  # type: ignore[misc]  # made here

    def _struct(self, members: _Members, path: tuple[str, ...]) -> Any:
        fields: list[tuple[str, Any, Any]] = []
        renamed: dict[str, str] = {}
        for number, (member, inside) in enumerate(members.items()):
            name = f"member{number}"
            self._getters[*path, member] = attrgetter(name)
            renamed[name] = member
            fields.append((name, self._struct(inside, (*path, member)) | UnsetType if inside else Any, UNSET))
        return msgspec.defstruct("Asked", fields, rename=renamed, gc=False)

    def read(self, some: Sequence[Event]) -> Values | None:
        """Gives what stands in the data of events, at least one; None where each has to be looked at by itself."""
        data = [event.data for event in some]
        try:
            # Each is JSON by itself, so that they are a list together.
            return Values(self._decode(b"[" + b",".join(data) + b"]"), self._getters)  # type: ignore[arg-type]  # UNSET is a TypeError
        except (TypeError, msgspec.MsgspecError, RecursionError):
            return None


def _is_plain(name: str) -> bool:
    try:
        return msgspec.json.encode(name) == b'"%b"' % name.encode()
    except UnicodeEncodeError:  # an unpaired surrogate
        return False
