"""``framing = "espa444"``: calls of ESPA 4.4.4, the agent being the paging system that is called."""

from __future__ import annotations

import re

from notifyd.agent.framing.base import MAX_FRAME, TOO_LONG, BadFrames, Frame, ScanningFramer, decode
from notifyd.agent.framing.checksums import xor

SOH, STX, ETX, EOT, ENQ, ACK, NAK = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\x15"
RS, US = "\x1e", "\x1f"

POLL_S = 2.0
"""For how long after ``1 ENQ`` a second address with ENQ selects: what comes later is another poll."""

SELECTED_S = 15.0
"""For how long a selected station waits for a block, or for the rest of one, before it must be selected again."""

MAX_ADDRESS = 16
"""Bytes of a station's address."""

MAX_FIELDS = 64
"""Records of a block that are given as fields; the proposal has eight."""

HEADERS = {
    "1": "call to pager",
    "2": "status information",
    "3": "status request",
    "4": "call to subscriber line",
    "5": "other information",
}
RECORDS = {
    "1": "call_address",
    "2": "display_message",
    "3": "beep_coding",
    "4": "call_type",
    "5": "transmissions",
    "6": "priority",
    "7": "call_status",
    "8": "system_status",
}

_TOKEN = re.compile(rb"([^\x01-\x06\x15]*+)([\x01-\x06\x15])")
_BLOCK = re.compile(rb"\x01([^\x01\x03\x04\x05]*+)([\x01\x03\x04\x05])")


