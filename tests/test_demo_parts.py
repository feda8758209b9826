"""The demo's parts: the panel, the ports, the configuration, the waiting, the daemons and the clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ProcessExitedAlready
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from notifyd.agent import service as agent_service
from notifyd.agent.framing import Frame
from notifyd.agent.rules import Rules
from notifyd.ctl import demo_client, demo_daemons, demo_story
from notifyd.ctl.demo_account import Printed
from notifyd.ctl.demo_client import Client
from notifyd.ctl.demo_daemons import Daemon, Ports
from notifyd.ctl.demo_panel import KINDS, Panel
from notifyd.ctl.demo_wait import Changes, DemoError
from notifyd.event import Priority
from notifyd.hub import service as hub_service

PORTS = {"ingest": 31500, "normal": 31600, "important": 31601, "critical": 31602}


# --- the panel -------------------------------------------------------------------------------------------


@pytest.fixture
def panel(tmp_path: Path) -> Iterator[Panel]:
    """A panel with its cable in."""
    made = Panel(tmp_path / "panel")
    made.plug()
    yield made
    made.unplug()


def test_whoever_opens_the_panels_port_reads_what_it_prints(panel: Panel, tmp_path: Path) -> None:
    """Each line is numbered and ended by CR LF, byte for byte."""
    port = os.open(tmp_path / "panel", os.O_RDWR | os.O_NOCTTY)
    panel.print("ALARM 7 smoke")
    assert os.read(port, 100) == b"001 ALARM 7 smoke\r\n"
    os.close(port)
    assert panel.printed == [Printed("001 ALARM 7 smoke", Priority.CRITICAL, cable=True)]


def test_what_the_panel_prints_with_the_cable_out_is_kept_apart(panel: Panel, tmp_path: Path) -> None:
    """Its port is gone then, and comes back under the same name."""
    panel.unplug()
    assert not (tmp_path / "panel").is_symlink()
    assert not panel.print("TEMP 4 21.5").cable
    panel.plug()
    assert panel.print("TEMP 4 21.6").cable
    assert (tmp_path / "panel").is_char_device()


def print_for_ever(panel: Panel) -> None:
    """Prints more than a port takes."""
    for _ in range(100):
        panel.print("TEMP " + "4" * 1000)


def test_a_port_that_nobody_reads_is_told(panel: Panel) -> None:
    """The panel does not wait for ever, nor lose a part of a line in silence."""
    with pytest.raises(DemoError, match="the panel's port takes n"):
        print_for_ever(panel)


def test_the_agent_takes_each_line_of_the_story_for_what_the_panel_means(tmp_path: Path) -> None:
    """The rules in the demo's agent.toml fit what its panel prints, as the daemons' own parsers see them."""
    agent_file, hub_file = demo_daemons.write_configuration(tmp_path, PORTS, tmp_path / "panel")
    settings = agent_service.parse_config(agent_file.read_text(), str(agent_file))
    rules = Rules(settings.source[0], "ward3")
    acts = (demo_story.NORMAL_LIFE, demo_story.BEFORE_OUTAGE, demo_story.OUTAGE, demo_story.COMING_BACK)
    texts = [text for act in (*acts, demo_story.AFTER_OUTAGE, demo_story.CABLE_IN) for text in act]
    for text in [*texts, demo_story.ON_ITS_WAY]:
        event = rules.event(Frame(f"001 {text}".encode()), 0.0)
        assert event is not None, text
        assert event.priority == KINDS[text.split()[0]]
    hub = hub_service.parse_config(hub_file.read_text(), str(hub_file))
    assert hub.listen.critical == "tcp:31602:interface=127.0.0.1"
    assert settings.hub == "tcp:127.0.0.1:31500"


# --- ports -----------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_replaced_by_a_free_one() -> None:
    """Two demos side by side get ports of their own, though no hub listens yet."""
    first, second = Ports(), Ports()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert not demo_daemons.is_free(number)
        mine, theirs = first.choose(), second.choose()
        assert not set(mine.values()) & {number, *theirs.values()}
    first.release()
    second.release()
    third = Ports()
    assert set(third.choose()) == {"ingest", "normal", "important", "critical"}
    third.release()


def test_no_free_port_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a sentence, not a traceback."""
    monkeypatch.setattr(demo_daemons, "is_free", lambda number: False)
    with pytest.raises(DemoError, match="no free port"):
        Ports().choose()


