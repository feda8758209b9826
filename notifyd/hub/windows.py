"""A window: what the hub knows of the repeats of one kind, its row in the database, and the event that tells of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from notifyd import event as events
from notifyd.hub.kinds import Key

MAX_TIME = 40
"""Characters of a time that is kept as it was written: RFC 3339 allows any number of decimals."""

LEVELS = {"normal": 0, "important": 1, "critical": 2, "error": 3}
"""The priorities, by how urgent they are."""


class WindowRow(NamedTuple):
    """A window's row of table ``suppression``."""

    offset: int
    """Of the first event, which went through: the primary key."""
    setting: str
    """What tells the setting from others: a hash of its conditions, ``by`` and ``window``."""
    kind: str
    """What stood in the event for each entry of ``by``, as a JSON list of texts and nulls; long values are hashed."""
    opened: float
    """When the first event was received, in seconds since 1970; a double."""
    rule: str
    """The setting's name: the summary's ``rule``."""
    source: str
    """The summary's ``source``."""
    type: str
    """The first event's ``type``, and the summary's."""
    priority: str
    """The highest priority that was sent in the window."""
    fields: str
    """What the summary has in ``data.fields``, as a JSON object."""
    truncated: int
    """1 where something in the fields was left out, else 0."""
    repeated: int
    """How many events were suppressed."""
    first: str | None
    """``time`` of the first of them (RFC 3339); null as long as there is none."""
    last: str | None
    """``time`` of the last of them."""


class Summary(NamedTuple):
    """What the event has that tells of a window's repeats; it is not classified, and never suppressed itself."""

    type: str
    source: str
    priority: str
    rule: str
    data: dict[str, object]


@dataclass(slots=True, eq=False)
class Window:
    """An open window, or one that has ended and is not told yet."""

    offset: int
    setting: str
    key: Key
    opened_s: float
    ends_s: float
    rule: str
    source: str
    type: str
    priority: str
    fields: str
    truncated: bool
    repeated: int = 0
    first: str | None = None
    last: str | None = None
    is_stored: bool = False  # it has a row, or will have with a batch that was taken
    is_changed: bool = False
    is_told: bool = False

    def characters(self) -> int:
        """Counts what it holds."""
        return sum(map(len, filter(None, self.key))) + len(self.source) + len(self.type) + len(self.fields)

    def count(self, time: str) -> None:
        """Counts a repeat.

        Args:
            time: the event's, in RFC 3339.
        """
        if len(time) > MAX_TIME:
            time = events.format_time(events.parse_time(time))
        if self.first is None:
            self.first = time
        self.last = time
        self.repeated += 1

    def row(self) -> WindowRow:
        """Gives its row."""
        return WindowRow(
            self.offset, self.setting, json.dumps(self.key), self.opened_s, self.rule, self.source, self.type,
            self.priority, self.fields, int(self.truncated), self.repeated, self.first, self.last,
        )  # fmt: skip

    def summary(self) -> Summary:
        """Gives what tells of its repeats."""
        times = "once" if self.repeated == 1 else f"{self.repeated} times"
        data: dict[str, object] = {
            "line": f"{self.type} was repeated {times}, from {self.first} to {self.last}",
            "repeated": self.repeated,
            "first": self.first,
            "last": self.last,
            "fields": json.loads(self.fields),
            "of": str(self.offset),
        }
        if self.truncated:
            data["truncated"] = True
        return Summary(self.type, self.source, self.priority, self.rule, data)


def read(row: WindowRow) -> Window:
    """Gives the window that a row is of; raises ValueError or RecursionError where it is of none."""
    row = msgspec.convert(tuple(row), WindowRow)
    # The standard library's, which takes unpaired surrogates: they may stand in data.
    key = msgspec.convert(json.loads(row.kind), Key)
    if not isinstance(json.loads(row.fields), dict):
        raise ValueError("the fields are no object")
    if not (math.isfinite(row.opened) and row.priority in LEVELS and row.source and row.type and row.repeated >= 0):
        raise ValueError("no window has such values")
    if row.repeated and not (row.first and row.last and events.is_rfc3339(row.first) and events.is_rfc3339(row.last)):
        raise ValueError("repeats without times")
    return Window(
        row.offset, row.setting, key, row.opened, math.inf, row.rule, row.source, row.type, row.priority, row.fields,
        bool(row.truncated), row.repeated, row.first, row.last, is_stored=True,
    )  # fmt: skip
