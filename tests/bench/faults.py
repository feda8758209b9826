"""How long a critical event takes while a lookup's database fails: the worst per fault, from write to read.

Run it with ``python -m tests.bench.faults``; ``--timeout`` sets the lookup's, ``--rounds`` repeats each fault. A
critical event shall never take longer than the timeout and 100 ms. ``none`` is a run without a fault: what this
machine, with its other work, adds by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration import faults, rig
from tests.integration.faults import Ward
from tests.postgres import Cluster, require_postgres

ALLOWED_S = 0.1
"""Beyond the timeout."""

OUTAGE_S = 2.0
"""For so long an outage goes on once it was told; faults that are not told are there for as long."""

Fault = contextlib.AbstractContextManager[None]


def run_case(folder: Path, url: str, timeout_s: float, fault: Fault, *, told: bool, powerless: bool) -> list[float]:
    """Gives how long each critical event took, ascending, in seconds."""
    ward = Ward(folder, url, timeout_s, powerless=powerless)
    try:
        ward.clients["critical"].wait(lambda events: len(events) > 50)
        with fault:
            if told:
                ward.process.wait_for("Lookup zone is lost")
            time.sleep(OUTAGE_S)
        if told:
            ward.process.wait_for("Lookup zone works again")
        time.sleep(1)
        return sorted(seen.latency_s for seen in ward.finish()["critical"])
    finally:
        ward.close()
        rig.release_ports()


def cases(server: Cluster) -> dict[str, tuple[Callable[[Path], str], Callable[[str], Fault]]]:
    """Gives for each fault what makes its database, and what makes the fault from the URL."""
    made: dict[str, tuple[Callable[[Path], str], Callable[[str], Fault]]] = {}
    injections = {"none": lambda server, url: contextlib.nullcontext(), **faults.OUTAGES}
    for name, inject in {**injections, "terminated": faults.terminated}.items():
        made[name] = (lambda _: faults.make_postgresql(server), lambda url, inject=inject: inject(server, url))  # type: ignore[misc]
    for name, each in faults.FILE_OUTAGES.items():
        made[name] = (
            faults.make_sqlite,
            lambda url, each=each: each(Path(url.removeprefix("sqlite:///"))),  # type: ignore[misc]
        )
    return made


def main() -> None:
    """Runs every fault and prints the worst latencies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeout", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    arguments = parser.parse_args()
    bound_s = arguments.timeout + ALLOWED_S
    server = Cluster(require_postgres())
    print(f"lookup timeout {arguments.timeout:g} s; a critical event may take {bound_s * 1000:.0f} ms")
    print("fault               events  median ms   99 % ms   worst ms  over the bound")
    try:
        for name, (make, inject) in cases(server).items():
            if arguments.only not in name:
                continue
            latencies: list[float] = []
            for _ in range(arguments.rounds):
                server.start()
                with tempfile.TemporaryDirectory() as folder:
                    url = make(Path(folder))
                    told = name not in ("none", "terminated")
                    latencies += run_case(
                        Path(folder), url, arguments.timeout, inject(url), told=told,
                        powerless=name == "folder forbidden",
                    )  # fmt: skip
            latencies.sort()
            over = sum(latency > bound_s for latency in latencies)
            figures = (latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100], latencies[-1])
            shown = "  ".join(f"{figure * 1000:9.1f}" for figure in figures)
            print(f"{name:18}  {len(latencies):6}  {shown}  {over:14}", flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