# --- waiting -----------------------------------------------------------------------------------------------


def begin(work: Any) -> tuple[Deferred[Any], list[Any]]:
    """Starts a coroutine, and gives where its result, or its error, will be."""
    results: list[Any] = []
    started = Deferred.fromCoroutine(work)
    started.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return started, results


def test_a_wait_ends_when_what_it_waits_for_has_happened() -> None:
    """It looks after each change, and not inside of it."""
    clock, there = Clock(), []
    changes = Changes(clock)
    _, results = begin(changes.until("it", lambda: bool(there), 5.0))
    changes.happened()
    clock.advance(0)
    assert results == []
    there.append(1)
    changes.happened()
    assert results == []
    clock.advance(0)
    assert results == [None]
    assert clock.getDelayedCalls() == []


def test_a_wait_that_takes_too_long_says_what_it_waited_for() -> None:
    """The demo never hangs."""
    clock = Clock()
    _, results = begin(Changes(clock).until("the hub to be ready", lambda: False, 5.0))
    clock.pump([2.5, 2.5])
    assert str(results[0]) == "waited 5 s in vain for the hub to be ready"


def test_a_failure_ends_every_wait_now_and_later() -> None:
    """The first failure counts: what follows from it is noise."""
    clock = Clock()
    changes = Changes(clock)
    _, now = begin(changes.pause(5.0))
    changes.fail(DemoError("first"))
    changes.fail(DemoError("second"))
    clock.advance(0)
    _, later = begin(changes.settles(lambda: False, 5.0))
    clock.advance(0)
    assert [str(now[0]), str(later[0])] == ["first", "first"]


def test_a_cancelled_wait_leaves_nothing_scheduled() -> None:
    """Ctrl-C ends the demo in the middle of a wait."""
    clock = Clock()
    waiting, results = begin(Changes(clock).pause(5.0))
    waiting.cancel()
    assert len(results) == 1
    assert clock.getDelayedCalls() == []


# --- child processes -----------------------------------------------------------------------------------------


class Spawner(Clock):
    """A reactor whose processes do nothing but note the signals that they get."""

    def __init__(self) -> None:
        super().__init__()
        self.signals: list[str] = []
        self.over = False

    def spawnProcess(self, protocol: Daemon, *_: Any, **__: Any) -> Spawner:
        return self

    def signalProcess(self, name: str) -> None:
        if self.over:
            raise ProcessExitedAlready
        self.signals.append(name)


def test_what_a_daemon_logs_is_read_line_by_line(tmp_path: Path) -> None:
    """Its counters are those of the line that it writes at its stop."""
    daemon = Daemon(Spawner(), Changes(Clock()), "notify-hub", tmp_path / "hub.toml")
    daemon.outReceived(b"[-] notify-hub is rea")
    assert not daemon.said("ready")
    daemon.errReceived(b"dy.\n[-] Hub counters: received=2 repeats=0 stored=2\nbye\n")
    assert daemon.said("notify-hub is ready")
    assert not daemon.said("notify-hub is ready", times=2)
    assert daemon.counters() == {"received": 2, "repeats": 0, "stored": 2}


def test_a_daemon_without_counters_is_told(tmp_path: Path) -> None:
    """No figure is made up."""
    daemon = Daemon(Spawner(), Changes(Clock()), "notify-hub", tmp_path / "hub.toml")
    with pytest.raises(DemoError, match="notify-hub has logged no counters"):
        daemon.counters()


def test_a_daemon_that_ends_by_itself_ends_the_demo(tmp_path: Path) -> None:
    """Nobody waits for what it would have said; one that was told to stop may end."""
    spawner = Spawner()
    changes = Changes(spawner)
    daemon = Daemon(spawner, changes, "notify-hub", tmp_path / "hub.toml")
    _, waiting = begin(daemon.ready())
    daemon.processEnded(Failure(ConnectionDone()))
    spawner.advance(0)
    assert str(waiting[0]).startswith("notify-hub has ended by itself")


