"""The promise, with processes that are killed at random while events flow."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.rig import Agent, Collector, Hub, Panel, Process, on_both, without_repeats

EVENTS = 20_000
KILLS = 20
LANES = {b"A": "critical", b"B": "important", b"C": "normal"}
SOURCES = """
[[source]]
name = "panel"
port = "{port}"
[[source.rule]]
match = '^A'
priority = "critical"
[[source.rule]]
match = '^B'
priority = "important"
[[source.rule]]
match = '^C'
priority = "normal"
"""


def printed(count: int, start: int = 0) -> list[bytes]:
    """Gives lines that say their lane and their number."""
    return [b"%s %06d" % (b"ABC"[number % 3 : number % 3 + 1], number) for number in range(start, start + count)]


def assert_complete(everyone: dict[str, Collector], lines: list[bytes]) -> None:
    """Each client has each line of its priority, in order, and after dropping repeats exactly once."""
    for letter, lane in LANES.items():
        expected = [line.decode() for line in lines if line[:1] == letter]
        collector = everyone[lane]
        last = expected[-1]
        events = collector.wait(lambda events, last=last: any(e["data"].get("line") == last for e in events[-2000:]))
        mine = [event for event in without_repeats(events) if not event["type"].startswith("notifyd.source")]
        got = [event["data"]["line"] for event in mine]
        assert got == expected, _difference(got, expected)
        assert not collector.gaps


def _difference(got: list[str], expected: list[str]) -> str:
    missing = sorted(set(expected) - set(got))
    return f"missing {missing[:20]} ({len(missing)}), {len(got)} of {len(expected)} came"


def follow(start: Callable[..., Any], hub: Hub) -> dict[str, Collector]:
    """Registered clients on the three ports."""
    return {lane: start(Collector, hub.ports[lane], f"client-{lane}") for lane in LANES.values()}


@on_both
def test_the_hub_is_killed_twenty_times_while_events_flow(hub: Hub, tmp_path: Path, start: Callable[..., Any]) -> None:
    """SIGKILL at random moments: every client has every event, in order, exactly once after dropping repeats."""
    randomness = random.Random(1)
    panel = start(Panel, tmp_path / "panel")
    agent = start(Agent, tmp_path, hub.ports["ingest"], SOURCES.format(port=panel.link))
    agent.start()
    everyone = follow(start, hub)
    lines = printed(EVENTS)
    done = threading.Event()

    def print_all() -> None:
        # A block between two kills on average, so that events flow whenever the hub comes back.
        for block in range(0, EVENTS, 100):
            panel.print(b"".join(line + b"\r\n" for line in lines[block : block + 100]), timeout=120)
            done.wait(0.1)

    printer = threading.Thread(target=print_all, daemon=True)
    printer.start()
    for _ in range(KILLS):
        assert hub.process is not None
        seen = len(everyone["normal"].events)
        everyone["normal"].wait(lambda events, seen=seen: len(events) > seen)
        done.wait(randomness.uniform(0.0, 0.3))
        hub.process.kill()
        hub.start()
    done.set()
    printer.join(60)
    assert_complete(everyone, lines)
    stored = hub.rows("SELECT count(*), count(DISTINCT source || id) FROM event WHERE type = 'notifyd.line'")
    assert stored == [(EVENTS, EVENTS)]


def test_the_agent_is_killed_twenty_times_in_pauses_of_the_printing(
    hub: Hub, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """What was printed before a kill, and read, is committed: every client has everything that was printed."""
    panel = start(Panel, tmp_path / "panel")
    agent = start(Agent, tmp_path, hub.ports["ingest"], SOURCES.format(port=panel.link))
    everyone = follow(start, hub)
    lines = printed(EVENTS)
    randomness = random.Random(2)
    block = EVENTS // KILLS
    for kill in range(KILLS):
        process = agent.start()
        process.wait_for("panel")  # the port is open: what is printed from now on is read
        for begin in range(kill * block, (kill + 1) * block, 100):
            panel.print(b"".join(line + b"\n" for line in lines[begin : begin + 100]))
        wait_committed(agent, lines[(kill + 1) * block - 1], everyone, process)
        threading.Event().wait(randomness.uniform(0.0, 0.1))
        process.kill()
    agent.start()
    assert_complete(everyone, lines)


def wait_committed(agent: Agent, last: bytes, everyone: dict[str, Collector], process: Process) -> None:
    """Waits until the last line is in the spool, or has already gone on to a client."""
    letter = LANES[last[:1]]
    for _ in range(3000):
        if any(event["data"].get("line") == last.decode() for event in everyone[letter].events[-500:]):
            return
        if last.decode() in spooled(agent):
            return
        assert process.alive
        threading.Event().wait(0.01)
    raise AssertionError(f"{last!r} was never committed")


def spooled(agent: Agent) -> set[str]:
    """Gives the lines that stand in the agent's spool."""
    import json

    found: set[str] = set()
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{agent.state / 'spool.db'}?mode=ro", uri=True)) as connection,
    ):
        for lane in LANES.values():
            for (line,) in connection.execute(f"SELECT line FROM {lane}"):
                found.add(json.loads(line)["data"].get("line", ""))
    return found


