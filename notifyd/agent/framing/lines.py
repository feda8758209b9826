"""``framing = "line"``: text up to an end of line, or up to a delimiter of one's own."""

from __future__ import annotations

import re

from notifyd.agent.framing.base import MAX_FRAME, BadFrames, BaseFramer, Frame


class LineFramer(BaseFramer):
    """LF, CR or CRLF, mixed as devices mix them: docs/protocol.md, "Data from an agent".

    A CR ends a frame at once; the LF behind it, which may come with the next read, only ends an empty
    frame, and those are left out. A frame is cut as soon as it exceeds ``MAX_FRAME``; the rest of it, up
    to the delimiter, is skipped and counted. ``data`` is the line without its end. No line is damaged.
    """

    _delimiter = re.compile(rb"[\r\n]")

    def __init__(self) -> None:
        super().__init__()
        self._skipping = False

    def feed(self, data: bytes, at_s: float) -> list[Frame]:
        """Gives the frames that ``data`` completes, in order."""
        if self._skipping:
            data = self._skip_to_end(data)
        if not data:
            return []
        held = self._held + data if self._held else data
        lines = held.splitlines()  # of bytes: at LF, CR and CRLF only
        self._held = b"" if held.endswith((b"\n", b"\r")) else lines.pop()
        frames = [Frame(line) if len(line) <= MAX_FRAME else self._cut(line) for line in lines if line]
        if len(self._held) > MAX_FRAME:
            frames.append(self._cut(self._held))
            self._held = b""
            self._skipping = True
        return frames

    def flush(self) -> Frame | None:
        """Gives what is left as a truncated frame, and begins anew; None where nothing is."""
        rest, self._held, self._skipping = self._held, b"", False
        return Frame(rest, truncated=True) if rest else None

    def _cut(self, line: bytes) -> Frame:
        self.skipped_bytes += len(line) - MAX_FRAME
        return Frame(line[:MAX_FRAME], truncated=True)

    def _skip_to_end(self, data: bytes) -> bytes:
        """Gives ``data`` from the delimiter on that ends the frame that was cut."""
        delimiter = self._delimiter.search(data)
        if delimiter is None:
            self.skipped_bytes += len(data)
            return b""
        self._skipping = False
        self.skipped_bytes += delimiter.start()
        return data[delimiter.start() :]


class LinesFramer(BaseFramer):
    """What frames of one line have in common that are more than text.

    Args:
        bad_frames: what becomes of a damaged one.
    """

    def __init__(self, bad_frames: BadFrames) -> None:
        super().__init__(bad_frames)
        self._lines = LineFramer()

    @property
    def held_bytes(self) -> int:
        """How many bytes of a line without an end are held."""
        return self._lines.held_bytes

    def feed(self, data: bytes, at_s: float) -> list[Frame]:
        """Gives the frames in the lines that ``data`` completes, in order."""
        frames: list[Frame] = []
        before = self._lines.skipped_bytes
        for line in self._lines.feed(data, at_s):
            self._take_line(line, frames)
        self.skipped_bytes += self._lines.skipped_bytes - before
        return frames

    def _take_line(self, line: Frame, frames: list[Frame]) -> None:
        """Takes what is in one line."""
        raise NotImplementedError


class DelimiterFramer(BaseFramer):
    r"""``delimiter = "\x03"``: like lines, but only these bytes end a frame, and CR and LF are content.

    Args:
        delimiter: 1 to 16 bytes, which are left out; an empty frame is left out, too.
    """

    def __init__(self, delimiter: bytes) -> None:
        super().__init__()
        self._delimiter = delimiter
        self._tail = len(delimiter) - 1  # bytes that may be the beginning of a delimiter
        self._skipping = False

    def feed(self, data: bytes, at_s: float) -> list[Frame]:
        """Gives the frames that ``data`` completes, in order."""
        *pieces, rest = (self._held + data).split(self._delimiter)
        frames: list[Frame] = []
        for piece in pieces:
            if self._skipping:
                self.skipped_bytes += len(piece)
                self._skipping = False
            elif piece:
                frames.append(self._frame(piece))
        if not self._skipping and len(rest) > MAX_FRAME + self._tail:
            frames.append(Frame(rest[:MAX_FRAME], truncated=True))
            rest = rest[MAX_FRAME:]
            self._skipping = True
        if self._skipping:
            tail = rest[-self._tail :] if self._tail else b""
            self.skipped_bytes += len(rest) - len(tail)
            rest = tail
        self._held = rest
        return frames

    def flush(self) -> Frame | None:
        """Gives what is left as a truncated frame, and begins anew; None where nothing is."""
        rest, self._held = self._held, b""
        skipping, self._skipping = self._skipping, False
        if skipping:
            self.skipped_bytes += len(rest)
            return None
        if not rest:
            return None
        return Frame(self._frame(rest).data, truncated=True)

    def _frame(self, piece: bytes) -> Frame:
        self.skipped_bytes += max(0, len(piece) - MAX_FRAME)
        return Frame(piece[:MAX_FRAME], truncated=len(piece) > MAX_FRAME)
