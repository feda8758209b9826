"""A hub that does what a test says, line by line, and ``notifyctl`` as a process beside it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

BOUND_S = 20.0
"""How long a test waits at most for anything."""


class Connection:
    """The hub's end of a connection, which reads and writes when the test says so."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(BOUND_S)
        self._file = sock.makefile("rb")

    def line(self) -> bytes:
        """Gives the next line from the client, without its LF; empty at the end."""
        return self._file.readline().rstrip(b"\n")

    def send(self, *lines: bytes) -> None:
        self._sock.sendall(b"".join(line + b"\n" for line in lines))

    def send_raw(self, data: bytes) -> None:
        self._sock.sendall(data)

    def subscribed(self, after: int, stream: str = "normal") -> bytes:
        """Answers SUBSCRIBE, and gives what the client asked for."""
        asked = self.line()
        self.send(f'OK {{"stream":"{stream}","after":"{after}"}}'.encode())
        return asked

    def close(self) -> None:
        # Without the shutdown the file object, which holds the socket too, would keep the connection open.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._sock.close()


class Port:
    """One listening port of the hub, on loopback.

    Args:
        family: AF_INET, AF_INET6 or AF_UNIX.
        address: what to listen on; by default any free port.
    """

    def __init__(self, family: int = socket.AF_INET, address: object = None) -> None:
        self._family = family
        self._sock = socket.socket(family)
        self._connections: list[Connection] = []
        if family != socket.AF_UNIX:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._sock.bind(address or ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        else:
            self._sock.bind(address)
        self._sock.settimeout(BOUND_S)
        self._sock.listen()
        self.address = self._sock.getsockname()

    @property
    def number(self) -> int:
        return int(self.address[1])

    def accept(self) -> Connection:
        """Waits for the next client."""
        connection = Connection(self._sock.accept()[0])
        self._connections.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._sock.close()

    def __enter__(self) -> Port:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_config(folder: Path, **listeners: int | str) -> str:
    """Writes a hub.toml whose endpoints are the given ports of this machine, and gives its path."""
    path = folder / "hub.toml"
    lines = [
        f"{name} = {json.dumps(f'tcp:{where}:interface=127.0.0.1' if isinstance(where, int) else where)}\n"
        for name, where in listeners.items()
    ]
    path.write_text("[listen]\n" + "".join(lines))
    return str(path)


class Process:
    """A ``notifyctl`` that runs."""

    def __init__(self, arguments: Sequence[str], stdout: int, env: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "notifyd.ctl.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=env,
        )
        self._unread: dict[str, bytes] = {}

    def line(self) -> bytes:
        """Waits for the next line on standard output."""
        return self._line(self.popen.stdout)

    def error_line(self) -> str:
        """Waits for the next line on standard error."""
        return self._line(self.popen.stderr).decode()

    def interrupt(self) -> None:
        self.popen.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, bytes, str]:
        """Waits for the end; gives the status and what has not been read of both outputs."""
        out, err = self.popen.communicate(timeout=BOUND_S)
        return (
            self.popen.returncode,
            self._unread.pop("out", b"") + (out or b""),
            (self._unread.pop("err", b"") + (err or b"")).decode(),
        )

    def _line(self, file: object) -> bytes:
        key = "out" if file is self.popen.stdout else "err"
        deadline = time.monotonic() + BOUND_S
        while b"\n" not in self._unread.get(key, b""):
            data = read_some(file.fileno(), deadline)  # type: ignore[attr-defined]
            if not data:
                raise AssertionError(f"no line, but the end after {self._unread.get(key, b'')!r}")
            self._unread[key] = self._unread.get(key, b"") + data
        line, _, self._unread[key] = self._unread[key].partition(b"\n")
        return line


def read_some(fd: int, deadline: float) -> bytes:
    """Waits for something to read; empty at the end."""
    if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise AssertionError("nothing came in time")
    try:
        return os.read(fd, 65536)
    except OSError:  # how the end of a pty's other side is told
        return b""


@contextlib.contextmanager
def notifyctl(*arguments: str, stdout: int = subprocess.PIPE, env: dict[str, str] | None = None) -> Iterator[Process]:
    """Runs ``notifyctl`` beside a test, and sees that it is gone afterwards."""
    process = Process(arguments, stdout, {**os.environ, **(env or {})})
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()
        for file in (process.popen.stdout, process.popen.stderr):
            if file is not None:
                file.close()


def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Runs ``notifyctl`` to its end; gives status, standard output and standard error."""
    with notifyctl(*arguments, env=env) as process:
        status, out, err = process.end()
    return status, out.decode(), err


def event(offset: int, line: str = "", **attributes: object) -> bytes:
    """Gives an event line as the hub sends it."""
    members = {
        "specversion": "1.0",
        "id": f"e-{offset}",
        "source": "/ward3/panel",
        "type": "panel.alarm",
        "time": "2026-11-22T10:00:00.000000Z",
        "priority": "normal",
        "offset": str(offset),
        **attributes,
    }
    return json.dumps({**members, "data": {"line": line or f"line {offset}"}} | attributes).encode()
