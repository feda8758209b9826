"""What the harness asks of a system that it measures."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tests.integration.rig import Process, free_ports

START_S = 30.0
"""How long a system may take to start with an empty log."""


@dataclass(frozen=True)
class Answers:
    """What a subscriber has to send while it reads, see ``drain.c``."""

    mode: Literal["none", "every", "redis", "mqtt"] = "none"
    every: int = 0  # every: after how many events; mqtt: where the packet's id stands in a frame
    frame: int = 0  # mqtt: bytes of a frame
    data: str = ""  # every: the answer; %(number)s is the subscriber's, with five figures

    def text(self, number: int) -> bytes:
        """Gives the answer of one subscriber."""
        return (self.data % {"number": f"{number:05d}"}).encode() if self.data else b""


class Acks:
    """Counts acknowledged events in what a producer is sent: ``ACK n`` lines, cumulative, as notifyd has them."""

    def __init__(self) -> None:
        self._rest = b""
        self._count = 0

    def count(self, data: bytes) -> int:
        """Gives how many events are acknowledged in all, once ``data`` has come.

        Raises:
            RuntimeError: the producer is told something else.
        """
        lines, _, self._rest = (self._rest + data).rpartition(b"\n")
        if lines:
            word, _, number = lines[lines.rfind(b"\n") + 1 :].partition(b" ")
            if word != b"ACK" or lines.count(b"ACK") != lines.count(b"\n") + 1:
                raise RuntimeError(f"the producer was told {lines[-200:].decode('utf-8', 'replace')}")
            self._count = int(number)
        return self._count


class Peer(ABC):
    """A system: its server, and how its clients speak.

    It is handed to the processes of the load generator without its server.
    """

    key: ClassVar[str]
    """Its word on the command line."""
    title: ClassVar[str]
    guarantee: ClassVar[str]
    """What holds at the moment it acknowledges an event."""
    acknowledges: ClassVar[bool] = True
    is_durable: ClassVar[bool] = True
    """Whether every subscriber that stays gets every event that was acknowledged."""
    lead: ClassVar[int] = 8192
    """How many events the producer may be ahead of the average subscriber in fan-out: two windows. What is measured
    is then what the whole system keeps up with, not how it delivers while a backlog grows."""
    window: ClassVar[int] = 4096
    """Events of a producer at full speed that are not acknowledged: 1 MiB of them, which is notifyd's window."""
    farewell: ClassVar[tuple[bytes, bytes]] = (b"", b"")
    """What a producer says in the end, and what it is answered, where that tells that all was read."""
    tail: bytes = b""

    def __init__(self) -> None:
        self.port = self.subscriber_port = 0
        self.other_ports: list[int] = []
        self.server: Process | None = None
        self.folder = Path()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"server": None}

    @property
    def name(self) -> str:
        """Gives the word under which results are kept."""
        return self.key

    # --- the server ----------------------------------------------------------------------------------------

    @abstractmethod
    def missing(self) -> str | None:
        """Gives what has to be installed; None where nothing is missing."""

    @abstractmethod
    def version(self) -> str:
        """Gives the version in a few words."""

    @abstractmethod
    def command(self) -> list[str]:
        """Writes the configuration into ``folder`` and gives the command that runs the server."""

    def start(self, folder: Path) -> None:
        """Starts the server with its state in ``folder``, and waits until it answers."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.subscriber_port, *self.other_ports = free_ports(4)
        self.run()

    def run(self) -> None:
        """Starts the server, perhaps again, on what stands in its folder."""
        self.server = Process(self.command(), self.folder)
        self.wait_ready()
        self.prepare()

    def wait_ready(self) -> None:
        """Waits until the server takes connections."""
        end = time.monotonic() + START_S
        assert self.server is not None
        while self.server.alive and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} does not start: {self.server.text[-1000:]}")

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Makes what has to be there before the first client."""

    def stop(self) -> None:
        """Ends the server."""
        if self.server is not None:
            self.server.popen.terminate()
            try:
                self.server.wait(10)
            except subprocess.TimeoutExpired:
                self.server.kill()
            self.server = None

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self.server is not None
        return self.server.popen.pid

    # --- its clients ---------------------------------------------------------------------------------------

    def head(self, producer: int, index: int) -> bytes:
        """Gives what stands in front of a producer's event of that index in a block; always of one length."""
        return b""

    @abstractmethod
    def producer(self, number: int) -> socket.socket:
        """Connects a producer, up to where it can send frames."""

    def acks(self) -> Acks:
        """Gives what counts a producer's acknowledgements."""
        return Acks()

    @abstractmethod
    def subscriber(self, number: int) -> socket.socket:
        """Connects a subscriber, up to where it gets every event that is sent from now on."""

    def answers(self) -> Answers:
        """Gives what subscribers have to answer."""
        return Answers()


def connect(port: int) -> socket.socket:
    """Connects without delay of small writes; a backlog that is full is waited for."""
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection: socket.socket, request: bytes, until: bytes) -> bytes:
    """Sends a request and reads up to the end of its answer.

    Raises:
        RuntimeError: the connection ends before.
    """
    connection.sendall(request)
    answer = b""
    while until not in answer:
        data = connection.recv(65_536)
        if not data:
            raise RuntimeError(f"{request[:80]!r} was answered with {answer[:200]!r}")
        answer += data
    return answer


def find(program: str, *folders: Path) -> str | None:
    """Gives the path of a program, where it is installed."""
    path = ":".join([*map(str, folders), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
    return shutil.which(program) or shutil.which(program, path=path)


def first_line(command: list[str]) -> str:
    """Gives the first line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]
