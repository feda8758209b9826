"""What the hub does for an event and for a delivery, counted, with bounds: ``python -m tests.work_per_event``.

A whole hub runs in a process of its own, with its log in SQLite and the five rules of the benchmark. One agent says
HELLO and sends batches of one size; subscribers read everything; all of them on sockets of this machine. Time plays no
part: while one event is held on its way into the database, the others of a batch come in, so that they are one batch
however threads run. What is counted depends on the version of Python and SQLite by some percent, and on nothing else.

After a change that makes the hub cheaper, run it, and write what it prints into :data:`BOUNDS`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred

from notifyd.daemon import use_monotonic_clock
from notifyd.hub.producer import IngestProtocol
from notifyd.hub.service import HubDaemon, parse_config
from tests.bench.event import MARK, SIZE, Block
from tests.bench.peers.base import ask, connect
from tests.bench.peers.notifyd import RULES, Notifyd
from tests.counting import OWN, Bytecodes, Gate, SocketCalls, Statements
from tests.integration.rig import free_ports, release_ports

reactor: Any = the_reactor  # Twisted declares its interfaces for zope, not for type checkers


class Bound(NamedTuple):
    """How much of something the hub may do.

    Attributes:
        most: above it the test fails.
        now: what it was when the bound was set, on Python 3.11.
        what: is counted.
    """

    most: float
    now: str
    what: str


BOUNDS = {
    # For an event, in a batch of 1,000, with one subscriber.
    "reactor": Bound(165, "132", "own bytecodes in the reactor's thread"),
    "database": Bound(2, "0.9", "own bytecodes in the database's thread"),
    "library": Bound(18, "11.9 to 12.4", "bytecodes of Twisted and Python's library, in both"),
    "steps": Bound(78, "65.2", "steps of SQLite's machine"),
    "held_blocks": Bound(2.9, "2.3", "blocks of memory held while it waits for the database"),
    "held_bytes": Bound(600, "482", "bytes of them"),
    "peak_bytes": Bound(1_750, "1,400", "bytes at most until it is published and acknowledged"),
    "kept_blocks": Bound(0.5, "0.06", "blocks kept afterwards: none are an event's own"),
    "kept_bytes": Bound(420, "342", "bytes of them: the line in the backplane, 340, and where it stands"),
    # For a batch of 1,000 events, the first of which is stored by itself.
    "statements": Bound(3, "2", "statements"),
    "commits": Bound(2, "2", "commits, each of which is one fsync"),
    "receives": Bound(9, "7 or 8", "calls of recv for all connections; 2 are for what the check itself asks"),
    "answers": Bound(3, "2", "calls of send to the agent: ACKs"),
    # For each subscriber more.
    "sends": Bound(9, "7", "calls of send, a batch: 64 KiB at once, and the first event by itself"),
    "delivery": Bound(1.0, "0.74", "own bytecodes a delivery"),
    "delivery_library": Bound(0.6, "0.36 to 0.39", "bytecodes of Twisted a delivery"),
}
"""By name; a fifth to a quarter above what was counted, more where it is little."""

EVENTS = 1_000
"""In a batch: fewer than the hub stores at once, and 250 KiB, which the window and the sockets' buffers hold."""

BATCHES = 4
MANY = 10
"""Subscribers of the second run: the difference to the first, with one, is what deliveries cost."""

WAIT_S = 60.0
"""For what should come at once: nobody waits for it unless something is broken."""


# --- the process that is counted ---------------------------------------------------------------------------


class Client:
    """A subscriber that keeps count of the events that it has."""

    def __init__(self, port: int) -> None:
        self._connection = connect(port)
        ask(self._connection, b"PING\n", b"PONG\n")
        self._events = 0

    def read(self, events: int) -> None:
        """Reads up to so many events since the beginning; sees then that no more come."""
        while self._events < events:
            self._events += self._connection.recv(1 << 20).count(MARK)
        assert self._events == events
        assert ask(self._connection, b"PING\n", b"PONG\n") == b"PONG\n"


