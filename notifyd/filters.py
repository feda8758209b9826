"""The interface of ``[filter]`` in ``hub.toml``, for whoever writes one; ``docs/filters.md`` has an example.

A filter is an object with either or both of :meth:`Preprocessor.preprocess` and :meth:`Characteriser.characterise`;
``factory = "mypackage.module:name"`` names what makes it, a class or a function without arguments. Nothing has to be
inherited: a type checker compares the object with the protocols here. This module loads neither Twisted nor a reactor.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from notifyd import event as events
from notifyd.event import HINTS, Priority
from notifyd.frozen import FrozenDict, plain

Otherwise = TypeVar("Otherwise", str, None)

__all__ = ["Characteriser", "Event", "Filter", "Preprocessor", "Priority", "make_event", "plain"]


class Event(Protocol):
    """An event, to be read; it cannot be changed. What stands in which attribute says ``docs/protocol.md``."""

    @property
    def specversion(self) -> str:
        """The version of CloudEvents, ``"1.0"``."""

    @property
    def id(self) -> str:
        """Its name, unique with :attr:`source`."""

    @property
    def source(self) -> str:
        """Where it comes from, as in ``"/ward3/panel"``."""

    @property
    def type(self) -> str:
        """What kind of event it is, as in ``"panel.alarm"``."""

    @property
    def time(self) -> str:
        """When it happened, RFC 3339; where the producer does not say, the same as :attr:`received`."""

    @property
    def received(self) -> str:
        """When the hub read it, RFC 3339 in UTC."""

    @property
    def priority(self) -> Priority | None:
        """What its producer proposes: normal, important or critical; else None.

        A word that is none of them stands in :attr:`extensions`, under ``priority``.
        """

    @property
    def sequence(self) -> str | None:
        """The counter of the agent's spool, decimal."""

    @property
    def subject(self) -> str | None:
        """CloudEvents' ``subject``."""

    @property
    def datacontenttype(self) -> str | None:
        """CloudEvents' ``datacontenttype``."""

    @property
    def dataschema(self) -> str | None:
        """CloudEvents' ``dataschema``."""

    @property
    def data_base64(self) -> str | None:
        """CloudEvents' ``data_base64``, as it was written."""

    @property
    def offset(self) -> None:
        """None: the hub gives it later, and so it does :attr:`rule` and :attr:`reason`."""

    @property
    def rule(self) -> None:
        """None, see :attr:`offset`."""

    @property
    def reason(self) -> None:
        """None, see :attr:`offset`."""

    @property
    def extensions(self) -> Mapping[str, Any]:
        """Every other attribute by its name; empty where there is none."""

    @property
    def data(self) -> Mapping[str, Any]:
        """The event's data, empty where it has none; objects and arrays in it cannot be changed either.

        ``data["context"]`` is there once a lookup has run, or :meth:`Preprocessor.preprocess` has added something.
        :func:`plain` makes a copy that may be changed, or given to ``json.dumps``.
        """


class Preprocessor(Protocol):
    """An object that knows more about an event."""

    def preprocess(self, event: Event, /) -> Mapping[str, object] | Awaitable[Mapping[str, object] | None] | None:
        """Gives what is to be added to the event's ``data.context``, by name; None or nothing where that is nothing.

        The values are what JSON can hold, 64 KiB in all. A value takes the place of a lookup's of the same name. The
        method may be plain, ``async``, or return a Deferred; a plain one must not block, unless ``blocking = true``.
        What it raises makes an ``error`` event.
        """


class Characteriser(Protocol):
    """An object that knows how important an event is."""

    def characterise(self, event: Event, /) -> str | Awaitable[str | None] | None:
        """Gives the event's priority, or None: then the rules decide, the producer's hint, or the default.

        It is one of ``"normal"``, ``"important"``, ``"critical"`` and ``"error"``, or a :class:`Priority`. As for
        :meth:`Preprocessor.preprocess`, which comes first where an object has both, the method may be plain,
        ``async``, or return a Deferred.
        """


Filter: TypeAlias = Preprocessor | Characteriser
"""What a factory gives."""


