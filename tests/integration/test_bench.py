"""The benchmark's harness works and counts exactly; nothing here is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import cc
from tests.bench.event import BLOCK, SIZE, Block
from tests.bench.peers.notifyd import Notifyd
from tests.bench.report import markdown, rate

ROOT = Path(__file__).parent.parent.parent
SHORT = ["--rounds", "1", "--seconds", "0.3", "--warm", "0.1", "--subscribers", "2", "--idle", "3"]


def bench(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    """Runs the benchmark as ``make bench`` does, and gives what it has measured."""
    results = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *SHORT, "--json", str(results), "--folder", str(tmp_path), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == [results], "it leaves something behind"
    return json.loads(results.read_text())["runs"]  # type: ignore[no-any-return]


@pytest.mark.skipif(cc.compiler() is None, reason="the limit and the subscribers' program want a C compiler (cc)")
@pytest.mark.parametrize("peer", ["notifyd", "limit"])
def test_every_event_is_counted_once(tmp_path: Path, peer: str) -> None:
    """Each of two subscribers has read exactly what was sent, and all of that was acknowledged."""
    (run,) = bench(tmp_path, "--peers", peer, "--work", "fanout")
    assert run["sent"] > 0
    assert run["acked"] == run["fewest"] == run["most"] == run["sent"]


def test_work_of_notifyd_alone_runs(tmp_path: Path) -> None:
    """Each event of a backlog and of a spool arrives."""
    few = ["--behind", "2000", "--spool", "500", "--sizes", "100,20000", "--start", "1000"]
    work = "ingest,memory,stuck,catchup,agent,growth,files,start"
    runs = bench(tmp_path, "--peers", "notifyd", "--work", work, *few)
    assert [run["work"] for run in runs] == ["ingest", *work.split(",")]
    of = {run["work"]: run for run in runs}
    assert of["stuck"]["exact"]
    assert of["catchup"]["beside_exact"]
    assert of["catchup"]["alone_exact"]
    assert of["files"]["served"] == 3


def test_blocks_of_events_follow_each_other() -> None:
    """A block that is renewed in place is what it would be if it were made anew."""
    peer = Notifyd()
    renewed, block = Block(peer, first=1), 99_999
    renewed.turn(block)
    assert renewed.data == Block(peer, first=block).data
    lines = bytes(renewed.data).splitlines(keepends=True)
    assert {len(line) for line in lines} == {SIZE}
    events = [json.loads(line) for line in lines]
    assert [int(event["sequence"]) for event in events] == list(range(block * BLOCK, (block + 1) * BLOCK))
    assert len({event["id"] for event in events}) == BLOCK


def test_a_stamp_is_the_figures_behind_the_mark() -> None:
    """So that a subscriber finds the time at which the event was sent."""
    block = Block(Notifyd(), events=2)
    block.stamp(1, 123_456_789)
    first, second = (json.loads(line)["data"]["line"] for line in bytes(block.data).splitlines())
    assert first.startswith("~" + 20 * "0")
    assert second.startswith("~00000000000123456789.")


def test_the_report_has_medians_ratios_and_failures() -> None:
    """Of three rounds the middle one counts; a case that failed is told and leaves the others alone."""
    figures = {"notifyd": (10.0, 30.0, 20.0), "limit": (100.0, 100.0, 100.0)}
    runs: list[dict[str, Any]] = [
        {"round": turn, "peer": peer, "work": "fanout", "case": "1", "deliveries_s": value}
        for peer, values in figures.items()
        for turn, value in enumerate(values, 1)
    ]
    runs.append({"round": 1, "peer": "limit", "work": "fanout", "case": "10", "failed": "no room"})
    about = {"title": "T", "version": "1", "guarantee": "g"}
    machine = dict.fromkeys(("processor", "kernel", "python", "filesystem", "when"), "x") | {"cores": 2}
    text = markdown(
        {
            "machine": machine | {"fdatasync_ms": 1.0},
            "options": {"rounds": 3, "idle": 1},
            "peers": {"limit": about | {"title": "The limit"}, "notifyd": about},
            "runs": runs,
        }
    )
    assert "| T | 20 | - |" in text
    assert "| The limit | 0.20 | - |" in text
    assert "- fanout 10 limit: no room" in text


@pytest.mark.parametrize(
    ("value", "text"), [(8_520_000, "8.52 M"), (540_123, "540,000"), (3_912, "3,910"), (17, "17"), (None, "-")]
)
def test_rates_are_written_with_three_figures(value: float | None, text: str) -> None:
    """More would pretend that they can be repeated."""
    assert rate(value) == text
