"""The hub put together, on real sockets and a real database; as a process it is met in tests/integration."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import endpoints, protocol, reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from notifyd import daemon
from notifyd.config import ConfigurationError
from notifyd.hub import service
from notifyd.hub.service import HubDaemon, Options, parse_config
from tests.hubkit import hello, line, spooled, subscribe

BOUND_S = 20
LISTEN = "".join(
    f'{name} = "tcp:0:interface=127.0.0.1"\n' for name in ("ingest", "normal", "important", "critical", "error", "all")
)


class Client(protocol.Protocol):
    """A client whose lines are waited for."""

    def __init__(self) -> None:
        self.data = b""
        self.ended: Deferred[None] = Deferred()
        self._waiting: list[tuple[int, Deferred[list[bytes]]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for each in list(self._waiting):
            if len(self.data.split(b"\n")) > each[0]:
                self._waiting.remove(each)
                each[1].callback(self.data.split(b"\n")[: each[0]])

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 - as Twisted
        self.ended.callback(None)

    def lines(self, count: int) -> Deferred[list[bytes]]:
        """Waits for so many lines from the beginning."""
        waiting: Deferred[list[bytes]] = Deferred()
        self._waiting.append((count, waiting))
        self.dataReceived(b"")
        return waiting.addTimeout(BOUND_S, reactor)

    def send(self, *lines: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(each + b"\n" for each in lines))  # type: ignore[unused-ignore]


class Running:
    """A hub that runs in the test's reactor."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        text = f'state = "{folder}"\n{extra}\n[listen]\n{LISTEN}'
        self.daemon = HubDaemon(reactor, parse_config(text, "hub.toml"))
        self.failed: list[Any] = []
        self.daemon.fail = self.failed.append  # type: ignore[assignment, method-assign]
        self.clients: list[Client] = []

    async def start(self) -> None:
        self.daemon.startService()
        await self.daemon._coming_up.addTimeout(BOUND_S, reactor)  # type: ignore[union-attr]

    def port(self, name: str) -> int:
        order = [factory.stream.name for factory in self.daemon._subscribers] + ["ingest"]
        return int(self.daemon._ports[order.index(name)].getHost().port)

    async def connect(self, name: str, *lines: bytes) -> Client:
        endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", self.port(name))
        client = await endpoints.connectProtocol(endpoint, Client())
        self.clients.append(client)
        if lines:
            client.send(*lines)
        return client

    async def stop(self) -> None:
        await self.daemon.stopService().addTimeout(BOUND_S, reactor)
        for client in self.clients:
            client.transport.loseConnection()  # type: ignore[union-attr]
            await client.ended.addTimeout(BOUND_S, reactor)


@pytest.fixture(autouse=True)
def _no_side_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own process keeps its limits."""
    monkeypatch.setattr(daemon, "raise_file_limit", lambda: 0)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


@pytest_twisted.async_yield_fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A hub with all its ports."""
    hub = Running(tmp_path)
    await hub.start()
    yield hub
    await hub.stop()


@pytest_twisted.ensureDeferred
async def test_an_event_goes_from_a_producer_to_the_clients_of_its_priority(running: Running) -> None:
    """Over real sockets: acknowledged, enriched, and to nobody else."""
    critical = await running.connect("critical", subscribe(after="now"))
    everything = await running.connect("all", subscribe(after="now"))
    other = await running.connect("normal", subscribe(after="now"))
    for client in (critical, everything, other):
        await client.lines(1)
    producer = await running.connect("ingest", line("a", priority="critical", data={"line": "ALARM"}))
    assert await producer.lines(1) == [b"ACK 1"]
    _, got = await critical.lines(2)
    assert json.loads(got)["id"] == "a"
    assert (await everything.lines(2))[1] == got
    other.send(b"PING")
    assert (await other.lines(2))[1] == b"PONG"


@pytest_twisted.ensureDeferred
async def test_a_half_closed_producer_gets_its_ack_and_the_end(running: Running) -> None:
    """As nc -N does, also when it has sent a mistake last."""
    for last, expected in (
        (line("b"), [b"ACK 2"]),
        (b"NONSENSE", [b"ACK 1", b"ERROR NONSENSE is no verb of this port"]),
    ):
        producer = await running.connect("ingest", line("a"), last)
        producer.transport.loseWriteConnection()  # type: ignore[union-attr]
        await producer.ended.addTimeout(BOUND_S, reactor)
        answers = producer.data.split(b"\n")[:-1]
        assert answers[-len(expected) :] == expected


@pytest_twisted.ensureDeferred
async def test_an_error_reaches_a_peer_that_goes_on_sending(running: Running) -> None:
    """The connection is not reset over what the hub has not read."""
    producer = await running.connect("ingest", b"x" * 70_000, *[b"y" * 60_000] * 50)
    assert await producer.lines(1) == [b"ERROR a line is longer than 65536 bytes"]
    producer.transport.loseWriteConnection()  # type: ignore[union-attr]
    await producer.ended.addTimeout(BOUND_S, reactor)
    client = await running.connect("normal", b"x" * 70_000, *[b"y" * 60_000] * 50)
    assert await client.lines(1) == [b"ERROR a line is longer than 65536 bytes"]


