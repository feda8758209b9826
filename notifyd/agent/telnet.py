"""Telnet with control of the serial line behind it: bytes in, bytes out. Pure; total over any bytes.

Sources: RFC 854 and 855 (Telnet and its options), RFC 856 (binary transmission), RFC 858 (no go-ahead), RFC 2217
(the option that sets the line's speed and the like, and tells of its errors). This is the client's side.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

from notifyd.agent.linecounters import LineCounters

MAX_SUBNEGOTIATION = 256
"""Bytes of one; the longest that means something here has five. A server that exceeds it does not speak Telnet."""

MAX_ANSWERS = 64
"""How often a server is answered: 3 bytes each. One that asks on and on is not answered any more."""

MAX_PREAMBLE = 200
"""Characters kept of what a server says before the line is set: often why it will not be."""

_SE, _BREAK, _SB, _WILL, _WONT, _DO, _DONT, _IAC = 240, 243, 250, 251, 252, 253, 254, 255
_BINARY, _NO_GO_AHEAD, _COM_PORT = 0, 3, 44
_SET_BAUDRATE, _SET_DATASIZE, _SET_PARITY, _SET_STOPSIZE, _SET_CONTROL = 1, 2, 3, 4, 5
_SET_LINE_MASK = 10
_FROM_SERVER = 100
_LINE_STATE, _MODEM_STATE, _SUSPEND, _RESUME = 106, 107, 108, 109
_OVERRUN, _PARITY, _FRAMING, _BREAK_SEEN = 2, 4, 8, 16
_BREAK_ON, _BREAK_OFF, _DTR_ON, _RTS_ON = 5, 6, 8, 11
_PARITIES = {"N": 1, "O": 2, "E": 3, "M": 4, "S": 5}
_STOP_SIZES = {1.0: 1, 2.0: 2, 1.5: 3}
_NO_FLOW_CONTROL, _XONXOFF, _RTSCTS = 1, 2, 3


class LineSettings(NamedTuple):
    """How the line is to be set."""

    baudrate: int = 9600
    bytesize: int = 8
    parity: str = "N"
    stopbits: float = 1
    xonxoff: bool = False
    rtscts: bool = False


class _State(Enum):
    DATA = auto()
    COMMAND = auto()  # behind IAC
    OPTION = auto()  # behind WILL, WONT, DO or DONT
    SUB = auto()  # in a subnegotiation
    SUB_COMMAND = auto()  # behind IAC in one


class _Side(Enum):
    """How far an option of one side is."""

    NO = auto()
    ASKED = auto()
    YES = auto()


class Telnet:
    """One connection to a server that has a serial port.

    Args:
        settings: of the line.

    Attributes:
        is_ready: whether the server has confirmed all settings of the line; what came before was no device's.
        refusal: why the connection is of no use; None as long as it is.
        preamble: the beginning of what came before the line was set.
        counters: what the server has told of the line's errors.
        is_suspended: whether the server wants to be sent nothing for now.
        modem_state: the modem lines as the server told them last, in the bits of RFC 2217.
    """

    def __init__(self, settings: LineSettings) -> None:
        self.is_ready = False
        self.refusal: str | None = None
        self.preamble = b""
        self.counters = LineCounters()
        self.is_suspended = False
        self.modem_state = 0
        self._settings = settings
        self._state = _State.DATA
        self._verb = 0
        self._sub = bytearray()
        self._after_cr = False
        self._answers_left = MAX_ANSWERS
        self._answer = bytearray()
        self._ours = {_BINARY: _Side.ASKED, _NO_GO_AHEAD: _Side.ASKED, _COM_PORT: _Side.ASKED}
        self._theirs = {_BINARY: _Side.ASKED, _NO_GO_AHEAD: _Side.ASKED, _COM_PORT: _Side.NO}
        self._is_agreed = False
        self._confirmed: set[int] = set()
        self._expected = {
            _SET_BAUDRATE: ("baudrate", settings.baudrate.to_bytes(4, "big")),
            _SET_DATASIZE: ("bytesize", bytes([settings.bytesize])),
            _SET_PARITY: ("parity", bytes([_PARITIES[settings.parity]])),
            _SET_STOPSIZE: ("stopbits", bytes([_STOP_SIZES[settings.stopbits]])),
        }
        self._flow = _XONXOFF if settings.xonxoff else _RTSCTS if settings.rtscts else _NO_FLOW_CONTROL

    # --- to the server -------------------------------------------------------------------------------

    def begin(self) -> bytes:
        """Gives what is to be sent first."""
        asked = [(_WILL, option) for option, side in self._ours.items() if side is _Side.ASKED]
        asked += [(_DO, option) for option, side in self._theirs.items() if side is _Side.ASKED]
        return b"".join(bytes([_IAC, verb, option]) for verb, option in asked)

    def encode(self, data: bytes) -> bytes:
        """Gives bytes for the device as they are sent."""
        data = data.replace(b"\xff", b"\xff\xff")
        if self._ours[_BINARY] is not _Side.YES:
            data = re.sub(rb"\r(?!\n)", b"\r\0", data)  # RFC 854: a CR alone
        return data

    def set_break(self, on: bool) -> bytes:
        """Gives what has the server begin or end a break on the line."""
        return _subnegotiation(_SET_CONTROL, bytes([_BREAK_ON if on else _BREAK_OFF]))

    # --- from the server -----------------------------------------------------------------------------

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """Takes what has come.

        Args:
            data: as it has come, cut anywhere.

        Returns:
            What the device printed, and what is to be sent to the server.
        """
        if self._state is _State.DATA and _IAC not in data:
            return self._printed(data), b""
        printed: list[bytes] = []
        at = 0
        while at < len(data) and self.refusal is None:
            if self._state in (_State.DATA, _State.SUB):
                end = data.find(_IAC, at)
                piece = data[at:] if end < 0 else data[at:end]
                at += len(piece) + 1
                if self._state is _State.DATA:
                    printed.append(self._printed(piece))
                else:
                    self._add_to_sub(piece)
                if end >= 0:
                    self._state = _State.COMMAND if self._state is _State.DATA else _State.SUB_COMMAND
            else:
                printed.append(self._take(data[at]))
                at += 1
        answer, self._answer = bytes(self._answer), bytearray()
        return b"".join(printed), answer

    def _printed(self, data: bytes) -> bytes:
        """Gives what the device printed of a piece without commands."""
        if self._theirs[_BINARY] is not _Side.YES and data:
            if self._after_cr and data[0] == 0:
                data = data[1:]
            self._after_cr = data.endswith(b"\r") if data else False
            data = data.replace(b"\r\0", b"\r")  # RFC 854: a CR alone
        if self.is_ready:
            return data
        self.preamble += data[: MAX_PREAMBLE - len(self.preamble)]
        return b""

    def _take(self, byte: int) -> bytes:
        """Takes a byte of a command; gives what it stands for where it is no command."""
        if self._state is _State.OPTION:
            self._state = _State.DATA
            self._negotiate(self._verb, byte)
        elif self._state is _State.SUB_COMMAND:
            if byte == _IAC:
                self._state = _State.SUB
                self._add_to_sub(b"\xff")
                return b""
            self._finish_sub()
            if byte != _SE:  # it was cut short: what follows is another command
                self._state = _State.COMMAND
                return self._take(byte)
        else:
            return self._command(byte)
        return b""

    def _command(self, byte: int) -> bytes:
        self._state = _State.DATA
        if byte == _IAC:
            return self._printed(b"\xff")
        if byte in (_WILL, _WONT, _DO, _DONT):
            self._verb, self._state = byte, _State.OPTION
        elif byte == _SB:
            self._state = _State.SUB
        elif byte == _BREAK:
            self._count(LineCounters(breaks=1))
        return b""

    def _add_to_sub(self, piece: bytes) -> None:
        self._sub += piece[: MAX_SUBNEGOTIATION + 1]
        if len(self._sub) > MAX_SUBNEGOTIATION:
            self.refusal = "the server does not speak Telnet (a subnegotiation does not end)"

    # --- options -------------------------------------------------------------------------------------

    def _negotiate(self, verb: int, option: int) -> None:
        """Answers only what changes something, so that two sides cannot answer each other for ever."""
        is_ours = verb in (_DO, _DONT)
        sides = self._ours if is_ours else self._theirs
        yes, no = (_WILL, _WONT) if is_ours else (_DO, _DONT)
        side = sides.get(option)
        if verb in (_DO, _WILL):
            if side is None:
                self._reply(no, option)
            elif side is not _Side.YES:
                sides[option] = _Side.YES
                if side is _Side.NO:
                    self._reply(yes, option)
            if option == _COM_PORT:
                self._agree()
            return
        if side is _Side.YES:
            self._reply(no, option)
        if side is not None:
            sides[option] = _Side.NO
        if option == _COM_PORT and verb == _DONT:
            self.refusal = "the server does not set lines (RFC 2217); name it socket:// instead"

    def _reply(self, verb: int, option: int) -> None:
        if self._answers_left:
            self._answers_left -= 1
            self._answer += bytes([_IAC, verb, option])

    def _agree(self) -> None:
        """Sets the line, once it is known that the server lets it be set."""
        if self._is_agreed:
            return
        self._is_agreed = True
        for code, (_, value) in self._expected.items():
            self._answer += _subnegotiation(code, value)
        controls = [self._flow, _DTR_ON] + ([] if self._settings.rtscts else [_RTS_ON])
        for control in controls:
            self._answer += _subnegotiation(_SET_CONTROL, bytes([control]))
        self._answer += _subnegotiation(_SET_LINE_MASK, bytes([_OVERRUN | _PARITY | _FRAMING | _BREAK_SEEN]))

    # --- the line ------------------------------------------------------------------------------------

    def _finish_sub(self) -> None:
        self._state = _State.DATA
        sub, self._sub = bytes(self._sub), bytearray()
        if len(sub) < 2 or sub[0] != _COM_PORT:
            return
        code, value = sub[1], sub[2:]
        if code == _SUSPEND:
            self.is_suspended = True
        elif code == _RESUME:
            self.is_suspended = False
        elif not value:
            return
        elif code == _LINE_STATE:
            self._note_line(value[0])
        elif code == _MODEM_STATE:
            self.modem_state = value[0]
        elif self._is_agreed:
            self._note_setting(code - _FROM_SERVER, value)

    def _note_line(self, state: int) -> None:
        self._count(
            LineCounters(
                overrun=bool(state & _OVERRUN),
                parity=bool(state & _PARITY),
                frame=bool(state & _FRAMING),
                breaks=bool(state & _BREAK_SEEN),
            )
        )

    def _count(self, more: LineCounters) -> None:
        self.counters = self.counters.plus(more)

    def _note_setting(self, code: int, value: bytes) -> None:
        if code == _SET_CONTROL:
            # Servers answer many things for what they were not asked; only flow control that was asked for counts.
            if self._flow != _NO_FLOW_CONTROL and value[0] != self._flow and value[0] <= _RTSCTS:
                self.refusal = "it does not take the settings: the server does not do this flow control"
            return
        if code not in self._expected:
            return
        name, expected = self._expected[code]
        if value != expected:
            asked, given = int.from_bytes(expected, "big"), int.from_bytes(value, "big")
            what = f"{name} {given} instead of {asked}" if code <= _SET_DATASIZE else f"another {name}"
            self.refusal = f"it does not take the settings: the server keeps {what}"
            return
        self._confirmed.add(code)
        self.is_ready = len(self._confirmed) == len(self._expected)


def _subnegotiation(code: int, value: bytes) -> bytes:
    escaped = value.replace(b"\xff", b"\xff\xff")
    return bytes([_IAC, _SB, _COM_PORT, code]) + escaped + bytes([_IAC, _SE])
