"""JSON values that cannot be changed: what the operator's own code is given of an event's data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload


class FrozenDict(Mapping[str, Any]):
    """A JSON object that cannot be changed, nor can anything in it; it equals the ``dict`` of the same content.

    What stands in it is wrapped when it is asked for, so that making one costs the same whatever its size.

    Args:
        members: the object; whoever made it may still add to it.
    """

    __slots__ = ("_members",)

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members

    def __getitem__(self, name: str) -> Any:
        return frozen(self._members[name])

    def get(self, name: str, default: Any = None) -> Any:
        """Gives a member, ``default`` where there is none of that name."""
        return frozen(self._members[name]) if name in self._members else default

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenDict):
            return self._members == other._members
        return self._members == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FrozenDict({self._members!r})"


class FrozenList(Sequence[Any]):
    """A JSON array that cannot be changed, nor can anything in it; it equals the ``list`` of the same content.

    Args:
        items: the array.
    """

    __slots__ = ("_items",)

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> FrozenList: ...
    def __getitem__(self, index: int | slice) -> Any:
        return frozen(self._items[index])

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenList):
            return self._items == other._items
        return self._items == list(other) if isinstance(other, list | tuple) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FrozenList({self._items!r})"


def frozen(value: Any) -> Any:
    """Gives a JSON value as one that cannot be changed."""
    kind = type(value)
    if kind is dict:
        return FrozenDict(value)
    return FrozenList(value) if kind is list else value


def plain(value: Any) -> Any:
    """Gives a frozen value as a copy of one's own, of ``dict`` and ``list``, which may be changed."""
    root = [value]
    waiting: list[Any] = [root]  # no recursion: an event may be 1,000 levels deep
    while waiting:
        holder = waiting.pop()
        for key, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(item, FrozenDict | FrozenList):
                item = item._members if isinstance(item, FrozenDict) else item._items
            if isinstance(item, dict | list):
                holder[key] = item.copy()
                waiting.append(holder[key])
    return root[0]
