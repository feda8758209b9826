"""Real processes, real sockets and real ptys for the integration tests; every wait ends by itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = 30.0
on_both = pytest.mark.parametrize("hub", ["sqlite", "postgresql"], indirect=True)
"""Runs a test on each database."""

LAUNCHER = Path(__file__).with_name("launcher.py")


def free_ports(count: int) -> list[int]:
    """Gives ports that nobody listens on, below the range that the kernel gives to clients.

    Several test processes run side by side: a lock on a file per block keeps them apart for as long as they live.
    """
    for block in range(10_000, 30_000, 20):
        lock = os.open(f"/tmp/notifyd-test-ports-{block}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        ports = range(block, block + count)
        if all(_is_free(port) for port in ports):
            _locks.append((lock, f"/tmp/notifyd-test-ports-{block}"))
            return list(ports)
        os.close(lock)
    raise RuntimeError("no free ports")


_locks: list[tuple[int, str]] = []


def release_ports() -> None:
    """Gives all ports back, at the end of a test."""
    while _locks:
        descriptor, path = _locks.pop()
        os.unlink(path)
        os.close(descriptor)


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Process:
    """A child process whose output can be waited for."""

    def __init__(self, arguments: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
        self.text = ""
        self._condition = threading.Condition()
        self._ended = False
        self.popen = subprocess.Popen(
            arguments,
            cwd=cwd,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        while data := os.read(self.popen.stdout.fileno(), 65_536):
            with self._condition:
                self.text += data.decode("utf-8", "replace")
                self._condition.notify_all()
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def wait_for(self, pattern: str, timeout: float = TIMEOUT, start: int = 0) -> re.Match[str]:
        """Waits for output that matches, and gives the match."""
        found: re.Match[str] | None = None

        def look() -> bool:
            nonlocal found
            found = re.compile(pattern).search(self.text, start)
            return found is not None or self._ended

        with self._condition:
            self._condition.wait_for(look, timeout)
        if found is None:
            raise AssertionError(f"{pattern!r} was not printed; the output is:\n{self.text[-5000:]}")
        return found

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Waits for the end and gives the exit status."""
        status = self.popen.wait(timeout)
        self._reader.join(timeout)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        return status

    def stop(self) -> int:
        """Sends SIGTERM and waits."""
        return self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once, as a crash would."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> int:
        """Sends a signal and waits for the end."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.wait()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.popen.poll() is None

    def memory_mib(self) -> float:
        """Gives the resident memory."""
        for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("the process has no VmRSS")


STREAMS = ("normal", "important", "critical", "error", "all")


class Hub:
    """A hub with a folder of its own, which can be started again on the same ports.

    Args:
        folder: for its state and its configuration.
        settings: lines of the configuration.
        limits: lines of its ``[limits]``.
        url: of its database, if that is not in its state folder.
    """

    def __init__(self, folder: Path, settings: str = "", limits: str = "", url: str | None = None) -> None:
        self.folder = folder
        self.url = url
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "hub-state"
        self.database = self.state / "hub.db"
        ingest, *streams = free_ports(6)
        self.ports = {"ingest": ingest, **dict(zip(STREAMS, streams, strict=True))}
        listen = "\n".join(f'{name} = "tcp:{port}:interface=127.0.0.1"' for name, port in self.ports.items())
        self.config = folder / "hub.toml"
        database = "" if url is None else f'[database]\nurl = "{url}"\n'
        self.config.write_text(
            f'state = "{self.state}"\n{settings}\n{database}[listen]\n{listen}\n[limits]\n{limits}\n'
        )
        self.env: dict[str, str] = {}
        self.process: Process | None = None

    def start(self, *, wait: bool = True) -> Process:
        """Starts the daemon."""
        arguments = [sys.executable, str(LAUNCHER), "notify-hub", "--config", str(self.config)]
        self.process = Process(arguments, self.folder, self.env)
        if wait:
            self.process.wait_for("notify-hub is ready")
        return self.process

    def rows(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Asks the database; parameters are written ``?``."""
        import sqlite3

        import psycopg

        if self.url is not None:
            with psycopg.connect(self.url) as asked:
                return asked.execute(sql.replace("?", "%s"), arguments or None).fetchall()  # type: ignore[call-overload]
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, arguments).fetchall()


class Agent:
    """An agent with a folder of its own and the ptys of its sources."""

    def __init__(self, folder: Path, hub_port: int, sources: str, settings: str = "", name: str = "ward3") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "agent-state"
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'name = "{name}"\nhub = "tcp:127.0.0.1:{hub_port}"\nstate = "{self.state}"\n{settings}\n{sources}\n'
        )
        self.process: Process | None = None

    def start(self, *, wait: bool = True) -> Process:
        """Starts the daemon."""
        self.process = Process(
            [sys.executable, str(LAUNCHER), "notify-agent", "--config", str(self.config)], self.folder
        )
        if wait:
            self.process.wait_for("notify-agent is ready")
        return self.process


