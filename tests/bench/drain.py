"""Subscribers that read everything, in a process of their own: connected here, read by ``drain.c``.

Without a C compiler they are read here too, which costs the generator much more.
"""

from __future__ import annotations

import array
import os
import re
import resource
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import board as slots
from tests.bench.board import Board
from tests.bench.event import DIGITS, MARK, SIZE
from tests.bench.peers.base import Answers, Peer


@dataclass(frozen=True)
class Job:
    """What a process of subscribers has to do.

    Attributes:
        peer: whose they are.
        board: their counters.
        numbers: which subscribers it holds.
        program: ``drain.c``, compiled; None where there is no compiler.
        latencies: a file for the latency of each delivery, in nanoseconds.
        name: of a registered client of notifyd, in place of a plain one.
    """

    peer: Peer
    board: Path
    numbers: range
    program: Path | None
    latencies: Path | None = None
    name: str = ""


def run(job: Job) -> None:
    """Is the process."""
    raise_files()
    if job.name:
        connections = [job.peer.registered(job.name)]  # type: ignore[attr-defined]
    else:
        connections = [job.peer.subscriber(number) for number in job.numbers]
    answers = job.peer.answers()
    if job.program is None:
        Reader(job, connections, answers).run()
    else:
        _become(job, connections, answers)


def raise_files() -> None:
    """Raises the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _become(job: Job, connections: list[socket.socket], answers: Answers) -> None:
    """Makes this process the C program, which inherits the connections."""
    assert job.program is not None
    texts = [answers.text(number) for number in job.numbers]
    with tempfile.TemporaryFile() as file:
        file.write(array.array("i", [len(connections), len(texts[0])]).tobytes())
        file.write(array.array("i", [connection.fileno() for connection in connections]).tobytes())
        file.writelines(texts)
        file.seek(0)
        os.dup2(file.fileno(), 0)
    for connection in connections:
        connection.set_inheritable(True)
    sys.stdout.flush()
    os.execv(
        job.program,
        [
            str(job.program), str(job.board), answers.mode, str(answers.every), str(answers.frame),
            str(job.latencies or "-"),
        ],
    )  # fmt: skip


class Reader:
    """The same in Python."""

    def __init__(self, job: Job, connections: list[socket.socket], answers: Answers) -> None:
        self._job, self._connections, self._answers = job, connections, answers
        self._board = Board(job.board)
        self._selector = selectors.DefaultSelector()
        self._latencies = array.array("Q")
        self._rests = [b""] * len(connections)  # what is not answered yet
        self._unfinished = [b""] * len(connections)  # a stamp that has not come in full
        self._places = [0] * len(connections)  # mqtt: bytes of the frame that have come
        self._events = [0] * len(connections)
        self._answered = [0] * len(connections)
        self._answer: Callable[[int, bytes], None] | None = {
            "none": None, "every": self._answer_every, "redis": self._answer_redis, "mqtt": None
        }[answers.mode]  # fmt: skip

    def run(self) -> None:
        """Reads until it is stopped."""
        board, stuck = self._board, 0
        for number, connection in enumerate(self._connections):
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, number)
        board[slots.READY] = 1
        while not board[slots.STOP]:
            while stuck != board[slots.STUCK]:
                if stuck < board[slots.STUCK]:
                    self._selector.unregister(self._connections[stuck])
                    stuck += 1
                else:
                    stuck -= 1
                    self._selector.register(self._connections[stuck], selectors.EVENT_READ, stuck)
            for key, _ in self._selector.select(0.02):
                self._read(key.data)
        if self._job.latencies is not None:
            self._job.latencies.write_bytes(self._latencies.tobytes())

    def _read(self, number: int) -> None:
        try:
            data = self._connections[number].recv(262_144)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._board[slots.CLOSED] += 1
            self._selector.unregister(self._connections[number])
            return
        if self._answers.mode == "mqtt":
            data = self._answer_mqtt(number, bytearray(data))
        marks = data.count(MARK)
        self._events[number] += marks
        self._board[slots.TOTAL] += marks
        self._board[slots.HEADER + number] = self._events[number]
        if self._job.latencies is not None:
            self._take_stamps(number, data)
        if self._answer is not None:
            self._answer(number, self._rests[number] + data)

    def _take_stamps(self, number: int, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        data = self._unfinished[number] + data
        last = data.rfind(MARK)
        cut = last if last >= 0 and last + 1 + DIGITS > len(data) else len(data)
        self._unfinished[number] = data[cut:]
        data = data[:cut]
        self._latencies.extend(now_ns - int(stamp) for stamp in _STAMP.findall(data))

    def _answer_every(self, number: int, _: bytes) -> None:
        while self._events[number] - self._answered[number] >= self._answers.every:
            self._answered[number] += self._answers.every
            self._connections[number].send(self._answers.text(self._job.numbers[number]))

    def _answer_redis(self, number: int, data: bytes) -> None:
        """A reply that is complete is answered; one event is told from the next by its size."""
        found = _REPLY.match(data)
        if found and data.count(MARK) == int(found[1]) and data.endswith(b"\n\r\n"):
            last = data[: -(SIZE + 2 + 6 + 7 + 4 + 2)].rpartition(b"\n")[2]
            self._rests[number] = b""
            self._connections[number].send(
                b"*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$4\r\n1000\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n"
                b"$7\r\nSTREAMS\r\n$1\r\ns\r\n$%d\r\n%s\r\n" % (len(last), last)
            )
        else:
            self._rests[number] = data

    def _answer_mqtt(self, number: int, data: bytearray) -> bytes:
        """Acknowledges, and wipes the packets' ids out, since they can have a mark in them."""
        frame, at, place = self._answers.frame, self._answers.every, self._places[number]
        acks, started = [], self._rests[number]
        for start in range(-place, len(data), frame):
            for where in range(max(0, start + at), min(len(data), start + at + 2)):
                started += bytes([data[where]])
                data[where] = 0
            if start + frame <= len(data):
                acks.append(b"\x40\2" + started)
                started = b""
        self._rests[number], self._places[number] = started, (place + len(data)) % frame
        self._connections[number].send(b"".join(acks))
        return bytes(data)


_STAMP = re.compile(rb"%s(\d{%d})" % (MARK, DIGITS))
_REPLY = re.compile(rb"\*1\r\n\*2\r\n\$1\r\ns\r\n\*(\d+)\r\n")
