"""``framing = "fixed"`` and ``framing = "gap"``: frames that only their length or a pause tells apart."""

from __future__ import annotations

from notifyd.agent.framing.base import MAX_FRAME, BadFrames, BaseFramer, Frame


class FixedFramer(BaseFramer):
    """Frames of always ``length`` bytes, as the device's manual says; ``data`` is all of them.

    Without ``gap_s`` a byte that is lost on the line shifts all frames after it: nothing tells where one begins. With
    it, a pause begins a frame anew, and what came before it is damaged.

    Args:
        length: of a frame, in bytes, at most ``MAX_FRAME``.
        gap_s: how long a pause within a frame may be, in seconds; None for any length.
        bad_frames: what becomes of a frame that a pause cut short.
    """

    def __init__(self, length: int, gap_s: float | None = None, bad_frames: BadFrames = "drop") -> None:
        super().__init__(bad_frames)
        self._length = length
        self._gap_s = gap_s

    def feed(self, data: bytes, at_s: float) -> list[Frame]:
        """Gives the frames that ``data`` completes, in order."""
        frames = self.tick(at_s)
        length = self._length
        held = self._held + data
        whole = len(held) - len(held) % length
        frames += [Frame(held[place : place + length]) for place in range(0, whole, length)]
        self._held = held[whole:]
        self.deadline_s = at_s + self._gap_s if self._held and self._gap_s is not None else None
        return frames

    def tick(self, now_s: float) -> list[Frame]:
        """Gives up a frame that was not complete before the pause."""
        frames: list[Frame] = []
        if self.deadline_s is not None and now_s >= self.deadline_s:
            held, self._held, self.deadline_s = self._held, b"", None
            self._damage(frames, held, f"only {len(held)} of {self._length} bytes came before a pause", truncated=True)
        return frames

    def flush(self) -> Frame | None:
        """Gives what is left as a truncated frame, and begins anew; None where nothing is."""
        rest, self._held, self.deadline_s = self._held, b"", None
        return Frame(rest, truncated=True) if rest else None


class GapFramer(BaseFramer):
    """A pause ends a frame, as in Modbus RTU ("MODBUS over Serial Line" V1.02, section 2.5.1.1) and many scales.

    ``data`` is what came between two pauses. A frame is cut as soon as it exceeds ``MAX_FRAME``; the rest of it, up to
    the pause, is skipped and counted.

    Args:
        gap_s: the pause, in seconds. The kernel hands bytes on when it likes: less than some 20 ms finds pauses that
            the device did not make.
    """

    def __init__(self, gap_s: float) -> None:
        super().__init__()
        self._gap_s = gap_s
        self._skipping = False

    def feed(self, data: bytes, at_s: float) -> list[Frame]:
        """Gives the frame that the pause before ``data`` ended, and what is cut."""
        if not data:
            return []
        frames = self.tick(at_s)
        self.deadline_s = at_s + self._gap_s
        if self._skipping:
            self.skipped_bytes += len(data)
            return frames
        self._held += data
        if len(self._held) > MAX_FRAME:
            frames.append(Frame(self._held[:MAX_FRAME], truncated=True))
            self.skipped_bytes += len(self._held) - MAX_FRAME
            self._held = b""
            self._skipping = True
        return frames

    def tick(self, now_s: float) -> list[Frame]:
        """Gives the frame that a pause up to ``now_s`` ends."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return []
        held, self._held, self.deadline_s, self._skipping = self._held, b"", None, False
        return [Frame(held)] if held else []

    def flush(self) -> Frame | None:
        """Gives what is left as a truncated frame, and begins anew; None where nothing is."""
        held, self._held, self.deadline_s, self._skipping = self._held, b"", None, False
        return Frame(held, truncated=True) if held else None
