"""Subscribers on Twisted's own transport, whose socket takes what it likes: nothing lands within a line."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from notifyd.hub.backplane import CHUNK
from notifyd.hub.readback import LARGE_PAGE
from notifyd.hub.subscriber import AT_ONCE, GRACE_S
from tests.hubkit import Hub, payload, subscribe
from tests.logs import Logs
from tests.sockets import ANY, SocketPeer
from tests.test_cursor import Cursors

BIG = "x" * 10_000


class SocketCursors(Cursors):
    """The clients of :class:`Cursors` on sockets that take some bytes, and that may ask for a PONG at any time."""

    def opened(self, **settings: Any) -> Hub:
        """Starts a hub whose clients are on sockets."""
        hub = super().opened(**settings)
        hub.make_client = SocketPeer
        return hub

    @rule(data=st.data(), size=st.sampled_from([1, 100, 9_000, 66_000, 150_000]))
    def trickle(self, data: st.DataObject, size: int) -> None:
        """A client takes some bytes, which may end within a line."""
        if self.clients:
            data.draw(st.sampled_from(self.clients)).peer.transport.drain(size)

    @rule(data=st.data())
    def ping(self, data: st.DataObject) -> None:
        """A client asks whether the hub is there."""
        candidates = [each for each in self.clients if not each.peer.transport.ended]
        if candidates:
            data.draw(st.sampled_from(candidates)).peer.send(b"PING")

    @rule(data=st.data(), number=st.sampled_from([errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS]))
    def break_off(self, data: st.DataObject, number: int) -> None:
        """Sending to a client fails from now on; it is gone at the latest when the next event comes."""
        if self.clients:
            client = data.draw(st.sampled_from(self.clients))
            self.clients.remove(client)
            client.peer.transport.socket.error = number


def test_each_client_is_sent_each_event_once_wherever_its_socket_stops(logs: Logs) -> None:
    """Whatever clients and log do; PONG, OK, GAP and ERROR stand on lines of their own."""
    run_state_machine_as_test(
        lambda: SocketCursors(logs), settings=settings(max_examples=60, stateful_step_count=50, deadline=None)
    )


@pytest.fixture
def socket_hub(make_hub: Callable[..., Hub]) -> Hub:
    """A hub whose clients are on Twisted's own transport."""
    hub = make_hub(stream_memory=2**22)
    hub.make_client = SocketPeer
    return hub


def test_an_event_is_sent_without_the_reactor(socket_hub: Hub) -> None:
    """And so is what a client asks for."""
    client = socket_hub.client("normal", subscribe(after="now"), b"PING")
    socket_hub.put("a")
    ok, pong, event = client.lines()
    assert (ok[:3], pong, json.loads(event)["id"]) == (b"OK ", b"PONG", "a")
    assert not client.transport.reactor.writing


@pytest.mark.parametrize("ending", ["error", "replaced", "close"])
@pytest.mark.parametrize("size", [0, 1, 50, 700])
def test_a_connection_that_ends_amid_a_line_ends_behind_it(socket_hub: Hub, ending: str, size: int) -> None:
    """What was begun is sent whole, then why; and then the hub's half is closed."""
    client = socket_hub.client("normal", subscribe(name="n"), takes=False)
    client.transport.drain()
    client.lines()
    socket_hub.put("a", "b")
    client.transport.drain(size)
    if ending == "error":
        client.send(b"BYE")
    elif ending == "replaced":
        socket_hub.client("normal", subscribe(name="n"))
    else:
        socket_hub.ports["normal"].stop()
    while client.transport.waiting:
        client.transport.drain(100)
    assert client.transport.written.endswith(b"\n")
    first, second, *why = client.lines()
    assert [json.loads(first)["id"], json.loads(second)["id"]] == ["a", "b"]
    assert [each[:6] for each in why] == ([] if ending == "close" else [b"ERROR "])
    assert client.transport.ended
    socket_hub.clock.advance(GRACE_S)


def test_a_client_that_dies_while_it_is_sent_to_disturbs_nobody(socket_hub: Hub) -> None:
    """It is counted out on the reactor's next turn, not amid the others' deliveries."""
    clients = [socket_hub.client() for _ in range(5)]
    clients[2].transport.socket.error = errno.ECONNRESET
    socket_hub.put("a")
    assert socket_hub.crowd.connected == 5
    clients[2].transport.reactor.turn()
    assert socket_hub.crowd.connected == 4
    socket_hub.put("b")
    for client in (*clients[:2], *clients[3:]):
        assert client.ids() == ["a", "b"]
    assert clients[2].lines() == []


def test_a_client_far_behind_lets_the_reactor_look_after_the_others(socket_hub: Hub) -> None:
    """However quickly it reads, it is sent a bounded number of bytes in one turn."""
    ids = [str(number) for number in range(200)]
    for each in ids:
        socket_hub.put(each, data=BIG)
    client = socket_hub.client("normal", subscribe(after="0"))
    seen = 0
    turns = 0
    while client.transport.reactor.writing:
        assert len(client.transport.written) - seen <= AT_ONCE + 2 * LARGE_PAGE  # a page of the log, and the last chunk
        seen = len(client.transport.written)
        client.transport.reactor.turn()
        turns += 1
    assert turns >= 200 * len(BIG) // (AT_ONCE + 2 * LARGE_PAGE)
    ok, *events = client.lines()
    assert payload(ok)["after"] == "0"
    assert [json.loads(each)["id"] for each in events] == ids


def test_a_slow_client_has_little_waiting(socket_hub: Hub) -> None:
    """No more than one chunk, which it shares; and its answers, for which that is handed over."""
    slow, quick = socket_hub.client(takes=False), socket_hub.client()
    for number in range(100):
        socket_hub.put(str(number), data=BIG)
        assert slow.transport.waiting <= CHUNK
    assert len(quick.ids()) == 100
    slow.send(b"PING")
    assert slow.transport.waiting <= CHUNK + 5
    while slow.transport.waiting:
        slow.transport.drain(30_000)
    lines = [each for each in slow.lines() if each != b"PONG"]
    assert [json.loads(each)["id"] for each in lines] == [str(number) for number in range(100)]


def test_a_flood_of_pings_by_a_client_that_reads_nothing_is_bounded(socket_hub: Hub) -> None:
    """As on any transport; when it has taken the answers, it is read from again."""
    client = socket_hub.client(takes=False)
    reading = client.transport.reactor.reading
    sent = 0
    while reading:
        client.send(*[b"PING"] * 1000)
        sent += 1000
        assert sent < 50_000
    client.transport.drain(ANY)
    assert reading
    assert client.lines() == [b"PONG"] * sent
