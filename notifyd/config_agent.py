"""``agent.toml``: what the agent reads, how it recognises events, and where it pushes them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from notifyd.config import (
    ConfigurationError,
    Duration,
    Lane,
    Name,
    OwnEvents,
    Section,
    Size,
    Text,
    WhereTable,
    check_folder,
    check_name,
    check_state,
    check_unique,
    check_where,
    convert,
    read_toml,
)
from notifyd.portname import File, parse_port


class SourceRule(Section, frozen=True):
    """``[[source.rule]]``: which frame is which event."""

    name: Text | None = None
    match: Annotated[str, Meta(max_length=10_000)] = ""
    where: WhereTable = field(default_factory=dict)
    type: Text = "notifyd.line"
    priority: Lane | None = None


FramingName = Literal["line", "stx-etx", "fixed", "gap", "nmea", "dsmr", "espa444", "dc09", "contact-id", "surgard"]


FRAMING_KEYS = {
    "delimiter": ("line",),
    "checksum": ("stx-etx",),
    "dle": ("stx-etx",),
    "length": ("fixed",),
    "gap": ("gap", "fixed"),
    "station": ("espa444",),
    "bad_frames": ("stx-etx", "fixed", "nmea", "dsmr", "espa444", "dc09", "contact-id", "surgard"),
}
"""The keys of ``[[source]]`` that only some framings have a use for, and which."""

POLL_LEAST_S = 0.1
"""The shortest time between two polls: a line of 9600 Bd carries about 100 characters in it."""


class Poll(Section, frozen=True):
    """``poll``: what a device is asked, and how often."""

    send: Annotated[str, Meta(min_length=1, max_length=1000)]
    every: Duration


class Source(Section, frozen=True):
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
    framing: FramingName = "line"
    delimiter: Annotated[str, Meta(min_length=1, max_length=16)] | None = None  # of "line"
    checksum: Literal["none", "xor", "sum8", "bcc"] = "none"  # of "stx-etx"
    dle: bool = False  # of "stx-etx"
    length: Annotated[int, Meta(ge=1, le=8192)] | None = None  # of "fixed", in bytes
    gap: Duration | None = None  # of "gap"
    station: Annotated[str, Meta(min_length=1, max_length=16)] = "2"  # of "espa444": the address that is called
    bad_frames: Literal["drop", "send"] = "drop"
    on_open: Annotated[str, Meta(max_length=1000)] = ""
    poll: Poll | None = None
    record: bool = False
    silence: Duration | None = None
    priority: Lane = "normal"
    unmatched: Literal["send", "drop"] | None = None
    rule: tuple[SourceRule, ...] = ()

    @property
    def sends_unmatched(self) -> bool:
        """Whether a frame that no rule matches is sent."""
        return self.unmatched == "send" or (self.unmatched is None and not self.rule)

    def line_settings(self) -> dict[str, Any]:
        """Gives how characters go over the line, as pyserial's keywords."""
        return {name: getattr(self, name) for name in _LINE_SETTINGS}


_LINE_SETTINGS = ("baudrate", "bytesize", "parity", "stopbits", "xonxoff", "rtscts")


class SpoolSettings(Section, frozen=True):
    """``[spool]``: the durable queue of the agent."""

    max_events: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1_000_000


class RecordSettings(Section, frozen=True):
    """``[record]``: recordings of sources that have ``record = true``."""

    folder: Text | None = None  # default: recordings in the state folder
    max_size: Size = Size(16 * 2**20)  # of one file; then the next is begun
    max_files: Annotated[int, Meta(ge=1, le=10_000)] = 8  # of one source; the oldest goes


class AgentLimits(Section, frozen=True):
    """``[limits]`` of the agent."""

    max_rate: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None  # frames a second of one source