class Load(threading.Thread):
    """Sends one batch after the other, and has everything looked at in between.

    Args:
        ports: the hub's, for producers and for normal events.
        subscribers: how many there are.
        gate: in front of the database.
        look: gives what has been counted so far; is called when nothing is under way, and when a batch is in hand.
        done: is called in the end with what was counted for each batch: before, in hand, after.
    """

    def __init__(
        self,
        ports: tuple[int, int],
        subscribers: int,
        gate: Gate,
        look: Callable[[], dict[str, int]],
        done: Callable[[list[list[dict[str, int]]]], None],
    ) -> None:
        super().__init__(daemon=True)
        self._ports, self._subscribers, self._gate, self._look, self._done = ports, subscribers, gate, look, done
        self._sent = 0

    def run(self) -> None:
        """Is the thread."""
        batches = []
        try:
            agent = self._connect()
            clients = [Client(self._ports[1]) for _ in range(self._subscribers)]
            data = bytes(Block(Notifyd()).data)
            self._batch(agent, clients, data)  # statements are prepared, buffers have grown
            batches = [self._batch(agent, clients, data) for _ in range(BATCHES)]
        finally:
            self._gate.open()
            self._done(batches)

    def _connect(self) -> socket.socket:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:  # the hub says that it is ready by listening
            with contextlib.suppress(ConnectionRefusedError):
                agent = connect(self._ports[0])
                agent.settimeout(WAIT_S)
                ask(agent, b'HELLO {"agent":"load","spool":"b000"}\n', b"\n")
                return agent
            time.sleep(0.02)
        raise TimeoutError("the hub does not start")

    def _batch(self, agent: socket.socket, clients: Iterable[Client], data: bytes) -> list[dict[str, int]]:
        """Has one event wait for the database until all others of a batch are in hand."""
        before = self._look()
        self._gate.arm()
        agent.sendall(self._take(data, 1))
        self._gate.wait_reached(WAIT_S)
        # PONG tells that everything in front of it was read.
        ask(agent, self._take(data, EVENTS - 1) + b"PING\n", b"PONG\n")
        in_hand = self._look()
        self._gate.open()
        heard = b""
        while b"ACK %d\n" % self._sent not in heard:
            heard += agent.recv(65_536)
        for client in clients:
            client.read(self._sent)
        ask(agent, b"PING\n", b"PONG\n")
        return [before, in_hand, self._look()]

    def _take(self, data: bytes, events: int) -> bytes:
        start, self._sent = self._sent, self._sent + events
        return data[start * SIZE : self._sent * SIZE]


def settings(state: Path, ports: list[int]) -> str:
    """Gives the text of ``hub.toml``: everything but ports, folder and rules is left at its default."""
    names = ("ingest", "normal", "important", "critical")
    listen = [f'{name} = "tcp:{port}:interface=127.0.0.1"' for name, port in zip(names, ports, strict=True)]
    return "\n".join([f'state = "{state}"', RULES, "[listen]", *listen, ""])


def count_in_this_process(kind: str, subscribers: int, *, wasteful: bool) -> list[list[dict[str, int]]]:
    """Runs a hub under load until its end; for a process of its own.

    Args:
        kind: ``work`` or ``memory``.
        subscribers: how many there are.
        wasteful: whether the hub does more than it has to.
    """
    gate = Gate()
    statements = Statements(gate, steps=kind == "work")
    statements.install(_waste() if wasteful else sqlite3.Connection)
    found: list[list[dict[str, int]]] = []
    looks = [_look_at_memory] if kind == "memory" else []

    def look() -> dict[str, int]:
        return {name: count for each in looks for name, count in each().items()}

    def finish(batches: list[list[dict[str, int]]]) -> None:
        found.extend(batches)
        reactor.callFromThread(stop)

    def stop() -> None:
        stopped: Deferred[Any] = daemon.stopService()
        stopped.addBoth(lambda _: reactor.stop())

    with tempfile.TemporaryDirectory(prefix="notifyd-work-") as folder:
        ports = free_ports(4)
        daemon = HubDaemon(reactor, parse_config(settings(Path(folder) / "state", ports), "hub.toml"))
        use_monotonic_clock(reactor)
        Load((ports[0], ports[1]), subscribers, gate, look, finish).start()  # in front of what counts threads
        if kind == "memory":
            tracemalloc.start()
        else:
            bytecodes, sockets = Bytecodes(), SocketCalls()
            looks += [bytecodes.counts, sockets.counts, statements.counts]
            sockets.install()
            bytecodes.install()
        reactor.callWhenRunning(daemon.startService)
        reactor.run()
        sys.settrace(None)
        release_ports()
    return found


def _look_at_memory() -> dict[str, int]:
    """Gives blocks and bytes that are in use, and the most bytes since the last look."""
    gc.collect()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    return {"blocks": sys.getallocatedblocks(), "bytes": now, "peak": peak}


# --- a hub that does more than it has to ---------------------------------------------------------------------

WASTE = """
kept = []

def make(received):
    def dataReceived(protocol, data):
        for line in data.splitlines():
            kept.append([str(number) for number in range(20)])
            for _ in range(600):
                pass
        return received(protocol, data)
    return dataReceived

def commit(connection, count):
    for number in range(count):
        connection.execute("SELECT 1").fetchone()
        for _ in range(10):
            pass
"""
"""Is counted as the hub's own. An event has 600 turns, 20 objects and, at each commit, six questions: more than the
bounds allow by themselves, so that it is found in a hub that has become cheaper, too."""


