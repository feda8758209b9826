"""Kinds: what makes two events the same for a ``[[suppress]]`` setting; from hostile data to keys of bounded size.

A kind has one part for each entry of ``by``: the text of what stands there in the event. A scalar is compared by its
text, as in rules: ``7`` and ``"7"`` are the same, as are ``true`` and ``"true"``. What is absent is the same as
``null``. Objects and lists are compared by the hash of their canonical JSON. ``error`` events are kinds of their own.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from notifyd import event as events
from notifyd.conditions import ABSENT
from notifyd.event import Event, Priority
from notifyd.hub.draft import Draft

MAX_PLAIN = 64
"""Characters of a text that stand in a key as they are, so that keys stay small; a longer text is hashed.

A hash with its mark in front is longer than this: no producer can write a text that is taken for one.
"""

MAX_FIELD = 256
"""Characters of a value that a summary repeats in ``fields``: room for what people name and number things with."""

Key = tuple[str | None, ...]
"""A kind of events of one setting."""

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_decode = msgspec.json.Decoder().decode
_ATTRIBUTES = frozenset(Event.__struct_fields__) - {"data", "data_base64"}
_ERROR = Priority.ERROR.value
_FIELDS = "fields."


class Kinds:
    """The kinds of one setting.

    Args:
        by: names of attributes, or paths in the data.

    Attributes:
        share_source: whether all events of a kind are of the same source.
    """

    def __init__(self, by: Sequence[str]) -> None:
        self.share_source = "source" in by
        self._readers = [_reader(entry) for entry in by]
        self._fields = [entry.split(".") for entry in by if entry.startswith(_FIELDS)]

    def key(self, draft: Draft, priority: str) -> Key | None:
        """Gives an event's kind; None where something in it is nested too deeply to be compared.

        Args:
            draft: the event.
            priority: what it was given.
        """
        parts: list[str | None] = []
        for read in self._readers:
            value = priority if read is None else read(draft)
            if type(value) is not str or len(value) > MAX_PLAIN:
                try:
                    value = _part(value)
                except RecursionError:
                    return None
            parts.append(value)
        if priority == _ERROR:
            parts.append(_ERROR)  # no other kind of this setting has so many parts
        return tuple(parts)

    def fields(self, draft: Draft) -> tuple[dict[str, Any], bool]:
        """Gives what stands at the paths under ``fields``, nested as there, and whether something had to be left out.

        Objects and lists are left out, as are long texts and those that no JSON in UTF-8 can have.
        """
        found: dict[str, Any] = {}
        is_complete = True
        for path in self._fields:
            value = draft.value(path)
            if value is ABSENT or value is None:
                continue
            told = _told(value)
            if told is None:
                is_complete = False
                continue
            place = found
            for step in path[1:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = told
        return found, not is_complete


def _reader(entry: str) -> Callable[[Draft], Any] | None:
    """Gives what reads an entry of ``by``: an attribute that the hub knows, else a path, else any other attribute.

    None for the priority: the event itself has the producer's.
    """
    if entry == "priority":
        return None
    if entry in ("id", "source", "type"):
        return operator.attrgetter(f"event.{entry}")  # always a text
    if entry in _ATTRIBUTES:
        return lambda draft: _attribute(draft.event, entry)
    path = entry.split(".")

    def read(draft: Draft) -> Any:
        value = draft.value(path)
        return events.extension(draft.event, entry) if value is ABSENT else value

    return read


def _attribute(event: Event, name: str) -> Any:
    value = getattr(event, name)
    if type(value) is str:
        return value
    if value is UNSET:
        return events.extension(event, name)
    return _raw(value)


def _raw(raw: Raw) -> Any:
    """Gives a JSON text that is kept as it was written; of an object or list that text."""
    try:
        value = _decode(raw)
    except (msgspec.MsgspecError, RecursionError):  # a number that is too large, or nested too deeply
        return bytes(raw).decode()
    return bytes(raw).decode() if isinstance(value, dict | list) else value


def _part(value: Any) -> str | None:
    """Gives a value as part of a key; raises RecursionError where it is nested too deeply."""
    if value is None or value is ABSENT:
        return None
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if isinstance(value, str):
        return value if len(value) <= MAX_PLAIN else _hash("sha256:", value)
    return _hash("json:", _canonical(value))


def _hash(mark: str, text: str) -> str:
    return mark + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _told(value: Any) -> Any:
    """Gives a scalar for a summary, else None; a number that not every JSON parser reads becomes its text."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        value = str(value)
    elif isinstance(value, float) and not math.isfinite(value):
        value = json.dumps(value)
    if isinstance(value, str):
        if len(value) > MAX_FIELD:
            return None
        try:
            value.encode()
        except UnicodeEncodeError:  # an unpaired surrogate
            return None
    return value if isinstance(value, str | int | float) else None
