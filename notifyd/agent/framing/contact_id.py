"""``framing = "contact-id"`` and ``framing = "surgard"``: what alarm receivers print for a computer."""

from __future__ import annotations

import re

from notifyd.agent.framing.base import MAX_FRAME, TOO_LONG, BadFrames, Frame, ScanningFramer
from notifyd.agent.framing.checksums import contact_id_sum
from notifyd.agent.framing.lines import LinesFramer

QUALIFIERS = {"1": "event", "3": "restore", "6": "status", "E": "event", "R": "restore", "P": "status"}
"""What a qualifier says, as a word: a new event or opening, a restore or closing, what was reported before."""

ACK, NAK, DC4 = b"\x06", b"\x15", b"\x14"

_MESSAGE = re.compile(
    rb"(?P<account>[0-9A-F]{4}) ?(?P<format>18|98) ?(?P<qualifier>[136])(?P<event>[0-9A-F]{3}) ?"
    rb"(?P<group>[0-9A-F]{2}) ?(?P<zone>[0-9A-F]{3})(?: ?(?P<checksum>[0-9A-F]))?"
)

_EVENT = (
    r"5(?P<receiver>[0-9A-F]{2})(?P<line>[0-9A-F]{1,3}) (?:18(?P<account>[0-9A-F]{4})|(?P<account2>[0-9A-F]{4})18)"
    r"(?P<qualifier>[ERP136])(?P<event>[0-9A-F]{3})(?P<group>[0-9A-F]{2})(?P<zone>[0-9A-F]{3})"
)
_HEARTBEAT = r"1(?P<receiver>[0-9A-F]{2})(?P<line>[0-9A-F]{1,3}) +@ *"
_OTHER = r"(?P<format>[0-9A-Za-z])(?P<receiver>[0-9A-F]{2})(?P<line>[0-9A-F])(?P<text>[ -~]*)"


class ContactIdFramer(LinesFramer):
    """Contact ID messages, one a line: ``1234 18 1131 01 015 8``, with the blanks or without.

    Source: SIA DC-05-1999.09, "Ademco Contact ID Protocol": ``ACCT MT QXYZ GG CCC S``; the sum of all figures, the
    checksum ``S`` among them, is a multiple of 15, where 0 counts as 10. Receivers leave ``S`` out, since they have
    checked it; a message without it is taken until one came with it. Any other line is damaged. LF, CR and CRLF end
    a line.

    ``data`` is the line. ``fields``: ``account``, ``format`` (18 or 98), ``qualifier`` (1, 3 or 6), ``kind``
    (``event``, ``restore`` or ``status``), ``event`` (such as 131), ``group``, ``zone``, and ``checksum`` where there
    is one.

    Args:
        bad_frames: what becomes of a damaged message.
    """

    def __init__(self, bad_frames: BadFrames = "drop") -> None:
        super().__init__(bad_frames)
        self._has_checksum = False

    def flush(self) -> Frame | None:
        """Gives what is left as damaged, where such ones are sent, and begins anew."""
        rest = self._lines.flush()
        self._has_checksum = False
        frames: list[Frame] = []
        if rest is not None:
            self._damage(frames, rest.data, "the port was lost, or the agent stopped, within it", truncated=True)
        return frames[0] if frames else None

    def _take_line(self, line: Frame, frames: list[Frame]) -> None:
        message = _MESSAGE.fullmatch(line.data.strip(b" \0"))
        if message is None:
            why = TOO_LONG if line.truncated else "no Contact ID message"
            self._damage(frames, line.data, why, truncated=line.truncated)
            return
        fields = {name: value.decode() for name, value in message.groupdict().items() if value is not None}
        fields["kind"] = QUALIFIERS[fields["qualifier"]]
        if "checksum" not in fields:
            if self._has_checksum:
                self._damage(frames, line.data, "no checksum")
                return
        elif contact_id_sum(message[0].replace(b" ", b"")) % 15:
            self._damage(frames, line.data, f"checksum {fields['checksum']}, which is wrong")
            return
        else:
            self._has_checksum = True
        frames.append(Frame(line.data, fields=fields))


class SurgardFramer(ScanningFramer):
    """Messages of Sur-Gard receivers (MLR2, MLR2000, System) for automation software, ended by DC4 (14 hex).

    Sources: the installation manuals of the Sur-Gard MLR2E (section 9.2) and MLR2000 (section 12.2) for ACK and NAK:
    the receiver waits 4 s for ACK (06), and sends a message up to three times more where none or a NAK (15) comes; the
    form of Contact ID events and of the heartbeat as the SilentKnight VisorALARM Plus 2U manual, appendix, and software
    that reads them have it, since Sur-Gard gives the complete description on request only: ``5RRLsAAAA18QXYZGGCCC``,
    also with ``18AAAA``, and ``1RRL`` with ``@`` behind blanks. There is no checksum: a message with bytes that are not
    printable, or that begins like an event and is none, is damaged.

    ``data`` is the message without DC4. It is answered with ACK once its event is durable, a damaged one with NAK at
    once. ``fields``: ``format`` (``contact-id``, ``heartbeat``, else the message's first character), ``receiver``,
    ``line``; of events also ``account``, ``qualifier`` (``E``, ``R`` or ``P``), ``kind`` (``event``, ``restore`` or
    ``status``), ``event``, ``group`` and ``zone``; of other messages ``text``.

    Args:
        bad_frames: what becomes of a damaged message.
    """

    _event = re.compile(_EVENT)
    _heartbeat = re.compile(_HEARTBEAT)
    _other = re.compile(_OTHER)

    def __init__(self, bad_frames: BadFrames = "drop") -> None:
        super().__init__(bad_frames)
        self._skipping = False

    def flush(self) -> Frame | None:
        """Gives what is left as damaged, where such ones are sent, and begins anew."""
        if self._skipping or not self._held.strip(b"\r\n\0"):
            self._skip(self._held)
            self._held = b""
        self._skipping = False
        return super().flush()

    def _scan(self, held: bytes, place: int, limit: int, frames: list[Frame]) -> int:
        end = held.find(DC4, place, limit)
        if self._skipping:
            self._skipping = end < 0
            self._skip(held[place : limit if end < 0 else end])
            return limit if end < 0 else end + 1
        if end < 0:
            if limit - place < MAX_FRAME:
                return place
            self._skipping = True
            self._damage(frames, held[place:limit], TOO_LONG, truncated=True)
            return limit
        message = held[place:end].strip(b"\r\n\0")
        fields = self._fields(message)
        if fields is not None:
            frames.append(Frame(message, fields=fields, reply=ACK))
        elif message:
            self._damage(frames, message, "no message of a Sur-Gard receiver")
            self._say(NAK)
        return end + 1

    def _fields(self, message: bytes) -> dict[str, str] | None:
        """Gives what a message says; None where it is none."""
        text = message.decode("latin-1")
        found = self._event.fullmatch(text)
        if found is not None:
            named = {name: value for name, value in found.groupdict().items() if value is not None}
            named["account"] = named.pop("account2", "") or named["account"]
            return {"format": "contact-id", **named, "kind": QUALIFIERS[named["qualifier"]]}
        found = self._heartbeat.fullmatch(text)
        if found is not None:
            return {"format": "heartbeat", **found.groupdict()}
        found = self._other.fullmatch(text)
        return None if found is None or found["format"] == "5" else dict(found.groupdict())
