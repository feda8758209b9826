r"""The format of recordings: what a port delivered, with its timing, as text that a person can read. Pure.

The first line says what it is and how the port was set, as one JSON object; each further line is what happened at a
time, in seconds since the beginning::

    notifyd recording 1 {"begin":"2026-11-22T10:00:00.000000Z","source":{"name":"panel","baudrate":9600}}
    0.000000 open
    1.204113 data ALARM 7 smoke in the kitchen\r\n
    8.000120 close it was unplugged, or hung up

``close`` says why the port was lost, and nothing where the agent itself closed it. ``data`` is what one read gave,
in several lines where it was long. Only ASCII that can be printed stands as it is; a backslash is ``\\``, and any other
byte ``\r``, ``\n``, ``\t`` or ``\x1b``. A line has fewer than 998 characters and ends with no space, so that mail
(RFC 5322, 2.1.1) does not break it. ``lost 512``: so many bytes were read and not
recorded, since the disk was too slow.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from notifyd import config_agent

MAGIC = b"notifyd recording "

VERSION = 1

CUT = 240
"""Bytes of a read that go into one line: escaped as ``\\xNN`` they and the time are below 998 characters."""

MAX_LINE = 16 * 1024
"""Bytes of a line that a reader holds: far more than a writer's, the header's with a port of 1,000 characters too."""

MAX_TEXT = 200
"""Characters of a reason that are written."""

PIECE_S = 0.02
"""How much of a file without times is played at once: finer than a person or a timeout sees."""

_SETTINGS = (
    "name", "port", "baudrate", "bytesize", "parity", "stopbits", "xonxoff", "rtscts", "encoding", "framing",
    "delimiter", "checksum", "dle", "length", "gap", "bad_frames",
)  # fmt: skip
"""What a header tells of a source: nothing that is sent to the device, since a password may be in it."""

_LINE = re.compile(rb"([0-9]{1,10}\.[0-9]{1,9}) (open|data|close|lost)(?: (.*))?", re.DOTALL)
_ESCAPED = re.compile(rb"(?:[\x20-\x5b\x5d-\x7e]|\\(?:[\\tnr]|x[0-9a-f]{2}))*")
_CREDENTIALS = re.compile(r"//[^/@]*@")


class Kind(enum.StrEnum):
    """What happened."""

    OPEN = "open"
    DATA = "data"
    CLOSE = "close"
    LOST = "lost"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What happened at one time.

    Attributes:
        at_s: seconds since the recording began.
        kind: what.
        data: of ``DATA``, the bytes.
        text: of ``CLOSE``, why; empty where the agent itself closed the port.
        lost: of ``LOST``, how many bytes.
    """

    at_s: float
    kind: Kind
    data: bytes = b""
    text: str = ""
    lost: int = 0


class Header(msgspec.Struct, frozen=True):
    """The first line.

    Attributes:
        begin: RFC 3339, UTC.
        source: settings of the source, by their names in ``agent.toml``.
        notifyd: the version that recorded.
    """

    begin: str = ""
    source: dict[str, str | int | float | bool | None] = {}
    notifyd: str = ""

    @property
    def source_name(self) -> str | None:
        """The name of the source, where it is told."""
        name = self.source.get("name")
        return name if isinstance(name, str) else None

    @property
    def baudrate(self) -> int | None:
        """The rate of the port, where it is told and can be one."""
        rate = self.source.get("baudrate")
        return rate if isinstance(rate, int) and 0 < rate <= 20_000_000 else None


