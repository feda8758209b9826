"""Framing: bytes, however they arrive, to frames. Pure: bytes in, frames out."""

from __future__ import annotations

import re
from typing import Protocol

import msgspec

MAX_FRAME = 8192
"""Bytes of a frame: a device that never ends a line must not fill the memory, nor an event its line."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """What a device printed between two delimiters, without them.

    Attributes:
        data: 1 to ``MAX_FRAME`` bytes.
        truncated: whether its end is missing: it was too long, or the port went away within it.
    """

    data: bytes
    truncated: bool = False


class Framer(Protocol):
    """One way to find frames in what a device prints; it keeps the beginning of a frame between reads."""

    skipped_bytes: int

    def feed(self, data: bytes) -> list[Frame]:
        """Gives the frames that ``data`` completes, in order."""
        ...

    def flush(self) -> Frame | None:
        """Gives what is left as a truncated frame, and begins anew."""
        ...


class LineFramer:
    """``framing = "line"``: LF, CR or CRLF, mixed as devices mix them.

    A CR ends a frame at once; the LF behind it, which may come with the next read, only ends an empty
    frame, and those are left out. A frame is cut as soon as it exceeds ``MAX_FRAME``; the rest of it, up
    to the delimiter, is skipped and counted.

    Attributes:
        skipped_bytes: what was cut off so far.
    """

    _delimiter = re.compile(rb"[\r\n]")

    def __init__(self) -> None:
        self.skipped_bytes = 0
        self._rest = b""
        self._skipping = False

    @property
    def held_bytes(self) -> int:
        """How much of a frame without an end is held: at most ``MAX_FRAME``."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Frame]:
        """Gives the frames that ``data`` completes, in order."""
        if self._skipping:
            data = self._skip(data)
        if not data:
            return []
        held = self._rest + data if self._rest else data
        lines = held.splitlines()  # of bytes: at LF, CR and CRLF only
        self._rest = b"" if held.endswith((b"\n", b"\r")) else lines.pop()
        frames = [Frame(line) if len(line) <= MAX_FRAME else self._cut(line) for line in lines if line]
        if len(self._rest) > MAX_FRAME:
            frames.append(self._cut(self._rest))
            self._rest = b""
            self._skipping = True
        return frames

    def flush(self) -> Frame | None:
        """Gives what is left as a truncated frame, and begins anew; None where nothing is."""
        rest, self._rest, self._skipping = self._rest, b"", False
        return Frame(rest, truncated=True) if rest else None

    def _cut(self, line: bytes) -> Frame:
        self.skipped_bytes += len(line) - MAX_FRAME
        return Frame(line[:MAX_FRAME], truncated=True)

    def _skip(self, data: bytes) -> bytes:
        """Gives ``data`` from the delimiter on that ends the frame that was cut."""
        delimiter = self._delimiter.search(data)
        if delimiter is None:
            self.skipped_bytes += len(data)
            return b""
        self._skipping = False
        self.skipped_bytes += delimiter.start()
        return data[delimiter.start() :]