def test_the_agent_is_killed_twenty_times_while_it_reads(hub: Hub, tmp_path: Path, start: Callable[..., Any]) -> None:
    """At any moment: what the spool had committed when it died arrives, in order, once after dropping repeats."""
    panel = start(Panel, tmp_path / "panel")
    agent = start(Agent, tmp_path, hub.ports["ingest"], SOURCES.format(port=panel.link))
    everyone = follow(start, hub)
    randomness = random.Random(3)
    committed: set[str] = set()
    stop = threading.Event()
    number = 0

    def print_on() -> None:
        nonlocal number
        while not stop.is_set() and number < 5 * EVENTS:
            with contextlib.suppress(AssertionError):
                panel.print(b"".join(line + b"\n" for line in printed(60, number)), timeout=0.5)
            number += 60
            stop.wait(0.02)

    printer = threading.Thread(target=print_on, daemon=True)
    printer.start()
    for _ in range(KILLS):
        process = agent.start()
        seen = len(everyone["normal"].events)
        everyone["normal"].wait(lambda events, seen=seen: len(events) > seen)
        stop.wait(randomness.uniform(0.0, 0.3))
        process.kill()
        committed |= {line for line in spooled(agent) if line[:1] in "ABC"}
    stop.set()
    printer.join(30)
    agent.start()
    for letter, lane in LANES.items():
        mine = {line for line in committed if line[:1].encode() == letter}
        everyone[lane].wait(lambda events, mine=mine: mine <= {event["data"].get("line") for event in events})
        per_spool: dict[str, list[int]] = defaultdict(list)
        for event in without_repeats(everyone[lane].events):
            per_spool[event["id"].partition("-")[0]].append(int(event["sequence"]))
        for sequences in per_spool.values():
            assert sequences == sorted(sequences)


def test_a_power_loss_of_both_machines_loses_nothing_that_was_acknowledged(
    hub: Hub, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """A copy of the state folders as they were after the last acknowledged fsync has every acknowledged event."""
    from tests.integration.rig import Client

    hub_copy, line = (
        tmp_path / "hub-copy",
        '{"id":"s-%d","source":"/a/b","type":"t","priority":"normal","sequence":"%d"}',
    )
    with Client(hub.ports["ingest"]) as producer:
        producer.hello(spool="s")
        for batch in range(20):
            first = batch * 50 + 1
            producer.send(*[line % (n, n) for n in range(first, first + 50)])
            while producer.line() != f"ACK {first + 49}":
                pass
            # Nothing is written after the last ACK but what a power loss may tear off: copy it as it lies there.
            shutil.rmtree(hub_copy, ignore_errors=True)
            shutil.copytree(hub.state, hub_copy)
            with contextlib.closing(sqlite3.connect(hub_copy / "hub.db")) as copy:
                stored = [row[0] for row in copy.execute('SELECT id FROM event ORDER BY "offset"')]
                position = copy.execute("SELECT sequence FROM spool").fetchall()
            assert stored == [f"s-{n}" for n in range(1, first + 50)]
            assert position == [(first + 49,)]
    assert hub.process is not None
    hub.process.kill()
    shutil.rmtree(hub.state)
    hub_copy.rename(hub.state)
    hub.start()
    with Client(hub.ports["ingest"]) as producer:
        assert producer.hello(spool="s")["acked"]["normal"] == 1000


def test_a_power_loss_of_the_agents_machine_loses_nothing_that_was_stored(
    hub: Hub, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """With the hub away: a copy of the state as it was once the lines were committed has all of them."""
    panel = start(Panel, tmp_path / "panel")
    agent = start(Agent, tmp_path, hub.ports["ingest"], SOURCES.format(port=panel.link))
    everyone = follow(start, hub)
    assert hub.process is not None
    hub.process.stop()
    process = agent.start()
    lines = printed(3_000)
    panel.print(b"".join(line + b"\n" for line in lines))
    wait_committed(agent, lines[-1], everyone, process)
    copy = tmp_path / "agent-copy"
    shutil.copytree(agent.state, copy)
    process.kill()
    shutil.rmtree(agent.state)
    copy.rename(agent.state)
    hub.start()
    agent.start()
    assert_complete(everyone, lines)
