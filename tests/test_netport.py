"""Ports behind a server: connected, set, held, lost; on a transport that is moved by hand."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from notifyd.agent.netport import CONNECT_S, PROOF_S, NetPort, open_network
from notifyd.agent.port import MAX_UNSENT, explain
from notifyd.portname import Network, parse_port
from tests.serialtools import settings
from tests.test_telnet import AGREED, CONFIRMED, sub


class Transport(StringTransport):
    """A connection that notes how it ends."""

    aborted = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        producer.resumeProducing()  # as a real one does it, which asks again whenever it has sent what it was given

    def abortConnection(self) -> None:
        self.aborted = True


class Endpoint:
    """A server that answers when the test says so."""

    def __init__(self) -> None:
        self.connecting: Deferred[Any] = Deferred()
        self.factory: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return self.connecting


class Reader(Protocol):
    """Takes what a port delivers."""

    def __init__(self) -> None:
        self.got = b""
        self.lost: list[str] = []

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = Failure(network.ConnectionDone())) -> None:  # noqa: B008
        self.lost.append(explain(reason.value))


class Rig:
    """A port that is being opened."""

    def __init__(self, port: str = "rfc2217://server:2217", **keys: Any) -> None:
        self.clock, self.endpoint, self.reader, self.transport = Clock(), Endpoint(), Reader(), Transport()
        name = parse_port(port)
        assert isinstance(name, Network)
        self.outcome: list[Any] = []
        source = settings(port, **keys)
        self.opening = open_network(self.reader, name, source, self.clock, self.endpoint)
        self.opening.addBoth(self.outcome.append)

    def connect(self) -> NetPort:
        """Has the server take the connection."""
        port: NetPort = self.endpoint.factory.buildProtocol(None)
        port.makeConnection(self.transport)
        self.endpoint.connecting.callback(port)
        return port

    def open(self) -> NetPort:
        """Has the server take the connection and set the line."""
        port = self.connect()
        port.dataReceived(AGREED + CONFIRMED)
        assert self.outcome == [port]
        self.transport.clear()
        return port

    @property
    def reason(self) -> str:
        """Why the port was not opened."""
        (outcome,) = self.outcome
        assert isinstance(outcome, Failure)
        return explain(outcome.value)

    def end(self) -> None:
        assert self.clock.getDelayedCalls() == []


def test_a_raw_port_is_open_as_soon_as_it_is_connected() -> None:
    """What comes is what the device prints, whatever it is."""
    rig = Rig("socket://server:3001")
    port = rig.connect()
    assert rig.outcome == [port]
    assert port.proof_s == PROOF_S
    port.dataReceived(b"a\xff\xfb\x2c")
    assert rig.reader.got == b"a\xff\xfb\x2c"
    assert port.send(b"\xff")
    assert rig.transport.value() == b"\xff"
    assert port.line_counters() is None
    rig.end()


def test_a_line_is_open_when_it_is_set() -> None:
    """What comes in the same read is the device's already."""
    rig = Rig()
    port = rig.connect()
    port.dataReceived(b"hello" + AGREED)
    assert rig.outcome == []
    port.dataReceived(CONFIRMED + b"ALARM\r\n" + sub(106, b"\x02"))
    assert rig.outcome == [port]
    assert rig.reader.got == b"ALARM\r\n"
    counted = port.line_counters()
    assert counted is not None
    assert counted.overrun == 1
    rig.end()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (network.ConnectionRefusedError(), "the server refuses the connection (does it run, and is this its port?)"),
        (network.DNSLookupError(), "the server's name cannot be found"),
        (network.NoRouteError(), "there is no way to the server in the network"),
        (network.TCPTimedOutError(), "the server has not answered within 6 s"),
    ],
)
def test_why_there_is_no_connection_is_told_in_words(error: Exception, reason: str) -> None:
    """The operator reads what to look at."""
    rig = Rig()
    rig.endpoint.connecting.errback(error)
    assert rig.reason == reason
    rig.end()


