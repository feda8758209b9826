"""Redis: a stream that is written with XADD and read with XREAD."""

from __future__ import annotations

import socket

from tests.bench.event import SIZE
from tests.bench.peers.base import Acks, Answers, Peer, ask, connect, find, first_line


class _Replies(Acks):
    """XADD is answered with an id, a bulk string: ``$15`` and the id."""

    def count(self, data: bytes) -> int:
        if b"-" in data[:1] or b"\n-" in data:
            raise RuntimeError(f"the producer was told {data[:200]!r}")
        self._count += data.count(b"$")
        return self._count


class Redis(Peer):
    """One stream; each subscriber reads it with XREAD BLOCK from the last id that it has."""

    key = "redis"
    title = "Redis, appendfsync always"
    guarantee = "the event is on the disk: the append-only file is fsynced before the answers of a round are sent"

    tail = b"\r\n"

    def missing(self) -> str | None:
        """Debian's package."""
        return None if find("redis-server") else "no redis-server (Debian package redis-server)"

    def version(self) -> str:
        """As it says."""
        return " ".join(first_line([find("redis-server") or "", "--version"]).split()[:3])

    def command(self) -> list[str]:
        """The append-only file is fsynced at every write; all else is left at its default."""
        config = self.folder / "redis.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {self.folder}\nappendonly yes\nappendfsync always\n"
            "maxclients 10100\n"
        )
        return [find("redis-server") or "", str(config)]

    def head(self, producer: int, index: int) -> bytes:
        """XADD s * e EVENT."""
        return b"*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\ne\r\n$%d\r\n" % SIZE

    def producer(self, number: int) -> socket.socket:
        """It needs no words."""
        return connect(self.port)

    def acks(self) -> Acks:
        """Its answers are ids."""
        return _Replies()

    def subscriber(self, number: int) -> socket.socket:
        """The stream is new: reading from its beginning is reading from now on."""
        connection = connect(self.port)
        ask(connection, b"PING\r\n", b"\r\n")
        connection.sendall(
            b"*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$4\r\n1000\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n"
            b"$7\r\nSTREAMS\r\n$1\r\ns\r\n$3\r\n0-0\r\n"
        )
        return connection

    def answers(self) -> Answers:
        """Each reply is followed by the next XREAD."""
        return Answers("redis")
