"""(f) Catching up: a registered client that is far behind, alone and beside the live load."""

from __future__ import annotations

import time
from typing import Any

from tests.bench import board as slots
from tests.bench.board import Board
from tests.bench.event import BLOCK
from tests.bench.load import Load
from tests.bench.peers.notifyd import Notifyd
from tests.bench.work import Bench, fill


def catchup(bench: Bench, peer: Notifyd) -> dict[str, Any]:
    """Gives the events a second from the log, and the live rate meanwhile beside the live rate without."""
    behind, seconds = bench.options.behind, bench.options.seconds
    with bench.running(peer) as folder:
        for name in ("beside", "alone"):
            peer.registered(name).close()  # now: what comes from here on is what it is behind
        fill(peer, folder, behind)
        result: dict[str, Any] = {"behind": behind}
        with Load(peer, folder / "live") as load:
            live = load.subscribe(1)
            load.produce(first=behind // BLOCK + 2)
            load.check(bench.options.warm)
            result["live_s"] = _rate(load, live, seconds)
            late = load.subscribe(1, name="beside")  # a process of the generator's, whose start is not the hub's work
            start, before, had = time.monotonic(), live[slots.TOTAL], late[slots.TOTAL]
            while late[slots.TOTAL] < behind and time.monotonic() < start + seconds:
                load.check(0.02)
            wall = time.monotonic() - start
            result["beside_s"] = (late[slots.TOTAL] - had) / wall
            result["live_beside_s"] = (live[slots.TOTAL] - before) / wall
            result["live_ratio"] = result["live_beside_s"] / result["live_s"]
            load.finish()
            sent = behind + load.producers[0][1][slots.TOTAL]
            result["beside_exact"] = _complete(load, late, sent, bench.options.settle + sent / 20_000)
        with Load(peer, folder / "alone") as load:
            start = time.monotonic()
            late = load.subscribe(1, name="alone")
            result["alone_exact"] = _complete(load, late, sent, bench.options.settle + sent / 20_000)
            result["alone_s"] = late[slots.TOTAL] / (time.monotonic() - start)
        return result


def _rate(load: Load, drain: Board, seconds: float) -> float:
    start, before = time.monotonic(), drain[slots.TOTAL]
    load.check(seconds)
    return (drain[slots.TOTAL] - before) / (time.monotonic() - start)


def _complete(load: Load, drain: Board, events: int, timeout: float) -> bool:
    """Waits until a client has everything; one event more would show as well."""
    end = time.monotonic() + timeout
    while drain[slots.TOTAL] < events and time.monotonic() < end:
        load.check(0.02)
    return drain[slots.TOTAL] == events
