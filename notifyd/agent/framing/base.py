"""What all framings share: a frame, the interface, and a search for frames that have a beginning and an end."""

from __future__ import annotations

import re
from typing import Literal, Protocol

import msgspec

MAX_FRAME = 8192
"""Bytes of a frame: a device that never ends a line must not fill the memory, nor an event its line."""

MAX_REPLIES = 4096
"""Bytes that wait to be said to a device. What is over that is left unsaid: a device that gets no answer asks again."""

TOO_LONG = f"no end within {MAX_FRAME} bytes"
"""What is wrong with a frame that was cut before its checksum could come."""

BadFrames = Literal["drop", "send"]

_SURROGATE = re.compile("[\ud800-\udfff]")


class Frame(msgspec.Struct, frozen=True, gc=False):
    """What a device printed, from one beginning to one end.

    Attributes:
        data: 1 to ``MAX_FRAME`` bytes, as the framing's docstring says.
        truncated: whether its end is missing: it was too long, or the port went away within it.
        damaged: what is wrong with it, as a sentence for the operator; None where nothing is known to be.
        fields: what the framing parsed; None where it parses nothing. Whoever gets it must not change it.
        reply: what is sent to the device once the frame's event is durable, or at once where it becomes none.
    """

    data: bytes
    truncated: bool = False
    damaged: str | None = None
    fields: dict[str, str] | None = None
    reply: bytes = b""


class Framer(Protocol):
    """One way to find frames in what a device prints; it keeps the beginning of a frame between reads.

    Attributes:
        skipped_bytes: bytes that were in no frame, line ends between frames aside, or that were cut off one.
        damaged_frames: frames that were found to be damaged, sent or not.
        deadline_s: when :meth:`tick` is to be called, in the seconds of ``at_s``; None for never.
    """

    skipped_bytes: int
    damaged_frames: int
    deadline_s: float | None

    @property
    def held_bytes(self) -> int:
        """How many bytes of a frame without an end are held: at most ``MAX_FRAME`` and a few."""
        ...

    def feed(self, data: bytes, at_s: float) -> list[Frame]:
        """Gives the frames that ``data`` completes, in order.

        Args:
            data: any bytes.
            at_s: when they were read, in seconds of a clock that never goes back.
        """
        ...

    def tick(self, now_s: float) -> list[Frame]:
        """Gives the frames that a pause up to ``now_s`` completes; before the deadline it does nothing."""
        ...

    def replies(self) -> bytes:
        """Gives what is to be said to the device at once, at most ``MAX_REPLIES`` bytes, and forgets it."""
        ...

    def flush(self) -> Frame | None:
        """Gives what is left when the port is lost or the agent stops, and begins anew."""
        ...


def decode(data: bytes, encoding: str) -> tuple[str, bool]:
    """Gives text that UTF-8 can write, and whether ``data`` is valid in an encoding; total over any bytes."""
    try:
        text = data.decode(encoding)
    except Exception:  # noqa: BLE001 - some decoders raise more than UnicodeDecodeError
        return _decode_invalid(data, encoding), False
    if not text.isascii() and _SURROGATE.search(text):  # utf-7 and unicode_escape let them through
        return _SURROGATE.sub("\ufffd", text), False
    return text, True


def _decode_invalid(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding, "replace")
    except Exception:  # noqa: BLE001 - a decoder without error handling
        text = data.decode("ascii", "replace")
    return _SURROGATE.sub("\ufffd", text)


class BaseFramer:
    """The counters, what is wrong, and what is to be said: what the framings have in common.

    Args:
        bad_frames: whether a damaged frame is given (``"send"``) or only counted.
    """

    def __init__(self, bad_frames: BadFrames = "drop") -> None:
        self.skipped_bytes = 0
        self.damaged_frames = 0
        self.deadline_s: float | None = None
        self._sends_damaged = bad_frames == "send"
        self._held = b""
        self._replies = b""

    @property
    def held_bytes(self) -> int:
        """How many bytes of a frame without an end are held."""
        return len(self._held)

    def tick(self, now_s: float) -> list[Frame]:
        """Does nothing: no pause means anything."""
        return []

    def replies(self) -> bytes:
        """Gives what is to be said to the device at once, and forgets it."""
        replies, self._replies = self._replies, b""
        return replies

    def flush(self) -> Frame | None:
        """Gives what is left, which is damaged where it is a frame without an end, and begins anew."""
        held, self._held, self._replies, self.deadline_s = self._held, b"", b"", None
        frames: list[Frame] = []
        if held:
            self._damage(frames, held, "the port was lost, or the agent stopped, within it", truncated=True)
        return frames[0] if frames else None

    def _say(self, reply: bytes) -> None:
        if len(self._replies) + len(reply) <= MAX_REPLIES:
            self._replies += reply

    def _damage(self, frames: list[Frame], data: bytes, why: str, *, truncated: bool = False) -> None:
        """Counts a damaged frame, and adds it to ``frames`` where such ones are sent."""
        self.damaged_frames += 1
        self.skipped_bytes += max(0, len(data) - MAX_FRAME)
        if self._sends_damaged:
            frames.append(Frame(data[:MAX_FRAME], truncated or len(data) > MAX_FRAME, why))

    def _skip(self, noise: bytes) -> None:
        """Counts bytes between frames; line ends and NULs there are what devices fill a line with."""
        self.skipped_bytes += len(noise) - noise.count(b"\r") - noise.count(b"\n") - noise.count(b"\0")


class ScanningFramer(BaseFramer):
    """A search for frames that have a beginning and an end: what stands between them is noise.

    A frame that has no end within ``MAX_FRAME`` bytes of its beginning is damaged; the search for the next one goes on
    behind these bytes.
    """

    def feed(self, data: bytes, at_s: float) -> list[Frame]:
        """Gives the frames that ``data`` completes, in order."""
        held = self._held + data if self._held else data
        frames: list[Frame] = []
        place, end = 0, len(held)
        while place < end:
            after = self._scan(held, place, min(end, place + MAX_FRAME), frames)
            if after == place:
                if end - place < MAX_FRAME:
                    break
                after = place + MAX_FRAME
                self._damage(frames, held[place:after], TOO_LONG, truncated=True)
            place = after
        self._held = held[place:]
        return frames

    def _scan(self, held: bytes, place: int, limit: int, frames: list[Frame]) -> int:
        """Takes noise or one frame off ``held[place:limit]``; what is decided must not depend on bytes behind it.

        Args:
            held: what is held, and what has come.
            place: the first byte that was not dealt with.
            limit: where to stop.
            frames: takes the frames that are found.

        Returns:
            The first byte that was not dealt with: ``place`` where a frame begins there and its end is not there.
        """
        raise NotImplementedError
