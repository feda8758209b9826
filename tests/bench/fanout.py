"""(a) Fan-out: one producer at full speed, and subscribers that read everything. (e) One of them does not."""

from __future__ import annotations

import time
from typing import Any

from tests.bench import board as slots
from tests.bench.load import Load
from tests.bench.peers.base import Peer
from tests.bench.work import Bench


def fanout(bench: Bench, peer: Peer, subscribers: int) -> dict[str, Any]:
    """Gives the deliveries a second; afterwards every subscriber must have had every event."""
    with bench.running(peer) as folder, Load(peer, folder / "load") as load:
        load.subscribe(subscribers, processes=min(bench.options.drains, subscribers))
        load.produce(lead=bench.lead(peer))
        result = load.measure(bench.options.warm, bench.options.seconds)
        load.finish()
        return result | _account(bench, peer, load)


def _account(bench: Bench, peer: Peer, load: Load) -> dict[str, Any]:
    """Waits for what is under way, and compares what was sent with what was read."""
    sent = sum(board[slots.TOTAL] for _, board in load.producers)
    acked = sum(board[slots.ACKED] for _, board in load.producers)
    seconds = load.wait_delivered(sent, bench.options.settle)
    counts = load.counts()
    return {
        "sent": sent,
        "acked": acked if peer.acknowledges else None,
        "settle_s": seconds,
        "fewest": min(counts),
        "most": max(counts),
        "exact": min(counts) == max(counts) == sent,
    }


def stuck(bench: Bench, peer: Peer) -> dict[str, Any]:
    """Compares ten healthy subscribers with nine beside one that reads nothing, and has that one go on."""
    seconds = bench.options.seconds
    with bench.running(peer) as folder, Load(peer, folder / "load") as load:
        drain = load.subscribe(10)
        load.produce(lead=0)
        healthy = load.measure(bench.options.warm, seconds)["deliveries_s"] / 10
        drain[slots.STUCK] = 1
        others = load.measure(bench.options.warm, seconds)["deliveries_s"] / 9
        missed = max(load.counts()) - min(load.counts())
        load.finish()
        sent = load.producers[0][1][slots.TOTAL]
        drain[slots.STUCK] = 0
        start = time.monotonic()
        load.wait_delivered(sent, bench.options.settle + missed / 10_000)
        return {
            "healthy_s": healthy,
            "others_s": others,
            "ratio": others / healthy,
            "missed": missed,
            "resume_s": time.monotonic() - start,
            "exact": min(load.counts()) == max(load.counts()) == sent,
        }
