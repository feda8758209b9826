"""The agent as a whole: from its command line to what is left when it stops."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory

from notifyd.agent.service import AgentDaemon, Options, agent_name, makeService
from notifyd.database import FolderLock
from tests.spooling import Log, bounded, other_connection, scheduled, until
from tests.test_uplink import HubSide

LAUNCHER = Path(__file__).parent / "integration" / "launcher.py"
COUNTERS = re.compile(
    r"Agent counters: read=(\d+) stored=(\d+) sent=(\d+) acknowledged=(\d+) dropped=(\d+) rejected=(\d+)$"
)


def configuration(folder: Path, port: str, hub: str = "tcp:127.0.0.1:1", extra: str = "") -> Path:
    """Writes an ``agent.toml`` and gives its name."""
    path = folder / "agent.toml"
    source = f'[[source]]\nname = "panel"\nport = "{port}"\n'
    path.write_text(f'name = "ward3"\nhub = "{hub}"\nstate = "{folder / "state"}"\n{extra}\n{source}')
    return path


def parse(path: Path) -> Options:
    """Does what twistd does with the command line."""
    options = Options()
    options.parseOptions(["--config", str(path)])
    return options


@pytest.fixture
def device() -> Iterator[tuple[int, str]]:
    """A pty: what is written to the first is printed by the device of that name."""
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


@pytest_twisted.async_yield_fixture
async def hub() -> Any:
    """A hub that takes everything; gives its factory and its endpoint string."""
    factory = Factory.forProtocol(HubSide)
    factory.connections, factory.noisy = [], False
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    yield factory, f"tcp:127.0.0.1:{port.getHost().port}"
    await port.stopListening()
    await until(lambda: all(each.is_lost for each in factory.connections))
    assert scheduled() == []


# --- from device to hub ------------------------------------------------------------------------------------


async def test_what_the_device_prints_reaches_the_hub(
    tmp_path: Path, device: tuple[int, str], hub: Any, log: Log
) -> None:
    """A line is stored, sent and, once acknowledged, deleted; at the stop the account is logged."""
    factory, endpoint = hub
    daemon = makeService(parse(configuration(tmp_path, device[1], endpoint)))
    daemon.startService()
    await until(lambda: factory.connections and factory.connections[0].lines)
    side = factory.connections[0]
    side.ok()
    os.write(device[0], b"ALARM 7 door open\r\nall quiet\n")
    await until(lambda: side.texts == ["ALARM 7 door open", "all quiet"])
    assert side.hello["agent"] == "ward3"
    assert {each.event["source"] for each in side.events} == {"/ward3/panel"}
    side.say("ACK 2")
    await until(lambda: daemon.spool.counters.acknowledged == 2)
    await bounded(daemon.stopService())
    (line,) = log.matching("Agent counters:")
    assert COUNTERS.fullmatch(line)
    assert COUNTERS.fullmatch(line).groups() == ("2", "2", "2", "2", "0", "0")


async def test_what_was_read_is_stored_when_the_agent_stops(tmp_path: Path, device: tuple[int, str]) -> None:
    """Without a hub too; a line without its end is stored as it is, and marked."""
    daemon = makeService(parse(configuration(tmp_path, device[1])))
    daemon.startService()
    await until(lambda: daemon.sources[0].counters.openings)
    os.write(device[0], b"one\ntwo\nhalf")
    await until(lambda: daemon.sources[0].frames == 2)
    await bounded(daemon.stopService())
    with other_connection(tmp_path / "state" / "spool.db") as spool:
        lines = [row[0].decode() for row in spool.execute("SELECT line FROM normal ORDER BY sequence")]
    assert ["one" in lines[0], "two" in lines[1], "half" in lines[2], "truncated" in lines[2]] == [True] * 4
    FolderLock(tmp_path / "state" / "lock").acquire()


async def test_the_agent_comes_up_while_its_spool_is_locked(tmp_path: Path, device: tuple[int, str], hub: Any) -> None:
    """What is printed meanwhile waits in memory, and is stored and sent when the lock is gone."""
    factory, endpoint = hub
    options = parse(configuration(tmp_path, device[1], endpoint))
    daemon = makeService(options)
    daemon.startService()
    await until(lambda: daemon.sources[0].counters.openings)
    await bounded(daemon.stopService())
    someone = sqlite3.connect(tmp_path / "state" / "spool.db", isolation_level=None)
    someone.execute("BEGIN EXCLUSIVE")
    daemon = makeService(options)
    daemon.startService()
    await until(lambda: daemon.sources[0].counters.openings)
    os.write(device[0], b"one\n")
    await until(lambda: daemon.spool.waiting == 1)
    someone.rollback()
    someone.close()
    await until(lambda: factory.connections and factory.connections[-1].lines)
    side = factory.connections[-1]
    side.ok()
    await until(lambda: side.texts == ["one"])
    side.say("ACK 1")
    await bounded(daemon.stopService())


async def test_stopping_while_it_comes_up_is_clean(tmp_path: Path, device: tuple[int, str]) -> None:
    """A stop right after the start leaves nothing behind."""
    daemon = makeService(parse(configuration(tmp_path, device[1])))
    daemon.startService()
    await bounded(daemon.stopService())
    assert scheduled() == []


def test_nothing_is_opened_before_it_starts(tmp_path: Path) -> None:
    """Building the service touches neither the state folder nor the device."""
    daemon = makeService(parse(configuration(tmp_path, "/dev/nowhere")))
    assert isinstance(daemon, AgentDaemon)
    assert not (tmp_path / "state").exists()


# --- the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "hub", "reason"),
    [
        ("colour = 1", "tcp:127.0.0.1:1", "colour: unknown key"),
        ("", "nonsense", "hub: 'nonsense' is no endpoint"),
        ("", "tcp:host:99999999", "hub: "),
        ("[spool]\nmax_events = 0\n", "tcp:127.0.0.1:1", "spool.max_events"),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: str, hub: str, reason: str
) -> None:
    """It names file, key and reason; the status is 1, and nothing was opened."""
    path = configuration(tmp_path, "/dev/null", hub, extra)
    with pytest.raises(SystemExit) as ended:
        parse(path)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: ")
    assert reason in line
    assert not (tmp_path / "state").exists()


def test_help_says_what_the_daemon_does() -> None:
    """``--help`` is for whoever has never seen it."""
    text = str(Options())
    assert "--config" in text
    assert "serial devices" in " ".join(text.split())


@pytest.mark.parametrize(
    ("setting", "host", "name"),
    [
        ("Ward 3", "machine", "Ward 3"),
        (None, "ward3.example.org", "ward3.example.org"),
        (None, "a/b c", "a-b-c"),
        (None, "///", "agent"),
    ],
)
def test_the_agents_name_is_the_settings_else_the_hosts(setting: str | None, host: str, name: str) -> None:
    """What a host name may have and an agent's name may not is replaced."""
    assert agent_name(setting, host) == name


