"""Clients of the soak that come, go and stall, and check what they are sent; each is a thread that mostly waits."""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from tests.bench.order import Order
from tests.bench.peers.base import connect

TURN_S = 0.2
"""How often a client looks whether it is to stop, and acknowledges."""

MOST_PROBLEMS = 1_000
"""That are kept: the first ones tell what is wrong."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: the connection is reset when it is closed, as by a client that crashes."""


@dataclass
class Soak:
    """What all clients share.

    Attributes:
        port: of the hub's normal events.
        first: the first sequence.
        retention_s: for how long the hub keeps an event.
        stall_s: how long a client may take nothing.
        patience_s: after which it must be closed, since its sockets' buffers are full as well.
        last: the last sequence, once no more are sent.
        ending: no more are sent; who has to read up to the end does, others leave.
        given_up: everybody leaves.
    """

    port: int
    first: int
    retention_s: float
    stall_s: float
    patience_s: float
    last: int | None = None
    ending: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)
    problems: list[str] = field(default_factory=list)
    come: int = 0
    gone: int = 0
    stalled: int = 0
    closed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """Counts a client that has ``come``, ``gone``, ``stalled``, or was ``closed`` by the hub."""
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)

    @property
    def connected(self) -> int:
        """How many are connected."""
        return self.come - self.gone - self.closed


