"""What the tests of framings share: how each one writes a frame, and how a frame that it read is checked."""

from __future__ import annotations

import functools
import itertools
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from notifyd import config_agent
from notifyd.agent.framing import MAX_FRAME, MAX_REPLIES, Frame, Framer, make_framer

NOW = 1_795_384_923.0
"""The wall clock: 2026-11-22, 22:02:03 UTC."""

TAIL = 16
"""Bytes that a framing may hold beyond ``MAX_FRAME``: the beginning of a delimiter."""


@dataclass(frozen=True)
class Kind:
    """One framing, with the keys that it is used with.

    Attributes:
        name: for messages and for the folder of its corpus.
        keys: of ``[[source]]``.
        write: gives the bytes on the line of a frame of this text, and the frame's data.
        alphabet: what may stand in such a text.
        is_intact: tells whether a frame that is not marked as damaged stands in a stream, and its checksum is right.
        longest: characters of a text.
    """

    name: str
    keys: dict[str, Any]
    write: Callable[[bytes], tuple[bytes, bytes]]
    is_intact: Callable[[bytes, bytes], bool]
    alphabet: bytes = bytes(range(0x20, 0x7F))
    longest: int = 30
    specials: bytes = b""
    extra: tuple[bytes, ...] = field(default=())

    def framer(self, **keys: Any) -> Framer:
        """Makes a framer; damaged frames are given unless ``bad_frames`` says otherwise."""
        source = {"name": "a", "port": "b", "framing": self.name.split()[0], **self.keys, **keys}
        if self.name.split()[0] in config_agent.FRAMING_KEYS["bad_frames"]:
            source.setdefault("bad_frames", "send")
        return make_framer(
            msgspec.convert(source, config_agent.Source, dec_hook=_duration), now=lambda: 1_795_384_923.0
        )


def _duration(kind: type, value: Any) -> Any:
    return kind.parse(value)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Outcome:
    """All that a framer made of a stream."""

    frames: list[Frame]
    rest: Frame | None
    replies: bytes
    skipped: int
    damaged: int


def run(framer: Framer, pieces: Iterable[bytes]) -> Outcome:
    """Feeds pieces, all at one time, watches every limit, and flushes."""
    frames: list[Frame] = []
    for piece in pieces:
        frames += framer.feed(piece, 1.0)
        assert framer.held_bytes <= MAX_FRAME + TAIL
    replies = framer.replies()
    assert len(replies) <= MAX_REPLIES
    rest = framer.flush()
    assert framer.held_bytes == 0
    assert framer.deadline_s is None
    for frame in [*frames, *([] if rest is None else [rest])]:
        assert 1 <= len(frame.data) <= MAX_FRAME
        assert len(frame.fields or {}) <= 200
    return Outcome(frames, rest, replies, framer.skipped_bytes, framer.damaged_frames)


def xor(data: bytes) -> int:
    """The XOR of all bytes."""
    return functools.reduce(operator.xor, data, 0)


def crc(data: bytes) -> int:
    """CRC-16/ARC bit by bit, as the polynomial says it."""
    value = 0
    for byte in data:
        for bit in range(8):
            mixed = (value ^ byte >> bit) & 1
            value = value >> 1 ^ (0xA001 if mixed else 0)
    return value


def contact_id_is_right(message: bytes) -> bool:
    """Tells whether the figures of a message with a checksum add up to a multiple of 15."""
    digits = message.strip(b" \0").replace(b" ", b"").decode()
    values = {"0": 10, **{digit: int(digit, 16) for digit in "123456789ABCDEF"}}
    return len(digits) == 15 or sum(values[digit] for digit in digits) % 15 == 0


def _written(write: Callable[[bytes], tuple[bytes, bytes]]) -> Callable[[bytes, bytes], bool]:
    """An intact frame is one that stands in the stream as it would be written."""
    return lambda stream, data: write(data)[0].rstrip(b"\n") in stream