def _waste() -> type[sqlite3.Connection]:
    """Has each event run and keep something in the reactor's thread, and each commit ask many small questions."""
    space: dict[str, Any] = {}
    exec(compile(WASTE, f"{OWN}/waste.py", "exec"), space)
    IngestProtocol.dataReceived = space["make"](IngestProtocol.dataReceived)  # type: ignore[method-assign]

    class Connection(sqlite3.Connection):
        def commit(self) -> None:
            space["commit"](self, 6 * EVENTS)
            super().commit()

    return Connection


# --- what is made of it --------------------------------------------------------------------------------------


def run(kind: str, subscribers: int, *, wasteful: bool = False) -> list[list[dict[str, int]]]:
    """Counts in a process of its own, without the tracer of a coverage that may run here."""
    command = [sys.executable, "-m", "tests.work_per_event", "--count", kind, "--subscribers", str(subscribers)]
    done = subprocess.run(
        [*command, "--wasteful"] if wasteful else command,
        cwd=Path(__file__).parent.parent,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * WAIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the counted hub has ended with status {done.returncode}: {done.stderr[-3000:]}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def measure(*, wasteful: bool = False) -> dict[str, float]:
    """Gives the figures of :data:`BOUNDS`, each of the batch in which it was least."""
    one, many = (run("work", subscribers, wasteful=wasteful) for subscribers in (1, MANY))
    memory = run("memory", 1, wasteful=wasteful)
    return _ingest_figures(one) | _memory_figures(memory) | _delivery_figures(one, many)


def _least(batches: list[list[dict[str, int]]], *names: str, since: int = 0, until: int = 2) -> int:
    """Gives what was counted between two looks at a batch, in the batch in which that is least."""
    return min(sum(looks[until][name] - looks[since][name] for name in names) for looks in batches)


def _ingest_figures(one: list[list[dict[str, int]]]) -> dict[str, float]:
    return {
        "reactor": _least(one, "reactor") / EVENTS,
        "database": _least(one, "thread") / EVENTS,
        "library": _least(one, "library_reactor", "library_thread") / EVENTS,
        "steps": _least(one, "steps") / EVENTS,
        "statements": _least(one, "statements"),
        "commits": _least(one, "commits"),
        "receives": _least(one, "receives"),
    }


def _memory_figures(memory: list[list[dict[str, int]]]) -> dict[str, float]:
    return {
        "held_blocks": _least(memory, "blocks", until=1) / EVENTS,
        "held_bytes": _least(memory, "bytes", until=1) / EVENTS,
        "peak_bytes": min(looks[2]["peak"] - looks[0]["bytes"] for looks in memory) / EVENTS,
        "kept_blocks": _least(memory, "blocks") / EVENTS,
        "kept_bytes": _least(memory, "bytes") / EVENTS,
    }


def _delivery_figures(one: list[list[dict[str, int]]], many: list[list[dict[str, int]]]) -> dict[str, float]:
    def each(name: str, since: int = 1) -> float:
        return (_least(many, name, since=since) - _least(one, name, since=since)) / (MANY - 1)

    sends = each("sends", since=0)
    return {
        "answers": _least(one, "sends") - sends - 2,  # PONG, twice
        "sends": sends - 1,  # PONG
        "delivery": each("reactor") / EVENTS,
        "delivery_library": each("library_reactor") / EVENTS,
    }


def table(figures: dict[str, float]) -> str:
    """Gives the figures beside their bounds."""
    lines = [f"{'':17}{'counted':>10}{'bound':>10}  what"]
    for name, bound in BOUNDS.items():
        mark = "" if figures[name] <= bound.most else "  TOO MUCH"
        lines.append(f"{name:17}{figures[name]:10,.2f}{bound.most:10,.2f}  {bound.what}{mark}")
    return "\n".join(lines)


def main() -> None:
    """Counts, here or in processes of its own, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", choices=["work", "memory"], help=argparse.SUPPRESS)
    parser.add_argument("--subscribers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--wasteful", action="store_true", help="a hub that does more than it has to")
    arguments = parser.parse_args()
    if arguments.count:
        batches = count_in_this_process(arguments.count, arguments.subscribers, wasteful=arguments.wasteful)
        print(json.dumps(batches))
        sys.exit(not batches)  # why stands in front of it
    else:
        print(table(measure(wasteful=arguments.wasteful)))


if __name__ == "__main__":
    main()
