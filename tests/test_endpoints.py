"""Endpoint strings: what is refused before anything is opened, who can reach what, and how sockets are set."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from notifyd.endpoints import check_client, check_server, is_exposed, keep_alive, say_farewell


@pytest.mark.parametrize(
    "text", ["tcp:1500:interface=127.0.0.1", "tcp:0", "tcp6:1500:interface=\\:\\:1", "unix:/run/x.sock", "tcp:65535"]
)
def test_a_listener_that_can_be_is_taken(text: str) -> None:
    """Without opening it."""
    check_server(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1500",
        "tcp",
        "tcp:",
        "tcp:x",
        "tcp:-1",
        "tcp:65536",
        "carrier:1500",
        "tcp:1500:colour=red",
        ":",
        "tcp:1:2:3:4:5",
    ],
)
def test_what_is_no_listener_is_refused(text: str) -> None:
    """With an example, on one line."""
    with pytest.raises(ValueError, match=r"endpoint|port number") as refused:
        check_server(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", ["tcp:127.0.0.1:1500", "tcp:hub.example.org:1500", "unix:/run/x.sock"])
def test_a_client_that_can_be_is_taken(text: str) -> None:
    """Without connecting it."""
    check_client(text)


@pytest.mark.parametrize("text", ["", "hub:1500", "tcp:hub", "tcp:hub:x", "tcp:hub:70000"])
def test_what_is_no_client_is_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(ValueError, match=r"endpoint|port number"):
        check_client(text)


@pytest.mark.parametrize(
    ("text", "exposed"),
    [
        ("tcp:1500", True), ("tcp:1500:interface=127.0.0.1", False), ("tcp:1500:interface=127.0.0.1:backlog=9", False),
        ("tcp:1500:interface=localhost", False), ("tcp:1500:interface=0.0.0.0", True),
        ("tcp:1500:interface=192.0.2.1", True),
        ("tcp:1500:backlog=5:interface=127.3.2.1", False), ("tcp:1500:interface=", True), ("tcp6:1500", True),
        ("tcp6:1500:interface=\\:\\:1", False), ("tcp6:1500:interface=\\:\\:", True),
        ("tcp:1500:interface=\\:\\:1", False),
        ("tcp6:1500:interface=\\:\\:1:backlog=5", False), ("unix:/run/x", False), ("ssl:1500", True),
        ("tcp:1500:interface=hub.example.org", True),
    ],
)  # fmt: skip
def test_a_listener_that_others_can_reach_is_told(text: str, exposed: bool) -> None:
    """Loopback is not reachable, whatever else stands in the string."""
    assert is_exposed(text) is exposed


class Transport:
    def __init__(self) -> None:
        self.socket = socket.socket()
        self.calls: list[Any] = []

    def getHandle(self) -> socket.socket:
        return self.socket

    def setTcpKeepAlive(self, on: bool) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, on)

    def setTcpNoDelay(self, on: bool) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, on)

    def __getattr__(self, name: str) -> Any:
        if name == "loseWriteConnection" and self.calls == ["tls"]:
            raise AttributeError(name)
        return lambda *arguments: self.calls.append((name, *arguments))


def test_keepalive_finds_a_vanished_peer_within_about_a_minute() -> None:
    """And TCP_USER_TIMEOUT stays off."""
    transport = Transport()
    keep_alive(transport)
    option = transport.socket.getsockopt
    assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle, interval, probes = (
        option(socket.IPPROTO_TCP, each) for each in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert idle + interval * probes <= 75
    assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    keep_alive(transport, idle_s=3)
    assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 3
    transport.socket.close()


def test_a_transport_without_keepalive_is_left_as_it_is() -> None:
    """As a UNIX socket's."""
    keep_alive(object())


@pytest.mark.parametrize("half_close", [True, False])
def test_last_words_are_said_before_the_end(half_close: bool) -> None:
    """Where the transport can, only our half is closed, and the peer's is read off."""
    transport = Transport()
    if not half_close:
        transport.calls.append("tls")
    say_farewell(transport, b"ERROR x\n")
    names = [call[0] for call in transport.calls if call != "tls"]
    assert names[:1] == ["unregisterProducer"]
    assert ("write", b"ERROR x\n") in transport.calls
    if half_close:
        assert names[2:] == ["loseWriteConnection", "resumeProducing"]
    transport.socket.close()
