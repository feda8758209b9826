"""Configuration: TOML text to typed, frozen settings. What each key means stands in ``etc/*.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from notifyd.event import Priority

Lane = Literal["normal", "important", "critical"]
Name = Annotated[str, Meta(pattern=r"^[^\s/\x00-\x1f]([^/\x00-\x1f]{0,253}[^\s/\x00-\x1f])?$")]
Text = Annotated[str, Meta(min_length=1, max_length=1000)]


class ConfigurationError(Exception):
    """A configuration cannot be used; the text is one line: file, key, reason."""

    def __init__(self, path: str, key: str, reason: str) -> None:
        super().__init__(": ".join(" ".join(part.split()) for part in (path, key, reason) if part))


class Duration(float):
    """A length of time in seconds; written ``"90s"``, ``"5m"``, ``"1.5h"``."""

    _units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012 - a constant

    @classmethod
    def parse(cls, value: object) -> Duration:
        """Reads a positive duration; raises ValueError with what is expected."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError('expected a duration such as "90s", "5m" or "30d"')
        seconds = float(match[1]) * cls._units[match[2]]
        if not 0 < seconds <= 36_525 * 86_400:
            raise ValueError("a duration must be longer than nothing and at most a century")
        return cls(seconds)


class Size(int):
    """An amount of memory in bytes; written ``"64MiB"``."""

    _units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}  # noqa: RUF012 - a constant

    @classmethod
    def parse(cls, value: object) -> Size:
        """Reads a size of at least 64 KiB; raises ValueError with what is expected."""
        match = re.fullmatch(r"([0-9]{1,12})\s*(B|KiB|MiB|GiB)", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError('expected a size such as "512KiB", "64MiB" or "1GiB"')
        size = int(match[1]) * cls._units[match[2]]
        if size < 64 * 1024:
            raise ValueError("a size must be at least 64KiB")
        return cls(size)


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a key that it does not know is refused."""


# --- both ------------------------------------------------------------------------------------------------


class OwnEvents(_Section, frozen=True):
    """``[own_events]``: events that a daemon sends about itself."""

    priority: Lane = "important"


# --- agent.toml ------------------------------------------------------------------------------------------


class SourceRule(_Section, frozen=True):
    """``[[source.rule]]``: which frame is which event."""

    name: Text | None = None
    match: Annotated[str, Meta(max_length=10_000)] = ""
    type: Text = "notifyd.line"
    priority: Lane | None = None


class Source(_Section, frozen=True):
    """``[[source]]``: one serial port and what it prints."""

    name: Name
    port: Text
    baudrate: Annotated[int, Meta(ge=1, le=20_000_000)] = 9600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O", "M", "S"] = "N"
    stopbits: float = 1
    xonxoff: bool = False
    rtscts: bool = False
    encoding: Text = "ascii"
    framing: Literal["line"] = "line"
    silence: Duration | None = None
    priority: Lane = "normal"
    unmatched: Literal["send", "drop"] | None = None
    rule: tuple[SourceRule, ...] = ()

    @property
    def sends_unmatched(self) -> bool:
        """Whether a frame that no rule matches is sent."""
        return self.unmatched == "send" or (self.unmatched is None and not self.rule)


class SpoolSettings(_Section, frozen=True):
    """``[spool]``: the durable queue of the agent."""

    max_events: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1_000_000


class AgentConfig(_Section, frozen=True):
    """``agent.toml``."""

    source: Annotated[tuple[Source, ...], Meta(min_length=1)]
    name: Name | None = None
    hub: Text = "tcp:127.0.0.1:1500"
    state: Text | None = None
    spool: SpoolSettings = SpoolSettings()
    own_events: OwnEvents = OwnEvents()


# --- hub.toml --------------------------------------------------------------------------------------------

Scalar = str | int | float | bool


class HubRule(_Section, frozen=True):
    """``[[rule]]``: which event has which priority."""

    name: Text | None = None
    type: Text | None = None
    source: Text | None = None
    where: dict[str, Scalar] = {}
    priority: Priority | None = None
    priority_from: Text | None = None


class Listen(_Section, frozen=True):
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


class Database(_Section, frozen=True):
    """``[database]``: where the log is, and for how long it keeps an event."""

    url: Text | None = None
    retention: Duration = Duration(30 * 86_400)


class HubOwnEvents(OwnEvents, frozen=True):
    """``[own_events]`` of the hub."""

    agent_lost_after: Duration = Duration(60)


class Limits(_Section, frozen=True):
    """``[limits]``: what the hub holds at most."""

    max_producers: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    max_subscribers: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    stream_memory: Size = Size(64 * 2**20)
    stall_timeout: Duration = Duration(300)


class HubConfig(_Section, frozen=True):
    """``hub.toml``."""

    state: Text | None = None
    default_priority: Priority = Priority.ERROR
    listen: Listen = Listen()
    database: Database = Database()
    own_events: HubOwnEvents = HubOwnEvents()
    rule: tuple[HubRule, ...] = ()
    limits: Limits = Limits()


# --- reading ---------------------------------------------------------------------------------------------

_Config = TypeVar("_Config", AgentConfig, HubConfig)


def parse_agent(text: str, path: str) -> AgentConfig:
    """Reads ``agent.toml``.

    Args:
        text: the file's content.
        path: the file's name, for messages.

    Raises:
        ConfigurationError: something in it cannot be used.
    """
    config = _convert(_toml(text, path), path, AgentConfig)
    _check_state(path, config.state)
    if config.name is not None:
        _check_name(path, "name", config.name)
    _check_unique(path, "source", [source.name for source in config.source])
    _check_unique(path, "source", [source.port for source in config.source], "port")
    for index, source in enumerate(config.source):
        _check_source(path, f"source[{index}]", source)
    return config


def parse_hub(text: str, path: str) -> HubConfig:
    """Reads ``hub.toml``; arguments and errors as of :func:`parse_agent`."""
    config = _convert(_toml(text, path), path, HubConfig)
    _check_state(path, config.state)
    if config.database.url is not None:
        try:
            sqlite_path(config.database.url)
        except ValueError as error:
            raise ConfigurationError(path, "database.url", str(error)) from None
    for index, rule in enumerate(config.rule):
        if (rule.priority is None) == (rule.priority_from is None):
            raise ConfigurationError(path, f"rule[{index}]", "needs either priority or priority_from")
    return config


def looks_like_agent(text: str) -> bool:
    """Tells an agent's file from a hub's by the tables that only one of them has."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        return re.search(r"^\s*\[\[source\]\]", text, re.MULTILINE) is not None
    hub_only = {"listen", "database", "rule", "limits", "default_priority", "lookup", "filter", "suppress"}
    return not hub_only & document.keys() and bool({"source", "spool", "hub", "name"} & document.keys())


def state_folder(setting: str | None, environ: Mapping[str, str], daemon: str) -> Path:
    """Gives the folder for a daemon's state: the setting, systemd's, else the XDG state directory."""
    if setting is not None:
        return Path(setting).expanduser()
    if systemd := environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    home = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "/")) / ".local/state")
    return Path(home) / daemon


