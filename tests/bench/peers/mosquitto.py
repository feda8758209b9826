"""Mosquitto: MQTT 3.1.1 with QoS 1 and sessions that stay."""

from __future__ import annotations

import getpass
import socket

from tests.bench.event import SIZE
from tests.bench.peers.base import Acks, Answers, Peer, ask, connect, find, first_line

PUBLISH_QOS_1 = 0x32
_TOPIC = b"\0\1s"
_REMAINING = len(_TOPIC) + 2 + SIZE
_BEFORE_ID = bytes([PUBLISH_QOS_1, _REMAINING % 128 | 128, _REMAINING // 128]) + _TOPIC


class _PubAcks(Acks):
    """A PUBACK has four bytes."""

    def count(self, data: bytes) -> int:
        self._count += len(data)
        return self._count // 4


class Mosquitto(Peer):
    """One topic; publisher and subscribers acknowledge each message."""

    key = "mosquitto"
    title = "Mosquitto, QoS 1, persistent"
    guarantee = "the event is in memory; the database is written every autosave_interval (30 minutes) and at exit"
    lead = 1_000  # max_queued_messages: what a subscriber has waiting beyond that is dropped

    def missing(self) -> str | None:
        """Debian's package."""
        return None if find("mosquitto") else "no mosquitto (Debian package mosquitto)"

    def version(self) -> str:
        """As it says."""
        return first_line([find("mosquitto") or "", "-h"])

    def command(self) -> list[str]:
        """Persistence is on; all else that concerns messages is left at its default."""
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {self.folder}/\nset_tcp_nodelay true\nuser {getpass.getuser()}\nlog_type error\n"
        )
        return [find("mosquitto") or "", "-c", str(config)]

    def head(self, producer: int, index: int) -> bytes:
        """PUBLISH with QoS 1 and a packet id, which is free again long before the block comes round."""
        return _BEFORE_ID + (index + 1).to_bytes(2, "big")

    def _client(self, name: str, *, clean: bool) -> socket.socket:
        connection = connect(self.port)
        body = b"\0\4MQTT\4" + bytes([2 if clean else 0, 0, 0, 0, len(name)]) + name.encode()
        answer = ask(connection, bytes([0x10, len(body)]) + body, b"\x20\2")
        if answer != b"\x20\2\0\0":
            raise RuntimeError(f"CONNECT was answered with {answer!r}")
        return connection

    def producer(self, number: int) -> socket.socket:
        """Its session need not stay."""
        return self._client(f"p{number}", clean=True)

    def acks(self) -> Acks:
        """Its answers are PUBACKs."""
        return _PubAcks()

    def subscriber(self, number: int) -> socket.socket:
        """Its session stays."""
        connection = self._client(f"s{number}", clean=False)
        answer = ask(connection, b"\x82\6\0\1" + _TOPIC + b"\1", b"\x90\3")
        if answer != b"\x90\3\0\1\1":
            raise RuntimeError(f"SUBSCRIBE was answered with {answer!r}")
        return connection

    def answers(self) -> Answers:
        """Each message is acknowledged."""
        return Answers("mqtt", every=len(_BEFORE_ID), frame=len(_BEFORE_ID) + 2 + SIZE)
