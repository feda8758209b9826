"""The uplink against a scripted hub on a real socket, and against a clock where time matters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from notifyd.agent import uplink as uplink_module
from notifyd.agent.spool import Spool
from notifyd.agent.uplink import Uplink
from notifyd.wire import MAX_HUB_LINE, MAX_LINE
from tests.spooling import Log, bounded, device_event, make_spool, parse_lines, scheduled, until

WINDOW = 1024 * 1024


class HubSide(LineOnlyReceiver):
    """One connection as the hub sees it; it says what the test tells it to."""

    delimiter = b"\n"
    MAX_LENGTH = 10_000_000

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.is_lost = False

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)

    def connectionLost(self, reason: Any = None) -> None:
        self.is_lost = True

    @property
    def hello(self) -> dict[str, Any]:
        assert self.lines[0].startswith(b"HELLO ")
        return dict(json.loads(self.lines[0][6:]))

    @property
    def events(self) -> list[Any]:
        return parse_lines(b"\n".join(line for line in self.lines[1:] if line.startswith(b"{")))

    @property
    def texts(self) -> list[str]:
        return [each.text for each in self.events]

    def say(self, text: str) -> None:
        self.transport.write(text.encode() + b"\n")

    def ok(self, window: int = WINDOW, **acked: int) -> None:
        self.say("OK " + json.dumps({"acked": {"critical": 0, "important": 0, "normal": 0, **acked}, "window": window}))


class Rig:
    """A spool, an uplink and a hub."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.factory = Factory.forProtocol(HubSide)
        self.factory.connections = self.connections = []
        self.factory.noisy = False
        self.uplink: Uplink | None = None
        self.port: Any = None
        self.port_number = 0

    async def listen(self) -> None:
        self.port = await TCP4ServerEndpoint(reactor, self.port_number, interface="127.0.0.1").listen(self.factory)
        self.port_number = self.port.getHost().port

    async def deafen(self) -> None:
        if self.port is not None:
            port, self.port = self.port, None
            await port.stopListening()

    async def start(self) -> None:
        self.uplink = Uplink(reactor, f"tcp:127.0.0.1:{self.port_number}", agent="ward3", spool=self.spool)
        self.uplink.startService()

    async def connection(self, number: int = 0) -> HubSide:
        """Waits for a connection, and for its first line."""
        await until(lambda: len(self.connections) > number and self.connections[number].lines)
        return self.connections[number]

    async def put(self, *lines: str, priority: str = "normal") -> None:
        for line in lines:
            self.spool.put(device_event(line, priority))
        await bounded(self.spool.flush())


@pytest_twisted.async_yield_fixture
async def rig(tmp_path: Path) -> Any:
    """A hub that listens, and an agent's spool; nothing is connected yet."""
    spool = make_spool(tmp_path / "spool.db", max_events=100_000)
    await bounded(spool.open())
    rig = Rig(spool)
    await rig.listen()
    yield rig
    if rig.uplink is not None and rig.uplink.running:
        await bounded(rig.uplink.stopService())
    await spool.close()
    await rig.deafen()
    for connection in rig.connections:
        connection.transport.abortConnection()
    await until(lambda: all(connection.is_lost for connection in rig.connections))
    assert scheduled() == []


# --- sending -----------------------------------------------------------------------------------------------


async def test_nothing_is_sent_before_the_hub_has_answered_hello(rig: Rig) -> None:
    """HELLO names agent and spool; events follow the hub's OK, and only then."""
    await rig.put("a")
    await rig.start()
    hub = await rig.connection()
    assert hub.hello == {"agent": "ward3", "spool": rig.spool.spool_id}
    hub.say("PONG")
    await rig.put("b")
    assert len(hub.lines) == 1
    hub.ok()
    await until(lambda: hub.texts == ["a", "b"])
    assert rig.spool.counters.sent == 2


async def test_an_event_is_sent_as_soon_as_it_is_stored(rig: Rig) -> None:
    """An idle connection does not wait for anything but the commit."""
    await rig.start()
    hub = await rig.connection()
    hub.ok()
    await until(lambda: rig.uplink.connection._is_welcome)
    await rig.put("a")
    await until(lambda: hub.texts == ["a"])


