"""(c) Ingest without subscribers, (h) its cost as the log grows, (j) starting with a long log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.bench import board as slots
from tests.bench.load import Load, percentiles, rss_kib
from tests.bench.peers.base import Peer
from tests.bench.peers.notifyd import Notifyd
from tests.bench.work import Bench, fill
from tests.integration.rig import Process

WINDOW = 256
"""Events of each producer that are not acknowledged."""


def ingest(bench: Bench, peer: Peer, producers: int) -> dict[str, Any]:
    """Gives the events acknowledged a second, and how long an acknowledgement takes where there is one producer."""
    with bench.running(peer) as folder:
        times = folder / "times" if producers == 1 else None
        with Load(peer, folder / "load") as load:
            load.produce(producers, window=WINDOW, latencies=times)
            rates = load.measure(bench.options.warm, bench.options.seconds)
            load.finish()
            acked = sum(board[slots.ACKED] for _, board in load.producers)
        kept = ("acked_s", "server_cpu", "idle_producer")
        result = {name: rates[name] for name in kept} | {"acked": acked}
        return result | (percentiles(times) if times else {})


def growth(bench: Bench, peer: Peer) -> dict[str, Any]:
    """Gives what an event costs the server as its log grows: rate, processor time and bytes on the disk."""
    result: dict[str, Any] = {}
    block = held = 0
    with bench.running(peer) as folder:
        for size in sorted(bench.options.sizes):
            if size > held:
                _, block = fill(peer, folder, size - held, block + 1)
                held = size
            with Load(peer, folder / f"load-{size}") as load:
                load.produce(first=block + 1)
                rates = load.measure(bench.options.warm, bench.options.seconds)
                load.finish()
                sent = load.producers[0][1][slots.TOTAL]
            block += sent // 10_000 + 2
            held += sent
            result[str(size)] = {
                "acked_s": rates["acked_s"],
                "cpu_us_per_event": 1e6 * rates["server_cpu"] / rates["acked_s"],
                "bytes_per_event": _size(peer.folder) / held,
                "rss_mib": rss_kib(peer.pid) / 1024,
            }
    return result


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def start(bench: Bench, peer: Notifyd) -> dict[str, Any]:
    """Gives how long a start takes until the server is ready: with an empty log, a long one, and after a crash."""
    result: dict[str, Any] = {}
    with bench.running(peer) as folder:
        assert peer.server is not None
        _terminate(peer.server)
        result["empty_s"] = _start(peer)
        fill(peer, folder, bench.options.start)
        _terminate(peer.server)
        result["full_s"] = _start(peer)
        result["events"] = bench.options.start
        fill(peer, folder, 10_000, 1_000_000)
        peer.server.kill()
        result["after_crash_s"] = _start(peer)
    return result


def _terminate(server: Process) -> None:
    server.popen.terminate()
    server.wait(60)


def _start(peer: Peer) -> float:
    begin = time.monotonic()
    peer.run()
    return time.monotonic() - begin
