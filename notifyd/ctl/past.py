"""Events from the log, made again what the hub had in hand when it decided about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from notifyd import event as events
from notifyd.ctl.eventlog import StoredRow
from notifyd.event import parse_time
from notifyd.hub.draft import Draft
from notifyd.hub.lookup import Lookup


class Past(Draft, kw_only=True):
    """A stored event as a draft, without what the hub added to its data.

    Attributes:
        row: of the log.
        then: what stands in its ``data.context``: what lookups and the operator's own code gave then.
        unavailable_then: the lookups that could not be asked then.
    """

    row: StoredRow
    then: Mapping[str, Any]
    unavailable_then: Sequence[Any]

    @property
    def is_rejected(self) -> bool:
        """Whether it keeps a line that was no acceptable event: no rule was asked about it."""
        return self.own and self.row.type == "notifyd.rejected"

    @property
    def is_summary(self) -> bool:
        """Whether it tells of repeats: no rule was asked about it."""
        return self.own and self.row.hint is None and "repeated" in self.data and "of" in self.data

    def age(self) -> float:
        """Gives how long after its ``time`` the hub received it, in seconds; below 0 where clocks differ."""
        return parse_time(self.row.received) - parse_time(self.row.time)

    def recall(self, names: Iterable[str] | None = None) -> None:
        """Puts back what stood in its context, under all names or some."""
        for name in self.then if names is None else names:
            # Nothing of this is written again, and so no JSON of it is needed.
            self.add_context(name, self.then[name], b"null")


def revive(row: StoredRow, now_s: float) -> Past:
    """Makes an event of the log a draft again.

    Args:
        row: of the log.
        now_s: the wall clock: what is asked about the event has its time from now on.

    Raises:
        NotAcceptableError: its line is no event.
    """
    event = events.decode(row.body.encode())
    # Before the log kept hints, those that decided can be told by the rule.
    hint = row.priority if row.hint is None and row.rule == "hint" else row.hint
    event.priority = UNSET if hint is None else hint
    own = row.agent is None and row.id == str(row.offset)
    past = Past(event, row.received, now_s, own=own, row=row, then={}, unavailable_then=())
    data = past.data
    context, unavailable = data.get("context"), data.get("unavailable")
    if isinstance(context, dict):
        past.then = context
    if isinstance(unavailable, list):
        past.unavailable_then = unavailable
    if not own:
        past.disown_context()
    return past


class Remembering:
    """Has a lookup give what the event was given then, so that only the rest is asked for.

    It is what :func:`~notifyd.hub.enrich.make_lookup` takes as ``matches``.

    Args:
        name: of the lookup.
        matches: tells which events the lookup is for.
        ask: whether the rest is asked for; else it goes without.
    """

    def __init__(self, name: str, matches: Callable[[Draft], bool], *, ask: bool) -> None:
        self.name = name
        self.lookup: Lookup | None = None
        self.remembered = 0
        self.asked = 0
        self.not_asked = 0
        self._matches = matches
        self._ask = ask

    def __call__(self, draft: Draft) -> bool:
        """Tells whether the event has to be looked up now."""
        if not isinstance(draft, Past) or not self._matches(draft):
            return False
        name = self.name
        if name in draft.then:
            draft.add_context(name, draft.then[name], b"null")
            self.remembered += 1
            return False
        if name in draft.unavailable_then:
            draft.lack(name)
            self.remembered += 1
            return False
        if self.lookup is None or self.lookup.lacks(draft) is not None:
            return False
        if self._ask:
            self.asked += 1
        else:
            self.not_asked += 1
        return self._ask
