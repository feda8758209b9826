"""A TCP proxy in front of a server, which cuts connections where the test says; it runs in the test's own reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol

Cut = Callable[[bytes], "int | None"]
"""Is given what is passed on next; gives how much of it still is, before the connection is cut, or None."""


def within(number: int, part: float) -> Cut:
    """Cuts within what is passed on at the ``number``-th time from now, counted from 0."""
    left = number

    def look(data: bytes) -> int | None:
        nonlocal left
        left -= 1
        return round(part * len(data)) if left < 0 else None

    return look


def at(mark: bytes, reached: bool) -> Cut:
    """Cuts where ``mark`` comes: behind what it is part of, or in front of it."""

    def look(data: bytes) -> int | None:
        return None if mark not in data else len(data) if reached else 0

    return look


class Proxy(Factory):
    """Passes connections on to a local port.

    ``to_server`` and ``to_client`` are used up at the first cut. With ``keeps`` the server is not told of a cut: its
    session stays, as when a machine vanishes.
    """

    noisy = False

    def __init__(self, port: int, reactor: Any = default_reactor) -> None:
        self.reactor = reactor
        self.target = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        self.to_server: Cut | None = None
        self.to_client: Cut | None = None
        self.keeps = False
        self.cuts = 0
        self.connections = 0
        self._open: set[Any] = set()
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = self._port.getHost().port

    def buildProtocol(self, addr: Any) -> Protocol:
        self.connections += 1
        return _Front(self)

    def passed(self, data: bytes, way: str) -> tuple[bytes, bool]:
        """Gives what is passed on of these bytes, and whether the connection is cut behind them."""
        cut = getattr(self, way)
        count = None if cut is None else cut(data)
        if count is None:
            return data, False
        self.cuts += 1
        self.to_server = self.to_client = None
        return data[:count], True

    async def close(self) -> None:
        """Closes everything."""
        for each in list(self._open):
            each.abortConnection()
        await self._port.stopListening()


class _Front(Protocol):
    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.back: _Back | None = None
        self.early = b""
        self.gone = False

    def connectionMade(self) -> None:
        self.proxy._open.add(self.transport)
        self.proxy.target.connect(Factory.forProtocol(lambda: _Back(self))).addErrback(lambda _: self.cut())

    def dataReceived(self, data: bytes) -> None:
        data, cut = self.proxy.passed(data, "to_server")
        if self.back is None:
            self.early += data
        else:
            self.back.transport.write(data)
        if cut:
            self.cut()

    def cut(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Any) -> None:
        self.proxy._open.discard(self.transport)
        self.gone = True
        if self.back is not None and not self.proxy.keeps:
            self.back.transport.loseConnection()  # what was passed on before goes out yet


class _Back(Protocol):
    def __init__(self, front: _Front) -> None:
        self.front = front

    def connectionMade(self) -> None:
        self.front.proxy._open.add(self.transport)
        self.front.back = self
        self.transport.write(self.front.early)
        if self.front.gone and not self.front.proxy.keeps:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.front.gone:
            return
        data, cut = self.front.proxy.passed(data, "to_client")
        self.front.transport.write(data)
        if cut:
            self.front.transport.loseConnection()  # the client has what was passed on
            self.front.gone = True

    def connectionLost(self, reason: Any) -> None:
        self.front.proxy._open.discard(self.transport)
        self.front.transport.loseConnection()
