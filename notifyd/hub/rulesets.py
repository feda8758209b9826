"""Which of many rules one text, one value or one object lets through, as a set.

Sets of rules are integers in which bit n stands for rule n.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from operator import xor
from typing import Any

from notifyd.conditions import ABSENT, Pattern, Where, number_of, text_of
from notifyd.config_hub import HubRule
from notifyd.event import Priority

Key = str | int | float | None
"""What stands for a value: all that rules can tell about it, and None for a value that no condition holds for."""


class Patterns:
    """Globs of many rules over one text; a rule without one holds for every text.

    Args:
        patterns: each with its rule, or rules, as a set.
    """

    def __init__(self, patterns: Iterable[tuple[str | None, int]]) -> None:
        self._always = 0
        self._exact: dict[str, int] = {}
        self._prefixes: dict[int, dict[str, int]] = {}  # by their length: one look-up serves all of one length
        self._inside: dict[str, int] = {}
        others: dict[str, tuple[Callable[[str], object], int]] = {}
        for text, rule in patterns:
            if text is None:
                self._always |= rule
                continue
            pattern = Pattern(text)
            if pattern.prefix is not None:
                same_length = self._prefixes.setdefault(len(pattern.prefix), {})
                same_length[pattern.prefix] = same_length.get(pattern.prefix, 0) | rule
            elif pattern.inside is not None:
                self._inside[pattern.inside] = self._inside.get(pattern.inside, 0) | rule
            elif pattern.exact:
                self._exact[text] = self._exact.get(text, 0) | rule
            else:
                others[text] = (pattern.fits, others.get(text, (None, 0))[1] | rule)
        self._others = list(others.values())

    def holding(self, text: str, among: int) -> int:
        """Gives the rules whose pattern a text fits; those that are not in ``among`` may be missing."""
        found = self._always | self._exact.get(text, 0)
        for length, prefixes in self._prefixes.items():
            found |= prefixes.get(text[:length], 0)
        for rules in [rules for inside, rules in self._inside.items() if inside in text]:
            found |= rules
        for fits, rules in self._others:
            if rules & among and fits(text):
                found |= rules
        return found


class Numbers:
    """Comparisons of many rules with one number.

    The limits in order cut all numbers into positions: 2i is between limits i - 1 and i, 2i + 1 is limit i itself.

    Args:
        ranges: comparisons that must all hold, with their rule as a set.
    """

    def __init__(self, ranges: Sequence[tuple[Sequence[tuple[str, int | float]], int]]) -> None:
        usable = [(bounds, rule) for bounds, rule in ranges if all(limit == limit for _, limit in bounds)]  # no NaN
        self._limits = sorted({limit for bounds, _ in usable for _, limit in bounds})
        changes = [0] * (2 * len(self._limits) + 2)
        for bounds, rule in usable:
            first, last = 0, 2 * len(self._limits)
            for sign, limit in bounds:
                place = 2 * bisect_left(self._limits, limit) + 1
                if sign[0] == ">":
                    first = max(first, place + (sign == ">"))
                else:
                    last = min(last, place - (sign == "<"))
            if first <= last:
                changes[first] ^= rule
                changes[last + 1] ^= rule
        self._holding: list[int] = list(accumulate(changes, xor))

    def position(self, value: Any) -> int:
        """Gives where a value is among the limits, -1 for what is no number."""
        number = number_of(value)
        if number is None:
            return -1
        place = bisect_left(self._limits, number)
        return 2 * place + (place < len(self._limits) and self._limits[place] == number)

    def holding(self, position: int) -> int:
        """Gives the rules all of whose comparisons hold at a position."""
        return 0 if position < 0 else self._holding[position]


class Place:
    """What all rules ask of the value at one path.

    Args:
        bit: stands for it in a set of places.
        asked: each rule, as a set, and its condition.
    """

    __slots__ = (
        "_compared", "_no_bounds", "_no_pattern", "_numbers", "_only_numbers", "_patterns", "_texts",
        "bit", "costly", "steps", "texts", "users",
    )  # fmt: skip

    def __init__(self, bit: int, asked: Sequence[tuple[int, Where]]) -> None:
        self.bit = bit
        self.steps = asked[0][1].steps
        self.users = self._compared = 0
        self._texts: dict[str, int] = {}
        for rule, where in asked:
            self.users |= rule
            self._compared |= rule if where.texts is None else 0
            for text in where.texts or ():
                self._texts[text] = self._texts.get(text, 0) | rule
        self._patterns = Patterns([(where.pattern.text, rule) for rule, where in asked if where.pattern is not None])
        self._no_pattern = sum(rule for rule, where in asked if where.pattern is None)
        self._numbers = Numbers([(where.bounds, rule) for rule, where in asked if where.bounds])
        self._no_bounds = sum(rule for rule, where in asked if not where.bounds)

        self._only_numbers = not self._texts and not self._no_bounds and not (self.users & ~self._no_pattern)
        self.costly = self._compared != 0
        """It takes more than a look-up to tell what holds."""
        self.texts = None if self.costly or self._only_numbers else self._texts
        """The texts for which something holds; None where it does for others too."""

    def key(self, value: Any) -> Key:
        """Gives a value's text, which is all that conditions go by, or where it is among the limits."""
        if value is ABSENT or value is None:
            return None
        if self._only_numbers and type(value) is not str:
            return self._numbers.position(value)
        text = text_of(value)
        # 1E400 is a number, but the text that stands for it is none.
        return value if text in ("Infinity", "-Infinity") else text

    def holding(self, key: Key, among: int) -> int:
        """Gives the rules, of those in ``among``, whose condition holds for the value that ``key`` stands for."""
        if self._only_numbers:
            return among & self._numbers.holding(key if type(key) is int else self._numbers.position(key))
        text = text_of(key) or ""
        found = among & self._texts.get(text, 0)
        compared = among & self._compared
        if compared:
            compared &= self._no_pattern | self._patterns.holding(text, compared)
        if compared & ~self._no_bounds:
            compared &= self._no_bounds | self._numbers.holding(self._numbers.position(key))
        return found | compared


