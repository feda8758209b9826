"""``hub.toml``: where the hub listens, what it looks up, and how important each event is."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, field

from notifyd import sqltext
from notifyd.config import (
    ConfigurationError,
    Duration,
    OwnEvents,
    Section,
    Size,
    Text,
    check_database_url,
    check_state,
    check_unique,
    convert,
    is_postgresql,
    read_toml,
)
from notifyd.event import Event, Priority

MAX_SET = 1_000
"""Characters of an attribute that a rule adds: a line to a client has room for a few of them."""

_NOT_SET = frozenset(Event.__struct_fields__) - {"subject"}
"""What producers or the hub itself set; the names are those of CloudEvents 1.0.2 and of docs/protocol.md."""

_NOT_NAMES = frozenset({"filter", "hint", "default"})

Scalar = str | int | float | bool


class Comparison(Section, frozen=True):
    """A condition on a value in an event's data that is not equality; all of its parts must hold.

    ``glob`` is a pattern for the value's text, the others compare it as a number.
    """

    glob: Text | None = None
    gt: int | float | None = field(name=">", default=None)
    ge: int | float | None = field(name=">=", default=None)
    lt: int | float | None = field(name="<", default=None)
    le: int | float | None = field(name="<=", default=None)


class Conditions(Section, frozen=True):
    """Which events something is for: all of its conditions must hold; without one it is for every event.

    ``type`` and ``source`` are globs. ``where`` has, by path in the event's data, the value that must stand there, a
    list of which one must, or a :class:`Comparison`.
    """

    type: Text | None = None
    source: Text | None = None
    where: dict[Text, Scalar | tuple[Scalar, ...] | Comparison] = field(default_factory=dict)


class HubRule(Conditions, frozen=True):
    """``[[rule]]``: which event has which priority."""

    name: Text | None = None
    priority: Priority | None = None
    priority_from: Text | None = None
    drop: bool = False
    set: dict[str, str | int | bool] = field(default_factory=dict)


class Lookup(Conditions, frozen=True, kw_only=True):
    """``[[lookup]]``: what a database knows about an event."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$")]
    sql: Annotated[str, Meta(min_length=1, max_length=100_000)]
    database: Text | None = None
    cache: Duration = Duration(60)
    cache_entries: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    timeout: Duration = Duration(2)


class Filter(Section, frozen=True):
    """``[filter]``: the operator's own code."""

    factory: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$")]
    blocking: bool = False
    timeout: Duration = Duration(2)


class Suppress(Conditions, frozen=True):
    """``[[suppress]]``: which events are sent once, and then as their count."""

    name: Text | None = None
    by: Annotated[tuple[Text, ...], Meta(max_length=10)] = ("source", "type")
    window: Duration = Duration(60)


class Listen(Section, frozen=True):
    """``[listen]``: endpoint strings, one a port."""

    ingest: Text = "tcp:1500:interface=127.0.0.1"
    normal: Text = "tcp:1600:interface=127.0.0.1"
    important: Text = "tcp:1601:interface=127.0.0.1"
    critical: Text = "tcp:1602:interface=127.0.0.1"
    error: Text | None = None
    all: Text | None = None

    def streams(self) -> dict[str, str]:
        """Gives the endpoint string of each subscriber stream that is served."""
        every = {name: getattr(self, name) for name in ("normal", "important", "critical", "error", "all")}
        return {name: endpoint for name, endpoint in every.items() if endpoint is not None}


class Database(Section, frozen=True):
    """``[database]``: where the log is, and for how long it keeps an event."""

    url: Text | None = None
    retention: Duration = Duration(30 * 86_400)


class HubOwnEvents(OwnEvents, frozen=True):
    """``[own_events]`` of the hub."""

    agent_lost_after: Duration = Duration(60)


class Limits(Section, frozen=True):
    """``[limits]``: what the hub holds at most."""

    max_producers: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    max_subscribers: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    stream_memory: Size = Size(64 * 2**20)
    stall_timeout: Duration = Duration(300)


class HubConfig(Section, frozen=True):
    """``hub.toml``."""

    state: Text | None = None
    default_priority: Priority = Priority.ERROR
    listen: Listen = Listen()
    database: Database = Database()
    own_events: HubOwnEvents = HubOwnEvents()
    lookup: tuple[Lookup, ...] = ()
    rule: tuple[HubRule, ...] = ()
    filter: Filter | None = None
    suppress: tuple[Suppress, ...] = ()
    limits: Limits = Limits()


def parse_hub(text: str, path: str) -> HubConfig:
    """Reads ``hub.toml``; arguments and errors as of :func:`parse_agent`."""
    config = convert(read_toml(text, path), path, HubConfig)
    check_state(path, config.state)
    if config.database.url is not None:
        _check_url(path, "database.url", config.database.url)
    check_unique(path, "lookup", [lookup.name for lookup in config.lookup])
    for index, lookup in enumerate(config.lookup):
        if lookup.database is not None:
            _check_url(path, f"lookup[{index}].database", lookup.database)
        try:
            sqltext.parse(lookup.sql, postgresql=is_postgresql(lookup.database or config.database.url or ""))
        except ValueError as error:
            raise ConfigurationError(path, f"lookup[{index}].sql", str(error)) from None
        _check_conditions(path, f"lookup[{index}]", lookup)
    for index, rule in enumerate(config.rule):
        _check_rule(path, f"rule[{index}]", rule)
    for index, suppress in enumerate(config.suppress):
        _check_conditions(path, f"suppress[{index}]", suppress)
    return config


def _check_url(path: str, key: str, url: str) -> None:
    try:
        check_database_url(url)
    except ValueError as error:
        raise ConfigurationError(path, key, str(error)) from None


def _check_conditions(path: str, key: str, conditions: Conditions) -> None:
    for place, expected in conditions.where.items():
        if expected in ((), Comparison()):
            raise ConfigurationError(path, f"{key}.where.{place}", "is empty, so that no event could have it")


def _check_rule(path: str, key: str, rule: HubRule) -> None:
    _check_conditions(path, key, rule)
    if rule.name in _NOT_NAMES:
        raise ConfigurationError(path, f"{key}.name", f"{rule.name!r} stands for what decides where no rule does")
    if (rule.priority is not None) + (rule.priority_from is not None) + rule.drop != 1:
        raise ConfigurationError(path, key, "needs one of priority, priority_from and drop = true")
    if rule.drop and rule.set:
        raise ConfigurationError(path, f"{key}.set", "has no use beside drop = true")
    for name, value in rule.set.items():
        if not re.fullmatch("[a-z0-9]{1,64}", name):
            raise ConfigurationError(path, f"{key}.set.{name}", "an attribute's name is lower-case letters and figures")
        if name in _NOT_SET:
            raise ConfigurationError(path, f"{key}.set.{name}", "this attribute is not a rule's to set")
        if isinstance(value, str) and ("\0" in value or len(value) > MAX_SET):
            raise ConfigurationError(path, f"{key}.set.{name}", f"has a NUL, or more than {MAX_SET} characters")
