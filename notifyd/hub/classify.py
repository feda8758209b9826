"""Event to priority: the rules of ``hub.toml``, then the producer's hint, then the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import UNSET

from notifyd import event as events
from notifyd.conditions import ABSENT, short, shown
from notifyd.config_hub import HubRule
from notifyd.event import DAMAGED_TYPE, HINTS, Event, Priority
from notifyd.hub.attributes import Attributes, encode_attributes
from notifyd.hub.conditions import Matcher, value_at
from notifyd.hub.draft import Draft
from notifyd.hub.ruletree import RuleTree


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided about an event.

    Attributes:
        priority: of no meaning where the event is dropped.
        rule: what gave it: a rule's name, ``hint`` or ``default``.
        reason: why it is an error; None where it is none.
        attributes: what the rule adds to the event; None for nothing.
        drop: the event is to be thrown away, and counted.
    """

    priority: Priority
    rule: str
    reason: str | None = None
    attributes: Attributes | None = None
    drop: bool = False
    word: str = field(init=False, repr=False)
    """The priority as it stands in the event: an enum's ``value`` would cost each event as much as its rules."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "word", self.priority.value)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a decision came about: the rules that were asked before, by name, and what they missed."""

    missed: tuple[tuple[str, str], ...]
    decision: Decision


class Classifier:
    """Decides with rules that are compiled once.

    Args:
        rules: the first that matches wins; all conditions of a rule must hold.
        default: the priority of what neither a rule nor a valid hint classifies.
    """

    def __init__(self, rules: Sequence[HubRule], default: Priority) -> None:
        self._rules = [_Rule(rule, f"rule {number}") for number, rule in enumerate(rules, 1)]
        self._tree = RuleTree(rules)
        self._default = default
        self._hints: dict[str | None, Decision] = {word: Decision(priority, "hint") for word, priority in HINTS.items()}
        no_hint = "no rule matches and there is no priority" if default is Priority.ERROR else None
        self._no_hint = Decision(default, "default", no_hint)
        self._damaged = Decision(Priority.ERROR, "default", "no rule matches and its agent found the frame damaged")

    def classify(self, draft: Draft) -> Decision:
        """Decides about an event; its own ``priority`` is the hint."""
        number = self._tree.first(draft)
        if number >= 0:
            rule = self._rules[number]
            return rule.decision or rule.decide(draft)
        return self._without_rule(draft)

    def classify_all(self, drafts: Sequence[Draft]) -> list[Decision]:
        """Decides about each event, at less cost than one after the other."""
        rules = self._rules
        numbers = self._tree.first_all(drafts)
        if len(set(numbers)) == 1 and numbers[0] >= 0 and (decision := rules[numbers[0]].decision):
            return [decision] * len(numbers)
        return [
            (rules[number].decision or rules[number].decide(draft)) if number >= 0 else self._without_rule(draft)
            for number, draft in zip(numbers, drafts, strict=True)
        ]

    def decide_alike(self, found: Sequence[Event]) -> Decision | None:
        """Decides about events, at least one, that have the same ``priority``.

        Returns:
            The decision about all; None where there may be several, or each has to be asked.
        """
        number = self._tree.first_alike(found)
        if number is None or found[0].type == DAMAGED_TYPE:
            return None
        hint = found[0].priority
        return self._rules[number].decision if number >= 0 else None if hint is UNSET else self._hints.get(hint)

    def explain(self, draft: Draft) -> Explanation:
        """Decides about an event by asking one rule after the other, and says why those before did not match."""
        missed: list[tuple[str, str]] = []
        for rule in self._rules:
            failure = rule.failure(draft)
            if failure is None:
                return Explanation(tuple(missed), rule.decision or rule.decide(draft))
            missed.append((rule.name, failure))
        return Explanation(tuple(missed), self._without_rule(draft))

    def _without_rule(self, draft: Draft) -> Decision:
        if draft.event.type == DAMAGED_TYPE:  # its hint only chose a lane
            return self._damaged
        return self._hints.get(draft.hint) or self._by_default(draft.event)

    def _by_default(self, event: Event) -> Decision:
        hint = event.priority if event.priority is not UNSET else events.extension(event, "priority")
        if hint is None or self._default is not Priority.ERROR:
            return self._no_hint
        reason = f"no rule matches and priority {shown(hint)} is none of normal, important and critical"
        return Decision(self._default, "default", reason)


class _Rule:
    """One compiled rule."""

    def __init__(self, rule: HubRule, default_name: str) -> None:
        self.name = rule.name or default_name
        self._matcher = Matcher(rule)
        self._from = rule.priority_from
        self._steps = tuple((rule.priority_from or "").split("."))
        attributes = encode_attributes(rule.set) if rule.set else None
        error = f"rule {shown(self.name)} says so"
        self._decisions = {
            priority.value: Decision(priority, self.name, error if priority is Priority.ERROR else None, attributes)
            for priority in Priority
        }
        self.decision: Decision | None = None  # without priority_from
        if rule.drop:
            self.decision = Decision(Priority.NORMAL, self.name, drop=True)
        elif rule.priority is not None:
            self.decision = self._decisions[rule.priority.value]

    def decide(self, draft: Draft) -> Decision:
        """Decides with ``priority_from`` about an event that matches."""
        return self._decisions[value_at(draft, self._steps)]

    def failure(self, draft: Draft) -> str | None:
        """Says why this rule does not match; None where it does."""
        failure = self._matcher.failure(draft)
        if failure is not None or self._from is None:
            return failure
        found = value_at(draft, self._steps)
        if isinstance(found, str) and found in self._decisions:
            return None
        there = "where nothing stands" if found is ABSENT else f"where {shown(found)} stands"
        return f"priority_from finds no priority at {short(self._from)}, {there}"
