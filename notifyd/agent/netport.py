"""A serial port behind a server such as ser2net: a TCP connection, raw or with control of the line (RFC 2217)."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import Any

from twisted.internet import defer
from twisted.internet import error as network
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from notifyd import config_agent
from notifyd.agent.linecounters import LineCounters
from notifyd.agent.port import MAX_UNSENT, OpenPort, PortError
from notifyd.agent.telnet import LineSettings, Telnet
from notifyd.endpoints import keep_alive
from notifyd.portname import Network

CONNECT_S = 6.0
"""How long it may take until the server has answered and, with RFC 2217, has set the line."""

IDLE_S = 10
"""How long a connection is silent before the kernel looks whether the server is still there."""

UNANSWERED_MS = 40_000
"""How long the server may leave unanswered what was sent; it may close its window only for as long."""

PROOF_S = 0.5
"""A server that cannot open its port says so in words and closes: bytes alone do not prove that it works."""


@implementer(IPullProducer)
class NetPort(Protocol):
    """A connection to a server that has a serial port.

    Args:
        receiver: gets what the device prints.
        where: what is connected to.
        telnet: speaks RFC 2217; None on a raw connection.

    Attributes:
        ready: fires with the port once what comes is the device's.
    """

    transport: Any
    can_wait = False

    def __init__(self, receiver: Protocol, where: str, telnet: Telnet | None) -> None:
        self.where = where
        self.proof_s = PROOF_S if telnet is None else 0.0
        self.ready: Deferred[OpenPort] = Deferred(lambda _: self._give_up())
        self._receiver = receiver
        self._telnet = telnet
        self._is_open = self._is_over = self._is_pulled = False
        self._outgoing = bytearray()

    # --- the connection ------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Sees that a server that vanishes is noticed, and begins."""
        keep_alive(self.transport, IDLE_S)
        with contextlib.suppress(AttributeError, OSError):
            self.transport.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)
        if self._telnet is None:
            self._open()
        else:
            self.transport.write(self._telnet.begin())

    def dataReceived(self, data: bytes) -> None:
        """Takes what the server sends."""
        if self._is_over:
            return
        if self._telnet is None:
            self._receiver.dataReceived(data)
            return
        printed, answer = self._telnet.receive(data)
        if answer:
            self.transport.write(answer)
        if self._telnet.is_ready and not self._is_open:
            self._open()
        if printed:
            self._receiver.dataReceived(printed)
        if self._telnet.refusal is not None:
            self._lost(PortError(self._telnet.refusal))
            self._give_up()
            return
        self._pull()

    def _open(self) -> None:
        self._is_open = True
        self._receiver.makeConnection(self)
        self.ready.callback(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tells why."""
        if reason.check(network.ConnectionDone):
            said = self._said()
            self._lost(PortError(f"the server has closed the connection{said and ': '}{said}"))
        else:
            self._lost(PortError("the connection to the server is lost"))

    def _said(self) -> str:
        """Gives what the server said instead of setting the line."""
        if self._telnet is None or self._is_open:
            return ""
        text = self._telnet.preamble.decode("ascii", "replace")
        return " ".join(re.sub(r"[^\x20-\x7e]", " ", text).split())

    def _lost(self, why: Exception) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._outgoing.clear()
        if self._is_open:
            self._receiver.connectionLost(Failure(why))
        elif not self.ready.called:
            self.ready.errback(Failure(why))

    def _give_up(self) -> None:
        self._is_over = True
        self.transport.abortConnection()

    # --- for the supervisor --------------------------------------------------------------------------

    def send(self, data: bytes) -> bool:
        """Sends all of ``data`` or nothing; tells whether there was room for it."""
        if self._is_over or len(self._outgoing) + len(data) > MAX_UNSENT:
            return False
        self._outgoing += data
        self._pull()
        return True

    @property
    def unsent(self) -> int:
        """How many bytes wait for the server to take them."""
        return len(self._outgoing) + self._is_pulled

    def _pull(self) -> None:
        """Has the transport ask for what waits whenever it has sent what it was given."""
        if self._outgoing and not self._is_pulled and not self._is_held:
            self._is_pulled = True
            self.transport.registerProducer(self, False)  # asks at once

    @property
    def _is_held(self) -> bool:
        return self._telnet is not None and self._telnet.is_suspended

    def resumeProducing(self) -> None:
        """Gives the transport what waits."""
        if self._outgoing and not self._is_held:
            data = bytes(self._outgoing)
            self._outgoing.clear()
            self.transport.write(self._telnet.encode(data) if self._telnet else data)
        else:
            self._is_pulled = False
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        """Is called when the connection is lost."""
        self._is_pulled = False

    def pause(self) -> None:
        """Reads no more until ``resume``."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Goes on reading."""
        if not self._is_over:
            self.transport.resumeProducing()

    def drain(self) -> None:
        """Hands on what the kernel holds."""
        if not self._is_over and hasattr(self.transport, "doRead"):
            self.transport.doRead()

    def close(self) -> None:
        """Closes the connection at once, but sends what it was given last where the server takes it."""
        if self._is_over:
            return
        is_sent = not self.unsent
        self._lost(network.ConnectionDone())
        if is_sent:
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    def line_counters(self) -> LineCounters | None:
        """Gives what the server told of the line."""
        return None if self._telnet is None else self._telnet.counters


def open_network(
    receiver: Protocol, port: Network, settings: config_agent.Source, reactor: Any, endpoint: Any = None
) -> Deferred[OpenPort]:
    """Connects to a server and, with RFC 2217, sets its line.

    Args:
        receiver: gets what the device prints.
        port: where the server is.
        settings: of the line.
        reactor: connects.
        endpoint: of the server, where it is not that of ``port``.

    Raises:
        PortError: (in the Deferred) it says why there is no port.
    """

    def build(_: object = None) -> NetPort:
        return NetPort(receiver, settings.port, Telnet(line_settings(settings)) if port.is_rfc2217 else None)

    if endpoint is None:
        endpoint = HostnameEndpoint(reactor, port.host.encode(), port.port, timeout=CONNECT_S)
    connected: list[NetPort] = []

    def wait(made: NetPort) -> Deferred[OpenPort]:
        connected.append(made)
        return made.ready

    opening: Deferred[OpenPort] = endpoint.connect(_factory(build)).addCallback(wait)
    opening.addTimeout(CONNECT_S, reactor)
    opening.addErrback(_explained, lambda: bool(connected))
    return opening


def _factory(build: Any) -> Factory:
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = build  # type: ignore[method-assign]
    return factory


def line_settings(settings: config_agent.Source) -> LineSettings:
    """Gives what of a source's settings concerns its line."""
    return LineSettings(
        settings.baudrate,
        settings.bytesize,
        settings.parity,
        float(settings.stopbits),
        settings.xonxoff,
        settings.rtscts,
    )


def _explained(failure: Failure, is_connected: Any) -> Failure:
    """Says for the operator why there is no connection."""
    if failure.check(defer.TimeoutError, network.TimeoutError, network.TCPTimedOutError):
        silent = "the server does not set the line (RFC 2217); if it is raw, name it socket:// instead"
        return Failure(PortError(silent if is_connected() else f"the server has not answered within {CONNECT_S:g} s"))
    if failure.check(network.ConnectionRefusedError):
        return Failure(PortError("the server refuses the connection (does it run, and is this its port?)"))
    if failure.check(network.DNSLookupError):
        return Failure(PortError("the server's name cannot be found"))
    if failure.check(network.NoRouteError):
        return Failure(PortError("there is no way to the server in the network"))
    return failure