def _line(text: bytes) -> tuple[bytes, bytes]:
    return text + b"\r\n", text


def _ended(delimiter: bytes) -> Callable[[bytes], tuple[bytes, bytes]]:
    return lambda text: (text + delimiter, text)


def _stx(checksum: str, dle: bool = False) -> Callable[[bytes], tuple[bytes, bytes]]:
    def write(text: bytes) -> tuple[bytes, bytes]:
        escape = b"\x10" if dle else b""
        sums = {"none": b"", "xor": bytes([xor(text)]), "sum8": bytes([sum(text) % 256]), "bcc": bytes([xor(text) ^ 3])}
        body = text.replace(b"\x10", b"\x10\x10") if dle else text
        return escape + b"\x02" + body + escape + b"\x03" + sums[checksum], text

    return write


def _fixed(text: bytes) -> tuple[bytes, bytes]:
    data = (text + bytes(12))[:12]
    return data, data


def nmea(body: bytes) -> bytes:
    """A sentence with its checksum."""
    return b"$%b*%02X" % (body, xor(body))


def _nmea(text: bytes) -> tuple[bytes, bytes]:
    sentence = nmea(b"GPTXT," + text)
    return sentence + b"\r\n", sentence


def _nmea_is_intact(stream: bytes, data: bytes) -> bool:
    sentence = re.fullmatch(rb"(?:\\[^\\]*\\)?[$!]([^$!*\\]*)(?:\*([0-9A-Fa-f]{2}))?", data)
    assert sentence is not None
    return data in stream and (sentence[2] is None or int(sentence[2], 16) == xor(sentence[1]))


def telegram(text: bytes) -> bytes:
    """A P1 telegram with its CRC."""
    body = b"/ISK5\\2M550\r\n\r\n1-3:0.2.8(50)\r\n0-0:96.13.0(%b)\r\n!" % text
    return body + b"%04X" % crc(body)


def _dsmr(text: bytes) -> tuple[bytes, bytes]:
    data = telegram(text)
    return data + b"\r\n", data


def _dsmr_is_intact(stream: bytes, data: bytes) -> bool:
    body, _, check = data.rpartition(b"!")
    return data in stream and (not check or int(check, 16) == crc(body + b"!"))


def dc09(body: bytes) -> bytes:
    """A DC-09 message without LF and CR, with CRC and length."""
    return b"%04X%04X%b" % (crc(body), len(body), body)


def _dc09(text: bytes) -> tuple[bytes, bytes]:
    data = dc09(b'"SIA-DCS"0042R1L0#1234[#1234|NBA%b]' % text)
    return b"\n" + data + b"\r", data


def _dc09_is_intact(stream: bytes, data: bytes) -> bool:
    is_right = int(data[:4], 16) == crc(data[8:]) and int(data[4:8], 16) == len(data) - 8
    return is_right and b"\n" + data + b"\r" in stream


def block(content: bytes) -> bytes:
    """An ESPA 4.4.4 block with its BCC."""
    return b"\x01" + content + b"\x03" + bytes([xor(content) ^ 3])


def _espa(text: bytes) -> tuple[bytes, bytes]:
    content = b"1\x021\x1f550\x1e2\x1f" + text
    return b"1\x052\x05" + block(content) + b"\x04", content


def _contact_id(text: bytes) -> tuple[bytes, bytes]:
    digits = b"1234181131%05d" % (int.from_bytes(text[:4]) % 100_000)
    total = sum(10 if digit == 0x30 else digit - 0x30 for digit in digits)
    data = digits + b"FEDCBA987654321"[total % 15 : total % 15 + 1]
    if total % 15 == 5:
        data = digits + b"0"  # ten is written as 0
    return data + b"\r\n", data


def _surgard(text: bytes) -> tuple[bytes, bytes]:
    data = b"5011 18%04dE13001%03d" % (int.from_bytes(text[:3]) % 10_000, len(text))
    return data + b"\x14", data