@pytest_twisted.ensureDeferred
async def test_a_restart_keeps_events_positions_and_spools(tmp_path: Path) -> None:
    """Everything that was acknowledged, over a stop and a start."""
    first = Running(tmp_path)
    await first.start()
    client = await first.connect("normal", subscribe(name="n"))
    await client.lines(1)
    agent = await first.connect("ingest", hello(), *(spooled(n) for n in range(1, 6)))
    await agent.lines(2)
    got = await client.lines(6)
    client.send(b"ACK " + json.loads(got[2])["offset"].encode(), b"PING")
    await client.lines(7)
    await first.stop()
    assert not first.failed

    second = Running(tmp_path)
    await second.start()
    agent = await second.connect("ingest", hello(), *(spooled(n) for n in range(1, 7)))
    ok, ack = await agent.lines(2)
    assert b'"normal":5' in ok
    assert ack == b"ACK 6"
    client = await second.connect("normal", subscribe(name="n"))
    lines = await client.lines(5)
    assert [json.loads(each)["id"] for each in lines[1:]] == ["s-3", "s-4", "s-5", "s-6"]
    await second.stop()


@pytest_twisted.ensureDeferred
async def test_a_stop_stores_what_was_read_and_counts(running: Running, logged: Any) -> None:
    """Connections are closed, and the counters are told."""
    producer = await running.connect("ingest", line("a"))
    await producer.lines(1)
    client = await running.connect("normal")
    running.clients.clear()
    await running.daemon.stopService().addTimeout(BOUND_S, reactor)
    for each in (producer, client):
        await each.ended.addTimeout(BOUND_S, reactor)
    assert any("received=1 repeats=0 rejected=0 stored=1" in text for text in logged.text())
    running.daemon.stopService = lambda: Deferred.fromCoroutine(done())  # type: ignore[method-assign]


async def done() -> None:
    """Nothing is left to stop."""


@pytest_twisted.ensureDeferred
async def test_a_second_hub_on_the_same_state_is_refused(running: Running, tmp_path: Path) -> None:
    """With a sentence that says which process has it."""
    second = Running(tmp_path)
    await second.start()
    assert "another process" in str(second.failed[0])
    await second.stop()


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken_ends_the_hub(tmp_path: Path) -> None:
    """And what was opened before is closed again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = f'state = "{tmp_path}"\n[listen]\n' + LISTEN.replace('important = "tcp:0:', f'important = "tcp:{port}:')
        hub = HubDaemon(reactor, parse_config(text, "hub.toml"))
        failed: list[Any] = []
        hub.fail = failed.append  # type: ignore[assignment, method-assign]
        hub.startService()
        await hub._coming_up.addTimeout(BOUND_S, reactor)  # type: ignore[union-attr]
        assert str(port) in str(failed[0])
        await hub.stopService().addTimeout(BOUND_S, reactor)
    again = Running(tmp_path)
    await again.start()
    assert not again.failed
    await again.stop()


@pytest_twisted.ensureDeferred
async def test_listening_for_others_is_warned_of(tmp_path: Path, logged: Any) -> None:
    """Nobody is asked who they are."""
    hub = Running(tmp_path)
    hub.daemon = HubDaemon(
        reactor, parse_config(f'state = "{tmp_path}"\n[listen]\n{LISTEN}'.replace("127.0.0.1", "0.0.0.0", 1), "x")
    )
    await hub.start()
    await hub.stop()
    assert len([text for text in logged.text("warn") if "Other machines can reach ingest" in text]) == 1


@pytest.mark.parametrize("name", ["ingest", "normal", "all"])
def test_an_endpoint_that_is_none_is_refused_with_the_configuration(name: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigurationError, match=f"hub.toml: listen.{name}: 'tcp:x' is no endpoint"):
        parse_config(f'[listen]\n{name} = "tcp:x"', "hub.toml")


@pytest_twisted.ensureDeferred
async def test_own_code_that_cannot_be_loaded_is_told_with_the_files_name(tmp_path: Path) -> None:
    """Nothing is opened."""
    path = tmp_path / "mine.toml"
    path.write_text(f'state = "{tmp_path / "state"}"\n[filter]\nfactory = "nosuch:thing"')
    options = Options()
    options.parseOptions(["--config", str(path)])
    hub = service.makeService(options)
    failed: list[Any] = []
    hub.fail = failed.append  # type: ignore[assignment, method-assign]
    hub.startService()
    await hub._coming_up.addTimeout(BOUND_S, reactor)  # type: ignore[union-attr]
    await hub.stopService().addTimeout(BOUND_S, reactor)
    assert str(failed[0]).startswith(f"{path}: filter.factory: nosuch cannot be imported")
    assert not hub.state.exists()


def test_the_hub_needs_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every setting has its default; nothing is opened before it is started."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    options = Options()
    options.parseOptions([])
    hub = service.makeService(options)
    assert isinstance(hub, HubDaemon)
    assert hub.state == tmp_path / "state"
    assert not hub.state.exists()
