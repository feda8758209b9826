"""``framing = "stx-etx"``: text between STX and ETX, with a checksum behind it where the device writes one."""

from __future__ import annotations

import re

from notifyd.agent.framing import checksums
from notifyd.agent.framing.base import BadFrames, Frame, ScanningFramer

STX, ETX, DLE = b"\x02", b"\x03", b"\x10"


class StxEtxFramer(ScanningFramer):
    """STX, text, ETX and, unless ``checksum = "none"``, one byte of checksum: ISO 1745 and its many descendants.

    ``data`` is the text. ``xor`` and ``sum8`` are over the text, ``bcc`` is the XOR of the text and the ETX (ISO 1155).
    With ``dle`` a frame begins with DLE STX and ends with DLE ETX, and a DLE in the text is sent twice (ISO 2111);
    ``data`` and the checksums are over the text as it was before that, the ETX without its DLE; the checksum itself is
    not doubled. An STX within a frame begins another: the first has lost its end.

    Args:
        checksum: ``none``, ``xor``, ``sum8`` or ``bcc``.
        dle: whether DLE stands before STX and ETX.
        bad_frames: what becomes of a damaged frame.
    """

    def __init__(self, checksum: str = "none", dle: bool = False, bad_frames: BadFrames = "drop") -> None:
        super().__init__(bad_frames)
        self._checksum = checksum
        self._start = DLE + STX if dle else STX
        # What ends the search within a frame. Behind DLE anything but DLE does: what should not be there is damage.
        self._end = re.compile(rb"(?:[^\x10]|\x10\x10)*+\x10([^\x10])" if dle else rb"[^\x02\x03]*+([\x02\x03])")
        self._dle = dle

    def _scan(self, held: bytes, place: int, limit: int, frames: list[Frame]) -> int:
        if not held.startswith(self._start, place, limit):
            return self._skip_noise(held, place, limit)
        begin = place + len(self._start)
        end = self._end.match(held, begin, limit)
        if end is None:
            return place
        if end[1] == ETX:
            return self._finish(held, place, end.end(), limit, frames)
        at = end.end() - len(self._start)  # of an STX that begins anew, or of a DLE that escapes nothing
        if at > begin:
            self._damage(frames, held[place:at], "another frame begins within it" if end[1] == STX else "a stray DLE")
        else:
            self._skip(held[place:at])
        return at if end[1] == STX else end.end()

    def _skip_noise(self, held: bytes, place: int, limit: int) -> int:
        """Goes to the next beginning of a frame, or to what may become one."""
        start = held.find(self._start, place, limit)
        if start < 0:
            start = limit - 1 if self._dle and held.endswith(DLE, place, limit) else limit
        self._skip(held[place:start])
        return start

    def _finish(self, held: bytes, place: int, end: int, limit: int, frames: list[Frame]) -> int:
        """Deals with a frame of which ``end`` is the first byte behind the ETX."""
        text = held[place + len(self._start) : end - len(self._start)]
        if self._dle:
            text = text.replace(DLE + DLE, DLE)
        if self._checksum == "none":
            if text:
                frames.append(Frame(text))
            return end
        if end == limit:
            return place
        calculated = checksums.sum8(text) if self._checksum == "sum8" else checksums.xor(text)
        if self._checksum == "bcc":
            calculated ^= ETX[0]
        if calculated == held[end]:
            if text:
                frames.append(Frame(text))
            return end + 1
        why = f"checksum {held[end]:02X}, calculated {calculated:02X}"
        self._damage(frames, held[place : end + 1], why)
        return end  # not behind the checksum: where the ETX was false, a frame may begin there