class Panel:
    """A device on a pty, behind a name that stays when it is plugged in again."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.master = self.slave = -1
        self.plug()

    def plug(self) -> None:
        """Plugs the device in."""
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        with contextlib.suppress(FileNotFoundError):
            self.link.unlink()
        self.link.symlink_to(os.ttyname(self.slave))

    def unplug(self) -> None:
        """Pulls the cable."""
        if self.master >= 0:
            self.link.unlink()
            os.close(self.slave)
            os.close(self.master)
            self.master = self.slave = -1

    def print(self, data: bytes, timeout: float = TIMEOUT) -> None:
        """Prints, waiting for the reader where the line is full."""
        os.set_blocking(self.master, False)
        end = time.monotonic() + timeout
        while data:
            _, writable, _ = select.select([], [self.master], [], max(0.0, end - time.monotonic()))
            if not writable:
                raise AssertionError("nobody reads what the device prints")
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self.master, data) :]


class Client:
    """A connection to one of the hub's ports, line by line."""

    def __init__(self, port: int, timeout: float = TIMEOUT) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._buffer = b""

    def send(self, *lines: str | bytes) -> None:
        """Sends lines, each with its LF."""
        self.socket.sendall(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))

    def line(self, timeout: float = TIMEOUT) -> str:
        """Gives the next line; an empty string at the end of the connection."""
        self.socket.settimeout(timeout)
        while b"\n" not in self._buffer:
            try:
                data = self.socket.recv(262_144)
            except ConnectionError:
                data = b""
            if not data:
                return ""  # what a crash has torn off is no line
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def lines(self, timeout: float = TIMEOUT) -> Iterator[str]:
        """Gives lines until the connection ends."""
        while line := self.line(timeout):
            yield line

    def event(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Gives the next line as an event."""
        line = self.line(timeout)
        assert line.startswith("{"), f"no event: {line!r}"
        return json.loads(line)  # type: ignore[no-any-return]

    def subscribe(self, **wish: str) -> str:
        """Subscribes, and gives the answer; events before it are thrown away, as the protocol says."""
        self.send("SUBSCRIBE " + json.dumps(wish))
        for line in self.lines():
            if not line.startswith("{"):
                return line
        raise AssertionError("no answer to SUBSCRIBE")

    def hello(self, agent: str = "ward3", spool: str = "aaaa0001") -> dict[str, Any]:
        """Says HELLO and gives what OK tells."""
        self.send("HELLO " + json.dumps({"agent": agent, "spool": spool}))
        answer = self.line()
        assert answer.startswith("OK "), answer
        return json.loads(answer[3:])  # type: ignore[no-any-return]

    def close(self) -> None:
        """Closes the connection."""
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Collector(threading.Thread):
    """A registered client that reads everything, acknowledges it, and comes back whenever the hub does."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.name_ = name
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []  # by time.monotonic(), when each of them was read
        self.gaps: list[str] = []
        self._condition = threading.Condition()
        self._closing = threading.Event()
        self.subscribed = threading.Event()
        self.start()
        assert self.subscribed.wait(TIMEOUT)

    def run(self) -> None:
        """Reads until it is stopped."""
        while not self._closing.is_set():
            try:
                with Client(self.port, 5) as client:
                    self._read(client)
            except OSError:
                self._closing.wait(0.05)

    def _read(self, client: Client) -> None:
        client.send("SUBSCRIBE " + json.dumps({"name": self.name_, "after": "first"}))
        ready = False
        while not self._closing.is_set():
            try:
                line = client.line(0.5)
            except TimeoutError:
                continue
            if not line:
                return
            if line.startswith("OK "):
                ready = True
                self.subscribed.set()
            elif line.startswith("GAP "):
                self.gaps.append(line)
            elif line.startswith("{") and ready:
                read_s = time.monotonic()
                event = json.loads(line)
                with self._condition:
                    self.events.append(event)
                    self.times.append(read_s)
                    self._condition.notify_all()
                if b"\n" not in client._buffer:
                    client.send(f"ACK {event['offset']}")

    def wait(self, enough: Callable[[list[dict[str, Any]]], bool], timeout: float = 60.0) -> list[dict[str, Any]]:
        """Waits until what has come is enough, and gives it."""
        with self._condition:
            if not self._condition.wait_for(lambda: enough(self.events), timeout):
                raise AssertionError(f"only {len(self.events)} events have come; the last: {self.events[-1:]}")
            return list(self.events)

    def close(self) -> None:
        """Stops reading."""
        self._closing.set()
        self.join(TIMEOUT)


def without_repeats(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drops what a registered client drops: events whose source and id have come before."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        first.setdefault((event["source"], event["id"]), event)
    return list(first.values())
