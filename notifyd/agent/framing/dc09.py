"""``framing = "dc09"``: alarm messages of SIA DC-09, and what the receiver answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from notifyd.agent.framing.base import BadFrames, Frame, ScanningFramer, decode
from notifyd.agent.framing.checksums import crc16
from notifyd.agent.framing.contact_id import QUALIFIERS

MIN_FRAME = 10
"""Bytes from which on what stands between LF and CR is a message, damaged or not, and is answered; less is noise."""

MAX_ENVELOPE = 64
"""Bytes of the longest answer: CRC, length, id, sequence, receiver, line, account and time."""

_FRAME = re.compile(rb"\n([^\r\n]*+)([\r\n])")
_HEADER = re.compile(rb"([0-9A-Fa-f]{4})(0[0-9A-Fa-f]{3})(\".*)", re.DOTALL)
_MESSAGE = re.compile(
    rb'"(?P<encrypted>\*?)(?P<id>[0-9A-Za-z-]{1,16})"(?P<sequence>[0-9]{4})(?:R(?P<receiver>[0-9A-Fa-f]{1,6}))?'
    rb"L(?P<line>[0-9A-Fa-f]{1,6})#(?P<account>[0-9A-Fa-f]{3,16})\[(?P<rest>.*)"
)
_TIMESTAMP = re.compile(r"_(\d\d:\d\d:\d\d,\d\d-\d\d-\d{4})$")
_CID = re.compile(
    r"(?:#?(?P<object>[0-9A-Fa-f]{1,16}))?\|"
    r"(?P<qualifier>[136])(?P<event>[0-9A-F]{3}) (?P<group>[0-9A-F]{2}) (?P<zone>[0-9A-F]{3})"
)
_DCS = re.compile(
    r"(?:#?(?P<object>[0-9A-Fa-f]{1,16}))?\|"
    r"(?P<state>[NO]?)(?P<modifiers>(?:[a-z]{2}[^/]{0,40}/){0,8})(?P<event>[A-Z]{2})(?P<zone>[0-9A-F]{0,6})"
    r"(?:[*^|'](?P<text>.*))?"
)
_GROUP = re.compile(r"(?:^|/)ri([^/]*)/")


class Dc09Framer(ScanningFramer):
    """Messages ``LF crc 0LLL "id" seq Rrcvr Lpref #acct [data] _timestamp CR``.

    Source: ANSI/SIA DC-09, "Internet Protocol Event Reporting" (2007, 2013, 2021), by public descriptions and the
    examples that open implementations are tested with, since the standard itself is sold: CRC-16/ARC in four hex
    figures and the length, both over what stands from the first ``"`` to before the CR; ACK, NAK and DUH.

    ``data`` is the message without LF and CR. An intact one is answered once its event is durable: with ACK and its
    own sequence, receiver, line and account; with DUH where it is encrypted (its id begins with ``*``), since there is
    no key. One whose CRC or length is wrong is damaged, and answered with NAK and the time at once; one that is intact
    and not of this form is damaged and answered with DUH. Times in messages are not compared with the clock: an alarm
    of a panel whose clock is wrong is an alarm.

    ``fields``: ``id`` (``SIA-DCS``, ``ADM-CID``, ``NULL`` of a supervision message …), ``sequence``, ``receiver``
    where there is one, ``line``, ``account``, ``data`` (what stands in the first brackets), ``extended`` (the other
    brackets), ``timestamp``; of encrypted messages ``encrypted`` is ``"true"``, and ``data`` all behind the bracket.
    Of ``ADM-CID`` (SIA DC-05): ``qualifier``, ``kind`` (``event``, ``restore`` or ``status``), ``event``, ``group``,
    ``zone``. Of ``SIA-DCS`` (SIA DC-04, in the one-event form ``Nri1/BA01``): ``event`` (``BA``), ``zone``, ``group``
    (of ``ri``), ``text``.

    Args:
        encoding: of the fields.
        bad_frames: what becomes of a damaged message.
        now: the wall clock, in seconds since 1970, for NAK.
    """

    def __init__(
        self, encoding: str = "ascii", bad_frames: BadFrames = "drop", now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(bad_frames)
        self._encoding = encoding
        self._now = now

    def flush(self) -> Frame | None:
        """Gives what is left of a message as damaged, where such ones are sent, and begins anew."""
        if len(self._held) <= MIN_FRAME:
            self._skip(self._held)
            self._held = b""
        return super().flush()

    def _scan(self, held: bytes, place: int, limit: int, frames: list[Frame]) -> int:
        if held[place] != 0x0A:
            start = held.find(b"\n", place, limit)
            start = limit if start < 0 else start
            self._skip(held[place:start])
            return start
        frame = _FRAME.match(held, place, limit)
        if frame is None:
            return place
        message = frame[1]
        if len(message) < MIN_FRAME:
            self._skip(message)
        elif frame[2] == b"\n":
            self._damage(frames, message, "another message begins within it")
            self._say(self._nak())
        else:
            self._take(message, frames)
        return frame.end() - (frame[2] == b"\n")

    def _take(self, message: bytes, frames: list[Frame]) -> None:
        header = _HEADER.fullmatch(message)
        if header is None:
            self._damage(frames, message, "no CRC and length before the message")
            self._say(self._nak())
            return
        crc, length, body = header.groups()
        calculated = crc16(body)
        if int(crc, 16) != calculated or int(length, 16) != len(body):
            why = f"checksum {crc.decode().upper()}, calculated {calculated:04X}"
            if int(crc, 16) == calculated:
                why = f"length {length.decode().upper()}, counted {len(body):04X}"
            self._damage(frames, message, why)
            self._say(self._nak())
            return
        found = _MESSAGE.fullmatch(body)
        if found is None or (not found["encrypted"] and b"]" not in found["rest"]):
            self._damage(frames, message, "no message of SIA DC-09, though its checksum is right")
            self._say(_envelope(b'"DUH"0000R0L0A0[]'))
            return
        word = b"DUH" if found["encrypted"] else b"ACK"
        receiver = b"" if found["receiver"] is None else b"R" + found["receiver"]
        answer = b'"%b"%b%bL%b#%b[]' % (word, found["sequence"], receiver, found["line"], found["account"])
        frames.append(Frame(message, fields=self._fields(found), reply=_envelope(answer)))

    def _nak(self) -> bytes:
        stamp = time.strftime("%H:%M:%S,%m-%d-%Y", time.gmtime(self._now()))
        return _envelope(b'"NAK"0000R0L0A0[]_' + stamp.encode())

    def _fields(self, found: re.Match[bytes]) -> dict[str, str]:
        fields = {
            name: found[name].decode() for name in ("id", "sequence", "receiver", "line", "account") if found[name]
        }
        rest = decode(found["rest"], self._encoding)[0]
        if found["encrypted"]:
            return {**fields, "encrypted": "true", "data": rest}
        stamp = _TIMESTAMP.search(rest)
        if stamp is not None:
            fields["timestamp"] = stamp[1]
            rest = rest[: stamp.start()]
        fields["data"], _, extended = rest.partition("]")
        if extended:
            fields["extended"] = extended
        return fields | _event_fields(fields["id"], fields["data"])


def _event_fields(id_: str, data: str) -> dict[str, str]:
    """Gives what the data of a Contact ID or SIA message says."""
    if id_ == "ADM-CID":
        found = _CID.fullmatch(data)
        if found is None:
            return {}
        named = {name: found[name] for name in ("qualifier", "event", "group", "zone")}
        return {**named, "kind": QUALIFIERS[named["qualifier"]]}
    found = _DCS.fullmatch(data) if id_ == "SIA-DCS" else None
    if found is None:
        return {}
    named = {name: found[name] for name in ("event", "zone", "text") if found[name]}
    if (group := _GROUP.search(found["modifiers"])) is not None:
        named["group"] = group[1]
    return named


def _envelope(body: bytes) -> bytes:
    return b"\n%04X%04X%b\r" % (crc16(body), len(body), body)
