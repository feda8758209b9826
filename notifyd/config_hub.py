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
    WhereTable,
    check_database_url,
    check_state,
    check_unique,
    check_where,
    convert,
    is_postgresql,
    read_toml,
)
from notifyd.event import Event, Priority

MAX_SET = 1_000
"""Characters of an attribute that a rule adds: a line to a client has room for a few of them."""

MAX_ADDED = 16 * 2**10
"""Bytes of all that a rule adds: a line to a client has room for them beside the longest event."""

_NOT_SET = frozenset(Event.__struct_fields__) - {"subject"}
"""What producers or the hub itself set; the names are those of CloudEvents 1.0.2 and of docs/protocol.md."""

_NOT_NAMES = frozenset({"filter", "hint", "default"})


class Conditions(Section, frozen=True):
    """Which events something is for: all of its conditions must hold; without one it is for every event.

    ``type`` and ``source`` are globs. ``where`` has, by path in the event's data, the value that must stand there, a
    list of which one must, or a :class:`Comparison`.
    """

    type: Text | None = None
    source: Text | None = None
    where: WhereTable = field(default_factory=dict)


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
        check_where(path, f"lookup[{index}]", lookup.where)
    for index, rule in enumerate(config.rule):
        _check_rule(path, f"rule[{index}]", rule)
    for index, suppress in enumerate(config.suppress):
        check_where(path, f"suppress[{index}]", suppress.where)
        _check_name(path, f"suppress[{index}]", suppress.name)
    return config


def _check_url(path: str, key: str, url: str) -> None:
    try:
        check_database_url(url)
    except ValueError as error:
        raise ConfigurationError(path, key, str(error)) from None


def _check_name(path: str, key: str, name: str | None) -> None:
    if name in _NOT_NAMES:
        raise ConfigurationError(path, f"{key}.name", f"{name!r} stands for what decides where no rule does")


def _check_rule(path: str, key: str, rule: HubRule) -> None:
    check_where(path, key, rule.where)
    _check_name(path, key, rule.name)
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
    if len(str(rule.set).encode()) > MAX_ADDED:
        raise ConfigurationError(path, f"{key}.set", f"adds more than {MAX_ADDED} bytes to each event")
