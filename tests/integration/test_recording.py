"""Recording, replaying and sniffing with real processes on real ptys."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import serial

from notifyd import config_agent
from notifyd.agent.recording import Entry, Kind, Playback, encode, encode_header
from tests.integration.rig import Agent, Panel, Process, free_ports
from tests.serialtools import settings

DATA = Path(__file__).parents[3] / "shared" / "data"
RECORDINGS = sorted(DATA.glob("*/*.log")) + sorted(DATA.glob("*/*.txt"))
SOURCE = """
[[source]]
name = "gnss"
port = "{port}"
record = {record}
[[source.rule]]
name = "fix"
match = '^\\$G.GGA,(?P<time>[0-9.]*)'
type = "gnss.fix"
priority = "important"
[[source.rule]]
"""


def notifyctl(*arguments: str | Path) -> Process:
    """Starts the command."""
    return Process([sys.executable, "-m", "notifyd.ctl.main", *map(str, arguments)], Path.cwd())


def spooled(agent: Agent) -> list[tuple[str, str, str, Any]]:
    """Gives type, source, priority and data of what waits in an agent's spool, in order, but for its own events."""
    events = []
    with contextlib.closing(sqlite3.connect(f"file:{agent.state / 'spool.db'}?mode=ro", uri=True)) as connection:
        for lane in ("important", "normal"):
            for (line,) in connection.execute(f"SELECT line FROM {lane} ORDER BY sequence"):
                event = json.loads(line)
                if not event["type"].startswith("notifyd.source."):
                    events.append((event["type"], event["source"], event["priority"], event["data"]))
    return events


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for what another process does."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not RECORDINGS, reason="the recordings are not beside the checkout")
def test_a_recording_that_is_replayed_into_another_agent_gives_the_same_events(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    """A bug report is one file: what devices printed, recorded, replayed, and tried with the rules."""
    (hub,) = free_ports(1)
    panel = start(Panel, tmp_path / "gnss")
    first = start(Agent, tmp_path / "first", hub, SOURCE.format(port=panel.link, record="true"))
    first.start()
    printed = b"".join(path.read_bytes() + b"\r\n" for path in RECORDINGS) + b"the end\r\n"
    panel.print(printed)
    wait_until(lambda: any(data["line"] == "the end" for *_, data in spooled(first)))
    assert first.process.stop() == 0
    (recording,) = (first.state / "recordings").glob("gnss-*.rec")
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    entries = list(Playback([recording.read_bytes()]))
    assert b"".join(entry.data for entry in entries) == printed
    assert (entries[0].kind, entries[-1]) == (Kind.OPEN, Entry(entries[-1].at_s, Kind.CLOSE))

    link = tmp_path / "replayed"
    replay = start(notifyctl, "replay", recording, "--port", link, "--speed", "max")
    replay.wait_for(re.escape(str(link)))
    second = start(Agent, tmp_path / "second", hub, SOURCE.format(port=link, record="false"))
    second.start()
    assert replay.wait() == 0
    assert not link.is_symlink()
    second.process.stop()
    assert not (second.state / "recordings").exists()
    expected = spooled(first)
    assert len(expected) > 1_500
    assert spooled(second) == expected

    tried = start(notifyctl, "rules", "test-agent", recording, "--config", second.config, "--json")
    assert tried.wait() == 0
    events = [json.loads(line) for line in tried.text.splitlines()]
    events.sort(key=lambda event: event["priority"] != "important")  # as the lanes were read
    assert [(each["type"], each["source"], each["priority"], each["data"]) for each in events] == expected


def record(path: Path, *entries: Entry) -> Path:
    """Writes a recording."""
    path.write_bytes(encode_header(settings(), "2026-11-22T10:00:00Z", "0.1.0") + b"".join(map(encode, entries)))
    return path


def read(port: serial.Serial, size: int) -> bytes:
    """Reads so many bytes, or what comes within the port's timeout."""
    data: bytes = port.read(size)
    return data


def test_a_reader_that_is_slow_misses_no_byte(tmp_path: Path, start: Callable[..., Any]) -> None:
    """The player waits for it, and ends when it has read the last one."""
    printed = os.urandom(200_000)
    (file := tmp_path / "binary").write_bytes(printed)
    replay = start(notifyctl, "replay", file, "--speed", "max")
    device = replay.wait_for(r"/dev/pts/\d+\n")[0].strip()
    with serial.Serial(device, timeout=20, exclusive=True) as port:
        time.sleep(0.5)
        got = read(port, 190_000)
        time.sleep(0.5)
        assert replay.alive
        port.write(b"a question that nobody reads\n" * 5000)
        got += read(port, 10_000)
        assert got == printed
        assert replay.wait() == 0


def test_what_was_recorded_comes_at_its_time_and_the_cable_is_pulled_again(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    """With --reopen the name is gone where the device was, and then leads to another pty."""
    recording = record(
        tmp_path / "a.rec",
        Entry(0.0, Kind.OPEN),
        Entry(1.0, Kind.DATA, b"one\n"),
        Entry(3.0, Kind.CLOSE, text="it was unplugged, or hung up"),
        Entry(5.0, Kind.OPEN),
        Entry(5.5, Kind.DATA, b"two\n"),
        Entry(6.0, Kind.CLOSE),
    )
    link = tmp_path / "port"
    link.symlink_to("/dev/pts/of-an-earlier-run")
    replay = start(notifyctl, "replay", recording, "--port", link, "--reopen", "--speed", "2")
    replay.wait_for("port")
    begin = time.monotonic()
    with serial.Serial(str(link), timeout=20) as port:
        assert read(port, 4) == b"one\n"
        assert time.monotonic() - begin >= 0.5
        wait_until(lambda: not link.is_symlink())
        with pytest.raises(serial.SerialException):
            read(port, 1)
    wait_until(link.is_symlink)
    with serial.Serial(str(link), timeout=20) as port:
        assert read(port, 4) == b"two\n"
        assert replay.wait() == 0
    assert time.monotonic() - begin >= 2.75


def test_a_file_is_played_at_a_rate_again_and_again_until_ctrl_c(tmp_path: Path, start: Callable[..., Any]) -> None:
    """Status 130, and the name is taken away."""
    (file := tmp_path / "file").write_bytes(b"0123456789" * 12)
    link = tmp_path / "port"
    replay = start(notifyctl, "replay", file, "--port", link, "--baud", "4800", "--loop")
    replay.wait_for("port")
    with serial.Serial(str(link), timeout=20) as port:
        begin = time.monotonic()
        assert read(port, 480) == b"0123456789" * 48
        assert time.monotonic() - begin >= 0.9
        assert replay.signal(signal.SIGINT) == 130
    assert not link.is_symlink()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/none"], "/none: No such file or directory"),
        (["{recording}", "--baud", "9600"], "has its own times"),
        (["{recording}", "--speed", "0"], "expected max or a number above 0"),
        (["{recording}", "--reopen"], "--reopen needs --port"),
        (["{recording}", "--port", "{recording}"], "is there, and is no link"),
        (["{recording}", "--port", "/none/port"], "/none/port: No such file or directory"),
        (["{damaged}"], "line 1: its header cannot be read"),
    ],
)
def test_what_cannot_be_played_is_told(
    tmp_path: Path, start: Callable[..., Any], arguments: list[str], said: str
) -> None:
    """Before anybody waits for it."""
    recording = record(tmp_path / "a.rec", Entry(0.0, Kind.OPEN))
    (damaged := tmp_path / "b.rec").write_text("notifyd recording 1 {\n")
    process = start(notifyctl, "replay", *(each.format(recording=recording, damaged=damaged) for each in arguments))
    assert process.wait() in (1, 2)
    assert said in process.text
    assert len(process.text.splitlines()) == 1
    assert recording.read_bytes().startswith(b"notifyd")


