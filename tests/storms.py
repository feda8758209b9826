"""What the tests of storms share: settings, events, and a hub that stores what it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET

from notifyd.config_hub import Suppress, parse_hub
from notifyd.event import decode, format_time
from notifyd.hub.draft import Draft
from notifyd.hub.suppress import Suppressor
from notifyd.hub.windows import WindowRow

DOORS = '[[suppress]]\nname = "doors"\ntype = "door"\nby = ["source", "type", "fields.zone"]\nwindow = "60s"\n'
ZONES = '[[suppress]]\nby = ["fields.zone"]\nwindow = "10s"\n'


def configured(text: str) -> tuple[Suppress, ...]:
    """Gives settings as they stand in hub.toml."""
    return parse_hub(text, "hub.toml").suppress


def by_type(setting: Suppress) -> Callable[[Draft], bool]:
    """Stands for a compiled condition: the type alone counts, or nothing."""
    return lambda draft: setting.type in (None, draft.event.type)


def suppressor(text: str, rows: Sequence[WindowRow] = (), **limits: int) -> Suppressor:
    """Gives one for settings as they stand in hub.toml."""
    found = configured(text)
    return Suppressor(found, [by_type(setting) for setting in found], rows, **limits)


def draft(zone: Any = "7", **attributes: Any) -> Draft:
    """Gives an event of a door."""
    data = {"line": "x", "fields": {} if zone is None else {"zone": zone}}
    return Draft(
        decode(json.dumps({"id": "1", "source": "/ward3/a", "type": "door", "data": data, **attributes}).encode())
    )


class Hub:
    """Judges events one after the other, each with the next offset."""

    def __init__(self, text: str, rows: Sequence[WindowRow] = (), **limits: int) -> None:
        self.suppressor = suppressor(text, rows, **limits)
        self.offset = 100

    def send(self, at: float, event: Draft | None = None, priority: str = "normal") -> bool:
        """Tells whether an event is suppressed; its time is when it was received."""
        event = event or draft()
        if event.event.time is UNSET:
            event.event.time = format_time(at)
        self.offset += 1
        return self.suppressor.judge(event, priority=priority, offset=self.offset, received_s=at)

    def told(self, at: float) -> list[int]:
        """Gives the counts of the summaries that are due."""
        return [summary.data["repeated"] for summary in self.suppressor.due(at)]