def test_a_server_that_does_not_answer_is_given_up() -> None:
    """Before it is connected, and after."""
    rig = Rig()
    rig.clock.advance(CONNECT_S)
    assert rig.reason == "the server has not answered within 6 s"
    rig = Rig()
    rig.connect()
    rig.clock.advance(CONNECT_S)
    assert rig.reason == "the server does not set the line (RFC 2217); if it is raw, name it socket:// instead"
    assert rig.transport.aborted
    rig.end()


def test_what_a_server_says_instead_of_setting_the_line_is_the_reason() -> None:
    """Such as that its own port is in use."""
    rig = Rig()
    port = rig.connect()
    port.dataReceived(b"Port's device already in use\r\n\x07")
    port.connectionLost(Failure(network.ConnectionDone()))
    assert rig.reason == "the server has closed the connection: Port's device already in use"
    assert rig.reader.lost == []
    rig.end()


def test_a_server_that_refuses_a_setting_is_left() -> None:
    """Before the line is open and, where somebody changes it, afterwards."""
    changed = sub(101, bytes([0, 0, 0x4B, 0]))
    reason = "it does not take the settings: the server keeps baudrate 19200 instead of 9600"
    rig = Rig()
    rig.connect().dataReceived(AGREED + changed)
    assert (rig.reason, rig.transport.aborted) == (reason, True)
    rig = Rig()
    rig.open().dataReceived(b"ALARM\r\n" + changed)
    assert (rig.reader.got, rig.reader.lost, rig.transport.aborted) == (b"ALARM\r\n", [reason], True)
    rig.end()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (network.ConnectionDone(), "the server has closed the connection"),
        (network.ConnectionLost(), "the connection to the server is lost"),
        (network.TCPTimedOutError(), "the connection to the server is lost"),
    ],
)
def test_a_loss_is_told_once_with_its_reason(error: Exception, reason: str) -> None:
    """A server that closes, and one that vanishes."""
    rig = Rig()
    port = rig.open()
    port.connectionLost(Failure(error))
    port.close()
    assert rig.reader.lost == [reason]
    assert not port.send(b"x")


def test_a_stop_closes_the_connection_and_tells_at_once() -> None:
    """Politely where all is sent, else by force: a server that takes nothing must not hold it up."""
    rig = Rig()
    port = rig.open()
    port.close()
    port.dataReceived(b"late\n")
    port.connectionLost(Failure(network.ConnectionDone()))
    assert (rig.reader.lost, rig.reader.got, rig.transport.disconnecting) == (
        ["it was unplugged, or hung up"],
        b"",
        True,
    )
    rig = Rig()
    port = rig.open()
    port.send(b"x")
    port.close()
    assert rig.transport.aborted


def test_a_stop_while_it_connects_or_sets_the_line_gives_up() -> None:
    """Nothing is left open."""
    rig = Rig()
    rig.opening.cancel()
    assert rig.outcome[0].check(CancelledError)
    rig = Rig()
    rig.connect()
    rig.opening.cancel()
    assert rig.outcome[0].check(CancelledError)
    assert rig.transport.aborted
    rig.end()


def test_a_server_that_takes_nothing_is_sent_nothing_more() -> None:
    """What waits is bounded, and goes in order when the server takes it."""
    rig = Rig("socket://server:3001")
    port = rig.connect()
    assert port.send(b"a")
    for _ in range(MAX_UNSENT):
        assert port.send(b"b")
    assert not port.send(b"c")
    assert port.unsent == MAX_UNSENT + 1
    while rig.transport.producer is not None:
        rig.transport.producer.resumeProducing()
    assert rig.transport.value() == b"a" + b"b" * MAX_UNSENT
    assert port.unsent == 0


def test_a_server_can_hold_what_is_sent() -> None:
    """And is sent it, escaped, when it lets go."""
    rig = Rig()
    port = rig.open()
    port.dataReceived(bytes([255, 250, 44, 108, 255, 240]))
    assert port.send(b"\xff")
    assert (rig.transport.value(), port.unsent) == (b"", 1)
    port.dataReceived(bytes([255, 250, 44, 109, 255, 240]))
    assert rig.transport.value() == b"\xff\xff"


def test_reading_can_be_paused() -> None:
    """As a stop does it."""
    rig = Rig()
    port = rig.open()
    port.pause()
    assert rig.transport.producerState == "paused"
    port.resume()
    assert rig.transport.producerState == "producing"
