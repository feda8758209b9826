"""A lookup with a query that obeys the test."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock

from notifyd.event import decode
from notifyd.hub.breaker import OPENS_AFTER
from notifyd.hub.draft import Draft
from notifyd.hub.lookup import Lookup
from notifyd.hub.lookup_cache import Entry, Key
from tests.lookups import FakeQuery

KITCHEN = {"location": "Kitchen"}


class Bench:
    """A lookup with a query that answers when the test says so."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.clock = Clock()
        self.query = FakeQuery()
        self.told: list[tuple[str, str, str, dict[str, object]]] = []
        options: dict[str, Any] = {"cache_s": 60.0, "cache_entries": 100, "timeout_s": 2.0, **settings}
        self.lookup = Lookup(
            "zone",
            names or ["zone"],
            self.query,
            reactor=self.clock,
            tell=lambda *words: self.told.append(words),
            **options,
        )
        self.answered: list[tuple[Key, Any]] = []

    def ask(self, *keys: str) -> None:
        """Asks for keys; what comes is in ``answered``."""
        self.lookup.ask([(key,) for key in keys], self._note)

    def _note(self, key: Key, entry: Entry | None) -> None:
        self.answered.append((key[0], "unavailable" if entry is None or entry[2] is None else entry[1]))  # type: ignore[arg-type]

    def take(self) -> list[Any]:
        """Gives the answers that have come since the last time."""
        answered, self.answered = self.answered, []
        return answered

    def fill(self, **attributes: Any) -> tuple[Key | None, dict[str, Any]]:
        """Fills an event; gives the key that is missing, and what the data became."""
        event = draft(**attributes)
        key = self.lookup.fill(event, self.clock.seconds())
        event.write_data()
        return key, json.loads(bytes(event.event.data))  # type: ignore[arg-type]

    def kinds(self) -> list[str]:
        """Gives the events that were told."""
        return [kind for kind, *_ in self.told]

    def break_(self) -> None:
        """Has the database refuse as often as it takes."""
        for number in range(OPENS_AFTER):
            self.ask(f"x{number}")
            self.query.answer(fault="connection refused")
        self.take()


def draft(data: Any = None, **attributes: Any) -> Draft:
    """Gives an event."""
    line = {"id": "1", "source": "/ward3/panel", "type": "panel.alarm", "data": data or {}, **attributes}
    return Draft(decode(json.dumps(line).encode()))


def of_zone(zone: Any) -> dict[str, Any]:
    """Gives data with a field."""
    return {"fields": {"zone": zone}}