def make_event(
    *,
    type: str = "test.event",  # noqa: A002 - an event's attributes are called so
    source: str = "/test/source",
    id: str = "1",  # noqa: A002
    data: object = None,
    priority: str | None = None,
    received: str = "2026-01-01T00:00:00.000000Z",
    **others: object,
) -> Event:
    """Gives an event as the hub would, for the tests of a filter.

    Args:
        type: as of the event's attributes.
        source: as above.
        id: as above.
        data: what JSON can hold; ``context`` in it is what lookups have found.
        priority: the producer's.
        received: RFC 3339.
        others: further attributes; one that is None is left out.

    Raises:
        ValueError: the hub would refuse such an event; the text says why.
        TypeError: something is no JSON.
    """
    attributes = {"id": id, "source": source, "type": type, "data": data, "priority": priority, **others}
    line = json.dumps({name: plain(value) for name, value in attributes.items() if value is not None}, allow_nan=False)
    if not events.is_rfc3339(received):
        raise ValueError("attribute received is no RFC 3339 time")
    try:
        event = events.decode(line.encode())
    except events.NotAcceptableError as error:
        raise ValueError(str(error)) from None
    return EventView(event, _Data(events.data_object(event)), received)


class HasData(Protocol):
    """What has an event's data."""

    @property
    def data(self) -> dict[str, Any]:
        """The data."""


class _Data:
    __slots__ = ("data",)

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data


class EventView:
    """An :class:`Event` of the hub's.

    Args:
        event: as it was decoded.
        holder: has its data; it is not asked for them before the filter does.
        received: RFC 3339.
    """

    __slots__ = ("_data", "_event", "_extensions", "_holder", "_received")

    def __init__(self, event: events.Event, holder: HasData, received: str) -> None:
        self._event = event
        self._holder = holder
        self._received = received
        self._data: FrozenDict | None = None
        self._extensions: FrozenDict | None = None

    @property
    def specversion(self) -> str:
        return _or_else(self._event.specversion, "1.0")

    @property
    def id(self) -> str:
        return self._event.id

    @property
    def source(self) -> str:
        return self._event.source

    @property
    def type(self) -> str:
        return self._event.type

    @property
    def time(self) -> str:
        return _or_else(self._event.time, self._received)

    @property
    def received(self) -> str:
        return self._received

    @property
    def priority(self) -> Priority | None:
        hint = self._event.priority
        return None if hint is UNSET else HINTS.get(hint)

    @property
    def sequence(self) -> str | None:
        return _or_else(self._event.sequence, None)

    @property
    def subject(self) -> str | None:
        return _text(self._event.subject)

    @property
    def datacontenttype(self) -> str | None:
        return _text(self._event.datacontenttype)

    @property
    def dataschema(self) -> str | None:
        return _text(self._event.dataschema)

    @property
    def data_base64(self) -> str | None:
        return _text(self._event.data_base64)

    @property
    def offset(self) -> None:
        return None

    @property
    def rule(self) -> None:
        return None

    @property
    def reason(self) -> None:
        return None

    @property
    def extensions(self) -> Mapping[str, Any]:
        if self._extensions is None:
            event = self._event
            found = {name: events.extension(event, name) for name in getattr(event, "extensions", ())}
            if event.priority is not UNSET and event.priority not in HINTS:
                found["priority"] = event.priority
            self._extensions = FrozenDict(found)
        return self._extensions

    @property
    def data(self) -> Mapping[str, Any]:
        if self._data is None:
            self._data = FrozenDict(self._holder.data)
        return self._data

    def __repr__(self) -> str:
        return f"<Event {self.id!r}, {self.type!r} from {self.source!r}>"


def _or_else(value: str | UnsetType, otherwise: Otherwise) -> str | Otherwise:
    return otherwise if value is UNSET else value


def _text(raw: Raw | UnsetType) -> str | None:
    """Gives an attribute's text; None where it is of another type."""
    if raw is UNSET or not bytes(raw).startswith(b'"'):
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.MsgspecError, UnicodeError):  # an unpaired surrogate, which data_base64 may have
        return str(json.loads(bytes(raw)))
