"""The outlet on Twisted's own transport: every partial send, every error, and order whatever waits."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import tcp, unix
from twisted.internet.protocol import Protocol

from notifyd.hub.direct import Outlet
from tests import hubparts
from tests.sockets import ANY, Reactor, Socket, serve

CHUNK = bytes(range(256)) * 1024


class Producer(Protocol):
    """A protocol that is its transport's producer; ``outlet`` is what is tested."""

    def __init__(self) -> None:
        self.paused = False
        self.lost = 0
        self.outlet: Any = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self.outlet = Outlet(self.transport, self)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost += 1

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.outlet.go_on()

    def stopProducing(self) -> None:
        pass


def connected(room: int = ANY, kind: type[tcp.Server] = tcp.Server) -> tuple[Outlet, Producer, Any]:
    """Gives an outlet, its producer, and its transport on a socket with so much room."""
    producer = Producer()
    transport = serve(producer, Socket(room), Reactor(), kind)
    return producer.outlet, producer, transport


def held(transport: Any) -> int:
    """Gives the bytes that the transport holds itself."""
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen


def test_what_the_socket_takes_is_sent_at_once() -> None:
    """The reactor is not asked to call back, and nobody is paused."""
    outlet, producer, transport = connected()
    outlet.send(CHUNK)
    outlet.send(CHUNK, 1000)
    assert transport.socket.received == CHUNK + CHUNK[1000:]
    assert transport.socket.sends == 2
    assert not producer.paused
    assert not transport.reactor.writing


@pytest.mark.parametrize("room", [0, 1, 65_535, 65_536, 65_537, len(CHUNK) - 1])
def test_the_rest_of_a_piece_is_shared_and_not_copied(room: int) -> None:
    """However much of it waits; the producer pauses till all of it is out."""
    outlet, producer, transport = connected(room)
    outlet.send(CHUNK)
    assert producer.paused
    while producer.paused:
        assert held(transport) == 0
        assert outlet._data is CHUNK
        transport.socket.room = 50_000
        transport.reactor.turn()
    assert transport.socket.received == CHUNK
    assert outlet._data == b""
    assert not transport.reactor.writing


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("room", range(12))
def test_what_comes_behind_never_lands_within(size: int, room: int) -> None:
    """At every place where the socket may stop, byte by byte."""
    outlet, producer, transport = connected(room)
    outlet.send(b"0123456789\n"[-size:])
    outlet.send(b"PONG\n")
    outlet.send(b"!OK\n", 1)
    expected = b"0123456789\n"[-size:] + b"PONG\nOK\n"
    for _ in range(40):
        assert expected.startswith(transport.socket.received)
        transport.socket.room += 1
        transport.reactor.turn()
    assert transport.socket.received == expected
    assert not producer.paused
    outlet.send(b"direct")
    assert not transport.reactor.writing


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from([1, 5, 1_000, 70_000, 200_000]), st.integers(0, 1_000)),
        st.tuples(st.just("room"), st.sampled_from([0, 1, 7, 4_000, 66_000, 300_000, ANY])),
        st.tuples(st.just("turn")),
        st.tuples(st.just("wait")),
        st.tuples(st.just("push")),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_order_is_kept_whatever_waits(steps: list[Any]) -> None:
    """Against a plain model: what was sent, concatenated; nothing is lost, doubled or left when there is room."""
    outlet, producer, transport = connected(0)
    model = bytearray()
    for number, (step, *rest) in enumerate(steps):
        if step == "send":
            size, start = rest
            data = bytes([number]) * size
            outlet.send(data, min(start, size - 1))
            model += data[min(start, size - 1) :]
        elif step == "room":
            transport.socket.room = rest[0]
        elif step == "turn":
            transport.reactor.turn()
        else:
            getattr(outlet, step)()
        assert model.startswith(transport.socket.received)
        if held(transport) or outlet._data:
            assert producer.paused
        if producer.paused:
            assert transport.reactor.writing
    transport.socket.room = ANY
    while transport.reactor.writing:
        transport.reactor.turn()
    assert transport.socket.received == model
    assert not producer.paused


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOMEM, errno.ETIMEDOUT])
@pytest.mark.parametrize("later", [False, True])
def test_an_error_is_left_to_the_transport(number: int, later: bool) -> None:
    """It is not raised, and the connection is lost on the reactor's next turn: not before, and once."""
    outlet, producer, transport = connected(10)
    if later:
        outlet.send(CHUNK)
    transport.socket.error = number
    if later:
        transport.reactor.turn()
    else:
        outlet.send(CHUNK)
        outlet.send(b"PONG\n")
        assert not producer.lost
    assert producer.paused
    transport.reactor.turn()
    assert producer.lost == 1
    assert not transport.reactor.writing
    assert not transport.reactor.reading
    outlet.send(CHUNK)
    outlet.wait()
    assert not transport.reactor.writing


def test_a_kernel_without_buffers_is_waited_for() -> None:
    """ENOBUFS passes."""
    outlet, producer, transport = connected()
    transport.socket.error = errno.ENOBUFS
    outlet.send(CHUNK)
    assert producer.paused
    transport.socket.error = 0
    transport.reactor.turn()
    assert transport.socket.received == CHUNK
    assert not producer.lost


def test_last_words_come_behind_what_waits() -> None:
    """Once it is pushed to the transport, that sends it before it closes."""
    outlet, producer, transport = connected(100)
    socket = transport.socket
    outlet.send(CHUNK)
    outlet.push()
    transport.unregisterProducer()
    transport.write(b"ERROR\n")
    transport.loseConnection()
    socket.room = ANY
    while transport.reactor.writing:
        transport.reactor.turn()
    assert socket.received == CHUNK + b"ERROR\n"
    assert socket.closed
    assert producer.lost == 1


class Other(tcp.Server):
    """A transport that does more than TCP."""


@pytest.mark.parametrize("kind", [Other, unix.Server])
def test_another_transport_is_written_to(kind: Any) -> None:
    """It pauses the producer by itself."""
    producer = Producer()
    socket: Any = Socket(0)
    if kind is unix.Server:
        transport: Any = kind(socket, producer, "peer", SimpleNamespace(_realPortNumber=0), 0, Reactor())
        producer.makeConnection(transport)
    else:
        transport = serve(producer, socket, Reactor(), kind)
    producer.outlet.send(CHUNK, 10)
    assert socket.sends == 0
    assert held(transport) == len(CHUNK) - 10
    assert producer.paused
    producer.outlet.push()
    producer.outlet.wait()
    assert held(transport) == len(CHUNK) - 10


def test_a_transport_on_which_tls_was_started_is_written_to() -> None:
    """What goes to its socket is not what is written."""
    written: list[bytes] = []
    outlet, producer, transport = connected()
    transport.TLS = True
    transport.write = written.append
    outlet = Outlet(transport, producer)
    outlet.send(b"a")
    assert (written, transport.socket.sends) == ([b"a"], 0)


def test_a_transport_in_memory_is_written_to() -> None:
    """As tests have it."""
    transport = hubparts.Transport(takes=True)
    outlet = Outlet(transport, None)
    outlet.send(b"abc", 1)
    outlet.wait()
    outlet.push()
    outlet.go_on()
    assert transport.written == b"bc"
    assert outlet.taken == 2


def test_what_the_peer_has_taken_is_asked_of_the_kernel() -> None:
    """0 where the system does not tell."""
    outlet, _, transport = connected()
    outlet.send(b"abc")
    assert outlet.taken == 3
    del transport.socket
    assert outlet.taken == 0
