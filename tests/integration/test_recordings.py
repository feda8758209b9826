"""What real devices printed, replayed through a pty: every intact sentence arrives, byte for byte, in order."""

from __future__ import annotations

import base64
import functools
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import Agent, Collector, Hub, Panel, without_repeats

DATA = Path(__file__).parents[3] / "shared" / "data"
RECORDINGS = sorted(DATA.glob("*/*.log")) + sorted(DATA.glob("*/*.txt"))
SOURCE = """
[[source]]
name = "gnss"
port = "{port}"
"""


def is_intact(sentence: bytes) -> bool:
    """Tells whether the two hex digits after `*` are the XOR of the bytes between `$` or `!` and `*`."""
    match = re.fullmatch(rb"[$!]([^*]*)\*([0-9A-Fa-f]{2})", sentence)
    return match is not None and functools.reduce(operator.xor, match[1], 0) == int(match[2], 16)


def sentence_of(event: dict[str, Any]) -> bytes:
    """Gives the bytes of an event's line."""
    data = event["data"]
    return base64.b64decode(data["raw"]) if "raw" in data else data["line"].encode("ascii")


@pytest.mark.skipif(not RECORDINGS, reason="the recordings are not beside the checkout")
def test_every_intact_sentence_of_every_recording_arrives_in_order(
    hub: Hub, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """All recordings, one behind the other as one device: none is missing, changed, moved or invented."""
    panel = start(Panel, tmp_path / "gnss")
    start(Agent, tmp_path, hub.ports["ingest"], SOURCE.format(port=panel.link)).start()
    follower = start(Collector, hub.ports["normal"], "follower")
    expected: list[bytes] = []
    for recording in RECORDINGS:
        data = recording.read_bytes()
        expected += [line for line in re.split(rb"[\r\n]+", data) if line]
        panel.print(data + b"\r\n")
    panel.print(b"the end\r\n")
    events = follower.wait(lambda events: bool(events) and events[-1]["data"]["line"] == "the end")
    got = [sentence_of(event) for event in without_repeats(events)][:-1]
    assert sum(map(is_intact, expected)) > 1_000
    assert [line for line in got if is_intact(line)] == [line for line in expected if is_intact(line)]
    assert got == expected  # damaged ones too: what they say is for the rules to judge
