"""From the last byte of a line to its commit in the spool, and what a line costs: a real agent, with its hub away.

Run it with ``python -m tests.bench.serial``. Each line carries CLOCK_REALTIME of just before it, or the write that it
is part of, was handed to the kernel; the agent notes when each commit was done (``serial_child``). Where a pty is full
the stamp of a write is older than its last byte was taken, so times of the fastest case have up to the 22 KB in it that
a pty holds. CPU is all that the agent's process used, of both its threads, between the first line and the last commit.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import heapq
import os
import re
import select
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.serial_child import NOTE
from tests.integration.rig import Panel, Process, free_ports, release_ports

LINE_BYTES = 60
"""Of a line with its CR LF, as NMEA's are."""

BAUD_BYTES_S = 11_520
"""What a line of 115,200 baud carries in a second, 8N1."""

WRITE_LINES = 60
"""Lines that are written at once where it is to be as fast as it can: below the 4 KiB that a tty passes on at once."""

IDLE_S = 2.0
"""For how long nothing is stored any more where it will never be."""

_STAMP = re.compile(rb'"line":"(\d{19})')
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Result:
    """What one case gave; times in milliseconds."""

    lines: int
    dropped: int
    lines_s: float
    cpu_us: float
    p50: float
    p99: float
    longest: float


def fastest(panels: list[Panel], seconds: float) -> int:
    """Prints to one pty as fast as it takes it; gives how many lines."""
    (panel,) = panels
    os.set_blocking(panel.master, False)
    rest = b"x" * (LINE_BYTES - 22) + b"\r\n"
    lines, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = (b"%019d " % time.time_ns() + rest) * WRITE_LINES
        lines += WRITE_LINES
        while data:
            select.select([], [panel.master], [], 5)
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(panel.master, data) :]
    return lines


def paced(panels: list[Panel], seconds: float) -> int:
    """Prints to each pty as a line of 115,200 baud would, line by line; gives how many lines."""
    rest = b"x" * (LINE_BYTES - 22) + b"\r\n"
    each_s = LINE_BYTES / BAUD_BYTES_S
    begin = time.monotonic()
    due = [(begin + each_s * number / len(panels), number) for number in range(len(panels))]
    heapq.heapify(due)
    lines = 0
    while due[0][0] < begin + seconds:
        when, number = due[0]
        if (left := when - time.monotonic()) > 0:
            time.sleep(left)
        os.write(panels[number].master, b"%019d " % time.time_ns() + rest)
        lines += 1
        heapq.heapreplace(due, (when + each_s, number))
    return lines


def run_case(
    folder: Path, sources: int, load: Callable[[list[Panel], float], int], seconds: float, *, record: bool
) -> Result:
    """Runs an agent with so many sources under a load."""
    panels = [Panel(folder / f"port{number}") for number in range(sources)]
    (nobody,) = free_ports(1)
    config = folder / "agent.toml"
    tables = "".join(
        f'[[source]]\nname = "s{number}"\nport = "{panel.link}"\nrecord = {str(record).lower()}\n'
        "[[source.rule]]\nmatch = '^(?P<sent>\\d+) (?P<text>.*)$'\ntype = \"bench.line\"\n"
        for number, panel in enumerate(panels)
    )
    config.write_text(
        f'name = "bench"\nhub = "tcp:127.0.0.1:{nobody}"\nstate = "{folder / "state"}"\n'
        f"[spool]\nmax_events = 10_000_000\n{tables}"
    )
    log = folder / "commits"
    child = Path(__file__).with_name("serial_child.py")
    root = str(Path(__file__).parents[2])
    process = Process(
        [sys.executable, str(child), str(log), "notify-agent", "--config", str(config)], folder, {"PYTHONPATH": root}
    )
    try:
        process.wait_for("notify-agent is ready")
        cpu, begin = _cpu_s(process), time.monotonic()
        lines = load(panels, seconds)
        _wait_stored(folder, lines)
        took, cpu = time.monotonic() - begin, _cpu_s(process) - cpu
    finally:
        process.stop()
        for panel in panels:
            panel.unplug()
        release_ports()
    times = _latencies(folder, log.read_bytes())
    dropped = lines - len(times)
    took -= IDLE_S if dropped else 0.0
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return Result(lines, dropped, lines / took, cpu / lines * 1e6, p50, p99, times[-1])


def _cpu_s(process: Process) -> float:
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _spool(folder: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(f"file:{folder / 'state' / 'spool.db'}?mode=ro", uri=True))


def _wait_stored(folder: Path, lines: int) -> None:
    """Waits until all lines are stored, or nothing more is: what waits in memory is bounded, and the rest dropped."""
    stored, end = 0, time.monotonic() + IDLE_S
    with _spool(folder) as spool:
        while stored < lines and time.monotonic() < end:
            time.sleep(0.02)
            before, stored = stored, spool.execute("SELECT count(*) FROM normal").fetchone()[0]
            if stored != before:
                end = time.monotonic() + IDLE_S


def _latencies(folder: Path, notes: bytes) -> list[float]:
    """Gives, in ascending order, the milliseconds that each line took which was stored."""
    commits = sorted((sequence, moment) for moment, sequence in NOTE.iter_unpack(notes))
    sequences = [sequence for sequence, _ in commits]
    times: list[float] = []
    with _spool(folder) as spool:
        for sequence, line in spool.execute("SELECT sequence, line FROM normal"):
            if (stamp := _STAMP.search(line)) is not None:
                times.append((commits[bisect.bisect_left(sequences, sequence)][1] - int(stamp[1])) / 1e6)
    return sorted(times)


def main() -> None:
    """Runs the cases and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each case prints")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case runs")
    parser.add_argument("--sources", type=int, default=50, help="ptys of the paced case")
    options = parser.parse_args()
    cases = [
        ("one source, as fast as a pty takes it", 1, fastest),
        (f"{options.sources} sources at 115,200 baud", options.sources, paced),
    ]
    titles = ("lines", "dropped", "lines/s", "CPU us/line", "p50 ms", "p99 ms", "longest ms")
    print(f"{'':50}", *(f"{title:>11}" for title in titles))
    for _ in range(options.rounds):
        for title, sources, load in cases:
            for record in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    result = run_case(Path(folder), sources, load, options.seconds, record=record)
                name = title + (", recorded" if record else "")
                counts = f"{result.lines:11,} {result.dropped:11,} {result.lines_s:11,.0f} {result.cpu_us:11.1f}"
                times = f"{result.p50:11.2f} {result.p99:11.2f} {result.longest:11.1f}"
                print(f"{name:50} {counts} {times}", flush=True)


if __name__ == "__main__":
    main()
