"""The limit: what this machine can do at all, shown by a relay in C that does nothing else."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.bench import cc
from tests.bench.peers.base import Peer, connect, first_line


class Limit(Peer):
    """``limit.c``, compiled when it is needed."""

    key = "limit"
    title = "C relay (the limit)"
    guarantee = "the event is on the disk: one write and one fdatasync for each read"

    def missing(self) -> str | None:
        """It is compiled."""
        return None if cc.compiler() else "no C compiler (cc)"

    def version(self) -> str:
        """The compiler's."""
        return first_line([cc.compiler() or "cc", "--version"])

    def command(self) -> list[str]:
        """There is nothing to configure."""
        program = cc.build(Path(__file__).with_name("limit.c"))
        return [str(program), str(self.port), str(self.subscriber_port), str(self.folder / "log")]

    def wait_ready(self) -> None:
        """It says so; a connection would do, but would count as a producer for a moment."""
        assert self.server is not None
        self.server.wait_for("ready", 10)

    def producer(self, number: int) -> socket.socket:
        """It needs no words."""
        return connect(self.port)

    def subscriber(self, number: int) -> socket.socket:
        """One that has been accepted by the kernel is taken in before the next producer's bytes are read."""
        return connect(self.subscriber_port)
