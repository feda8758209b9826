"""State that is emptied, deleted, restored from a copy, too full or broken: nothing is repeated or lost in silence."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notifyd.event import LANES
from tests.integration.rig import TIMEOUT, Agent, Client, Collector, Hub, Panel, Process, on_both, without_repeats

SOURCE = """
[[source]]
name = "panel"
port = "{port}"
[[source.rule]]
match = '^A'
priority = "critical"
[[source.rule]]
match = '.'
priority = "normal"
"""


class Pair:
    """A hub, an agent, its panel and the registered clients of two ports."""

    def __init__(self, hub: Hub, folder: Path, start: Callable[..., Any], settings: str = "") -> None:
        self.hub = hub
        self.panel: Panel = start(Panel, folder / "panel")
        self.agent: Agent = start(Agent, folder, hub.ports["ingest"], SOURCE.format(port=self.panel.link), settings)
        self.agent.start()
        self.normal: Collector = start(Collector, hub.ports["normal"], "normal")
        self.critical: Collector = start(Collector, hub.ports["critical"], "critical")
        self.important: Collector = start(Collector, hub.ports["important"], "important")
        self.printed: list[str] = []

    def print(self, count: int, letter: str = "n") -> None:
        """Prints lines and waits until they have arrived."""
        self.print_only(count, letter)
        wanted = self.printed[-1]
        client = self.critical if letter == "A" else self.normal
        client.wait(lambda events: any(event["data"]["line"] == wanted for event in events))

    def print_only(self, count: int, letter: str = "n") -> None:
        """Prints lines."""
        lines = [f"{letter} {len(self.printed) + number}" for number in range(count)]
        self.panel.print("".join(line + "\n" for line in lines).encode())
        self.printed += lines

    def wait_until_acknowledged(self) -> None:
        """Waits until nothing is left in the spool."""
        end = time.monotonic() + TIMEOUT
        with contextlib.closing(sqlite3.connect(f"file:{self.agent.state / 'spool.db'}?mode=ro", uri=True)) as spool:
            while any(spool.execute(f"SELECT 1 FROM {lane} LIMIT 1").fetchone() for lane in LANES):
                assert time.monotonic() < end, "the hub has not acknowledged what waits in the spool"
                time.sleep(0.01)

    @property
    def process(self) -> Process:
        """The agent's process."""
        assert self.agent.process is not None
        return self.agent.process

    @property
    def lines(self) -> list[str]:
        """What the normal client has, repeats dropped."""
        return [event["data"]["line"] for event in without_repeats(self.normal.events)]


@pytest.fixture
def pair(hub: Hub, tmp_path: Path, start: Callable[..., Any]) -> Pair:
    """A pair that runs."""
    return Pair(hub, tmp_path, start)


def test_a_deleted_spool_goes_on_under_a_new_name(pair: Pair) -> None:
    """The next start makes a new spool; its events are taken, and none is mistaken for a repeat."""
    pair.print(20)
    pair.process.stop()
    shutil.rmtree(pair.agent.state)
    pair.agent.start()
    pair.print(20)
    assert pair.lines == pair.printed
    assert len({event["id"].split("-")[0] for event in pair.normal.events}) == 2


def test_an_emptied_spool_goes_on_above_its_old_numbers(pair: Pair) -> None:
    """A person deletes all rows: the counter does not go back, so nothing new is dropped as a repeat."""
    pair.print(20)
    pair.process.stop()
    connection = sqlite3.connect(pair.agent.state / "spool.db")
    for lane in ("critical", "important", "normal"):
        connection.execute(f"DELETE FROM {lane}")
    connection.commit()
    connection.close()
    pair.agent.start()
    pair.print(20)
    assert pair.lines == pair.printed


@on_both
def test_a_spool_that_is_restored_from_a_copy_repeats_nothing(pair: Pair, tmp_path: Path) -> None:
    """Old events that the hub has are not stored again, and new ones are numbered above all that ever were."""
    pair.print(10)
    assert pair.hub.process is not None
    pair.hub.process.stop()
    pair.print_only(10)
    pair.process.stop()
    shutil.copytree(pair.agent.state, tmp_path / "copy")
    pair.hub.start()
    pair.agent.start()
    pair.normal.wait(lambda events: len(events) >= 20)
    pair.print(10)
    pair.process.stop()
    shutil.rmtree(pair.agent.state)
    (tmp_path / "copy").rename(pair.agent.state)
    pair.agent.start()
    pair.print(10)
    assert pair.lines == pair.printed
    assert pair.hub.rows("SELECT count(*) FROM event WHERE type = 'notifyd.line'") == [(40,)]


