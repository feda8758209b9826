"""The uplink: how long it waits for what."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from notifyd.agent.spool import Counters
from notifyd.agent.uplink import HubConnection, Uplink


class QuietSpool:
    """A spool with nothing in it."""

    spool_id = "6f1c2a9e"
    is_open = True

    def __init__(self) -> None:
        self.counters = Counters()
        self.on_stored = self.on_identity = lambda: None

    def resume(self, told: dict[str, int]) -> Deferred[None]:
        return succeed(None)

    def has_unsent(self) -> bool:
        return False

    def release(self) -> None:
        self.is_released = True

    def leave_name(self) -> None:
        self.spool_id = "another1"


class Timed:
    """A connection whose clock the test moves."""

    def __init__(self, spool: Any = None) -> None:
        self.clock = Clock()
        self.uplink = Uplink(
            self.clock, "", agent="ward3", spool=spool or QuietSpool(), endpoint=object(), jitter=lambda: 0.0
        )
        self.transport = StringTransport()
        self.connection = HubConnection(self.uplink)
        self.connection.makeConnection(self.transport)

    def written(self) -> bytes:
        value = self.transport.value()
        self.transport.clear()
        return bytes(value)

    def ok(self) -> None:
        self.connection.dataReceived(b'OK {"acked":{},"window":1048576}\n')

    def advance(self, seconds: int) -> None:
        self.clock.pump([0.5] * (2 * seconds))

    def lose(self) -> float:
        self.connection.connectionLost(Failure(ConnectionLost()))
        assert self.clock.getDelayedCalls() == []
        return self.uplink._wait_before_retry(0)


@pytest.mark.parametrize("is_welcome", [False, True])
def test_a_silent_hub_is_asked_and_then_left(is_welcome: bool) -> None:
    """PING after 10 s and 20 s without a line, the end after 30 s; also before the hub's OK."""
    timed = Timed()
    if is_welcome:
        timed.ok()
    timed.written()
    timed.advance(9)
    assert timed.written() == b""
    timed.advance(1)
    assert timed.written() == b"PING\n"
    timed.advance(10)
    assert timed.written() == b"PING\n"
    assert not timed.transport.disconnected
    timed.advance(10)
    assert timed.transport.disconnected
    timed.lose()


def test_a_hub_that_answers_is_kept() -> None:
    """Any line counts as a sign of life; while the hub talks it is not asked."""
    timed = Timed()
    timed.ok()
    timed.written()
    for _ in range(20):
        timed.advance(10)
        assert timed.written() == b"PING\n"
        timed.connection.dataReceived(b"PONG\n")
    for _ in range(20):
        timed.advance(9)
        timed.connection.dataReceived(b"ACK 0\n")
        assert timed.written() == b""
    assert not timed.transport.disconnected
    timed.lose()


def test_half_a_line_is_no_sign_of_life() -> None:
    """A hub that hangs in the middle of a line is left all the same."""
    timed = Timed()
    timed.ok()
    for _ in range(30):
        timed.connection.dataReceived(b"P")
        timed.advance(1)
    assert timed.transport.disconnected
    timed.lose()


def test_the_waits_grow_to_five_seconds_and_begin_anew_after_ok() -> None:
    """A hub that comes back is found within 5 s, one that is away is not hammered."""
    timed = Timed()
    waits = [timed.uplink._wait_before_retry(0) for _ in range(10)]
    assert waits[0] == pytest.approx(0.1)
    assert waits == sorted(waits)
    assert waits[-1] == 5.0
    timed.ok()
    assert timed.lose() == pytest.approx(0.1)


def test_jitter_spreads_the_agents_of_a_hub() -> None:
    """Up to a half of the wait is taken off, so that they do not all come at once."""
    timed = Timed()
    timed.uplink._jitter = lambda: 1.0
    timed.uplink._failures = 20
    assert timed.uplink._wait_before_retry(0) == 2.5
    timed.lose()


def test_an_agent_that_was_replaced_waits_longer() -> None:
    """Two copies of one spool take turns at 5 s or more, and the wait ends with the next connection."""
    timed = Timed()
    timed.ok()
    timed.connection.dataReceived(b"ERROR replaced\n")
    assert timed.transport.disconnected
    assert timed.lose() >= 5.0
    again = HubConnection(timed.uplink)
    again.makeConnection(StringTransport())
    again.dataReceived(b'OK {"acked":{},"window":1048576}\n')
    timed.connection = again
    assert timed.lose() < 1.0


def test_what_follows_an_error_is_ignored() -> None:
    """Nothing is handled after the hub has ended the connection."""
    timed = Timed()
    timed.connection.dataReceived(b'ERROR bad token\nOK {"acked":{},"window":1048576}\n')
    assert not timed.connection._window
    timed.lose()


def test_hello_waits_for_a_spool_that_is_away() -> None:
    """Where the spool's id is not known yet, HELLO is said when it is."""
    spool = QuietSpool()
    spool.is_open = False
    timed = Timed(spool)
    assert timed.written() == b""
    spool.is_open = True
    timed.uplink._identity_changed()
    assert timed.written() == b'HELLO {"agent":"ward3","spool":"6f1c2a9e"}\n'
    timed.lose()


def test_a_lost_connection_has_nothing_in_flight() -> None:
    """The spool may drop what was under way, and sends it again."""
    timed = Timed()
    timed.ok()
    timed.lose()
    assert timed.uplink.spool.is_released
    assert timed.uplink.connection is None


def test_the_endpoint_string_is_the_configurations() -> None:
    """The uplink connects to where the configuration says."""
    memory = MemoryReactorClock()
    uplink = Uplink(memory, "tcp:192.0.2.7:1500", agent="a", spool=QuietSpool())
    uplink.startService()
    assert memory.tcpClients[0][:2] == ("192.0.2.7", 1500)