class Guest(threading.Thread):
    """A client; a subclass says how it behaves.

    Args:
        soak: what it shares with the others.
        name: for what is told.
        seed: of its moods.
        share: of a processor's time that it may take for reading, so that it cannot hold up the others.
    """

    def __init__(self, soak: Soak, name: str, seed: int, share: float = 1.0, expected: int | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self.soak, self.share = soak, share
        self.order = Order(self.problem, expected=expected, retention_s=soak.retention_s)
        self.visits = 0
        self.socket: socket.socket | None = None
        self._random = random.Random(seed)

    def problem(self, what: str) -> None:
        """Notes what is wrong."""
        if len(self.soak.problems) < MOST_PROBLEMS:
            self.soak.problems.append(f"{self.name}: {what}")

    def run(self) -> None:
        """Comes and goes until it is over."""
        try:
            while not self.is_done():
                self.visit()
        except Exception as error:  # noqa: BLE001 - whatever it is, the verdict tells it
            if not self.soak.given_up.is_set():
                self.problem(f"ends with {type(error).__name__}: {error}")
            self.leave()

    def visit(self) -> None:
        """Is there once, and away for a while."""
        raise NotImplementedError

    def is_done(self) -> bool:
        """Tells whether it does not come again."""
        return self.soak.ending.is_set()

    def moment(self, least_s: float, most_s: float) -> float:
        """Gives a time that is different each time."""
        return self._random.uniform(least_s, most_s)

    # --- the connection -----------------------------------------------------------------------------------------

    def come(self) -> socket.socket:
        """Connects."""
        self.socket = connect(self.soak.port)
        self.socket.settimeout(TURN_S)
        self.visits += 1
        self.soak.count("come")
        return self.socket

    def leave(self, *, crash: bool = False) -> None:
        """Closes the connection, if there is one, wherever it is in the middle of."""
        if self.socket is not None:
            if crash:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.socket.close()
            self.socket = None
            self.soak.count("gone")

    def read(self, seconds: float, *, acknowledges: bool = False) -> None:
        """Reads and checks, until the time is over; longer while there is an end to be reached."""
        end, acked_s, acked = time.monotonic() + seconds, time.monotonic(), 0
        used_s, since_s = time.thread_time(), time.monotonic()
        assert self.socket is not None
        while time.monotonic() < end and not self.is_done():
            self.take()
            now = time.monotonic()
            if acknowledges and self.order.is_open and self.order.offset != acked and now - acked_s > TURN_S:
                self.socket.sendall(self.order.acknowledge())
                acked_s, acked = now, self.order.offset
            rest_s = (time.thread_time() - used_s) / self.share - (now - since_s)
            if rest_s > 0 and not self.soak.ending.is_set():
                time.sleep(min(rest_s, TURN_S))

    def take(self) -> None:
        """Reads once."""
        assert self.socket is not None
        try:
            data = self.socket.recv(262_144)
        except TimeoutError:
            return
        if not data:
            raise ConnectionError("the hub has closed the connection")
        self.order.feed(data)

    def wait(self, seconds: float) -> None:
        """Waits, unless it is over before."""
        self.soak.ending.wait(seconds)

    def has_everything(self) -> bool:
        """Tells whether the last event has come."""
        last = self.soak.last
        return last is not None and self.order.expected is not None and self.order.expected > last


class Steady(Guest):
    """Reads and checks everything, on one connection from the beginning to the end."""

    def visit(self) -> None:
        """Is its whole life."""
        self.read(float("inf"))
        self.leave()

    def come(self) -> socket.socket:
        """Connects so that nothing is missed of what is sent from now on."""
        found = super().come()
        found.sendall(b"PING\n")
        while not found.recv(5, socket.MSG_PEEK).startswith(b"PONG\n"):
            pass
        return found

    def is_done(self) -> bool:
        """Once the last event has come."""
        return self.soak.given_up.is_set() or self.has_everything()


class Registered(Guest):
    """Has a name, acknowledges, leaves in the middle, comes back, and goes on from where it was.

    Args:
        here_s: how long it stays, at least and at most.
        away_s: how long it is away.
    """

    def __init__(
        self, soak: Soak, name: str, seed: int, share: float, here_s: tuple[float, float], away_s: tuple[float, float]
    ) -> None:
        super().__init__(soak, name, seed, share)
        self._here_s, self._away_s = here_s, away_s

    def visit(self) -> None:
        """Leaves by a crash as often as not, so that its last ACK may not be heard."""
        self.order.connect(subscribes=True)
        self.come().sendall(b'SUBSCRIBE {"name":"%s"}\n' % self.name.encode())
        self.read(self.moment(*self._here_s), acknowledges=True)
        self.leave(crash=self._random.random() < 0.5)
        self.wait(self.moment(*self._away_s))

    def is_done(self) -> bool:
        """Once the last event has come."""
        return self.soak.given_up.is_set() or self.has_everything()


class Short(Guest):
    """Only connects, reads for a moment and goes."""

    def visit(self) -> None:
        """What it had last time tells nothing of what comes."""
        self.order.connect(resume=False)
        self.come()
        self.read(self.moment(0.1, 3.0))
        self.leave(crash=self._random.random() < 0.5)
        self.wait(self.moment(0.1, 5.0))


class Staller(Guest):
    """Connects and reads nothing, until the hub closes it; or goes on before that, and then has missed nothing.

    Args:
        goes_on: whether it does.
    """

    def __init__(self, soak: Soak, name: str, seed: int, *, goes_on: bool) -> None:
        super().__init__(soak, name, seed, share=0.2)
        self._goes_on = goes_on

    def visit(self) -> None:
        """What the hub has closed is seen without reading, which would be taking something."""
        self.order.connect(resume=False)
        found = self.come()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self.read(1.0)
        self.soak.count("stalled")
        if self._goes_on:
            self.wait(self.moment(0.2, 0.7) * self.soak.stall_s)
            self.read(self.moment(1.0, 10.0))
            self.leave()
        else:
            self._wait_closed(found)
        self.wait(self.moment(0.5, 5.0))

    def _wait_closed(self, found: socket.socket) -> None:
        poll = select.poll()
        poll.register(found, 0)  # its end only
        end = time.monotonic() + self.soak.patience_s
        while time.monotonic() < end and not self.soak.ending.is_set():
            if poll.poll(1000 * TURN_S):
                found.close()
                self.socket = None
                self.soak.count("closed")
                return
        if not self.soak.ending.is_set():
            self.problem(f"has taken nothing for {self.soak.patience_s:.0f} s, and is not closed")
        self.leave()