def sqlite_path(url: str) -> Path:
    """Gives the file that ``sqlite:///relative`` or ``sqlite:////absolute`` names.

    Raises:
        ValueError: ``url`` is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise ValueError(f"{parts.scheme or url!r} is no database that works; use sqlite:////path/to/hub.db")
    if parts.netloc or not parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("expected sqlite:////absolute/path or sqlite:///relative/path")
    file = unquote(parts.path[1:])
    if "\0" in file:
        raise ValueError("has a NUL")
    return Path(file)


def _toml(text: str, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # what tomllib itself raises, and int() for a number of thousands of digits
        raise ConfigurationError(path, "", f"no valid TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(path, "", "no valid TOML: nested too deeply") from None


def _hook(kind: type, value: object) -> object:
    if kind in (Duration, Size):
        return kind.parse(value)
    raise NotImplementedError(kind)


def _convert(document: dict[str, Any], path: str, kind: type[_Config]) -> _Config:
    try:
        return msgspec.convert(document, kind, dec_hook=_hook)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        key = place.strip("`").lstrip(".")
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", reason, re.DOTALL):
            key, reason = (f"{key}.{unknown[1]}" if key else unknown[1]), "unknown key"
        elif missing := re.fullmatch(r"Object missing required field `(.*)`", reason):
            key, reason = (f"{key}.{missing[1]}" if key else missing[1]), "is required"
        raise ConfigurationError(path, key, _for_people(reason)) from None


def _for_people(reason: str) -> str:
    names = {"`str`": "text", "`int`": "a whole number", "`bool`": "true or false", "`float`": "a number"}
    names |= {"`array`": "a list", "`object`": "a table", "`null`": "nothing"}
    if "matching regex" in reason:
        return "expected a name without slashes, control characters or spaces around it"
    reason = re.sub(r"`([a-z]+(?: \| [a-z]+)+)`", _either, reason)
    for theirs, ours in names.items():
        reason = reason.replace(theirs, ours)
    return reason[:1].lower() + reason[1:]


def _either(kinds: re.Match[str]) -> str:
    return " or ".join(f"`{kind}`" for kind in kinds[1].split(" | ") if kind != "null")


def _check_unique(path: str, key: str, values: Sequence[str], what: str = "name") -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ConfigurationError(path, f"{key}[{index}].{what}", f"{value!r} is taken by another {key}")


def _check_state(path: str, state: str | None) -> None:
    if state is not None and "\0" in state:
        raise ConfigurationError(path, "state", "has a NUL")
    if state is not None and state.startswith("~") and state != "~" and not state.startswith("~/"):
        raise ConfigurationError(path, "state", "expected a path; of those with ~ only ~ itself and ~/folder")


def _check_name(path: str, key: str, name: str) -> None:
    if not name.isprintable():  # the hub would refuse HELLO
        raise ConfigurationError(path, key, "has characters that cannot be printed")


def _check_source(path: str, key: str, source: Source) -> None:
    _check_name(path, f"{key}.name", source.name)
    if source.stopbits not in (1, 1.5, 2):
        raise ConfigurationError(path, f"{key}.stopbits", "expected 1, 1.5 or 2")
    if "://" in source.port:
        raise ConfigurationError(path, f"{key}.port", "expected a device such as /dev/ttyUSB0, not a URL")
    if "\0" in source.port:
        raise ConfigurationError(path, f"{key}.port", "has a NUL")
    try:
        b"?".decode(source.encoding, "replace")
    except (LookupError, ValueError):
        reason = f"{source.encoding!r} is no text encoding that Python knows"
        raise ConfigurationError(path, f"{key}.encoding", reason) from None
    for index, rule in enumerate(source.rule):
        if "\0" in rule.type:
            raise ConfigurationError(path, f"{key}.rule[{index}].type", "has a NUL")
        try:
            re.compile(rule.match)
        except (re.error, RecursionError, OverflowError) as error:
            reason = f"no valid regular expression: {error}"
            raise ConfigurationError(path, f"{key}.rule[{index}].match", reason) from None
