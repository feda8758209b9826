"""A draft: an event on its way through the hub's pipeline, from its line to its place in the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from notifyd import event as events
from notifyd import manyevents
from notifyd.conditions import ABSENT
from notifyd.event import HINTS, Event
from notifyd.hub.entries import Position

_encode = msgspec.json.Encoder().encode


class Draft(msgspec.Struct, gc=False):
    """An event, what the hub has found out about it, and what it will be stored as.

    A :class:`msgspec.Struct`, since one is made for each event: it costs a fifth of a class of Python's.

    Attributes:
        event: as it was decoded; its ``priority`` is the producer's hint until the event is settled.
        received: when its line was read, as RFC 3339.
        received_s: the same in seconds since 1970.
        line: as it came.
        position: what it says about its spool.
        own: whether it is the hub's own.
        unavailable: lookups that could not be asked about it.
        parsed: :attr:`data`, once something has asked for it.
        is_changed: whether :meth:`write_data` has something to write.
    """

    event: Event
    received: str = ""
    received_s: float = 0.0
    line: bytes = b""
    position: Position | None = None
    own: bool = False
    unavailable: list[str] = []  # msgspec gives each its own
    is_changed: bool = False
    parsed: dict[str, Any] | None = None
    _context: dict[str, Raw] | None = None
    _disowned: bool = False
    _is_clean: bool = False  # known to have no context of the producer's

    @property
    def hint(self) -> str | None:
        """The producer's priority, where it is one that a producer can give, until the event is settled."""
        hint = self.event.priority
        return hint if hint is not UNSET and hint in HINTS else None

    @property
    def data(self) -> dict[str, Any]:
        """The event's data, parsed when it is first asked for; ``context`` in it grows with :meth:`add_context`."""
        data = self.parsed
        if data is None:
            data = self.parsed = events.data_object(self.event)
        return data

    @staticmethod
    def parse_all(drafts: Sequence[Draft]) -> None:
        """Parses the data of drafts that will all be asked for it, of which no one was yet."""
        parsed = manyevents.data_objects([draft.event for draft in drafts])
        if parsed is not None:
            for draft, data in zip(drafts, parsed, strict=True):
                draft.parsed = data

    def value(self, path: Sequence[str]) -> Any:
        """Gives what stands at a path in the data, :data:`ABSENT` where nothing does; a figure counts into a list."""
        value: Any = self.data
        for step in path:
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(value):
                value = value[int(step[:9])]
            else:
                return ABSENT
        return value

    def disown_context(self) -> None:
        """Takes out ``context`` and ``unavailable`` that the producer put into the data: they are the hub's to say."""
        data = self.data
        self._is_clean = not ("context" in data or "unavailable" in data)
        if not self._is_clean:
            self._disowned = self.is_changed = True
            data.pop("context", None)
            data.pop("unavailable", None)

    def add_context(self, name: str, value: Any, encoded: bytes | Raw) -> None:
        """Adds what a lookup found, or the operator's own code, to ``data.context``.

        Args:
            name: its key.
            value: what JSON can hold; nobody changes it from now on.
            encoded: the same as JSON.
        """
        self.is_changed = True
        raw = encoded if isinstance(encoded, Raw) else Raw(encoded)
        context = self._context
        if context is None:
            self._context = {name: raw}
            self.data["context"] = {name: value}
        else:
            context[name] = raw
            self.data["context"][name] = value

    def lack(self, name: str) -> None:
        """Notes that a lookup could not be asked."""
        self.is_changed = True
        self.unavailable.append(name)

    def write_data(self, *, leave_out_context: bool = False) -> None:
        """Writes what was added into the event's data; everything else in it stays as the producer wrote it.

        Args:
            leave_out_context: for a line that would be too long with it; ``truncated`` says so.
        """
        if self._context is not None and not (self.unavailable or self._disowned or leave_out_context):
            data = self.event.data
            old = b"{}" if data is UNSET else bytes(data)
            if self._is_clean or b'"context"' not in old:  # what was found is put behind the last member
                start = old[:-1] + b"," if b'"' in old else b"{"
                self.event.data = Raw(start + b'"context":' + _encode(self._context) + b"}")
                return
        added: dict[str, bytes] = {}
        if self._context is not None and not leave_out_context:
            added["context"] = _encode(self._context)
        if self.unavailable:
            added["unavailable"] = _encode(self.unavailable)
        if leave_out_context:
            added["truncated"] = b"true"
        if added or self._disowned:
            drop = ("context", "unavailable") if self._disowned or leave_out_context else ()
            self.event.data = events.splice(self.event.data, added, drop)
