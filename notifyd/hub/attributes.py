"""Attributes that a rule adds to the events that meet it: encoded once, and put behind each event's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, Raw

from notifyd import event as events

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes that are encoded once and added to many events."""

    members: Mapping[str, bytes] = field(hash=False)
    ending: bytes


def encode_attributes(values: Mapping[str, str | int | bool]) -> Attributes:
    """Encodes attributes for :func:`add_attributes`: at least one, ``subject`` or such that notifyd does not know."""
    # An integer of any size, which the encoder does not take.
    members = {name: str(v).encode() if type(v) is int else _encode(v) for name, v in values.items()}
    return Attributes(members, b"".join(b',"%b":%b' % (name.encode(), value) for name, value in members.items()) + b"}")


def add_attributes(line: bytes, event: events.Event, attributes: Attributes) -> bytes:
    """Adds attributes to an event's line; they take the place of what the producer gave those names.

    Args:
        line: what :func:`notifyd.event.encode` gave for ``event``.
        event: the event.
        attributes: what is added.
    """
    members = attributes.members
    doubled = event.subject is not UNSET and "subject" in members
    if doubled or not members.keys().isdisjoint(events.extension_names(event)):
        return bytes(events.splice(Raw(line), members))
    return line[:-1] + attributes.ending