# --- how the process ends ----------------------------------------------------------------------------------


def run_daemon(path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the real command, which is expected to end by itself."""
    command = [sys.executable, str(LAUNCHER), "notify-agent", "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", check=False)


def test_a_state_folder_in_use_ends_the_agent(tmp_path: Path) -> None:
    """A second agent on the same folder ends with status 1 and one line that names the first."""
    (tmp_path / "state").mkdir()
    lock = FolderLock(tmp_path / "state" / "lock")
    lock.acquire()
    ended = run_daemon(configuration(tmp_path, "/dev/null"))
    lock.release()
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line == f"notify-agent: another process ({os.getpid()}) uses {tmp_path / 'state'}"
    assert not (tmp_path / "state" / "spool.db").exists()


def test_a_state_folder_that_cannot_be_written_ends_the_agent(tmp_path: Path) -> None:
    """Without a place for its state the agent cannot keep its promise."""
    (tmp_path / "state").write_text("a file")
    ended = run_daemon(configuration(tmp_path, "/dev/null"))
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "cannot be written" in ended.stderr


def test_a_spool_of_a_newer_version_ends_the_agent(tmp_path: Path) -> None:
    """It says that a newer notifyd is needed, and leaves the file as it is."""
    (tmp_path / "state").mkdir()
    with other_connection(tmp_path / "state" / "spool.db") as newer:
        newer.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        newer.execute("INSERT INTO schema_version VALUES (99)")
    ended = run_daemon(configuration(tmp_path, "/dev/null"))
    assert ended.returncode == 1
    assert "install a newer notifyd" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