class Shape:
    """Which members the object at one path has, where many rules ask for members of their own.

    Args:
        bit: stands for it in a set of places.
        steps: the path.
    """

    __slots__ = ("_members", "bit", "places", "steps", "users")
    costly = False
    texts: dict[str, int] | None = None

    def __init__(self, bit: int, steps: tuple[str, ...]) -> None:
        self.bit = bit
        self.steps = steps
        self.places: list[Place] = []  # of its members
        self.users = 0
        self._members: dict[str, int] = {}

    def add(self, place: Place) -> None:
        """Adds a member that rules ask for."""
        member = place.steps[-1]
        self.places.append(place)
        self.users |= place.users
        self._members[member] = self._members.get(member, 0) | place.users

    def key(self, value: Any) -> Key:
        """Gives the rules that ask for a member which is there: a list, or what behaves like an object, may have any.

        A rule that asks for several is let through for each of them, and asked about the others later.
        """
        if type(value) is not dict:
            return self.users if isinstance(value, list | Mapping) else None
        found = 0
        for member in value:
            found |= self._members.get(member, 0)
        return found

    def holding(self, key: Key, among: int) -> int:
        """Gives the rules, of those in ``among``, that :meth:`key` has found."""
        return among & key if isinstance(key, int) else 0


def places_of(rules: Sequence[HubRule]) -> tuple[list[list[Place]], dict[tuple[str, ...], Shape]]:
    """Gathers what rules ask of an event's data; a ``priority_from`` asks for a priority.

    Returns:
        The places that each rule needs, and by their path the objects of which the places are members.
    """
    asked: dict[tuple[str, bool], list[tuple[int, Where]]] = {}
    for n, rule in enumerate(rules):
        for path, expected in rule.where.items():
            asked.setdefault((path, False), []).append((n, Where(path, expected)))
        if rule.priority_from is not None:
            # A place of its own, since the same rule may have a condition for the same path.
            where = Where(rule.priority_from, [priority.value for priority in Priority])
            asked.setdefault((rule.priority_from, True), []).append((n, where))
    needed: list[list[Place]] = [[] for _ in rules]
    shapes: dict[tuple[str, ...], Shape] = {}
    for number, each in enumerate(asked.values()):
        place = Place(1 << (2 * number), [(1 << n, where) for n, where in each])
        parent = place.steps[:-1]
        shapes.setdefault(parent, Shape(place.bit << 1, parent)).add(place)
        for n, _ in each:
            needed[n].append(place)
    return needed, shapes
