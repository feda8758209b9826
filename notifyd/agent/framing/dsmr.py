"""``framing = "dsmr"``: what a smart meter prints on its customer port, P1."""

from __future__ import annotations

import re

from notifyd.agent.framing.base import BadFrames, Frame, ScanningFramer
from notifyd.agent.framing.checksums import crc16

MAX_FIELDS = 100
"""Values of a telegram that are given as fields: a meter with four devices behind it prints some 50."""

_HEAD = re.compile(rb"/[A-Za-z]{3}[0-9]")
_HEAD_BYTES = 5
_STOP = re.compile(rb"[\r\n](?:!|(?=/[A-Za-z]{3}[0-9]))")
_CRC = re.compile(rb"[0-9A-Fa-f]{4}")
_VERSION = re.compile(rb"^[01]-[0-9]:0\.2\.8\(", re.MULTILINE)  # DSMR 4 and later, which have a CRC
_VALUE = re.compile(r"(\d+-\d+:\d+\.\d+\.\d+)(?:\((\d{12}[SW])\))?\(([^()*]{0,200})(?:\*[^()*]{1,20})?\)")


class DsmrFramer(ScanningFramer):
    """P1 telegrams: from ``/`` to ``!`` and the CRC, many lines in one frame.

    Source: "Dutch Smart Meter Requirements, P1 Companion Standard" 5.0.2, section 6: ``/XXX5`` and an identification,
    an empty line, lines of data with OBIS codes, ``!`` and the CRC in four hex figures; it is CRC-16/ARC over all from
    ``/`` to ``!``, both included. Belgian and Luxembourgish meters in plain text do the same.

    ``data`` is the telegram from its ``/`` to the CRC. Meters before DSMR 4 print no CRC: a telegram without one is
    taken until one came with it, unless it says that it is of version 4 or later.

    ``fields``: ``identification``, and by OBIS code the value of each line that has one value, or one behind its time,
    without its unit: ``1-0:1.7.0(00.335*kW)`` is ``"1-0:1_7_0": "00.335"``, the points made underscores so that a rule
    of the hub can name it.

    Args:
        bad_frames: what becomes of a damaged telegram.
    """

    def __init__(self, bad_frames: BadFrames = "drop") -> None:
        super().__init__(bad_frames)
        self._has_crc = False

    def flush(self) -> Frame | None:
        """Gives what is left of a telegram as damaged, where such ones are sent, and begins anew."""
        self._has_crc = False
        if not self._held.startswith(b"/") or len(self._held) < _HEAD_BYTES:
            self._skip(self._held)
            self._held = b""
        return super().flush()

    def _scan(self, held: bytes, place: int, limit: int, frames: list[Frame]) -> int:
        if held[place] != 0x2F:
            start = held.find(b"/", place, limit)
            start = limit if start < 0 else start
            self._skip(held[place:start])
            return start
        if _HEAD.match(held, place, limit) is None:
            return self._no_head(held, place, limit)
        stop = _STOP.search(held, place + _HEAD_BYTES, limit)
        if stop is None:
            return place
        if not stop[0].endswith(b"!"):
            self._damage(frames, held[place : stop.end()], "another telegram begins within it")
            return stop.end()
        return self._finish(held, place, stop.end(), limit, frames)

    def _no_head(self, held: bytes, place: int, limit: int) -> int:
        """Goes on behind a ``/`` that begins no telegram; one of which too little is there is kept."""
        if limit - place < _HEAD_BYTES and _HEAD.match(held[place:limit] + b"XXX5"[limit - place - 1 :]) is not None:
            return place
        self._skip(held[place : place + 1])
        return place + 1

    def _finish(self, held: bytes, place: int, end: int, limit: int, frames: list[Frame]) -> int:
        """Deals with a telegram of which ``end`` is the first byte behind the ``!``."""
        if end == limit:
            return place
        telegram = held[place:end]
        if held[end] in b"\r\n":
            if self._has_crc or _VERSION.search(telegram) is not None:
                self._damage(frames, telegram, "no checksum")
            else:
                frames.append(Frame(telegram, fields=_fields(telegram)))
            return end
        crc = _CRC.match(held, end, limit)
        if crc is None:
            if limit - end < 4:
                return place
            self._damage(frames, telegram, "no checksum")
            return end
        calculated = crc16(telegram)
        if int(crc[0], 16) != calculated:
            self._damage(frames, telegram + crc[0], f"checksum {crc[0].decode().upper()}, calculated {calculated:04X}")
            return end
        self._has_crc = True
        frames.append(Frame(telegram + crc[0], fields=_fields(telegram)))
        return crc.end()


def _fields(telegram: bytes) -> dict[str, str]:
    head, *lines = telegram.decode("ascii", "replace").splitlines()
    fields = {"identification": head[_HEAD_BYTES:]}
    for line in lines:
        value = _VALUE.fullmatch(line)
        if value is not None and len(fields) <= MAX_FIELDS:
            fields[value[1].replace(".", "_")] = value[3]
    return fields
