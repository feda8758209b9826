"""The benchmark: ``make bench``, or ``python -m tests.bench``; options in ``make bench BENCH_ARGS='...'``.

Runs notifyd, other brokers and the limit in turns on the same work with the same load generator, and prints tables
of medians. Each case has a server of its own with an empty log, on loopback, in a temporary folder. What is not
installed is left out with a word. docs/performance.md tells how it is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import cc, report
from tests.bench.agent import agent
from tests.bench.catchup import catchup
from tests.bench.drain import raise_files
from tests.bench.fanout import fanout, stuck
from tests.bench.ingest import growth, ingest, start
from tests.bench.latency import CASES, latency
from tests.bench.memory import files, memory
from tests.bench.peers.base import Peer
from tests.bench.peers.limit import Limit
from tests.bench.peers.mosquitto import Mosquitto
from tests.bench.peers.nats import NatsCore, NatsFile, NatsSync
from tests.bench.peers.notifyd import Notifyd
from tests.bench.peers.redis import Redis
from tests.bench.work import Bench, Options

PEERS: dict[str, Callable[[], Peer]] = {
    kind.key: kind for kind in (Limit, Notifyd, Redis, NatsSync, NatsFile, NatsCore, Mosquitto)
}
ALL = ("fanout", "latency", "ingest", "memory")
OURS = ("stuck", "catchup", "agent", "growth", "files", "start")
"""Work that only notifyd is given: the others have no such part, or no promise about it."""

Case = tuple[str, str, Callable[[], dict[str, Any]]]
"""The name of the work, the name of the case, and what runs it for one peer."""


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--peers", default=",".join(PEERS), help="default: %(default)s; notifyd@TWISTD for another environment's")
    add("--work", default=",".join(ALL + OURS), help="default: %(default)s; the last six are notifyd's alone")
    add("--rounds", type=int, default=3, help="how often each case is run, in turns (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the results there after each case")
    add("--from", dest="source", type=Path, metavar="FILE", help="print, or draw, such results; run nothing")
    add("--draw", type=Path, metavar="FOLDER", help="draw throughput.png and latency.png there, such as in docs")
    add("--folder", type=Path, default=Path("/var/tmp"), help="whose disk is measured (%(default)s)")
    told = {
        "seconds": "how long each case is measured",
        "warm": "for how long it runs before, in seconds",
        "settle": "how long what is under way may take in the end, in seconds",
        "subscribers": "fan-out: S, separated by commas",
        "drains": "fan-out: processes that subscribers are divided among",
        "lead": "fan-out: events that the producer may be ahead of the subscribers; 0 any number; default: the peer's",
        "idle": "memory, files: idle subscribers",
        "files": "files: soft limit of open files",
        "behind": "catchup: events that a client is behind",
        "spool": "agent: events in the spool",
        "sizes": "growth: events in the log, separated by commas",
        "start": "start: events in the log",
    }
    for field in fields(Options):
        value = field.default
        kind = _numbers if isinstance(value, tuple) else float if isinstance(value, float) else int
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        add(f"--{field.name}", type=kind, default=value, help=f"{told[field.name]} ({shown})")
    return parser.parse_args(words)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _peers(words: str) -> list[Peer]:
    """Gives the peers that were named and are installed; says of the others what is missing.

    Raises:
        SystemExit: there is no such peer.
    """
    found = []
    for word in words.split(","):
        key, _, place = word.partition("@")
        if key not in PEERS or (place and key != "notifyd"):
            raise SystemExit(f"there is no peer {word}; there are {', '.join(PEERS)}")
        peer = Notifyd(place) if place else PEERS[key]()
        if missing := peer.missing():
            print(f"{peer.title} is left out: {missing}", flush=True)
        else:
            found.append(peer)
    return found


def _cases(bench: Bench, peer: Peer, work: list[str]) -> list[Case]:
    """Gives what is to be run for a peer."""
    cases: list[Case] = []
    for name in work:
        if name == "fanout":
            cases += [(name, str(s), partial(fanout, bench, peer, s)) for s in bench.options.subscribers]
        elif name == "latency":
            cases += [(name, str(s), partial(latency, bench, peer, s, r)) for s, r in CASES]
        elif name == "ingest" and peer.acknowledges:
            cases += [(name, str(p), partial(ingest, bench, peer, p)) for p in (1, 10)]
        elif name == "memory":
            cases.append((name, "", partial(memory, bench, peer)))
        elif name in OURS and isinstance(peer, Notifyd):
            run = {"stuck": stuck, "catchup": catchup, "agent": agent, "growth": growth, "files": files, "start": start}
            cases.append((name, "", partial(run[name], bench, peer)))
    return cases


def _interleaved(peers: list[Peer], bench: Bench, work: list[str]) -> list[tuple[Peer, Case]]:
    """Gives the cases of one round such that the peers take turns at each."""
    of_peer = {peer: {case[:2]: case for case in _cases(bench, peer, work)} for peer in peers}
    keys = list(dict.fromkeys(key for cases in of_peer.values() for key in cases))
    return [(peer, of_peer[peer][key]) for key in keys for peer in peers if key in of_peer[peer]]


def _machine(folder: Path) -> dict[str, Any]:
    """Gives what the figures depend on: the machine, its disk and what an fdatasync of one block costs there."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(200):
            os.write(file.fileno(), bytes(4096))
            begin = time.monotonic()
            os.fdatasync(file.fileno())
            times.append(time.monotonic() - begin)
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [mount for mount in mounts if folder.resolve().is_relative_to(mount[0])]
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0].partition(": ")[2] if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": max(inside, key=lambda mount: len(mount[0]))[1] if inside else "?",
        "fdatasync_ms": 1000 * statistics.median(times),
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _run(arguments: argparse.Namespace, options: Options, root: Path) -> dict[str, Any]:
    """Runs everything and gives the results."""
    bench, peers, work = Bench(root, options), _peers(arguments.peers), arguments.work.split(",")
    if unknown := set(work) - set(ALL + OURS):
        raise SystemExit(f"there is no work {', '.join(sorted(unknown))}; there is {', '.join(ALL + OURS)}")
    results: dict[str, Any] = {
        "machine": _machine(root),
        "options": vars(options) | {"rounds": arguments.rounds},
        "peers": {
            peer.name: {"title": peer.title, "version": peer.version(), "guarantee": peer.guarantee} for peer in peers
        },
        "runs": [],
    }
    if results["machine"]["filesystem"] in ("tmpfs", "overlay"):
        print(f"mind that {root} is on {results['machine']['filesystem']}: choose a disk with --folder", flush=True)
    if cc.compiler() is None:
        print("subscribers are read in Python, since there is no C compiler: see their idle share", flush=True)
    rounds = [_interleaved(peers, bench, work) for _ in range(arguments.rounds)]
    total, number = sum(map(len, rounds)), 0
    for turn, cases in enumerate(rounds, 1):
        for peer, (name, case, run) in cases:
            number += 1
            try:
                result = run()
                told = report.brief(name, result)
            except (RuntimeError, OSError, AssertionError, sqlite3.Error, subprocess.SubprocessError) as error:
                result, told = {"failed": str(error)}, f"failed: {error}"
            results["runs"].append({"round": turn, "peer": peer.name, "work": name, "case": case, **result})
            print(f"[{number}/{total}] {name} {case} {peer.name}: {told}".replace("  ", " "), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1))
    return results


def main(words: list[str]) -> int:
    """Runs, prints and draws; gives 1 where a case has failed."""
    arguments = _arguments(words)
    if arguments.source:
        results = json.loads(arguments.source.read_text())
    else:
        raise_files()
        root = Path(tempfile.mkdtemp(prefix="notifyd-bench-", dir=arguments.folder))
        options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
        try:
            results = _run(arguments, options, root)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    print("\n" + report.markdown(results))
    if arguments.draw:
        from tests.bench import picture  # matplotlib takes its time, and is needed for nothing else

        for path in picture.draw(results, arguments.draw):
            print(f"drawn: {path}")
    return int(any("failed" in run for run in results["runs"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
