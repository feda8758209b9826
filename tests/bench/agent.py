"""(g) The agent: lines a second from a pty into its spool, and how fast it drains a long spool."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import board as slots
from tests.bench.load import Load
from tests.bench.peers.notifyd import Notifyd
from tests.bench.work import Bench
from tests.integration.rig import Panel, Process, free_ports

LINE = b"EVENT %08d zone 3 ~ something has happened in the kitchen of the third floor\n"
BEGIN_S = 20.0


def agent(bench: Bench, peer: Notifyd) -> dict[str, Any]:
    """Fills a spool through a pty while there is no hub, then drains it twice: into a sink, and into a real hub."""
    count = bench.options.spool
    result: dict[str, Any] = {"events": count}
    for kind in ("sink", "hub"):
        with bench.running(peer) as folder:
            port, nobody = free_ports(2)
            stored_s = _fill(peer.program(), folder, nobody, count)
            result["lines_s"] = min(result.get("lines_s", stored_s), stored_s)
            if kind == "sink":
                result["sink_acked_s"] = _drain_into_sink(peer.program(), folder, port, count)
            else:
                result["hub_acked_s"] = _drain_into_hub(peer, folder, count)
    return result


def _start(twistd: str, folder: Path, port: int) -> Process:
    config = folder / "agent.toml"
    config.write_text(
        f'name = "load"\nhub = "tcp:127.0.0.1:{port}"\nstate = "{folder / "agent"}"\n'
        f'[[source]]\nname = "panel"\nport = "{folder / "panel"}"\n'
        "[[source.rule]]\nmatch = '^EVENT (?P<number>\\d+) zone (?P<zone>\\d+) (?P<text>.*)$'\n"
        'type = "bench.event"\npriority = "normal"\n'
    )
    process = Process([twistd, "-n", "--pidfile=", "notify-agent", "--config", str(config)], folder)
    process.wait_for("notify-agent is ready")
    return process


def _end(process: Process) -> None:
    process.popen.terminate()
    process.wait(30)


def _held(folder: Path) -> int:
    """Gives how many events lie in the spool."""
    file = f"file:{folder / 'agent' / 'spool.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(file, uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM normal").fetchone()[0])


def _fill(twistd: str, folder: Path, nobody: int, count: int) -> float:
    """Prints lines as fast as they are taken, with no hub; gives the lines a second that were stored."""
    panel = Panel(folder / "panel")
    process = _start(twistd, folder, nobody)
    try:
        start = time.monotonic()
        for first in range(0, count, 1000):
            panel.print(b"".join(LINE % number for number in range(first, min(first + 1000, count))))
        end = time.monotonic() + BEGIN_S
        while _held(folder) < count and time.monotonic() < end:
            time.sleep(0.05)
        wall = time.monotonic() - start
        if (held := _held(folder)) != count:
            raise RuntimeError(f"{held} of {count} lines lie in the spool")
    finally:
        _end(process)
        panel.unplug()
    return count / wall


def _drain_into_hub(peer: Notifyd, folder: Path, count: int) -> float:
    """Gives the events a second that a real hub acknowledges: those that its subscriber has are stored."""
    with Load(peer, folder / "load") as load:
        board = load.subscribe(1)
        panel = Panel(folder / "panel")
        process = _start(peer.program(), folder, peer.port)
        try:
            return _rate(process, lambda: board[slots.TOTAL], count)
        finally:
            _end(process)
            panel.unplug()


class _Sink:
    """A hub that stores nothing and acknowledges everything."""

    def __init__(self, port: int) -> None:
        self.lines = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(BEGIN_S)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError), self._listener.accept()[0] as connection:
            connection.settimeout(BEGIN_S)
            while b"\n" not in connection.recv(4096, socket.MSG_PEEK):
                time.sleep(0.001)
            connection.recv(4096)  # HELLO: nothing follows it before its answer
            acked = dict.fromkeys(("critical", "important", "normal"), 0)
            connection.sendall(b"OK " + json.dumps({"acked": acked, "window": 1 << 20}).encode() + b"\n")
            while data := connection.recv(1 << 20):
                self.lines += data.count(b"\n")
                connection.sendall(b"ACK %d\n" % self.lines)

    def close(self) -> None:
        self._listener.close()
        self._thread.join(5)


def _drain_into_sink(twistd: str, folder: Path, port: int, count: int) -> float:
    """Gives the events a second that the agent sends where the hub costs nothing."""
    sink = _Sink(port)
    panel = Panel(folder / "panel")
    process = _start(twistd, folder, port)
    try:
        return _rate(process, lambda: sink.lines, count)
    finally:
        _end(process)
        panel.unplug()
        sink.close()


def _rate(process: Process, done: Callable[[], int], count: int) -> float:
    """Waits for the first event and the last one, and gives the events a second between them."""
    end = time.monotonic() + BEGIN_S
    while not (first := done()) and time.monotonic() < end:
        time.sleep(0.001)
    start = time.monotonic()
    end = start + 30 + count / 1000
    while done() < count and time.monotonic() < end:
        time.sleep(0.002)
    if done() < count:
        raise RuntimeError(f"{done()} of {count} events were acknowledged: {process.text[-500:]}")
    return (count - first) / (time.monotonic() - start)