class AgentConfig(Section, frozen=True):
    """``agent.toml``."""

    source: Annotated[tuple[Source, ...], Meta(min_length=1)]
    name: Name | None = None
    hub: Text = "tcp:127.0.0.1:1500"
    state: Text | None = None
    spool: SpoolSettings = SpoolSettings()
    own_events: OwnEvents = OwnEvents()
    record: RecordSettings = RecordSettings()
    limits: AgentLimits = AgentLimits()


def parse_agent(text: str, path: str) -> AgentConfig:
    """Reads ``agent.toml``.

    Args:
        text: the file's content.
        path: the file's name, for messages.

    Raises:
        ConfigurationError: something in it cannot be used.
    """
    config = convert(read_toml(text, path), path, AgentConfig)
    check_state(path, config.state)
    check_folder(path, "record.folder", config.record.folder)
    if config.name is not None:
        check_name(path, "name", config.name)
    check_unique(path, "source", [source.name for source in config.source])
    check_unique(path, "source", [source.port for source in config.source], "port")
    for index, source in enumerate(config.source):
        _check_source(path, f"source[{index}]", source)
    return config


def _check_port(path: str, key: str, source: Source) -> None:
    """Sees that a port has one of the forms, and that what is sent to it can be."""
    if "\0" in source.port:
        raise ConfigurationError(path, f"{key}.port", "has a NUL")
    try:
        port = parse_port(source.port)
    except ValueError as error:
        raise ConfigurationError(path, f"{key}.port", str(error)) from None
    sent = {"on_open": source.on_open, "poll.send": source.poll.send if source.poll else ""}
    for name, text in sent.items():
        if text and isinstance(port, File):
            raise ConfigurationError(path, f"{key}.{name}", "nothing can be sent to a file")
        if not all(ord(character) < 256 for character in text):
            raise ConfigurationError(path, f"{key}.{name}", "each character stands for a byte: none beyond \\u00ff")
    if source.poll is not None and source.poll.every < POLL_LEAST_S:
        raise ConfigurationError(path, f"{key}.poll.every", "expected at least 100ms")


def _check_source(path: str, key: str, source: Source) -> None:
    check_name(path, f"{key}.name", source.name)
    if source.stopbits not in (1, 1.5, 2):
        raise ConfigurationError(path, f"{key}.stopbits", "expected 1, 1.5 or 2")
    _check_port(path, key, source)
    try:
        b"?".decode(source.encoding, "replace")
    except (LookupError, ValueError):
        reason = f"{source.encoding!r} is no text encoding that Python knows"
        raise ConfigurationError(path, f"{key}.encoding", reason) from None
    _check_framing(path, key, source)
    for index, rule in enumerate(source.rule):
        check_where(path, f"{key}.rule[{index}]", rule.where)
        if "\0" in rule.type:
            raise ConfigurationError(path, f"{key}.rule[{index}].type", "has a NUL")
        try:
            re.compile(rule.match)
        except (re.error, RecursionError, OverflowError) as error:
            reason = f"no valid regular expression: {error}"
            raise ConfigurationError(path, f"{key}.rule[{index}].match", reason) from None


def _check_framing(path: str, key: str, source: Source) -> None:
    """Sees that a framing has the keys that it needs, and none that it has no use for; raises ConfigurationError."""
    framing = source.framing
    defaults = {setting.name: setting.default for setting in msgspec.structs.fields(Source)}
    for name, framings in FRAMING_KEYS.items():
        if framing not in framings and getattr(source, name) != defaults[name]:
            raise ConfigurationError(path, f"{key}.{name}", f"has no use with framing {framing!r}")
    for name in ("length", "gap"):
        if framing == FRAMING_KEYS[name][0] and getattr(source, name) is None:
            raise ConfigurationError(path, f"{key}.{name}", f"is required with framing {framing!r}")
    if source.delimiter is not None and not all(character <= "\xff" for character in source.delimiter):
        raise ConfigurationError(path, f"{key}.delimiter", "each character is a byte: at most \\xff")
    if not (source.station.isascii() and source.station.isprintable()):
        raise ConfigurationError(path, f"{key}.station", "expected letters and figures")
