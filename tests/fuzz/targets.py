"""What is fuzzed: one target a framing. A finding is an exception, so pytest replays the corpus with the same code."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from notifyd import config_agent
from notifyd.agent.framing import MAX_FRAME, Framer
from notifyd.agent.rules import Rules
from notifyd.event import decode, encode
from notifyd.wire import MAX_LINE
from tests.framings import KINDS, TAIL, Kind, run

CORPUS = Path(__file__).parent / "corpus"

FRAMINGS: tuple[str, ...] = get_args(config_agent.FramingName)


def kinds(framing: str) -> list[Kind]:
    """Gives the ways in which a framing is used."""
    return [kind for kind in KINDS if kind.name.split()[0] == framing]


def check(framing: str, data: bytes) -> None:
    """Feeds bytes to a framing, in two ways and with pauses, and its frames to rules.

    Args:
        framing: its name.
        data: the first byte chooses how the framing is used, the second how the others are split.
    """
    if len(data) < 2:
        return
    choice = kinds(framing)
    kind, step, stream = choice[data[0] % len(choice)], data[1] % 16 + 1, data[2:]
    pieces = [stream[place : place + step] for place in range(0, len(stream), step)]
    whole = run(kind.framer(), [stream])
    assert run(kind.framer(), pieces) == whole
    for frame in whole.frames:
        assert frame.damaged is not None or frame.truncated or kind.is_intact(stream, frame.data)
    _with_pauses(kind.framer(**({"gap": "30ms"} if framing == "fixed" else {})), pieces)
    rules = Rules(config_agent.Source(name="a", port="b"), "ward3")
    for frame in whole.frames:
        event = rules.event(frame, 0.0)
        assert event is not None
        event.id, event.sequence = "6f1c2a9e-1795384923123456", "0" * 20
        line = encode(event)
        assert len(line) < MAX_LINE
        decode(line)


def _with_pauses(framer: Framer, pieces: list[bytes]) -> None:
    at_s = 0.0
    for piece in pieces:
        at_s += (piece[0] % 8) ** 2 / 30  # up to 1.6 s, and so beyond some deadlines
        framer.tick(at_s)
        framer.feed(piece, at_s)
        assert framer.held_bytes <= MAX_FRAME + TAIL
        assert framer.deadline_s is None or framer.deadline_s > at_s
    framer.tick(at_s + 60)
    assert framer.deadline_s is None