async def test_the_urgent_goes_first(rig: Rig) -> None:
    """A backlog is sent critical before important before normal, in order within each."""
    for priority in ("normal", "critical", "important", "critical", "normal"):
        await rig.put(f"{priority} {rig.spool.counters.stored}", priority=priority)
    await rig.start()
    hub = await rig.connection()
    hub.ok()
    await until(lambda: len(hub.events) == 5)
    assert hub.texts == ["critical 1", "critical 3", "important 2", "normal 0", "normal 4"]


async def test_what_is_acknowledged_is_deleted_and_the_rest_is_sent_again(rig: Rig) -> None:
    """An ACK counts lines of the connection over all lanes; after a reconnect the others come again."""
    await rig.put("u1", "u2", priority="critical")
    await rig.put("n1", "n2")
    await rig.start()
    hub = await rig.connection()
    hub.ok()
    await until(lambda: len(hub.events) == 4)
    hub.say("ACK 3")
    await until(lambda: rig.spool.counters.acknowledged == 3)
    last_normal = hub.events[2].sequence
    hub.transport.loseConnection()
    again = await rig.connection(1)
    again.ok(critical=hub.events[1].sequence, normal=last_normal)
    await until(lambda: again.texts == ["n2"])
    again.say("ACK 1")
    await until(lambda: rig.spool.counters.acknowledged == 4)
    assert rig.spool.counters.sent == 5


async def test_the_window_is_kept_and_refilled(rig: Rig) -> None:
    """There are never more bytes of unacknowledged lines under way than the hub allows; everything arrives."""
    window = 2 * (MAX_LINE + 1)
    await rig.put(*[f"{number}" + "x" * (997 * (1 + number % 7)) for number in range(200)])
    await rig.start()
    hub = await rig.connection()
    hub.ok(window=window)
    acknowledged = 0
    while acknowledged < 200:
        await until(lambda seen=acknowledged: len(hub.lines) - 1 > seen)
        lines = hub.lines[1:]
        assert sum(len(line) + 1 for line in lines[acknowledged:]) <= window
        assert rig.uplink.connection._bytes_in_flight <= window
        acknowledged += 1 + (len(lines) - acknowledged) // 2
        hub.say(f"ACK {acknowledged}")
    assert [text.rstrip("x") for text in hub.texts] == [str(number) for number in range(200)]
    await until(lambda: rig.uplink.connection._bytes_in_flight == 0)


async def test_a_rejected_event_is_counted_and_not_sent_again(rig: Rig, log: Log) -> None:
    """The hub keeps it as an error: it is acknowledged like the others, and a flood of them is not a flood of lines."""
    await rig.put(*[str(number) for number in range(8)])
    await rig.start()
    hub = await rig.connection()
    hub.ok()
    await until(lambda: len(hub.events) == 8)
    for number in range(1, 9):
        hub.say(f"REJECT {number} attribute type is empty")
    hub.say("ACK 8")
    await until(lambda: rig.spool.counters.acknowledged == 8)
    assert rig.spool.counters.rejected == 8
    assert len(log.matching("The hub rejected an event")) == uplink_module.REJECTS_LOGGED
    hub.transport.loseConnection()
    await until(lambda: log.matching("The hub rejected 8 events"))


async def test_a_hub_that_was_restored_is_told(rig: Rig) -> None:
    """When it says a lower position than it had acknowledged, it gets an event with the range."""
    await rig.put("a")
    await rig.start()
    hub = await rig.connection()
    hub.ok()
    await until(lambda: hub.events)
    hub.say("ACK 1")
    await until(lambda: rig.spool.counters.acknowledged == 1)
    hub.transport.loseConnection()
    again = await rig.connection(1)
    again.ok()
    await until(lambda: again.events)
    assert again.events[0].event["type"] == "notifyd.hub.restored"


