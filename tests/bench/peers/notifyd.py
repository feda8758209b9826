"""notifyd itself: the hub with the path that an agent's events take, HELLO and five rules included."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from tests.bench.event import spool_name
from tests.bench.peers.base import Peer, ask, connect, first_line
from tests.integration.rig import Process

RULES = """
[[rule]]
name = "panels"
type = "panel.*"
priority = "critical"

[[rule]]
name = "intensive care"
source = "/ward3/*"
priority = "critical"

[[rule]]
name = "zone 7"
where = { "fields.zone" = "7" }
priority = "important"

[[rule]]
name = "level"
type = "bench.*"
priority_from = "fields.level"

[[rule]]
name = "load"
type = "bench.*"
source = "/bench/*"
priority = "normal"
"""


class Notifyd(Peer):
    """The hub of this checkout, or of another one.

    Args:
        twistd: the twistd of the environment in which the other one is installed.
    """

    key = "notifyd"
    title = "notifyd"
    guarantee = "the event is on the disk: SQLite, WAL, synchronous=FULL, one fsync a batch"

    def __init__(self, twistd: str = "") -> None:
        super().__init__()
        self._twistd = twistd
        self.soft_files = 0  # the soft limit of open files that it is started under; 0 for the harness's own

    @property
    def name(self) -> str:
        """The name says which one it is."""
        return f"{self.key}@{self._twistd}" if self._twistd else self.key

    def missing(self) -> str | None:
        """It is there, since this is its checkout."""
        return None if Path(self.program()).exists() else f"{self.program()} is not there"

    def version(self) -> str:
        """Of the package."""
        python = Path(self.program()).with_name("python")
        code = "from importlib.metadata import version as v; print('notifyd', v('notifyd'), 'Twisted', v('twisted'))"
        return first_line([str(python), "-c", code])

    def program(self) -> str:
        """Gives the twistd that runs it."""
        return os.path.abspath(self._twistd) if self._twistd else str(Path(sys.executable).with_name("twistd"))

    def command(self) -> list[str]:
        """Everything but the ports, the folder and the rules is left at its default."""
        config = self.folder / "hub.toml"
        names = ("ingest", "normal", "important", "critical")
        ports = (self.port, self.subscriber_port, *self.other_ports)
        listen = [f'{name} = "tcp:{port}:interface=127.0.0.1"' for name, port in zip(names, ports, strict=True)]
        config.write_text("\n".join([f'state = "{self.folder / "state"}"', RULES, "[listen]", *listen, ""]))
        return [self.program(), "-n", "--pidfile=", "notify-hub", "--config", str(config)]

    def run(self) -> None:
        """Starts it, under a limit of its own where one is asked for."""
        command = self.command()
        if self.soft_files:
            command = ["/bin/sh", "-c", f'ulimit -S -n {self.soft_files} && exec "$@"', "sh", *command]
        self.server = Process(command, self.folder)
        self.wait_ready()

    def wait_ready(self, timeout: float = 120.0) -> None:
        """It says so."""
        assert self.server is not None
        self.server.wait_for("notify-hub is ready", timeout)

    def producer(self, number: int) -> socket.socket:
        """One with a spool of its own."""
        connection = connect(self.port)
        ask(connection, b'HELLO {"agent":"load%d","spool":"%s"}\n' % (number, spool_name(number).encode()), b"\n")
        return connection

    def subscriber(self, number: int) -> socket.socket:
        """One that only connects and reads; PONG tells that it is counted in."""
        connection = connect(self.subscriber_port)
        ask(connection, b"PING\n", b"PONG\n")
        return connection

    def registered(self, name: str) -> socket.socket:
        """A registered client, which goes on where it was."""
        connection = connect(self.subscriber_port)
        connection.sendall(b'SUBSCRIBE {"name":"%s"}\n' % name.encode())
        while (answer := _read_line(connection)).startswith(b"{"):
            pass  # what comes before the answer is to be thrown away
        if not answer.startswith(b"OK "):
            raise RuntimeError(f"SUBSCRIBE was answered with {answer!r}")
        return connection


def _read_line(connection: socket.socket) -> bytes:
    """Reads one line and nothing behind it, which is the drain's."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise RuntimeError(f"the connection ended behind {line!r}")
        line += byte
    return line
