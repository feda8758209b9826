"""Many rules asked at once: which is the first whose conditions all hold, at a cost that hardly grows with them.

What an event's type, its source and one value in it say about all rules is an intersection of sets. A tree of such
steps is grown as events need it, and remembered by what stood in the events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from notifyd.conditions import ABSENT
from notifyd.config_hub import HubRule
from notifyd.event import Event
from notifyd.hub.asked import AskedData
from notifyd.hub.conditions import value_at, values_in
from notifyd.hub.draft import Draft
from notifyd.hub.rulesets import Key, Patterns, Place, Shape, places_of

MAX_REMEMBERED = 50_000
"""Types, sources, values and steps that are remembered, 20 MB for 200 rules: several times what 1,000 agents need.

Whoever sends ever new ones has it all forgotten and grown again now and then, which costs little.
"""

MAX_REMEMBERED_TEXT = 100
"""Characters of a type, a source or a value that is remembered: longer ones hardly come again."""

_MANY = 4
"""Members of one object that rules ask for, from which on it costs less to look first which ones it has."""


class RuleTree:
    """Finds the first rule whose conditions hold; a ``priority_from`` that finds a priority is one of them.

    Args:
        rules: in the order in which they are asked.
    """

    def __init__(self, rules: Sequence[HubRule]) -> None:
        self._every = (1 << len(rules)) - 1
        self._by_type = Patterns((rule.type, 1 << n) for n, rule in enumerate(rules))
        self._by_source = Patterns((rule.source, 1 << n) for n, rule in enumerate(rules))
        self._places, self._shapes = places_of(rules)
        self._asked = AskedData({place.steps: None for needed in self._places for place in needed})
        self._types: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._roots: dict[int, _Node] = {}
        self._nodes: dict[tuple[int, int], _Node] = {}
        self.remembered = 0

    def first(self, draft: Draft) -> int:
        """Gives the number of the first rule that an event meets, counted from 0, or -1."""
        return self._descend(self._start(draft.event), draft)

    def first_all(self, drafts: Sequence[Draft]) -> list[int]:
        """Gives what :meth:`first` gives for each."""
        found = [draft.event for draft in drafts]
        alike = _are_alike(found)
        nodes = [self._start(found[0])] * len(found) if alike else list(map(self._start, found))
        if any(node.place for node in set(nodes)):
            asked = [draft for draft, node in zip(drafts, nodes, strict=True) if node.place and draft.parsed is None]
            if asked:
                Draft.parse_all(asked)
        if alike:
            data = [draft.parsed for draft in drafts]
            nodes = [self._descend_together(nodes[0], lambda steps: values_in(data, steps))] * len(nodes)
        return list(map(self._descend, nodes, drafts))

    def first_alike(self, found: Sequence[Event]) -> int | None:
        """Gives what :meth:`first` gives for all events, at least one; None where it may not be the same for each."""
        if not _are_alike(found):
            return None
        node = self._start(found[0])
        if node.place is not None:
            values = self._asked.read(found)
            node = node if values is None else self._descend_together(node, values.at)
        return None if node.place is not None else node.rule

    def _start(self, event: Event) -> _Node:
        """Gives what is known about an event by its type and its source."""
        alive = self._types.get(event.type)
        if alive is None:
            alive = self._learn(self._types, self._by_type, event.type)
        more = self._sources.get(event.source)
        if more is None:
            more = self._learn(self._sources, self._by_source, event.source)
        return self._roots.get(alive & more) or self._root(alive & more)

    def _descend_together(self, node: _Node, values_at: Callable[[tuple[str, ...]], Sequence[Any]]) -> _Node:
        """Goes down as far as events, in which these values stand at a path, all take the same way."""
        while (place := node.place) is not None:
            values = values_at(place.steps)
            kinds = set(map(type, values))
            if kinds != {str} and kinds != {type(ABSENT)}:
                break
            children = {self._child(node, place, value) for value in set(values)}
            if len(children) > 1:
                break
            (node,) = children
        return node

    def _descend(self, node: _Node, draft: Draft) -> int:
        while (place := node.place) is not None:
            node = self._child(node, place, value_at(draft, place.steps))
        return node.rule

    def _child(self, node: _Node, place: Place | Shape, value: Any) -> _Node:
        """Gives the node below ``node`` for a value."""
        if type(value) is str:
            child = node.children.get(value)
            if child is None and place.texts is not None and value not in place.texts:
                child = node.otherwise  # no rule asks for it
            return child or self._branch(node, place, value)
        key = None if value is ABSENT else place.key(value)
        return node.children.get(key) or self._branch(node, place, key)

    def _learn(self, known: dict[str, int], patterns: Patterns, text: str) -> int:
        holding = patterns.holding(text, self._every)
        if _is_short(text):
            self._make_room()
            known[text] = holding
        return holding

    def _make_room(self) -> None:
        if self.remembered >= MAX_REMEMBERED:
            for known in (self._types, self._sources, self._roots, self._nodes):
                known.clear()
            self.remembered = 0
        self.remembered += 1

    def _root(self, alive: int) -> _Node:
        node = self._node(alive, 0)
        self._make_room()
        self._roots[alive] = node
        return node

    def _branch(self, node: _Node, place: Place | Shape, key: Key) -> _Node:
        """Gives the node below ``node`` for a value that it does not remember."""
        asked = node.asked | place.bit
        holding = 0 if key is None else place.holding(key, node.alive)
        if holding:
            child = self._node(node.alive & (holding | ~place.users), asked)
        else:
            child = node.otherwise = node.otherwise or self._node(node.alive & ~place.users, asked)
        if key is None or ((holding or place.costly) and _is_short(key)):
            self._make_room()
            node.children[key] = child
        return child

    def _node(self, alive: int, asked: int) -> _Node:
        node = self._nodes.get((alive, asked))
        if node is None:
            self._make_room()
            node = self._nodes[alive, asked] = _Node(alive, asked, self._next_place(alive, asked))
        return node

    def _next_place(self, alive: int, asked: int) -> Place | Shape | None:
        """Gives what the first rule that is left has to be asked next: of several places, the one that most need."""
        if not alive:
            return None
        needed = [place for place in self._places[_lowest(alive)] if not place.bit & asked]
        if not needed:
            return None
        place = max(needed, key=lambda each: (each.users & alive).bit_count())
        if 2 * (place.users & alive).bit_count() >= alive.bit_count():
            return place
        shape = self._shapes[place.steps[:-1]]
        if shape.bit & asked:
            return place
        open_places = [each for each in shape.places if each.users & alive and not each.bit & asked]
        return shape if len(open_places) >= _MANY else place


class _Node:
    """What is known about an event on its way down: the rules that it may still meet, and what decides next."""

    __slots__ = ("alive", "asked", "children", "otherwise", "place", "rule")

    def __init__(self, alive: int, asked: int, place: Place | Shape | None) -> None:
        self.alive = alive
        self.asked = asked  # the places that have been asked, as a set
        self.place = place
        self.rule = _lowest(alive)  # where no place is left to ask
        self.children: dict[Key, _Node] = {}
        self.otherwise: _Node | None = None  # for a value that no rule's condition holds for


def _are_alike(found: Sequence[Event]) -> bool:
    return len({event.type for event in found}) == len({event.source for event in found}) == 1


def _lowest(rules: int) -> int:
    """Gives the number of the first rule of a set, -1 for the empty set."""
    return (rules & -rules).bit_length() - 1


def _is_short(key: Key) -> bool:
    return not isinstance(key, str) or len(key) <= MAX_REMEMBERED_TEXT
