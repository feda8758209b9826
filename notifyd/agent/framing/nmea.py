"""``framing = "nmea"``: NMEA 0183 sentences, AIS among them."""

from __future__ import annotations

import re

from notifyd.agent.framing.base import BadFrames, Frame, decode
from notifyd.agent.framing.checksums import xor
from notifyd.agent.framing.lines import LinesFramer

MAX_FIELDS = 80
"""Fields of a sentence that are given as ``f1`` to ``f80``: the longest that receivers print have some 30."""

MAX_ADDRESSES = 256
"""Kinds of sentences of which it is remembered that they come with a checksum; more are made up, and all need one."""

_PIECE = re.compile(rb"(?:\\([^\\$!]*)\\)?([$!])([^$!\\]*)")
_SUMMED = re.compile(rb"([^*]*)\*([0-9A-Fa-f]{2})")
_PLAIN = re.compile(rb"[A-Z][A-Z0-9]{2,9},[\x20-\x29\x2b-\x7e]*")
_AIS = {"fragments": 1, "fragment": 2, "message": 3, "channel": 4}


class NmeaFramer(LinesFramer):
    r"""Sentences such as ``$GPRMC,…*5A`` and ``!AIVDM,…*2E``.

    Sources: NMEA 0183 (IEC 61162-1) as its publicly described form has it, since the standard itself is sold: a
    sentence begins with ``$`` or, encapsulated, ``!``, ends with CR LF, has no ``$``, ``!`` or ``\`` inside, and its
    checksum, two hex figures behind ``*``, is the XOR of the bytes between; TAG blocks ``\s:…*hh\`` as in NMEA 0183
    4.00; AIS fields as in "AIVDM/AIVDO protocol decoding" (gpsd.gitlab.io/gpsd/AIVDM.html). LF and CR alone end a
    sentence, too.

    ``data`` is the sentence from its ``$`` or ``!`` to the checksum, with the TAG block right before it, where that is
    intact. The checksum was optional in early versions: a sentence without one is taken until one with the same
    address (such as ``GPRMC``) came with one; from then on it is damaged.

    ``fields``: ``talker`` (``GP``; ``P`` of proprietary ones), ``sentence`` (``RMC``; of proprietary ones what follows
    the P), ``manufacturer`` (of proprietary ones), ``f1`` to at most ``f80``, ``checksum`` where there is one,
    ``tag_s`` and the like from the TAG block; of VDM and VDO also ``fragments``, ``fragment``, ``message`` and
    ``channel``. The AIS payload, ``f5``, is not decoded.

    Args:
        encoding: of the fields.
        bad_frames: what becomes of a damaged sentence.
    """

    def __init__(self, encoding: str = "ascii", bad_frames: BadFrames = "drop") -> None:
        super().__init__(bad_frames)
        self._encoding = encoding
        self._summed: set[bytes] = set()

    def flush(self) -> Frame | None:
        """Gives what is left of a sentence as damaged, where such ones are sent, and begins anew."""
        rest = self._lines.flush()
        self._summed.clear()
        frames: list[Frame] = []
        if rest is not None:
            start = re.search(rb"[$!]", rest.data)
            if start is None:
                self._skip(rest.data)
            else:
                self._skip(rest.data[: start.start()])
                why = "the port was lost, or the agent stopped, within it"
                self._damage(frames, rest.data[start.start() :], why, truncated=True)
        return frames[0] if frames else None

    def _take_line(self, line: Frame, frames: list[Frame]) -> None:
        self._take_sentences(line.data, frames)

    def _take_sentences(self, line: bytes, frames: list[Frame]) -> None:
        done = 0
        for piece in _PIECE.finditer(line):
            begin = piece.start()
            tag = b"" if piece[1] is None else piece[1]
            if tag and not _is_intact(tag):
                begin, tag = piece.start(2), b""
            self._skip(line[done:begin])
            done = piece.end()
            body = piece[3]
            if not body:
                self._skip(line[begin:done])
            elif (summed := _SUMMED.match(body)) is not None:
                self._take_summed(line[begin : piece.start(3) + summed.end()], summed, tag, frames)
                self._skip(body[summed.end() :])
            elif _PLAIN.fullmatch(body) and not self._has_checksums(body.split(b",", 1)[0]):
                frames.append(Frame(line[begin:done], fields=self._fields(body, tag)))
            else:
                self._damage(frames, line[begin:done], "no checksum")
        self._skip(line[done:])

    def _take_summed(self, sentence: bytes, summed: re.Match[bytes], tag: bytes, frames: list[Frame]) -> None:
        body = summed[1]
        calculated = xor(body)
        if int(summed[2], 16) != calculated:
            self._damage(frames, sentence, f"checksum {summed[2].decode().upper()}, calculated {calculated:02X}")
            return
        if len(self._summed) < MAX_ADDRESSES:
            self._summed.add(body.split(b",", 1)[0][:16])
        fields = self._fields(body, tag)
        fields["checksum"] = summed[2].decode()
        frames.append(Frame(sentence, fields=fields))

    def _has_checksums(self, address: bytes) -> bool:
        return address in self._summed or len(self._summed) >= MAX_ADDRESSES

    def _fields(self, body: bytes, tag: bytes) -> dict[str, str]:
        address, *values = decode(body, self._encoding)[0].split(",")
        if address.startswith("P"):
            fields = {"talker": "P", "manufacturer": address[1:4], "sentence": address[1:]}
        else:
            fields = {"talker": address[:-3], "sentence": address[-3:]}
            if fields["sentence"] in ("VDM", "VDO"):
                fields.update((name, values[at - 1]) for name, at in _AIS.items() if at <= len(values))
        fields.update((f"f{at}", value) for at, value in enumerate(values[:MAX_FIELDS], 1))
        if tag:
            for part in decode(tag, self._encoding)[0].split("*")[0].split(",")[:MAX_FIELDS]:
                name, colon, value = part.partition(":")
                if colon:
                    fields[f"tag_{name}"] = value
        return fields


def _is_intact(tag: bytes) -> bool:
    """Tells whether the checksum of a TAG block is right."""
    summed = _SUMMED.fullmatch(tag)
    return summed is not None and int(summed[2], 16) == xor(summed[1])