def test_a_killed_daemon_is_waited_for(tmp_path: Path) -> None:
    """Its port and its files are free then; killing it once more does nothing."""
    spawner = Spawner()
    daemon = Daemon(spawner, Changes(spawner), "notify-hub", tmp_path / "hub.toml")
    _, killed = begin(daemon.kill())
    assert killed == []
    spawner.over = True
    daemon.processEnded(Failure(ConnectionDone()))
    _, again = begin(daemon.kill())
    assert (killed, again, spawner.signals) == ([None], [None], ["KILL"])


def test_a_child_whose_parent_has_gone_ends_at_once() -> None:
    """It would be left behind."""
    command = [sys.executable, "-m", "notifyd.ctl.demo_child", "1", "notify-hub"]
    assert subprocess.run(command, timeout=30, check=False).returncode == 1


def test_a_child_is_twistd() -> None:
    """In a process group of its own, so that Ctrl-C does not reach it."""
    command = [sys.executable, "-m", "notifyd.ctl.demo_child", str(os.getpid()), "notify-hub", "--help"]
    done = subprocess.run(command, timeout=30, check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert "every client that is connected" in " ".join(done.stdout.split())


def test_a_database_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """It is a sentence, not a traceback."""
    with pytest.raises(DemoError, match=r"hub\.db cannot be read"):
        demo_daemons.read_events(tmp_path)


# --- a client ------------------------------------------------------------------------------------------------


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


EVENT = b'{"offset":"%d","source":"s","id":"%d","type":"t","priority":"normal","data":{"line":"x"}}\n'


def connected(client: Client) -> tuple[Any, Transport]:
    """Gives one more connection of a client's, and what it writes to."""
    connection, transport = demo_client._Connection(client), Transport()
    connection.makeConnection(transport)
    return connection, transport


def make_client(changes: Changes, shown: list[Any]) -> Client:
    """Gives a client that shows what it gets in a list."""
    return Client(Clock(), changes, "normal", 1600, lambda *what: shown.append(what), lambda: shown.append("lost"))


def test_a_client_registers_and_acknowledges_what_it_gets() -> None:
    """What comes before OK is thrown away, as the protocol has it; what came before is known as a repeat."""
    shown: list[Any] = []
    client = make_client(Changes(Clock()), shown)
    connection, transport = connected(client)
    assert transport.written == b'SUBSCRIBE {"after":"first","name":"demo-normal"}\n'
    connection.dataReceived(EVENT % (1, 1) + b'OK {"stream":"normal","after":"0"}\n' + EVENT % (1, 1))
    connection.connectionLost()
    connection, transport = connected(client)
    connection.dataReceived(b'OK {"stream":"normal","after":"0"}\n' + EVENT % (1, 1) + EVENT % (2, 2))
    assert transport.written.endswith(b"ACK 1\nACK 2\n")
    assert [is_repeat for _, is_repeat in shown] == [False, True, False]
    assert [delivery.connection for delivery in client.deliveries] == [1, 2, 2]
    assert client.lines_by_connection == {1: 2, 2: 2}


def test_a_client_keeps_what_the_hub_says_of_a_gap() -> None:
    """The account does not balance then."""
    client = make_client(Changes(Clock()), [])
    connected(client)[0].dataReceived(b'GAP {"after":"1","before":"3","reason":"expired"}\n')
    assert client.gaps == ['{"after":"1","before":"3","reason":"expired"}']


@pytest.mark.parametrize("line", [b"ERROR too many subscribers\n", b'OK {}\n{"no":"event"}\n'])
def test_a_client_that_is_refused_or_sent_nonsense_ends_the_demo(line: bytes) -> None:
    """With what it was sent."""
    clock = Clock()
    changes = Changes(clock)
    _, results = begin(changes.pause(1.0))
    connected(make_client(changes, []))[0].dataReceived(line)
    clock.advance(0)
    assert "the client of normal failed" in str(results[0])