# --- a hub that breaks the protocol ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "ACK 2",
        "ACK",
        "ACK -1",
        "ACK 99999999999999999999",
        "REJECT 2 reason",
        "REJECT",
        "GAP {}",
        "hello",
        '{"id":"1"}',
        'OK {"acked":{},"window":1048576}',
        "\xff",
        "x" * (MAX_HUB_LINE + 1),
    ],
)
async def test_a_line_that_the_hub_may_not_send_ends_the_connection(rig: Rig, line: str, log: Log) -> None:
    """It is logged in one line; the next connection sends again what was not acknowledged."""
    await rig.put("a")
    await rig.start()
    hub = await rig.connection()
    hub.ok()
    await until(lambda: hub.events)
    hub.say(line)
    again = await rig.connection(1)
    assert hub.is_lost
    again.ok()
    await until(lambda: again.texts == ["a"])
    assert len(log.matching("the hub broke the protocol")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "OK",
        "OK {",
        'OK {"acked":{},"window":10}',
        'OK {"acked":{"normal":-1},"window":1048576}',
        'OK {"acked":{"normal":9223372036854775807},"window":1048576}',
        'OK {"acked":{"normal":"1"},"window":1048576}',
        "ACK 0",
        "REJECT 1 x",
    ],
)
async def test_a_wrong_answer_to_hello_ends_the_connection(rig: Rig, line: str) -> None:
    """The agent does not go by positions or a window that cannot be."""
    await rig.put("a")
    await rig.start()
    hub = await rig.connection()
    hub.say(line)
    await rig.connection(1)
    assert hub.events == []


# --- connections that come and go --------------------------------------------------------------------------


async def test_changes_are_logged_and_retries_are_not(rig: Rig, log: Log) -> None:
    """One line when the hub cannot be reached, one when it is."""
    await rig.deafen()
    await rig.start()
    await until(lambda: rig.uplink._failures >= 3)
    assert len(log.matching("No connection to the hub")) == 1
    await rig.listen()
    hub = await rig.connection()
    hub.ok()
    await until(lambda: log.matching("Connected to the hub"))
    assert not log.matching("Scheduling retry")


async def test_a_hub_that_accepts_and_drops_is_not_hammered(rig: Rig) -> None:
    """The waits grow until the hub says OK, however many connections stand before that."""
    rig.factory.protocol = type(
        "Dropping", (HubSide,), {"connectionMade": lambda self: self.transport.loseConnection()}
    )
    await rig.start()
    await until(lambda: rig.uplink._failures >= 4)
    rig.factory.protocol = HubSide
    hub = await rig.connection()
    assert rig.uplink._failures >= 4
    hub.ok()
    await until(lambda: rig.uplink._failures == 0)


async def test_an_error_of_the_hub_is_logged_once(rig: Rig, log: Log) -> None:
    """The reason is the hub's own."""
    await rig.start()
    hub = await rig.connection()
    hub.say("ERROR too many {producers}")
    await rig.connection(1)
    (line,) = log.matching("the hub says")
    assert "too many {producers}" in line


async def test_a_new_spool_is_introduced_on_a_new_connection(rig: Rig) -> None:
    """When the spool is lost while connected the hub gets the new id, and then what was in memory."""
    await rig.start()
    hub = await rig.connection()
    hub.ok()
    rig.spool.path.unlink()
    rig.spool.put(device_event("a"))
    again = await rig.connection(1)
    assert again.hello["spool"] != hub.hello["spool"]
    again.ok()
    await until(lambda: "a" in again.texts)


async def test_stopping_waits_for_the_last_acknowledgement(rig: Rig) -> None:
    """A hub that answers gets what is stored before the agent goes."""
    await rig.start()
    hub = await rig.connection()
    hub.ok()
    await until(lambda: rig.uplink.connection._is_welcome)
    await rig.put("last words")
    stopped = rig.uplink.stopService()
    await until(lambda: hub.events)
    assert not stopped.called
    hub.say("ACK 1")
    await bounded(stopped)
    await until(lambda: hub.is_lost)
    await rig.spool.close()
    assert rig.spool.counters.acknowledged == 1


async def test_stopping_does_not_wait_for_a_hub_that_hangs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that neither reads nor answers is left behind within the grace time."""
    monkeypatch.setattr(uplink_module, "STOP_GRACE_S", 0.05)
    await rig.put(*["x" * 8000 for _ in range(400)])
    await rig.start()
    hub = await rig.connection()
    hub.transport.pauseProducing()
    hub.ok(window=64 * WINDOW)
    await until(lambda: rig.uplink.connection._bytes_in_flight > 3_000_000)
    await bounded(rig.uplink.stopService())
    hub.transport.resumeProducing()
