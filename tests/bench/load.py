"""Load on a system: producers and subscribers in processes of their own, and what is measured while they run."""

from __future__ import annotations

import array
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.bench import board as slots
from tests.bench import cc, drain, producer
from tests.bench.board import Board
from tests.bench.peers.base import Peer

CONNECT_S = 120.0
"""How long all subscribers may take to connect."""

_spawn = multiprocessing.get_context("spawn")
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Gives the processor time that a process has used, in seconds, all its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_kib(pid: int) -> int:
    """Gives the memory that a process occupies, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has ended")


@dataclass(frozen=True)
class Sample:
    """Where everything stands at one moment."""

    at_s: float
    sent: int
    acked: int
    delivered: int
    server_cpu_s: float
    producer_cpu_s: tuple[float, ...]
    drain_cpu_s: tuple[float, ...]

    def rates(self, before: Sample) -> dict[str, Any]:
        """Gives what happened since ``before``, per second, and the generator's idle shares."""
        wall = self.at_s - before.at_s
        delivered = self.delivered - before.delivered
        server = self.server_cpu_s - before.server_cpu_s
        return {
            "deliveries_s": delivered / wall,
            "sent_s": (self.sent - before.sent) / wall,
            "acked_s": (self.acked - before.acked) / wall,
            "server_cpu": server / wall,
            "cpu_s_per_million": 1e6 * server / delivered if delivered else None,
            "idle_producer": _idle(self.producer_cpu_s, before.producer_cpu_s, wall),
            "idle_drain": _idle(self.drain_cpu_s, before.drain_cpu_s, wall),
        }


def _idle(now: Sequence[float], before: Sequence[float], wall: float) -> float | None:
    """Gives the idle share of the busiest process."""
    used = [(one - other) / wall for one, other in zip(now, before, strict=True)]
    return 1 - max(used) if used else None


