"""One producer, in a process of its own: everything is precomputed, and it never waits but for its window."""

from __future__ import annotations

import array
import os
import select
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import board as slots
from tests.bench.board import Board
from tests.bench.event import BLOCK, Block
from tests.bench.peers.base import Peer

SEND = 256 * 1024
"""Bytes of one send at most."""

FINISH_S = 30.0
"""How long the last acknowledgements may take."""


@dataclass(frozen=True)
class Job:
    """What a producer has to do.

    Attributes:
        peer: to whom it sends.
        number: tells it from the others.
        board: its counters.
        window: events that may be unacknowledged; 0 for the peer's own number.
        events: how many it sends; 0 for as many as it can until it is stopped.
        rate: events a second, each with the time at which it is sent; 0 for full speed.
        most: events a second at most, on average, many at once; 0 for any number.
        first: the block of events that it begins with.
        lead: how many events it may be ahead of the average subscriber; 0 for any number.
        drains: the counters of the subscribers' processes, for ``lead``.
        subscribers: how many there are.
        latencies: a file for how long each acknowledgement took, in nanoseconds.
    """

    peer: Peer
    number: int
    board: Path
    window: int = 0
    events: int = 0
    rate: float = 0.0
    most: float = 0.0
    first: int = 1
    lead: int = 0
    drains: list[Path] = field(default_factory=list)
    subscribers: int = 0
    latencies: Path | None = None


def run(job: Job) -> None:
    """Is the process."""
    board = Board(job.board)
    try:
        producer = Producer(job, board)
        board[slots.READY] = 1
        while not board[slots.GO]:
            time.sleep(0.002)
        producer.pace() if job.rate else producer.rush()
        producer.finish()
    finally:
        board.close()


class Producer:
    """The connection and what is under way on it."""

    def __init__(self, job: Job, board: Board) -> None:
        self._job, self._board = job, board
        self._parent = os.getppid()
        self._window = job.window or job.peer.window
        self._block = Block(job.peer, job.number, job.first)
        self._connection = job.peer.producer(job.number)
        self._connection.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN)
        self._polled = select.POLLIN
        self._acks = job.peer.acks()
        self._counts_acks = job.peer.acknowledges
        self._sent = self._acked = 0  # events; a frame that is not complete is not sent
        self._bytes = 0
        self._began_s = 0.0
        self._drains = [Board(path) for path in job.drains]
        self._marks: deque[tuple[int, int]] = deque()  # up to which event was sent when
        self._latencies = array.array("Q")

    # --- at full speed -------------------------------------------------------------------------------------

    def rush(self) -> None:
        """Sends as fast as the window lets it."""
        board, frame = self._board, self._block.frame
        self._began_s = time.monotonic()
        while not board[slots.STOP] and not (self._job.events and self._sent >= self._job.events):
            room = self._room()
            want = (self._sent + room) * frame - self._bytes if room > 0 else 0
            blocked = bool(want) and not self._send(want)
            held = self._job.lead or self._job.most
            self._wait(writable=blocked, milliseconds=0 if want and not blocked else 1 if held else 20)
        while self._bytes % frame:  # the last frame is completed, else its bytes would be no event
            if not self._send(frame - self._bytes % frame):
                self._wait(writable=True, milliseconds=20)

    def _room(self) -> int:
        """Gives how many events may be sent now."""
        room = self._window - (self._sent - self._acked) if self._counts_acks else BLOCK
        if self._job.events:
            room = min(room, self._job.events - self._sent)
        if self._job.most:
            room = min(room, int(self._job.most * (time.monotonic() - self._began_s)) - self._sent)
        if self._job.lead:
            delivered = sum(drain[slots.TOTAL] for drain in self._drains) // max(1, self._job.subscribers)
            room = min(room, self._job.lead - (self._sent - delivered))
        return room

    def _send(self, want: int) -> bool:
        """Sends some of the block; tells whether the socket took any of it."""
        data = self._block.data
        start = self._bytes % len(data)
        with memoryview(data)[start : start + min(want, SEND)] as view:
            try:
                size = self._connection.send(view)
            except BlockingIOError:
                return False
        self._bytes += size
        if start + size == len(data):
            self._block.turn(self._job.first + self._bytes // len(data))
        self._note_sent(self._bytes // self._block.frame)
        return True

    def _note_sent(self, sent: int) -> None:
        if sent != self._sent and self._job.latencies is not None:
            self._marks.append((sent, time.monotonic_ns()))
        self._sent = self._board[slots.TOTAL] = sent

    def _wait(self, *, writable: bool, milliseconds: int) -> None:
        """Reads acknowledgements, after a while where there are none."""
        wanted = select.POLLIN | select.POLLOUT if writable else select.POLLIN
        if wanted != self._polled:
            self._poll.modify(self._connection, wanted)
            self._polled = wanted
        ready = self._poll.poll(milliseconds)
        if not ready and os.getppid() != self._parent:
            raise SystemExit("the harness has gone")
        for _, events in ready:
            if events & ~select.POLLOUT:
                self._read()

    def _read(self) -> None:
        try:
            data = self._connection.recv(262_144)
        except BlockingIOError:
            return
        if not data:
            self._board[slots.CLOSED] = 1
            raise RuntimeError(f"{self._job.peer.name} closed the producer's connection")
        if not self._counts_acks:
            return
        self._acked = self._board[slots.ACKED] = self._acks.count(data)
        if self._job.latencies is not None:
            self._note_acked(time.monotonic_ns())

    def _note_acked(self, now_ns: int) -> None:
        done = len(self._latencies)
        while self._marks and done < self._acked:
            last, sent_ns = self._marks[0]
            some = min(last, self._acked) - done
            self._latencies.extend([now_ns - sent_ns] * some)
            done += some
            if last > self._acked:
                break
            self._marks.popleft()

    # --- at a given rate -----------------------------------------------------------------------------------

    def pace(self) -> None:
        """Sends one event after the other, each with the time at which it is sent."""
        block, pause_ns = self._block, round(1e9 / self._job.rate)
        due_ns = time.monotonic_ns()
        while not self._board[slots.STOP] and not (self._job.events and self._sent >= self._job.events):
            due_ns += pause_ns
            while (left_ns := due_ns - time.monotonic_ns()) > 0:
                time.sleep(min(left_ns / 1e9, 0.05))
            self._wait(writable=False, milliseconds=0)
            block.stamp(self._sent % BLOCK, time.monotonic_ns())
            self._send(block.frame)
            while self._bytes % block.frame:
                self._wait(writable=True, milliseconds=20)
                self._send(block.frame - self._bytes % block.frame)

    # --- the end -------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Waits for the last acknowledgements, and leaves."""
        end = time.monotonic() + FINISH_S
        while self._counts_acks and self._acked < self._sent and time.monotonic() < end:
            self._wait(writable=False, milliseconds=20)
        self._say_farewell(end)
        if self._job.latencies is not None:
            self._job.latencies.write_bytes(self._latencies.tobytes())
        self._board[slots.DONE] = 1
        while not self._board[slots.STOP]:  # a subscription without producers may be another case
            self._wait(writable=False, milliseconds=50)
        self._connection.close()

    def _say_farewell(self, end: float) -> None:
        """Sees that all was read: a connection that is closed at once may lose what it has sent last."""
        request, answer = self._job.peer.farewell
        if request:
            self._connection.setblocking(True)
            self._connection.settimeout(max(0.1, end - time.monotonic()))
            self._connection.sendall(request)
            heard = b""
            while answer not in heard:
                heard = heard[-len(answer) :] + self._connection.recv(65_536)
            self._connection.setblocking(False)
