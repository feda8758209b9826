"""What real devices printed, and how what arrives is compared with it."""

from __future__ import annotations

import base64
import functools
import operator
import re
import time
from pathlib import Path
from typing import Any

from tests.integration.rig import Collector, Panel, without_repeats

DATA = Path(__file__).parents[3] / "shared" / "data"
RECORDINGS = sorted(DATA.glob("*/*.log")) + sorted(DATA.glob("*/*.txt"))


def is_intact(sentence: bytes) -> bool:
    """Tells whether the two hex digits after `*` are the XOR of the bytes between `$` or `!` and `*`."""
    match = re.fullmatch(rb"[$!]([^*]*)\*([0-9A-Fa-f]{2})", sentence)
    return match is not None and functools.reduce(operator.xor, match[1], 0) == int(match[2], 16)


def sentence_of(event: dict[str, Any]) -> bytes:
    """Gives the bytes of an event's line."""
    data = event["data"]
    return base64.b64decode(data["raw"]) if "raw" in data else data["line"].encode("ascii")


def sentences(data: bytes) -> list[bytes]:
    """Gives the lines of a recording."""
    return [line for line in re.split(rb"[\r\n]+", data) if line]


class Replay:
    """A device that prints recordings, and waits, where it must, until somebody reads.

    Args:
        panel: where it prints.
        follower: gets what has arrived.
    """

    def __init__(self, panel: Panel, follower: Collector) -> None:
        self.panel, self.follower = panel, follower
        self.expected: list[bytes] = []
        self._probes = 0

    def wait_for_a_reader(self) -> None:
        """Prints lines of its own until one of them has arrived; what is printed from then on is read."""
        self._probes += 1
        probe = f"probe {self._probes}"
        for _ in range(400):
            self.panel.print(probe.encode() + b"\r\n")
            time.sleep(0.05)
            if any(event["data"].get("line") == probe for event in list(self.follower.events)):
                return
        raise AssertionError("nobody reads")

    def print(self, data: bytes, bytes_per_s: float | None = None) -> None:
        """Prints whole lines, as fast as they are taken or at the speed of a line."""
        began = time.monotonic()
        step = 256 if bytes_per_s else 65_536
        for at in range(0, len(data), step):
            self.panel.print(data[at : at + step])
            if bytes_per_s:
                time.sleep(max(0.0, began + (at + step) / bytes_per_s - time.monotonic()))
        self.expected += sentences(data)

    def wait_until_all_is_there(self) -> None:
        """Waits until what was printed has arrived."""
        self._probes += 1
        end = f"end {self._probes}"
        self.panel.print(end.encode() + b"\r\n")
        self.follower.wait(lambda events: any(event["data"].get("line") == end for event in reversed(events)))

    @property
    def arrived(self) -> list[bytes]:
        """The lines that have arrived."""
        events = without_repeats(self.follower.events)
        return [sentence_of(event) for event in events if event["type"] == "notifyd.line"]

    def check(self) -> None:
        """Sees that every intact sentence has arrived once, in order, and none that was not printed."""
        wanted = [line for line in self.expected if is_intact(line)]
        assert wanted
        assert [line for line in self.arrived if is_intact(line)] == wanted