class Load:
    """Everything that is connected to a system; ended with the block that it is used in.

    Args:
        peer: its server runs.
        folder: for the counters.
    """

    def __init__(self, peer: Peer, folder: Path) -> None:
        self._peer, self._folder = peer, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._processes: list[Any] = []
        self._boards: list[Board] = []
        self.producers: list[tuple[Any, Board]] = []
        self.drains: list[tuple[Any, Board]] = []
        self._lead_drains: list[Path] = []
        self.subscribers = 0

    def __enter__(self) -> Load:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for board in self._boards:
            board[slots.STOP] = 1
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join(5)
        for board in self._boards:
            board.close()

    def _start(self, run: Callable[[Any], None], job: Any, connections: int) -> tuple[Any, Board]:
        board = Board(job.board, connections)
        self._boards.append(board)
        process = _spawn.Process(target=run, args=(job,))
        process.start()
        self._processes.append(process)
        return process, board

    # --- subscribers ---------------------------------------------------------------------------------------

    def subscribe(self, count: int, *, latencies: Path | None = None, name: str = "", processes: int = 1) -> Board:
        """Connects subscribers, and waits until all are; gives the counters of the last process.

        Args:
            count: how many.
            latencies: a file (one process only) for the latency of each delivery.
            name: a registered client of notifyd.
            processes: among which they are divided.
        """
        program = cc.build(Path(__file__).with_name("drain.c")) if cc.compiler() else None
        ends = [self.subscribers + count * part // processes for part in range(processes + 1)]
        for first, last in itertools.pairwise(ends):
            path = self._folder / f"drain-{len(self._boards)}"
            job = drain.Job(self._peer, path, range(first, last), program, latencies, name)
            started = self._start(drain.run, job, last - first)
            self.drains.append(started)
            if not name:
                self._lead_drains.append(path)
        self.subscribers += 0 if name else count
        for process, board in self.drains:
            self._wait(process, board, slots.READY, CONNECT_S, "subscribers connect")
        return self.drains[-1][1]

    # --- producers -----------------------------------------------------------------------------------------

    def produce(self, count: int = 1, **job: Any) -> list[tuple[Any, Board]]:
        """Connects producers, has them begin together, and gives them.

        Args:
            count: how many.
            job: see :class:`producer.Job`.
        """
        started = []
        for number in range(len(self.producers), len(self.producers) + count):
            path = self._folder / f"producer-{len(self._boards)}"
            task = producer.Job(self._peer, number, path, drains=self._lead_drains, subscribers=self.subscribers, **job)
            started.append(self._start(producer.run, task, 0))
        for process, board in started:
            self._wait(process, board, slots.READY, CONNECT_S, "producers connect")
        for _, board in started:
            board[slots.GO] = 1
        self.producers += started
        return started

    def finish(self, timeout: float = 60.0) -> None:
        """Has the producers stop, and waits until all that they sent is acknowledged."""
        for process, board in self.producers:
            board[slots.STOP] = 1
            process.join(timeout)
            if process.exitcode:
                raise RuntimeError(f"a producer of {self._peer.name} ended with status {process.exitcode}")

    def wait_done(self, timeout: float) -> None:
        """Waits until the producers have sent their count and it is acknowledged."""
        for process, board in self.producers:
            self._wait(process, board, slots.DONE, timeout, "events are acknowledged")

    # --- what is measured ----------------------------------------------------------------------------------

    def sample(self) -> Sample:
        """Looks at everything."""
        return Sample(
            time.monotonic(),
            sum(board[slots.TOTAL] for _, board in self.producers),
            sum(board[slots.ACKED] for _, board in self.producers),
            sum(board[slots.TOTAL] for _, board in self.drains),
            cpu_s(self._peer.pid),
            tuple(cpu_s(process.pid) for process, _ in self.producers if process.is_alive()),
            tuple(cpu_s(process.pid) for process, _ in self.drains),
        )

    def measure(self, warm_s: float, seconds: float) -> dict[str, Any]:
        """Lets it run, and gives the rates of the time after the warm-up.

        Raises:
            RuntimeError: a process has ended or a connection was closed.
        """
        self.check(warm_s)
        before = self.sample()
        self.check(seconds)
        return self.sample().rates(before)

    def check(self, seconds: float) -> None:
        """Waits, and sees that everything still runs."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))
            self.look()

    def look(self) -> None:
        """Sees that everything still runs.

        Raises:
            RuntimeError: it does not.
        """
        for process, board in self.producers + self.drains:
            if process.exitcode:
                raise RuntimeError(f"a process of the generator ended with status {process.exitcode}")
            if board[slots.CLOSED]:
                raise RuntimeError(f"{self._peer.name} closed {board[slots.CLOSED]} connections")

    def counts(self) -> list[int]:
        """Gives what each subscriber has read."""
        return [count for _, board in self.drains for count in board.connections()]

    def wait_delivered(self, events: int, timeout: float) -> float:
        """Waits until every subscriber has as many events, or the time is over; gives how long it took."""
        start = time.monotonic()
        while min(self.counts()) < events and time.monotonic() < start + timeout:
            time.sleep(0.01)
            self.look()
        return time.monotonic() - start

    def _wait(self, process: Any, board: Board, slot: int, timeout: float, what: str) -> None:
        end = time.monotonic() + timeout
        while not board[slot]:
            if process.exitcode is not None or time.monotonic() > end:
                raise RuntimeError(f"{self._peer.name}: waited in vain until {what}")
            time.sleep(0.005)


def percentiles(path: Path, skip: int = 0) -> dict[str, float]:
    """Gives how many times stand in a file of nanoseconds, behind the first few, and their p50 and p99 in ms."""
    ordered = sorted(array.array("Q", path.read_bytes())[skip:])
    if not ordered:
        return {"count": 0}
    at = {"p50_ms": 0.5, "p99_ms": 0.99}
    return {"count": len(ordered)} | {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6 for name, share in at.items()
    }
