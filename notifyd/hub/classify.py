"""Event to priority: the rules of ``hub.toml``, then the producer's hint, then the default."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from notifyd import event as events
from notifyd.config_hub import HubRule
from notifyd.event import HINTS, Event, Priority

_PRIORITIES = {priority.value: priority for priority in Priority}
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event's priority is, what gave it (a rule's name, ``hint`` or ``default``), and why it is an error."""

    priority: Priority
    rule: str
    reason: str | None = None


class Classifier:
    """Decides with rules that are compiled once.

    Args:
        rules: the first that matches wins; all conditions of a rule must hold.
        default: the priority of what neither a rule nor a valid hint classifies.
    """

    def __init__(self, rules: Sequence[HubRule], default: Priority) -> None:
        self._rules = [_Rule(rule, f"rule {number}") for number, rule in enumerate(rules, 1)]
        self._default = default
        self._hints = {word: Decision(priority, "hint") for word, priority in HINTS.items()}

    def classify(self, event: Event) -> Decision:
        """Decides an event's priority; its own ``priority`` is the hint."""
        data = _Data(event)
        for rule in self._rules:
            decision = rule.decide(event, data)
            if decision is not None:
                return decision
        if event.priority is not UNSET and event.priority in self._hints:
            return self._hints[event.priority]
        return Decision(self._default, "default", self._reason(event))

    def _reason(self, event: Event) -> str | None:
        if self._default is not Priority.ERROR:
            return None
        hint = event.priority if event.priority is not UNSET else events.extension(event, "priority")
        if hint is None:
            return "no rule matches and there is no priority"
        return f"no rule matches and priority {_shown(hint)} is none of normal, important and critical"


class _Data:
    """An event's ``data``, parsed when the first rule asks for it."""

    __slots__ = ("_event", "_value")

    def __init__(self, event: Event) -> None:
        self._event = event
        self._value: dict[str, Any] | None = None

    def look_up(self, path: Sequence[str]) -> Any:
        if self._value is None:
            self._value = events.data_object(self._event)
        value: Any = self._value
        for step in path:
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(value):
                value = value[int(step[:9])]
            else:
                return _ABSENT
        return value


class _Rule:
    """One compiled rule."""

    def __init__(self, rule: HubRule, default_name: str) -> None:
        self._name = rule.name or default_name
        self._type = _glob(rule.type)
        self._source = _glob(rule.source)
        self._where = [(path.split("."), _text(value)) for path, value in rule.where.items()]
        self._from = None if rule.priority_from is None else rule.priority_from.split(".")
        self._decision = None if rule.priority is None else self._decide_for(rule.priority)

    def _decide_for(self, priority: Priority) -> Decision:
        reason = f"rule {_shown(self._name)} says so" if priority is Priority.ERROR else None
        return Decision(priority, self._name, reason)

    def decide(self, event: Event, data: _Data) -> Decision | None:
        if self._type is not None and not self._type(event.type):
            return None
        if self._source is not None and not self._source(event.source):
            return None
        for path, expected in self._where:
            if _text(data.look_up(path)) != expected:
                return None
        if self._from is None:
            return self._decision
        found = data.look_up(self._from)
        priority = _PRIORITIES.get(found) if isinstance(found, str) else None
        return None if priority is None else self._decide_for(priority)


def _glob(pattern: str | None) -> Callable[[str], object] | None:
    """Compiles a glob; None where there is no condition."""
    if pattern is None:
        return None
    if not any(character in pattern for character in "*?["):
        return pattern.__eq__
    return re.compile(fnmatch.translate(pattern)).match


def _text(value: Any) -> str | None:
    """Gives a scalar as text, so that a rule's ``7`` and a field's ``"7"`` are the same; None is equal to nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return None


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "of many levels"
    return text if len(text) <= 100 else text[:100] + "…"
