"""Where a device is: the forms that ``port`` of a ``[[source]]`` can have. Pure."""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import urlsplit

FORMS = (
    "a device such as /dev/ttyUSB0, usb:VID:PID[:SERIAL], socket://HOST:PORT, rfc2217://HOST:PORT, file:/PATH or file:-"
)


@dataclasses.dataclass(frozen=True)
class Device:
    """A serial device of this machine."""

    path: str


@dataclasses.dataclass(frozen=True)
class Usb:
    """A USB serial adapter, wherever it is plugged in.

    Attributes:
        vendor: its vendor's number.
        product: its product's number.
        serial: its serial number; None where any will do.
    """

    vendor: int
    product: int
    serial: str | None = None


@dataclasses.dataclass(frozen=True)
class Network:
    """A serial port behind a server, raw or with control of the line (RFC 2217)."""

    host: str
    port: int
    is_rfc2217: bool


@dataclasses.dataclass(frozen=True)
class File:
    """A FIFO or a file; None stands for standard input."""

    path: str | None


PortName = Device | Usb | Network | File


def parse_port(text: str) -> PortName:
    """Reads a setting ``port``.

    Raises:
        ValueError: it has none of the forms.
    """
    if text.startswith("usb:"):
        return _usb(text)
    if text.startswith("file:"):
        return _file(text)
    if text.startswith(("socket://", "rfc2217://")):
        return _network(text)
    if re.match(r"[a-z0-9+.-]+://", text, re.IGNORECASE):
        raise ValueError(f"expected {FORMS}")
    return Device(text)


def _usb(text: str) -> Usb:
    match = re.fullmatch(r"usb:([0-9a-f]{4}):([0-9a-f]{4})(?::(.+))?", text, re.IGNORECASE)
    if match is None:
        raise ValueError(
            "expected usb:VID:PID or usb:VID:PID:SERIAL, with four hexadecimal digits each, as lsusb shows"
        )
    return Usb(int(match[1], 16), int(match[2], 16), match[3])


def _file(text: str) -> File:
    path = text.removeprefix("file:")
    if path == "-":
        return File(None)
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError("expected file:/PATH with an absolute path, or file:- for standard input")
    return File(path)


def _network(text: str) -> Network:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"expected {text.split(':')[0]}://HOST:PORT")
    return Network(host, port, parts.scheme == "rfc2217")
