"""Sending to a subscriber's socket at once, and its transport only where the socket takes no more.

``transport.write`` of Twisted keeps what it is given, has the reactor call back when the socket is writable, joins what
it has kept, and sends then: two changes of what epoll watches, and a copy of all bytes, for each subscriber and each
piece. Where the socket is plain TCP and has room, one ``send`` does the same. Where it has no room, the rest of a
piece stays what it is, the bytes that all subscribers share, and only the place in it is noted.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp

_FULL = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})


class Outlet:
    """What a subscriber is sent, in order, as its socket takes it.

    All that is written to the transport goes through here, save the last words after :meth:`push`. What waits is at
    most one piece, shared with whoever else was sent it, and what the transport has been given.

    Args:
        transport: of the connection; one that is not just a TCP socket (TLS, a UNIX socket, a test's) is written to,
            and pauses the producer by itself.
        producer: is registered as push producer on the transport. It is told to pause when something waits, and the
            transport tells it to resume when nothing waits there; then :meth:`go_on` must be called.
    """

    __slots__ = ("_at", "_data", "_producer", "_send", "_transport", "_waiting")

    def __init__(self, transport: Any, producer: Any) -> None:
        self._transport = transport
        self._producer = producer
        self._send = _sender(transport)
        self._data = b""  # the piece that is under way, from _at on
        self._at = 0
        self._waiting = False  # the transport will call resumeProducing; it may have bytes of its own till then

    def send(self, data: bytes, start: int = 0) -> None:
        """Sends bytes behind all that was sent before; never raises for what the connection suffers.

        Args:
            data: is kept as it is while some of it waits.
            start: where to begin in it.
        """
        send = self._send
        if send is None:
            self._transport.write(data[start:] if start else data)
            return
        if self._waiting:
            self.push()
            self._transport.write(data[start:] if start else data)
            return
        try:
            start += send(memoryview(data)[start:] if start else data)
        except OSError as error:
            self._data, self._at = data, start
            if error.errno not in _FULL:
                # The transport meets the same error by itself, on the reactor's next turn, and ends the connection.
                self.push()
            self.wait()
            return
        if start < len(data):
            self._data, self._at = data, start
            self.wait()

    def wait(self) -> None:
        """Has the producer pause until the reactor has looked after the others, and the socket has room."""
        if self._send is None or not self._transport.connected:
            return
        # As the transport itself would do it. It has nothing to write perhaps: then it resumes the producer at once
        # when the socket is writable.
        self._waiting = True
        self._transport.producerPaused = True
        self._producer.pauseProducing()
        self._transport.startWriting()

    def go_on(self) -> None:
        """Sends what waits; to be called when the transport resumes the producer."""
        self._waiting = False
        if self._data:
            data, self._data = self._data, b""
            self.send(data, self._at)

    def push(self) -> None:
        """Gives what waits to the transport, so that something else can be written behind it."""
        if self._data:
            data, self._data = self._data, b""
            self._transport.write(data[self._at :])

    @property
    def taken(self) -> int:
        """The bytes that the peer's kernel has acknowledged; 0 where the system does not tell.

        The figure is ``tcpi_bytes_acked``, 64 bits at byte 120 of ``struct tcp_info`` (linux/tcp.h, since 4.1).
        """
        try:
            info = self._transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
            return int(struct.unpack_from("=Q", info, 120)[0])
        except (AttributeError, OSError, struct.error):
            return 0


def _sender(transport: Any) -> Callable[[bytes | memoryview], int] | None:
    """Gives the ``send`` of the transport's socket; None where the transport does more than to send."""
    if type(transport) is not tcp.Server or getattr(transport, "TLS", True):
        return None
    if not (hasattr(transport, "producerPaused") and hasattr(transport, "startWriting")):
        return None
    send: Callable[[bytes | memoryview], int] = transport.getHandle().send
    return send
