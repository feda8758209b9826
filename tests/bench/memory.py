"""(d) Memory, idle and for each idle subscriber. (i) Many subscribers under a low soft limit of open files."""

from __future__ import annotations

from typing import Any

from tests.bench import board as slots
from tests.bench.load import Load, rss_kib
from tests.bench.peers.base import Peer
from tests.bench.peers.notifyd import Notifyd
from tests.bench.work import Bench

SETTLE_S = 1.0


def memory(bench: Bench, peer: Peer) -> dict[str, Any]:
    """Gives the memory of a server that nobody uses, and what each idle subscriber adds."""
    count = bench.options.idle
    with bench.running(peer) as folder, Load(peer, folder / "load") as load:
        load.check(SETTLE_S)
        idle = rss_kib(peer.pid)
        load.subscribe(count)
        load.check(SETTLE_S)
        return {
            "idle_mib": idle / 1024,
            "subscribers": count,
            "kib_per_subscriber": (rss_kib(peer.pid) - idle) / count,
        }


def files(bench: Bench, peer: Notifyd) -> dict[str, Any]:
    """Connects many subscribers to a server that was started under a low soft limit, and sends each an event."""
    count = bench.options.idle
    peer.soft_files = bench.options.files
    try:
        with bench.running(peer) as folder, Load(peer, folder / "load") as load:
            result: dict[str, Any] = {"soft_limit": peer.soft_files, "subscribers": count, "served": 0}
            try:
                load.subscribe(count)
            except RuntimeError as error:
                return result | {"reason": str(error), "connected": load.drains[-1][1][slots.READY] * count}
            load.produce(events=10)
            load.wait_done(60)
            load.wait_delivered(10, bench.options.settle)
            return result | {"served": sum(each == 10 for each in load.counts())}
    finally:
        peer.soft_files = 0