class Espa444Framer(ScanningFramer):
    """Blocks ``SOH header STX records ETX BCC`` to the station that was selected.

    Sources: ESPA 4.4.4, "Proposal for Serial Data Interface for Paging Equipment" (November 1984), in the order of its
    contents: control characters (2.3), prefixes (2.4), polling (3.1), selecting (3.2), termination (3.3), transfer of
    blocks (3.5), block structure, headers and records (4.1 to 4.3); it follows ISO 1745, and ISO 1155 for the BCC: the
    XOR of all behind the SOH up to the ETX, which is included. Details as the manuals of Avaya (DECT Messenger, eESPA)
    and Zenitel (AlphaCom) describe what they send.

    The agent is the station ``station``, by custom ``2``. Polled (``2 ENQ``) it has nothing to send: EOT. Selected
    (``1 ENQ 2 ENQ``: the control station polled 1, which selects 2) it says ACK. A block is answered with ACK once its
    event is durable, one with a bad BCC at once with ``1 NAK`` (transmission error), after which the caller sends it
    again. EOT ends the selection, and so do 15 s without a byte. Whoever is called by another address is not
    answered, and blocks for others are skipped. A caller whose ACK came too late sends its block again: an identical
    block within the same selection has the field ``repeat``, and is an event of its own, for it may be meant.

    ``data`` is the block without SOH, ETX and BCC. ``fields``: ``header`` (``1``), ``kind`` (``call to pager``), and of
    the records ``call_address``, ``display_message``, ``beep_coding``, ``call_type``, ``transmissions``, ``priority``,
    ``call_status``, ``system_status``; any other record is ``record_`` and its identifier.

    Args:
        station: the address that is answered.
        encoding: of the fields.
        bad_frames: what becomes of a damaged block.
    """

    def __init__(self, station: str = "2", encoding: str = "ascii", bad_frames: BadFrames = "drop") -> None:
        super().__init__(bad_frames)
        self._station = station.encode("ascii", "replace")
        self._encoding = encoding
        self._begin()

    def _begin(self) -> None:
        """Nobody is polled or selected."""
        self._polled = False
        self._selected = False
        self._last: bytes | None = None  # the last intact block of this selection
        self.deadline_s = None

    def feed(self, data: bytes, at_s: float) -> list[Frame]:
        """Gives the blocks that ``data`` completes, in order."""
        frames = self.tick(at_s)
        frames += super().feed(data, at_s)
        if self._polled or self._selected or self._held:
            self.deadline_s = at_s + (POLL_S if self._polled else SELECTED_S)
        else:
            self.deadline_s = None
        return frames

    def tick(self, now_s: float) -> list[Frame]:
        """Gives up a block, a poll or a selection after which nothing came."""
        frames: list[Frame] = []
        if self.deadline_s is not None and now_s >= self.deadline_s:
            held, self._held = self._held, b""
            if held.startswith(SOH) and self._selected:
                self._damage(frames, held, f"no end for {SELECTED_S:g} s", truncated=True)
            else:
                self._skip(held)
            self._begin()
        return frames

    def flush(self) -> Frame | None:
        """Gives what is left of a block as damaged, where such ones are sent, and begins anew."""
        if not (self._held.startswith(SOH) and self._selected):
            self._skip(self._held)
            self._held = b""
        self._begin()
        return super().flush()

    def _scan(self, held: bytes, place: int, limit: int, frames: list[Frame]) -> int:
        if held[place] == SOH[0]:
            return self._scan_block(held, place, limit, frames)
        token = _TOKEN.match(held, place, limit)
        if token is None:
            # An address may be at the end of what has come: the rest is noise.
            start = max(place, limit - MAX_ADDRESS)
            self._skip(held[place:start])
            return start
        address, control = token.groups()
        if control == SOH:
            self._skip(address)
            return token.end() - 1
        if control == ENQ and address:
            self._skip(address[:-MAX_ADDRESS])
            self._called(address[-MAX_ADDRESS:])
            return token.end()
        self._skip(address)
        if control == EOT:
            self._begin()
        return token.end()

    def _called(self, address: bytes) -> None:
        """Deals with an address and ENQ: a poll, or behind another station's poll a selection."""
        ours = address == self._station
        if ours and (self._polled or self._selected):
            self._polled = False
            if not self._selected:
                self._last = None
            self._selected = True
            self._say(ACK)
            return
        self._begin()
        if ours:
            self._say(EOT)
        else:
            self._polled = True

    def _scan_block(self, held: bytes, place: int, limit: int, frames: list[Frame]) -> int:
        block = _BLOCK.match(held, place, limit)
        if block is None:
            if limit - place < MAX_FRAME:
                return place
            return self._bad(frames, held[place:limit], TOO_LONG, limit)
        content, end = block.groups()
        if end != ETX:
            after = block.end() - 1
            return self._bad(frames, held[place:after], "it has no end", after)
        if block.end() == limit:
            return place
        if not self._selected:
            self._skip(held[place : block.end() + 1])
            return block.end() + 1
        bcc, calculated = held[block.end()], xor(content) ^ ETX[0]
        if bcc != calculated:
            why = f"checksum {bcc:02X}, calculated {calculated:02X}"
            return self._bad(frames, held[place : block.end() + 1], why, block.end() + 1)
        if content:
            fields = self._fields(content)
            if content == self._last:
                fields["repeat"] = "true"
            self._last = content
            frames.append(Frame(content, fields=fields, reply=ACK))
        return block.end() + 1

    def _bad(self, frames: list[Frame], data: bytes, why: str, after: int) -> int:
        """Deals with a damaged block; gives ``after``, where the search goes on."""
        if self._selected:
            self._damage(frames, data, why, truncated=why is TOO_LONG)
            self._say(b"1" + NAK)
        else:
            self._skip(data)
        return after

    def _fields(self, content: bytes) -> dict[str, str]:
        head, stx, text = content.partition(STX)
        header = decode(head, self._encoding)[0].strip()
        fields = {"header": header}
        if header in HEADERS:
            fields["kind"] = HEADERS[header]
        for record in decode(text, self._encoding)[0].split(RS)[:MAX_FIELDS] if stx else []:
            name, us, value = record.partition(US)
            if us:
                name = name.strip()
                fields[RECORDS.get(name, f"record_{name[:MAX_ADDRESS]}")] = value
        return fields