def test_a_hub_that_is_restored_from_a_copy_is_told_what_it_has_lost(pair: Pair, tmp_path: Path) -> None:
    """The agent finds that the hub lacks what it once acknowledged, and sends the ranges as an event."""
    pair.print(10)
    assert pair.hub.process is not None
    pair.hub.process.stop()
    shutil.copytree(pair.hub.state, tmp_path / "copy")
    pair.hub.start()
    pair.print(10)
    lost = [int(event["sequence"]) for event in pair.normal.events[10:]]
    pair.hub.process.stop()
    shutil.rmtree(pair.hub.state)
    (tmp_path / "copy").rename(pair.hub.state)
    pair.hub.start()
    events = pair.important.wait(lambda events: any(event["type"] == "notifyd.hub.restored" for event in events))
    (told,) = [event for event in events if event["type"] == "notifyd.hub.restored"]
    assert str(lost[-1]) in str(told["data"]["fields"])
    pair.print(5)
    # At the next connection nothing is told again.
    pair.process.stop()
    pair.agent.start()
    pair.print(5)
    assert sum(event["type"] == "notifyd.hub.restored" for event in pair.important.events) == 1


def test_a_corrupt_spool_is_moved_aside_and_told(pair: Pair) -> None:
    """The agent begins a new one, keeps the broken file, and sends an event that says so."""
    pair.print(5)
    pair.process.stop()
    (pair.agent.state / "spool.db").write_bytes(b"no database at all" * 500)
    pair.agent.start()
    pair.print(5)
    assert pair.lines == pair.printed
    assert list(pair.agent.state.glob("spool.db.corrupt-*"))
    told = [event for event in _all(pair) if event["type"] == "notifyd.spool.dropped"]
    assert len(told) == 1
    assert "corrupt" in told[0]["data"]["fields"]["reason"]


def _all(pair: Pair) -> list[dict[str, Any]]:
    with Client(pair.hub.ports["all"]) as client:
        client.subscribe(after="first")
        end = pair.hub.rows('SELECT max("offset") FROM event')[0][0]
        events: list[dict[str, Any]] = []
        while not events or int(events[-1]["offset"]) < end:
            events.append(client.event())
        return events


def test_a_full_spool_drops_the_oldest_normal_events_and_tells_it_once(
    hub: Hub, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """With the hub away: normal goes first, the notice has counts and ranges, and the sums agree."""
    pair = Pair(hub, tmp_path, start, "[spool]\nmax_events = 100")
    pair.print(1)
    assert hub.process is not None
    hub.process.stop()
    pair.print_only(300, "n")
    pair.print_only(20, "A")
    assert pair.process.stop() == 0
    counters = pair.process.wait_for(r"Agent counters: .*stored=(\d+) .*dropped=(\d+)")
    pair.agent.start()
    hub.start()
    pair.wait_until_acknowledged()  # what is in flight is not dropped: a spool full of that drops what comes now
    pair.print(1)
    told = [event for event in _all(pair) if event["type"] == "notifyd.spool.dropped"]
    dropped = sum(int(event["data"]["fields"]["count"]) for event in told)
    assert len(told) == 1
    assert told[0]["priority"] == "normal"
    assert dropped == int(counters[2]) > 0
    lines = [line for line in pair.lines if line.startswith("n ")]
    assert len(lines) == 302 - dropped
    assert lines[1:-1] == [line for line in pair.printed if line.startswith("n ")][1 + dropped : -1]
    assert [event["data"]["line"] for event in pair.critical.events] == [
        line for line in pair.printed if line.startswith("A ")
    ]
    ((first, last),) = told[0]["data"]["fields"]["ranges"]
    assert int(last) - int(first) + 1 == dropped


def test_a_state_folder_that_cannot_be_used_ends_the_agent_with_a_clear_line(
    hub: Hub, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """A file in the way: status 1; a second agent on the same folder: status 1, and the first goes on."""
    agent = start(Agent, tmp_path / "one", hub.ports["ingest"], SOURCE.format(port="/dev/null"))
    agent.state.write_text("in the way")
    process = agent.start(wait=False)
    assert process.wait() == 1
    assert "cannot be written" in process.text
    agent.state.unlink()
    first = agent.start()
    second = start(Process, first.popen.args, tmp_path)
    assert second.wait() == 1
    assert f"another process ({first.popen.pid})" in second.text
    assert first.alive


def test_a_spool_that_cannot_be_written_keeps_events_in_memory_until_it_can(pair: Pair) -> None:
    """Another program holds the lock of the spool: the events wait, and are committed and sent afterwards."""
    pair.print(5)
    other = sqlite3.connect(pair.agent.state / "spool.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pair.print_only(50)
    pair.process.wait_for("cannot be written, events wait")
    assert len(pair.normal.events) == 5
    other.execute("COMMIT")
    other.close()
    pair.normal.wait(lambda events: len(events) >= 55)
    assert pair.lines == pair.printed
