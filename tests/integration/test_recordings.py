"""What real devices printed, replayed through a pty: every intact sentence arrives, byte for byte, in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.recordings import RECORDINGS, Replay, is_intact, sentence_of, sentences
from tests.integration.rig import Agent, Collector, Hub, Panel, without_repeats

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not beside the checkout")
SOURCE = """
[[source]]
name = "gnss"
port = "{port}"
"""
LINE_SPEED = 11_520.0
"""Bytes a second at 115,200 Bd."""


@pytest.fixture
def replay(hub: Hub, tmp_path: Path, start: Callable[..., Any]) -> Replay:
    """A device on a pty, with an agent, a hub and a client."""
    panel = start(Panel, tmp_path / "gnss")
    start(Agent, tmp_path, hub.ports["ingest"], SOURCE.format(port=panel.link)).start()
    return Replay(panel, start(Collector, hub.ports["normal"], "follower"))


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
        expected += sentences(data)
        panel.print(data + b"\r\n")
    panel.print(b"the end\r\n")
    events = follower.wait(lambda events: bool(events) and events[-1]["data"]["line"] == "the end")
    got = [sentence_of(event) for event in without_repeats(events)][:-1]
    assert sum(map(is_intact, expected)) > 1_000
    assert [line for line in got if is_intact(line)] == [line for line in expected if is_intact(line)]
    assert got == expected  # damaged ones too: what they say is for the rules to judge


def test_every_intact_sentence_arrives_at_the_speed_of_a_line(replay: Replay) -> None:
    """The same as a device prints: bytes come in dribs and drabs, cut anywhere."""
    for recording in RECORDINGS:
        if recording.parent.name == "nmea":
            replay.print(recording.read_bytes() + b"\r\n", LINE_SPEED)
    replay.wait_until_all_is_there()
    replay.check()


def test_every_intact_sentence_arrives_while_the_cable_is_pulled_every_second(replay: Replay) -> None:
    """Each time in the middle of a sentence, which never becomes a whole one with what comes after it."""
    lines = [line for recording in RECORDINGS for line in sentences(recording.read_bytes())]
    share = len(lines) // 10
    for number in range(10):
        replay.wait_for_a_reader()
        replay.print(b"\r\n".join(lines[number * share : (number + 1) * share]) + b"\r\n")
        replay.wait_until_all_is_there()
        replay.panel.print(b"$GPGGA,1234")
        replay.panel.unplug()
        replay.panel.plug()
    replay.wait_for_a_reader()
    replay.check()
