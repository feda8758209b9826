"""Ports behind a real ser2net: raw, and with control of the line; what arrives is what the device printed."""

from __future__ import annotations

import json
import os
import select
import signal
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.recordings import RECORDINGS, Replay, sentences
from tests.integration.rig import Agent, Collector, Hub, Panel, Process, free_ports
from tests.tools import require_tool

SERVED = """%YAML 1.1
---
connection: &panel
  accepter: {accepter},127.0.0.1,{port}
  connector: serialdev(nouucplock=true),{link},9600n81,local
"""
SOURCE = """
[[source]]
name = "gnss"
port = "{kind}://127.0.0.1:{port}"
baudrate = 19200
{settings}
"""
both = pytest.mark.parametrize("kind", ["socket", "rfc2217"])


class Ser2net:
    """A ser2net that has the port of a panel, and can be started again."""

    def __init__(self, folder: Path, panel: Panel, kind: str) -> None:
        self.program = require_tool("ser2net")
        self.folder = folder
        (self.port,) = free_ports(1)
        self.config = folder / "ser2net.yaml"
        accepter = "tcp" if kind == "socket" else "telnet(rfc2217),tcp"
        self.config.write_text(SERVED.format(accepter=accepter, port=self.port, link=panel.link))
        self.process: Process | None = None

    def start(self) -> None:
        """Starts it."""
        self.process = Process([self.program, "-n", "-c", str(self.config)], self.folder)

    def wait(self) -> None:
        """Waits until it listens, by what the kernel says: a connection would have the port opened."""
        listening = f"{self.port:04X} 00000000:0000 0A"
        for _ in range(500):
            if listening in Path("/proc/net/tcp").read_text():
                return
            time.sleep(0.02)
        raise AssertionError("ser2net does not listen")

    def kill(self) -> None:
        """Ends it at once."""
        if self.process is not None:
            self.process.kill()
            self.process = None


class Served:
    """A panel, its server, and an agent that reads it through the server."""

    def __init__(self, hub: Hub, folder: Path, start: Callable[..., Any], kind: str, settings: str = "") -> None:
        self.panel: Panel = start(Panel, folder / "gnss")
        self.server: Ser2net = start(Ser2net, folder, self.panel, kind)
        source = SOURCE.format(kind=kind, port=self.server.port, settings=settings)
        self.agent: Agent = start(Agent, folder, hub.ports["ingest"], source)
        self.server.start()
        self.agent.start()
        self.own: Collector = start(Collector, hub.ports["important"], "own")
        self.replay = Replay(self.panel, start(Collector, hub.ports["normal"], "follower"))

    def told(self, what: str) -> list[dict[str, Any]]:
        """Gives the fields of the agent's events of a type."""
        return [event["data"]["fields"] for event in self.own.events if event["type"] == f"notifyd.source.{what}"]

    @property
    def log(self) -> list[str]:
        """What the agent has logged about the source."""
        assert self.agent.process is not None
        return [line for line in self.agent.process.text.splitlines() if "Source gnss" in line]


@pytest.mark.skipif(not RECORDINGS, reason="the recordings are not beside the checkout")
@both
def test_every_intact_sentence_comes_through_a_server(
    hub: Hub, tmp_path: Path, start: Callable[..., Any], kind: str
) -> None:
    """All recordings: once, in order, none invented."""
    served = Served(hub, tmp_path, start, kind)
    served.replay.wait_for_a_reader()
    for recording in RECORDINGS:
        served.replay.print(recording.read_bytes() + b"\r\n")
    served.replay.wait_until_all_is_there()
    served.replay.check()
    assert served.told("lost") == served.told("errors") == []