def _in_stream(stream: bytes, data: bytes) -> bool:
    return data in stream


ANY = bytes(range(256))
_WITHOUT_ENDS = bytes(byte for byte in ANY if byte not in b"\r\n")
_WITHOUT_STX = bytes(byte for byte in ANY if byte not in b"\x02\x03")
_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b"$!*\\()/|#[]^'\"")

KINDS = [
    Kind("line", {}, _line, _in_stream, _WITHOUT_ENDS, specials=b"\r\n"),
    Kind("line end", {"delimiter": "\x03"}, _ended(b"\x03"), _in_stream, ANY.replace(b"\x03", b""), specials=b"\x03"),
    Kind("line word", {"delimiter": "\r\r\n"}, _ended(b"\r\r\n"), _in_stream, _WITHOUT_ENDS, specials=b"\r\n"),
    *(
        Kind(
            f"stx-etx {checksum}", {"checksum": checksum}, _stx(checksum), _written(_stx(checksum)), _WITHOUT_STX,
            specials=b"\x02\x03",
        )
        for checksum in ("none", "xor", "sum8", "bcc")
    ),
    *(
        Kind(
            f"stx-etx dle-{checksum}", {"checksum": checksum, "dle": True}, _stx(checksum, dle=True),
            _written(_stx(checksum, dle=True)), ANY, specials=b"\x02\x03\x10",
        )
        for checksum in ("none", "bcc")
    ),
    Kind("fixed", {"length": 12}, _fixed, _in_stream, ANY),
    Kind("gap", {"gap": "50ms"}, _ended(b""), _in_stream, ANY),
    Kind(
        "nmea", {}, _nmea, _nmea_is_intact, _PLAIN, specials=b"$!*\\\r\n",
        extra=(
            b"\\s:rORBCOMM000,q:u,c:1426032001,T:2015-03-11 00.00.01*36\\!AIVDM,1,1,,A,35MsUdP0,0*3C\r\n",
            b"$GPGLL,1,N,2,W\r\n", b"$PGRME,1,M*", b"$",
        ),
    ),
    Kind(
        "dsmr", {}, _dsmr, _dsmr_is_intact, _PLAIN, specials=b"/!\r\n",
        extra=(b"/ISk5\\2MT382\r\n\r\n1-0:1.7.0(001.19*kW)\r\n!\r\n", b"/ISK5", b"\n!"),
    ),
    Kind(
        "espa444", {}, _espa, _written(lambda data: (block(data), data)), _PLAIN,
        specials=b"\x01\x02\x03\x04\x05\x06\x15\x1e\x1f12",
        extra=(b"2\x05", b"1\x052\x05", b"3\x05", b"\x04", block(b"1\x02x")),
    ),
    Kind(
        "dc09", {}, _dc09, _dc09_is_intact, _PLAIN, specials=b'\r\n"#[]|_',
        extra=(
            b'\n87CD0037"ADM-CID"9876R579BDFL789ABC#12345A[#12345A|1110 00 129]\r',
            b"\n" + dc09(b'"*SIA-DCS"0001L0#1234[4F3A') + b"\r", b"\n" + dc09(b'"what"') + b"\r",
        ),
    ),
    Kind(
        "contact-id", {}, _contact_id, lambda stream, data: data in stream and contact_id_is_right(data),
        specials=b"\r\n 0", extra=(b"1234 18 1131 01 015 8\r\n", b"123418113101015\n"),
    ),
    Kind(
        "surgard", {}, _surgard, _in_stream, specials=b"\x14 @\r\n",
        extra=(b"1011           @    \x14", b"S011[#1234|NBA01]\x14", b"5011 123418R13001015\x14"),
    ),
]  # fmt: skip


def split(data: bytes, places: list[int]) -> list[bytes]:
    """Cuts ``data`` at each of the places."""
    cuts = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts)]
