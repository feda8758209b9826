"""What an agent would make of what a port delivered: frames, and the events of its rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from notifyd import config_agent
from notifyd.agent.framing import Frame, make_framer
from notifyd.agent.recording import Entry, Kind
from notifyd.agent.rules import Rules
from notifyd.event import Event


class Judged(msgspec.Struct, frozen=True, gc=False):
    """A frame, and what becomes of it.

    Attributes:
        at_s: when its last byte was read.
        frame: what the device printed.
        rule: the index of the rule that matched; None where none did.
        event: as it would be spooled, without its number; None where the frame is dropped.
    """

    at_s: float
    frame: Frame
    rule: int | None
    event: Event | None


class Trial:
    """Judges what one source prints.

    Args:
        source: its settings.
        agent: the agent's name.
        begin_s: when the first entry's clock began, in seconds since 1970.

    Attributes:
        lost: bytes that were not recorded.
    """

    def __init__(self, source: config_agent.Source, agent: str, begin_s: float) -> None:
        self.lost = 0
        self._source, self._begin_s = source, begin_s
        # Damaged frames are seen here whatever becomes of them there.
        self._framer = make_framer(msgspec.structs.replace(source, bad_frames="send"))
        self._rules = Rules(source, agent)
        # The same rules, with their numbers for types: an event does not tell which rule has made it.
        numbered = tuple(
            msgspec.structs.replace(rule, type=str(number), priority=None) for number, rule in enumerate(source.rule)
        )
        self._numbers = Rules(msgspec.structs.replace(source, rule=numbered, unmatched="send"), agent)

    def run(self, entries: Iterable[Entry]) -> Iterator[Judged]:
        """Judges what is in ``entries``, in order, and what is left at their end."""
        at_s = 0.0
        for entry in entries:
            at_s = entry.at_s
            yield from self.take(entry)
        yield from self.end(at_s)

    def take(self, entry: Entry) -> Iterator[Judged]:
        """Judges the frames that one entry ends."""
        yield from self.tick(entry.at_s)
        if entry.kind is Kind.DATA:
            yield from self._judge(self._framer.feed(entry.data, entry.at_s), entry.at_s)
        elif entry.kind is Kind.CLOSE:
            yield from self.end(entry.at_s)
        else:
            self.lost += entry.lost

    def tick(self, now_s: float) -> Iterator[Judged]:
        """Judges the frames that time has ended."""
        while (deadline_s := self._framer.deadline_s) is not None and deadline_s <= now_s:
            frames = self._framer.tick(deadline_s)
            yield from self._judge(frames, deadline_s)
            if not frames and self._framer.deadline_s == deadline_s:
                return

    def end(self, at_s: float) -> Iterator[Judged]:
        """Judges what is left, as when the port is lost."""
        rest = self._framer.flush()
        yield from self._judge([] if rest is None else [rest], at_s)

    def _judge(self, frames: list[Frame], at_s: float) -> Iterator[Judged]:
        for frame in frames:
            if frame.damaged is not None and self._source.bad_frames == "drop":
                yield Judged(at_s, frame, None, None)
                continue
            read_at = self._begin_s + at_s
            event = self._rules.event(frame, read_at)
            number = self._numbers.event(frame, read_at)
            matched = number is not None and number.type.isdigit()
            yield Judged(at_s, frame, int(number.type) if matched and number is not None else None, event)
