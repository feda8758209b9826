"""Twisted's own TCP transport on a socket that takes as many bytes as the test says, and fails when it says so."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet import error, interfaces, tcp
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.hubparts import Peer

ANY = 10**9
"""Room for whatever comes."""


class Socket:
    """Stands for a socket; what it has taken is in ``received``."""

    def __init__(self, room: int) -> None:
        self.received = bytearray()
        self.room = room
        self.error = 0  # errno that sending meets
        self.sends = 0
        self.shut = self.closed = False

    def send(self, data: bytes | memoryview) -> int:
        self.sends += 1
        number = errno.EBADF if self.closed else errno.EPIPE if self.shut else self.error
        if number:
            raise OSError(number, os.strerror(number))
        if len(data) and not self.room:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        taken = min(self.room, len(data))
        self.received += data[:taken]
        self.room -= taken if self.room < ANY else 0
        return taken

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return bytes(120) + len(self.received).to_bytes(8, "little")

    def setsockopt(self, level: int, option: int, value: object) -> None: ...

    def setblocking(self, on: bool) -> None: ...

    def fileno(self) -> int:
        return -1 if self.closed else 7

    def shutdown(self, how: int) -> None:
        self.shut = True

    def close(self) -> None:
        self.closed = True


@implementer(interfaces.IReactorFDSet)
class Reactor(Clock):
    """A clock that also knows whom the reactor would call back; :meth:`turn` does it."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: set[Any] = set()
        self.writing: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        assert reader.fileno() >= 0
        self.reading.add(reader)

    def addWriter(self, writer: Any) -> None:
        assert writer.fileno() >= 0
        self.writing.add(writer)

    def removeReader(self, reader: Any) -> None:
        self.reading.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        self.writing.discard(writer)

    def removeAll(self) -> list[Any]:
        return []

    def getReaders(self) -> list[Any]:
        return list(self.reading)

    def getWriters(self) -> list[Any]:
        return list(self.writing)

    def turn(self) -> None:
        """Calls each transport that waits and whose socket is writable, once, and what is due."""
        for transport in tuple(self.writing):
            if transport.socket.room or transport.socket.error:
                why = transport.doWrite()
                if why is not None:
                    self.removeReader(transport)
                    self.removeWriter(transport)
                    transport.connectionLost(Failure(why))
        self.advance(0)


def serve(protocol: Any, socket: Socket, reactor: Reactor, kind: type[tcp.Server] = tcp.Server) -> Any:
    """Gives a transport on a socket, as a listening port makes it."""
    server: Any = None
    transport = kind(socket, protocol, ("192.0.2.1", 4242), server, 0, reactor)  # type: ignore[arg-type]
    protocol.makeConnection(transport)
    return transport


class Line:
    """The transport of a :class:`SocketPeer`, as tests see it: a peer that takes nothing, unless it is told to."""

    def __init__(self, protocol: Any, takes: bool) -> None:
        self.socket = Socket(ANY if takes else 0)
        self.reactor = Reactor()
        self.protocol = protocol
        self.server = serve(protocol, self.socket, self.reactor)

    def drain(self, size: int = ANY) -> None:
        """The peer takes so many bytes, and the reactor turns."""
        room, self.socket.room = self.socket.room, max(self.socket.room, size)
        self.reactor.turn()
        self.socket.room = room

    @property
    def waiting(self) -> int:
        """Bytes that the hub holds for it; at least 1 while the reactor is to call."""
        outlet, server = self.protocol._outlet, self.server
        if self.socket.closed or server._aborting:
            return 0
        held = len(outlet._data) - outlet._at if outlet._data else 0
        held += len(server.dataBuffer) - server.offset + server._tempDataLen
        return max(held, len(self.reactor.writing))

    @property
    def written(self) -> bytearray:
        return self.socket.received

    @property
    def ended(self) -> bool:
        return bool(self.socket.shut or self.socket.closed or self.server.disconnecting or self.server._aborting)


class SocketPeer(Peer):
    """A client of the hub on Twisted's own transport."""

    def __init__(self, protocol: Any, takes: bool) -> None:
        self.protocol = protocol
        self.lost = False
        self._read = 0
        self.transport: Any = Line(protocol, takes)

    @property
    def under_way(self) -> bool:
        """Whether something was sent that :meth:`lines` does not give yet."""
        return bool(self.transport.waiting)

    def lose(self) -> None:
        """The connection is lost."""
        self.lost = True
        if not self.transport.socket.closed:
            self.transport.server.connectionLost(Failure(error.ConnectionLost()))

    def lines(self) -> list[bytes]:
        """Gives the whole lines that have come since the last call."""
        written = self.transport.written
        end = written.rfind(b"\n") + 1
        data = bytes(written[self._read : end])
        self._read = max(self._read, end)
        return data.split(b"\n")[:-1]
