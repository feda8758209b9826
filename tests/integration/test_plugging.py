"""Two hours of plugging, in less than a minute: nothing leaks, nothing spins, and the log stays readable."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.rig import Agent, Collector, Hub, Panel, without_repeats

CYCLES = 200
SOURCE = '[[source]]\nname = "panel"\nport = "{port}"\n'
CPU_PER_CYCLE_S = 0.04
"""Processor time that a cycle may cost, events and log lines included; it takes longer than that, mostly waiting."""

IDLE_SHARE = 0.1
"""Of a processor, that an agent may take whose port is away, or open and quiet."""


class Watched:
    """A process that is looked at from outside."""

    def __init__(self, agent: Agent) -> None:
        assert agent.process is not None
        self.process = agent.process
        self.folder = Path("/proc") / str(agent.process.popen.pid)

    @property
    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(self.folder / "fd"))

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return len(os.listdir(self.folder / "task"))

    @property
    def cpu_s(self) -> float:
        """How much processor time it has used, in seconds."""
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def share(self, seconds: float = 2.0) -> float:
        """Gives which share of a processor it takes now."""
        before = self.cpu_s
        time.sleep(seconds)
        return (self.cpu_s - before) / seconds


class Plugging:
    """A panel that is plugged in and pulled again and again.

    Args:
        panel: the panel.
        follower: gets what it prints.
    """

    def __init__(self, panel: Panel, follower: Collector) -> None:
        self.panel, self.follower = panel, follower
        self._numbers = itertools.count(1)

    def print_until_read(self) -> None:
        """Prints lines until one of them has arrived."""
        line = f"line {next(self._numbers)}"
        for _ in range(1000):
            self.panel.print(line.encode() + b"\r\n")
            time.sleep(0.02)
            if any(event["data"].get("line") == line for event in self.follower.events[-20:]):
                return
        raise AssertionError("the port never came back")


def test_two_hundred_times_unplugged_and_plugged_in_again(hub: Hub, tmp_path: Path, start: Callable[..., Any]) -> None:
    """Some while it opens, some before anything was printed, some in the middle of a line."""
    chance = random.Random(7)
    panel = start(Panel, tmp_path / "panel")
    agent = start(Agent, tmp_path, hub.ports["ingest"], SOURCE.format(port=panel.link))
    agent.start()
    plugging = Plugging(panel, start(Collector, hub.ports["normal"], "follower"))
    own = start(Collector, hub.ports["important"], "own")
    plugging.print_until_read()
    watched = Watched(agent)
    descriptors, threads = watched.descriptors, watched.threads
    assert watched.share() < IDLE_SHARE
    before, log = watched.cpu_s, len(watched.process.text)
    for cycle in range(CYCLES):
        panel.unplug()
        time.sleep(chance.uniform(0.0, 0.01))
        panel.plug()
        if cycle % 8 == 5:
            time.sleep(chance.uniform(0.0, 0.12))  # while it opens, or right after
        elif cycle % 8 == 6:
            time.sleep(0.12)  # open, but nothing printed
        else:
            plugging.print_until_read()
            panel.print(b"half a li")
    plugging.print_until_read()
    assert watched.cpu_s - before < CYCLES * CPU_PER_CYCLE_S
    assert watched.descriptors == descriptors
    assert watched.threads == threads
    lines = [line for line in watched.process.text[log:].splitlines() if "Source panel" in line]
    assert len(lines) <= 2 * CYCLES
    states = [event["type"].rsplit(".", 1)[1] for event in without_repeats(own.events)]
    assert states == ["lost", "restored"] * (len(states) // 2)
    assert CYCLES // 2 < len(states) // 2 <= CYCLES
    panel.unplug()
    time.sleep(1)
    assert watched.share() < IDLE_SHARE
    assert watched.descriptors < descriptors
