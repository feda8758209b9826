"""How a subscription finds out that its hub is gone, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from notifyd.ctl.subscription import DEAD_AFTER_S, LONGEST_RETRY_S, PING_AFTER_S, Subscription
from notifyd.wire import Subscribe
from tests.fakehub import event

OK = b'OK {"stream":"normal","after":"1"}\n'


class Transport(StringTransport):
    """Tells the protocol of an abort at once, as TCP does in the next turn of the reactor."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def abortConnection(self) -> None:
        super().abortConnection()
        self.protocol.connectionLost()  # type: ignore[attr-defined]


class Hub:
    """An address whose connections are in memory; ``refuses`` lets them fail."""

    def __init__(self) -> None:
        self.connections: list[Any] = []
        self.attempts = 0
        self.refuses = False

    def __str__(self) -> str:
        return "hub:1600"

    def endpoint(self, reactor: object) -> Hub:
        return self

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts += 1
        if self.refuses:
            return fail(Refused())
        protocol = factory.buildProtocol(None)
        transport = Transport()
        transport.protocol = protocol
        self.connections.append(protocol)
        protocol.makeConnection(transport)
        return succeed(protocol)

    def sent(self) -> bytes:
        """Gives what the client has sent since this was last asked."""
        transport = self.connections[-1].transport
        data = transport.value()
        transport.clear()
        return data


class Person:
    """Notes what is told and shown."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.notices: list[str] = []
        self.failures: list[str] = []

    def show(self, lines: list[bytes]) -> int:
        self.lines += lines
        return len(lines)

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def fail(self, text: str) -> None:
        self.failures.append(text)


class Scene:
    def __init__(self) -> None:
        self.clock, self.hub, self.person = Clock(), Hub(), Person()
        wish = Subscribe(after="now")
        self.subscription = Subscription(self.clock, "normal", self.hub, wish, self.person, lambda: 1.0)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A subscription that has begun; afterwards nothing of it is left in the clock."""
    scene = Scene()
    scene.subscription.start()
    yield scene
    scene.subscription.stop()
    assert scene.clock.getDelayedCalls() == []


def test_a_quiet_hub_is_asked_whether_it_is_there(scene: Scene) -> None:
    """PING after 10 s without a line, and no reconnect as long as something comes back."""
    scene.hub.connections[0].dataReceived(OK)
    scene.hub.sent()
    for _ in range(10):
        scene.clock.pump([1.0] * int(PING_AFTER_S))
        assert scene.hub.sent() == b"PING\n"
        scene.hub.connections[0].dataReceived(b"PONG\n")
    assert scene.hub.attempts == 1
    assert scene.person.notices == []


def test_a_hub_that_sends_events_is_not_asked(scene: Scene) -> None:
    """Any line is a sign of life."""
    scene.hub.connections[0].dataReceived(OK)
    scene.hub.sent()
    for offset in range(2, 20):
        scene.clock.advance(PING_AFTER_S - 1)
        scene.hub.connections[0].dataReceived(event(offset) + b"\n")
    assert scene.hub.sent() == b""


def test_a_hub_that_says_nothing_for_30_seconds_is_left_and_tried_again(scene: Scene) -> None:
    """A hung hub, or a cable that was cut, is noticed, and the stream goes on behind what was shown."""
    scene.hub.connections[0].dataReceived(OK + event(7) + b"\n")
    scene.clock.pump([1.0] * int(DEAD_AFTER_S))
    assert scene.person.notices == ["normal: nothing heard from hub:1600 for 30 s; trying again"]
    scene.clock.advance(LONGEST_RETRY_S)
    assert scene.hub.attempts == 2
    assert scene.hub.sent() == b'SUBSCRIBE {"after":"7"}\n'


def test_a_hub_that_accepts_and_never_answers_is_left_too(scene: Scene) -> None:
    """The limit counts from the connection."""
    scene.clock.pump([1.0] * int(DEAD_AFTER_S + LONGEST_RETRY_S))
    assert scene.hub.attempts == 2
    assert scene.hub.sent() == b'SUBSCRIBE {"after":"now"}\n'


def test_a_hub_that_is_away_is_tried_at_growing_intervals_of_at_most_two_seconds(scene: Scene) -> None:
    """One notice when it goes and one when it is back, however often it is tried."""
    scene.hub.connections[0].dataReceived(OK)
    scene.hub.refuses = True
    scene.hub.connections[0].transport.abortConnection()
    scene.clock.pump([0.1] * 600)
    assert 25 <= scene.hub.attempts <= 40
    scene.hub.refuses = False
    scene.clock.advance(LONGEST_RETRY_S)
    scene.hub.connections[-1].dataReceived(OK)
    assert [notice.partition(": ")[2] for notice in scene.person.notices] == [
        "connection to hub:1600 lost; trying again",
        "connected to hub:1600",
    ]


def test_a_hub_that_accepts_and_drops_at_once_is_not_tried_at_full_speed(scene: Scene) -> None:
    """Only the hub's OK starts the intervals anew, not the connection."""
    for _ in range(200):
        if not scene.hub.connections[-1].lost.called:
            scene.hub.connections[-1].transport.abortConnection()
        scene.clock.advance(0.1)
    assert scene.hub.attempts <= 20


def test_lines_are_found_however_the_bytes_arrive(scene: Scene) -> None:
    """Byte by byte the same events come out, each once."""
    lines = [event(offset) for offset in range(2, 6)]
    for byte in OK + b"\n".join(lines) + b"\n":
        scene.hub.connections[0].dataReceived(bytes([byte]))
    assert scene.person.lines == lines
