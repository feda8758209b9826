"""(b) Latency at a modest rate, from the producer's write to the subscriber's read."""

from __future__ import annotations

from typing import Any

from tests.bench import board as slots
from tests.bench.load import Load, percentiles
from tests.bench.peers.base import Peer
from tests.bench.work import Bench

CASES = ((1, 200), (100, 200), (1000, 50))
"""Subscribers and events a second."""


def latency(bench: Bench, peer: Peer, subscribers: int, rate: int) -> dict[str, Any]:
    """Gives p50 and p99 over all deliveries."""
    with bench.running(peer) as folder:
        times = folder / "latencies"
        with Load(peer, folder / "load") as load:
            load.subscribe(subscribers, latencies=times)
            # A quarter of a second first, outside of the count: the first event meets code that was never run.
            load.produce(rate=rate, events=max(2, rate // 4), lead=0)
            load.wait_done(30)
            load.check(0.2)
            before = load.drains[0][1][slots.TOTAL]
            load.produce(rate=rate, events=max(1, round(rate * bench.options.seconds)), lead=0)
            start = load.sample()
            load.wait_done(30 + bench.options.seconds)
            rates = load.sample().rates(start)
            sent = sum(board[slots.TOTAL] for _, board in load.producers)
            load.wait_delivered(sent, bench.options.settle)
        result: dict[str, Any] = {name: rates[name] for name in ("server_cpu", "idle_producer", "idle_drain")}
        result |= percentiles(times, skip=before)
        expected = sent * subscribers - before
        return result | {"expected": expected, "exact": result["count"] == expected}