@pytest.mark.skipif(not RECORDINGS, reason="the recordings are not beside the checkout")
@both
def test_every_intact_sentence_comes_through_a_server_that_is_killed_every_second(
    hub: Hub, tmp_path: Path, start: Callable[..., Any], kind: str
) -> None:
    """Each time in the middle of a sentence; what is printed while no server runs nobody can have."""
    served = Served(hub, tmp_path, start, kind)
    lines = [line for recording in RECORDINGS for line in sentences(recording.read_bytes())]
    share = len(lines) // 8
    for number in range(8):
        served.replay.wait_for_a_reader()
        served.replay.print(b"\r\n".join(lines[number * share : (number + 1) * share]) + b"\r\n")
        served.replay.wait_until_all_is_there()
        served.panel.print(b"$GPGGA,1234")
        served.server.kill()
        served.server.start()
    served.replay.wait_for_a_reader()
    served.replay.check()
    assert len(served.log) <= 2 * 9


def test_the_line_is_set_on_the_servers_side(hub: Hub, tmp_path: Path, start: Callable[..., Any]) -> None:
    """With rfc2217 the speed is the agent's setting, not the server's."""
    served = Served(hub, tmp_path, start, "rfc2217")
    served.replay.wait_for_a_reader()
    assert termios.tcgetattr(served.panel.slave)[4] == termios.B19200


def test_a_raw_server_is_told_to_be_one(hub: Hub, tmp_path: Path, start: Callable[..., Any]) -> None:
    """Asked to set the line it does nothing, and its device is asked in vain: the operator is told what to write."""
    panel = start(Panel, tmp_path / "gnss")
    server = start(Ser2net, tmp_path, panel, "socket")
    server.start()
    start(Agent, tmp_path, hub.ports["ingest"], SOURCE.format(kind="rfc2217", port=server.port, settings="")).start()
    own = start(Collector, hub.ports["all"], "own")
    lost = own.wait(lambda events: len(events) >= 1)[0]
    reason = "the server does not set the line (RFC 2217); if it is raw, name it socket:// instead"
    assert lost["data"]["fields"]["reason"] == reason


def test_why_the_server_has_no_port_is_a_reason_and_no_event(
    hub: Hub, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """Its device is not there: told once, in the server's words where they were not lost with the connection."""
    panel = start(Panel, tmp_path / "gnss")
    panel.unplug()
    server = start(Ser2net, tmp_path, panel, "rfc2217")
    server.start()
    server.wait()
    start(Agent, tmp_path, hub.ports["ingest"], SOURCE.format(kind="rfc2217", port=server.port, settings="")).start()
    own = start(Collector, hub.ports["all"], "own")
    (lost,) = own.wait(lambda events: bool(events))
    assert lost["type"] == "notifyd.source.lost"
    # It closes without having read what was sent to it: the kernel may then drop what it had said.
    reason = lost["data"]["fields"]["reason"]
    assert "Device open failure" in reason or reason == "the connection to the server is lost"


@both
def test_every_byte_value_goes_both_ways(hub: Hub, tmp_path: Path, start: Callable[..., Any], kind: str) -> None:
    """No byte is taken for a command of Telnet, nor changed on its way."""
    every = "".join(chr(byte) for byte in range(256))
    served = Served(hub, tmp_path, start, kind, f"on_open = {json.dumps(every)}")
    served.replay.wait_for_a_reader()
    got = b""
    while len(got) < 256:
        assert select.select([served.panel.master], [], [], 20)[0]
        got += os.read(served.panel.master, 1000)
    assert got == bytes(range(256))
    served.replay.expected = [bytes(byte for byte in range(256) if byte not in b"\r\n")]
    served.panel.print(served.replay.expected[0] + b"\r\n")
    served.replay.wait_until_all_is_there()
    assert served.replay.arrived.count(served.replay.expected[0]) == 1


@both
def test_a_server_that_hangs_is_not_hammered_and_found_again(
    hub: Hub, tmp_path: Path, start: Callable[..., Any], kind: str
) -> None:
    """Stopped in its tracks it keeps the connection open; killed, it is told as lost, and its successor is found."""
    served = Served(hub, tmp_path, start, kind)
    served.replay.wait_for_a_reader()
    assert served.server.process is not None
    served.server.process.popen.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    served.server.kill()
    served.own.wait(lambda events: len(events) >= 1)
    served.server.start()
    served.replay.wait_for_a_reader()
    assert [event["type"].rsplit(".", 1)[1] for event in served.own.wait(lambda events: len(events) >= 2)] == [
        "lost",
        "restored",
    ]