def test_a_reader_that_leaves_ends_the_replay_with_a_word(tmp_path: Path, start: Callable[..., Any]) -> None:
    """What it has not read is not read by anybody."""
    (file := tmp_path / "file").write_bytes(b"x" * 1000)
    replay = start(notifyctl, "replay", file, "--speed", "max")
    device = replay.wait_for(r"/dev/pts/\d+\n")[0].strip()
    with serial.Serial(device, timeout=20) as port:
        read(port, 10)
    assert replay.wait() == 1
    assert "bytes at least were not read" in replay.text


def test_a_port_is_sniffed_and_its_table_can_be_pasted(tmp_path: Path, start: Callable[..., Any]) -> None:
    """Frames, what the rules make of them, and what was guessed; while another has the port, that is told."""
    panel = start(Panel, tmp_path / "panel")
    (config := tmp_path / "agent.toml").write_text(SOURCE.format(port=panel.link, record="false"))
    sniff = start(notifyctl, "sniff", panel.link, "--framing", "auto", "--config", config)
    sentences = b"$GPGGA,113938.50,3842,N*%02X\r\n"
    check = 0
    for byte in b"GPGGA,113938.50,3842,N":
        check ^= byte
    wait_until(lambda: _is_open(panel))
    panel.print(sentences % check * 30)
    sniff.wait_for(r"→ gnss.fix important \(fix\).* time=113938.50")
    second = start(notifyctl, "sniff", panel.link)
    assert second.wait() == 1
    assert "another process has it open; open in python" in second.text
    assert sniff.signal(signal.SIGINT) == 0
    assert "framing nmea: " in sniff.text
    table = sniff.text[sniff.text.index("\n\n") :]
    (source,) = config_agent.parse_agent(table, "pasted").source
    assert (source.name, source.port, source.framing) == ("gnss", str(panel.link), "nmea")


def _is_open(panel: Panel) -> bool:
    from notifyd.holders import holders

    return bool(holders(os.ttyname(panel.slave)))


def test_a_sniffed_port_that_is_pulled_out_is_told(tmp_path: Path, start: Callable[..., Any]) -> None:
    """With what was seen until then."""
    panel = start(Panel, tmp_path / "panel")
    sniff = start(notifyctl, "sniff", panel.link, "--framing", "line")
    wait_until(lambda: _is_open(panel))
    panel.print(b"hello\n")
    sniff.wait_for("hello")
    panel.unplug()
    assert sniff.wait() == 1
    assert "[[source]]" in sniff.text
    assert "it was unplugged, or hung up" in sniff.text


def test_sniffing_ends_after_the_time_that_is_told(tmp_path: Path, start: Callable[..., Any]) -> None:
    """On a pty any rate is the right one."""
    panel = start(Panel, tmp_path / "panel")
    sniff = start(notifyctl, "sniff", panel.link, "--baud", "auto", "--seconds", "0.5")
    wait_until(lambda: _is_open(panel))
    for _ in range(40):
        if "baud it is" in sniff.text:
            break
        panel.print(b"ALARM 7 smoke in the kitchen\r\n" * 10)
        time.sleep(0.1)
    assert sniff.wait() == 0
    assert "9600 baud: " in sniff.text
    assert "baudrate = 9600" in sniff.text