class RecordingError(Exception):
    """A recording cannot be read on; the text says in which line, and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


# --- writing ---------------------------------------------------------------------------------------------


def encode_header(source: config_agent.Source, begin: str, notifyd: str) -> bytes:
    """Gives the first line.

    Args:
        source: the settings; those that may hold a password are left out.
        begin: when it begins, RFC 3339.
        notifyd: the version that records.
    """
    settings: dict[str, Any] = {key: getattr(source, key) for key in _SETTINGS}
    settings["port"] = _CREDENTIALS.sub("//", source.port)
    settings["gap"] = None if source.gap is None else float(source.gap)
    told = {key: value for key, value in settings.items() if value is not None}
    document = msgspec.json.encode({"begin": begin, "source": told, "notifyd": notifyd})
    # All of it in ASCII, as the rest: JSON writes any character as an escape.
    text = re.sub(r"[^\x20-\x7e]", lambda match: _json_escape(match[0]), document.decode())
    return b"%s%d %s\n" % (MAGIC, VERSION, text.encode())


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2))


def encode(entry: Entry) -> bytes:
    """Gives the lines of an entry."""
    if entry.kind is Kind.DATA:
        return encode_data(entry.at_s, entry.data)
    if entry.kind is Kind.CLOSE:
        return encode_close(entry.at_s, entry.text)
    return encode_open(entry.at_s) if entry.kind is Kind.OPEN else encode_lost(entry.at_s, entry.lost)


def encode_open(at_s: float) -> bytes:
    """Gives the line of a port that was opened."""
    return b"%.6f open\n" % at_s


def encode_data(at_s: float, data: bytes) -> bytes:
    """Gives the lines of a read."""
    if len(data) <= CUT:
        return b"%.6f data %s\n" % (at_s, escape(data)) if data else b"%.6f data\n" % at_s
    start = b"%.6f data " % at_s
    return b"".join(start + escape(data[cut : cut + CUT]) + b"\n" for cut in range(0, len(data), CUT))


def encode_close(at_s: float, reason: str) -> bytes:
    """Gives the line of a port that was closed or lost, with the reason."""
    text = escape(reason[:MAX_TEXT].encode("latin-1", "replace"))
    return b"%.6f close %s\n" % (at_s, text) if text else b"%.6f close\n" % at_s


def encode_lost(at_s: float, count: int) -> bytes:
    """Gives the line of bytes that were not recorded."""
    return b"%.6f lost %d\n" % (at_s, count)


def escape(data: bytes) -> bytes:
    """Gives bytes as ASCII that can be printed, without a space at the end."""
    text = data.decode("latin-1").encode("unicode_escape")
    return text[:-1] + b"\\x20" if text.endswith(b" ") else text


def unescape(text: bytes) -> bytes:
    """Gives the bytes that ``escape`` was given.

    Raises:
        ValueError: it can have been given none.
    """
    if _ESCAPED.fullmatch(text) is None:
        raise ValueError("a byte or an escape that stands for none")
    return text.decode("unicode_escape").encode("latin-1") if b"\\" in text else text


# --- reading ---------------------------------------------------------------------------------------------


def is_recording(beginning: bytes) -> bool:
    """Tells a recording from any other file by its first bytes, as many as ``MAGIC`` has."""
    return beginning.startswith(MAGIC)


class Reader:
    """Reads a recording, however its bytes arrive.

    Attributes:
        header: the first line, once it is there.
        is_torn: whether the last line has no end, as when the machine has lost power; it is left out.
    """

    def __init__(self) -> None:
        self.header: Header | None = None
        self.is_torn = False
        self._rest = b""
        self._number = 0
        self._at_s = 0.0

    def feed(self, data: bytes) -> Iterator[Entry]:
        """Gives the entries whose lines ``data`` ends, in order.

        Raises:
            RecordingError: a line is none of a recording.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            entry = self._line(line)
            if entry is not None:
                yield entry
        if len(self._rest) > MAX_LINE:
            raise RecordingError(self._number + 1, f"is longer than {MAX_LINE:,} bytes")

    def end(self) -> None:
        """Is called at the end of the file.

        Raises:
            RecordingError: there was no whole first line.
        """
        self.is_torn = bool(self._rest)
        self._rest = b""
        if self.header is None:
            raise RecordingError(1, "the file ends in its first line")

    def _line(self, line: bytes) -> Entry | None:
        self._number += 1
        if len(line) > MAX_LINE:
            raise RecordingError(self._number, f"is longer than {MAX_LINE:,} bytes")
        line = line.removesuffix(b"\r")  # a mail program may have added it
        if self.header is None:
            self.header = self._read_header(line)
            return None
        if not line:
            return None
        match = _LINE.fullmatch(line)
        if match is None:
            raise RecordingError(self._number, "expected a time and open, data, close or lost")
        at_s = float(match[1])
        if at_s < self._at_s:
            raise RecordingError(self._number, "its time is before that of the line above")
        self._at_s = at_s
        try:
            return _entry(at_s, Kind(match[2].decode()), match[3] or b"")
        except ValueError as error:
            raise RecordingError(self._number, str(error)) from None

    def _read_header(self, line: bytes) -> Header:
        version, _, document = line.removeprefix(MAGIC).partition(b" ")
        if not line.startswith(MAGIC) or re.fullmatch(rb"[0-9]{1,9}", version) is None:
            raise RecordingError(self._number, "is not the first line of a recording")
        if int(version) > VERSION:
            raise RecordingError(self._number, f"has version {int(version)}, this notifyd reads {VERSION}")
        try:
            return msgspec.json.decode(document, type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RecordingError(self._number, f"its header cannot be read: {error}") from None


def _entry(at_s: float, kind: Kind, argument: bytes) -> Entry:
    if kind is Kind.LOST:
        if re.fullmatch(rb"[0-9]{1,15}", argument) is None:
            raise ValueError("expected how many bytes were lost")
        return Entry(at_s, kind, lost=int(argument))
    content = unescape(argument)
    if kind is Kind.DATA:
        return Entry(at_s, kind, data=content)
    if kind is Kind.OPEN and content:
        raise ValueError("expected nothing behind open")
    return Entry(at_s, kind, text=content.decode("latin-1"))


class Playback:
    """The entries of a file, be it a recording or just the bytes that a device printed.

    Args:
        chunks: the file's content, in pieces.
        bytes_per_s: how fast a file without times is; None for as fast as it can be read.

    Attributes:
        header: of a recording; None of any other file.
        is_torn: see :class:`Reader`; true only after the last entry.

    Raises:
        RecordingError: (from the iteration as well) a recording cannot be read on.
    """

    def __init__(self, chunks: Iterable[bytes], bytes_per_s: float | None = None) -> None:
        self.header: Header | None = None
        self.is_torn = False
        self._chunks = iter(chunks)
        self._bytes_per_s = bytes_per_s
        self._begin = b""
        while len(self._begin) < len(MAGIC) and (chunk := next(self._chunks, b"")):
            self._begin += chunk
        self._reader = Reader() if is_recording(self._begin) else None
        if self._reader is not None:
            self._read_header(self._reader)

    def _read_header(self, reader: Reader) -> None:
        line, end, rest = self._begin.partition(b"\n")
        while not end and (chunk := next(self._chunks, b"")):
            list(reader.feed(line))  # a part of the first line is no entry
            line, end, rest = chunk.partition(b"\n")
        list(reader.feed(line + end))
        if not end:
            reader.end()
        self.header, self._begin = reader.header, rest

    def __iter__(self) -> Iterator[Entry]:
        """Gives the entries, once."""
        return self._plain() if self._reader is None else self._recorded(self._reader)

    def _recorded(self, reader: Reader) -> Iterator[Entry]:
        yield from reader.feed(self._begin)
        for chunk in self._chunks:
            yield from reader.feed(chunk)
        reader.end()
        self.is_torn = reader.is_torn

    def _plain(self) -> Iterator[Entry]:
        rate = self._bytes_per_s
        size = max(1, int(rate * PIECE_S)) if rate is not None else 65_536
        done = 0
        for chunk in itertools.chain([self._begin], self._chunks):
            for cut in range(0, len(chunk), size):
                piece = chunk[cut : cut + size]
                done += len(piece)
                yield Entry(0.0 if rate is None else done / rate, Kind.DATA, data=piece)


def bytes_per_second(baudrate: int, settings: Mapping[str, object] | None = None) -> float:
    """Gives how many characters a line carries in a second, with their start, parity and stop bits."""
    told = settings or {}
    bits, stop = told.get("bytesize", 8), told.get("stopbits", 1)
    size = 1 + (bits if isinstance(bits, int) else 8) + (stop if isinstance(stop, int | float) else 1)
    return baudrate / (size + (told.get("parity", "N") != "N"))
