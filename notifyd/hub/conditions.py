"""Conditions of rules, lookups and suppressions, compiled once: does an event meet them, and if not, why not?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from notifyd.conditions import ABSENT, Pattern, Where, shown
from notifyd.config_hub import Conditions
from notifyd.hub.draft import Draft


class Matcher:
    """Tells whether events meet conditions, all of which must hold.

    Args:
        conditions: of a rule, a lookup or a suppression.
    """

    __slots__ = ("_source", "_type", "_where")

    def __init__(self, conditions: Conditions) -> None:
        self._type = None if conditions.type is None else Pattern(conditions.type)
        self._source = None if conditions.source is None else Pattern(conditions.source)
        self._where = tuple(Where(path, expected) for path, expected in conditions.where.items())

    def matches(self, draft: Draft) -> bool:
        """Tells whether an event meets all conditions."""
        if self._type is not None and not self._type.fits(draft.event.type):
            return False
        if self._source is not None and not self._source.fits(draft.event.source):
            return False
        for where in self._where:  # noqa: SIM110 - a generator would cost more than the conditions
            if not where.holds(value_at(draft, where.steps)):
                return False
        return True

    def failure(self, draft: Draft) -> str | None:
        """Says which condition fails first, and what stands there instead; None where all hold."""
        for name, pattern in (("type", self._type), ("source", self._source)):
            if pattern is not None and not pattern.fits(text := getattr(draft.event, name)):
                return f"{name} is {shown(text)}, {pattern.missed}"
        for where in self._where:
            if not where.holds(value := value_at(draft, where.steps)):
                return where.failure(value)
        return None


def value_at(draft: Draft, steps: tuple[str, ...]) -> Any:
    """Gives what :meth:`Draft.value` gives, quicker where the path leads through nothing but objects."""
    value: Any = draft.parsed
    if value is None:
        value = draft.data
    for step in steps:
        if type(value) is not dict:
            return value if value is ABSENT else draft.value(steps)
        value = value.get(step, ABSENT)
    return value


def values_in(data: Sequence[Any], steps: tuple[str, ...]) -> Sequence[Any]:
    """Gives what stands at a path in each of ``data``; nothing where a path leads through something but objects."""
    for step in steps:
        if set(map(type, data)) != {dict}:
            return ()
        data = [value.get(step, ABSENT) for value in data]
    return data
