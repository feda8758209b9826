"""``agent.toml``: what the agent reads, how it recognises events, and where it pushes them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from notifyd.config import (
    ConfigurationError,
    Duration,
    Lane,
    Name,
    OwnEvents,
    Section,
    Text,
    check_name,
    check_state,
    check_unique,
    convert,
    read_toml,
)


class SourceRule(Section, frozen=True):
    """``[[source.rule]]``: which frame is which event."""

    name: Text | None = None
    match: Annotated[str, Meta(max_length=10_000)] = ""
    type: Text = "notifyd.line"
    priority: Lane | None = None


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
    framing: Literal["line"] = "line"
    silence: Duration | None = None
    priority: Lane = "normal"
    unmatched: Literal["send", "drop"] | None = None
    rule: tuple[SourceRule, ...] = ()

    @property
    def sends_unmatched(self) -> bool:
        """Whether a frame that no rule matches is sent."""
        return self.unmatched == "send" or (self.unmatched is None and not self.rule)


class SpoolSettings(Section, frozen=True):
    """``[spool]``: the durable queue of the agent."""

    max_events: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1_000_000


class AgentConfig(Section, frozen=True):
    """``agent.toml``."""

    source: Annotated[tuple[Source, ...], Meta(min_length=1)]
    name: Name | None = None
    hub: Text = "tcp:127.0.0.1:1500"
    state: Text | None = None
    spool: SpoolSettings = SpoolSettings()
    own_events: OwnEvents = OwnEvents()


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
    if config.name is not None:
        check_name(path, "name", config.name)
    check_unique(path, "source", [source.name for source in config.source])
    check_unique(path, "source", [source.port for source in config.source], "port")
    for index, source in enumerate(config.source):
        _check_source(path, f"source[{index}]", source)
    return config


def _check_source(path: str, key: str, source: Source) -> None:
    check_name(path, f"{key}.name", source.name)
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
