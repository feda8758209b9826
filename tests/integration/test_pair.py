"""The main job: a device prints, the agent recognises and pushes, the hub decides and notifies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration import rig
from tests.integration.rig import Agent, Client, Collector, Hub, Panel, on_both, without_repeats
from tests.tools import require_tool

RULES = """
[[source]]
name = "panel"
port = "{port}"
unmatched = "send"
[[source.rule]]
match = '^ALARM (?P<zone>\\d+) (?P<text>.*)$'
type = "panel.alarm"
priority = "critical"
[[source.rule]]
match = '^DOOR (?P<door>\\d+)'
type = "panel.door"
priority = "important"
"""


@pytest.fixture
def panel(tmp_path: Path, start: Callable[..., Any]) -> Panel:
    """A device that is plugged in."""
    panel: Panel = start(Panel, tmp_path / "panel")
    return panel


@pytest.fixture
def agent(tmp_path: Path, start: Callable[..., Any], hub: Hub, panel: Panel) -> Agent:
    """An agent that runs and reads the panel."""
    agent: Agent = start(Agent, tmp_path, hub.ports["ingest"], RULES.format(port=panel.link))
    agent.start()
    assert agent.process is not None
    return agent


def clients(start: Callable[..., Any], hub: Hub) -> dict[str, Collector]:
    """Registered clients on the three ports."""
    return {
        stream: start(Collector, hub.ports[stream], f"client-{stream}")
        for stream in ("normal", "important", "critical")
    }


@on_both
def test_what_a_device_prints_reaches_the_clients_of_its_priority(
    hub: Hub, agent: Agent, panel: Panel, start: Callable[..., Any]
) -> None:
    """Three lines, three rules, three ports; every attribute of the contract is there."""
    everyone = clients(start, hub)
    panel.print(b"ALARM 7 smoke\r\nDOOR 12 open\nhumming\r")
    alarm = everyone["critical"].wait(lambda events: len(events) >= 1)[0]
    door = everyone["important"].wait(lambda events: len(events) >= 1)[0]
    other = everyone["normal"].wait(lambda events: len(events) >= 1)[0]
    assert (alarm["type"], alarm["source"], alarm["priority"], alarm["rule"]) == (
        "panel.alarm",
        "/ward3/panel",
        "critical",
        "hint",
    )
    assert alarm["data"] == {"line": "ALARM 7 smoke", "fields": {"zone": "7", "text": "smoke"}}
    assert (door["type"], door["data"]["fields"]) == ("panel.door", {"door": "12"})
    assert (other["type"], other["data"]) == ("notifyd.line", {"line": "humming", "fields": {}})
    for event in (alarm, door, other):
        assert event["specversion"] == "1.0"
        spool, _, sequence = event["id"].partition("-")
        assert len(spool) == 8
        assert event["sequence"] == sequence.zfill(20)
        assert event["time"] <= event["received"]
        assert event["time"].endswith("Z")
    assert int(alarm["offset"]) != int(door["offset"])


def test_any_byte_value_survives(hub: Hub, agent: Agent, panel: Panel, start: Callable[..., Any]) -> None:
    """Bytes that are no text of the source's encoding arrive in data.raw, unchanged."""
    import base64

    everyone = clients(start, hub)
    hostile = bytes(byte for byte in range(256) if byte not in b"\r\n")
    panel.print(hostile + b"\n" + b"\0\n" + b"\xff\n")
    events = everyone["normal"].wait(lambda events: len(events) >= 3)
    assert base64.b64decode(events[0]["data"]["raw"]) == hostile
    assert events[1]["data"]["line"] == "\0"
    assert (events[2]["data"]["line"], events[2]["data"]["raw"]) == ("�", "/w==")


def test_a_frame_that_is_too_long_is_cut_and_marked(
    hub: Hub, agent: Agent, panel: Panel, start: Callable[..., Any]
) -> None:
    """8 KiB of it arrive, marked as truncated; the next line is whole."""
    everyone = clients(start, hub)
    panel.print(b"x" * 100_000 + b"\nnext\n")
    events = everyone["normal"].wait(lambda events: len(events) >= 2)
    assert (events[0]["data"]["line"], events[0]["data"]["truncated"]) == ("x" * 8192, True)
    assert events[1]["data"]["line"] == "next"


def test_a_cable_that_is_pulled_while_the_device_prints_is_told_and_found_again(
    hub: Hub, agent: Agent, panel: Panel, start: Callable[..., Any]
) -> None:
    """What was printed before arrives, the loss and the return are events, and reading goes on."""
    everyone = clients(start, hub)
    for cycle in range(3):
        for number in range(50):
            panel.print(b"line %d.%d\n" % (cycle, number))
        everyone["normal"].wait(lambda events, most=50 * (cycle + 1): len(events) >= most)
        panel.print(b"half a li")
        panel.unplug()
        everyone["important"].wait(lambda events, most=2 * cycle + 1: len(events) >= most)
        panel.plug()
        everyone["important"].wait(lambda events, most=2 * cycle + 2: len(events) >= most)
    lines = [event["data"]["line"] for event in everyone["normal"].wait(lambda events: len(events) >= 150)]
    whole = [line for line in lines if line.startswith("line")]
    assert whole == [f"line {cycle}.{number}" for cycle in range(3) for number in range(50)]
    kinds = [event["type"] for event in everyone["important"].events]
    assert kinds == ["notifyd.source.lost", "notifyd.source.restored"] * 3


def test_a_device_that_is_not_there_at_the_start_is_waited_for(
    hub: Hub, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """The agent runs without it, says so once, and reads it as soon as it is plugged in."""
    panel = start(Panel, tmp_path / "late")
    panel.unplug()
    agent = start(Agent, tmp_path, hub.ports["ingest"], RULES.format(port=tmp_path / "late"))
    everyone = clients(start, hub)
    agent.start()
    lost = everyone["important"].wait(lambda events: len(events) >= 1)
    assert lost[0]["type"] == "notifyd.source.lost"
    panel.plug()
    everyone["important"].wait(lambda events: len(events) >= 2)
    panel.print(b"hello\n")
    everyone["normal"].wait(lambda events: len(events) >= 1)
    assert [event["type"] for event in everyone["important"].events][1:] == ["notifyd.source.restored"]


def test_a_silent_device_is_told_once(hub: Hub, tmp_path: Path, start: Callable[..., Any]) -> None:
    """Nothing for the time that `silence` says: one event, and another only after it has spoken."""
    panel = start(Panel, tmp_path / "panel")
    sources = RULES.format(port=panel.link).replace("unmatched", 'silence = "300ms"\nunmatched')
    everyone = clients(start, hub)
    start(Agent, tmp_path, hub.ports["ingest"], sources).start()
    for spoken in range(1, 3):
        panel.print(b"still here\n")
        everyone["normal"].wait(lambda events, most=spoken: len(events) >= most)
        everyone["important"].wait(
            lambda events, most=spoken: sum(event["type"] == "notifyd.source.silent" for event in events) >= most
        )


@on_both
def test_the_hub_is_away_and_the_agent_is_restarted_meanwhile(
    hub: Hub, agent: Agent, panel: Panel, start: Callable[..., Any]
) -> None:
    """Everything waits in the spool, survives the restart, and arrives once, the critical first."""
    everyone = clients(start, hub)
    panel.print(b"before\n")
    everyone["normal"].wait(lambda events: len(events) >= 1)
    assert hub.process is not None
    assert agent.process is not None
    hub.process.stop()
    panel.print(b"".join(b"line %d\n" % number for number in range(500)) + b"ALARM 1 fire\n")
    # SIGTERM commits what was read; what the kernel still holds is read first.
    assert agent.process.stop() == 0
    agent.start()
    panel.print(b"after\n")
    hub.start()
    events = everyone["normal"].wait(lambda events: events[-1]["data"]["line"] == "after")
    alarm = everyone["critical"].wait(lambda events: len(events) >= 1)[0]
    events = without_repeats(events)
    lines = [event["data"]["line"] for event in events]
    assert lines == ["before", *[f"line {number}" for number in range(500)], "after"]
    assert int(alarm["offset"]) < int(events[1]["offset"])


def test_a_client_that_never_reads_delays_nobody(
    hub: Hub, agent: Agent, panel: Panel, start: Callable[..., Any]
) -> None:
    """Beside a client that takes no byte another gets everything, and the first loses nothing."""
    with Client(hub.ports["normal"]) as stuck:
        stuck.socket.setsockopt(rig.socket.SOL_SOCKET, rig.socket.SO_RCVBUF, 262_144)
        stuck.send('SUBSCRIBE {"name":"stuck","after":"now"}')
        assert stuck.line().startswith("OK")
        quick = start(Collector, hub.ports["normal"], "quick")
        for block in range(10):
            panel.print(b"".join(b"%05d %s\n" % (block * 1000 + n, b"z" * 200) for n in range(1000)))
        events = quick.wait(lambda events: len(events) >= 10_000)
        assert [int(event["data"]["line"][:5]) for event in events] == list(range(10_000))
        late = [stuck.event()["data"]["line"][:5] for _ in range(10_000)]
        assert [int(number) for number in late] == list(range(10_000))


@on_both
def test_a_second_producer_with_the_same_spool_takes_over(hub: Hub) -> None:
    """The newer one is answered after the older was told; nothing is stored twice."""
    line = '{"id":"s-%d","source":"/a/b","type":"t","priority":"normal","sequence":"%d"}'
    with Client(hub.ports["ingest"]) as old, Client(hub.ports["ingest"]) as new:
        assert old.hello()["acked"] == {"critical": 0, "important": 0, "normal": 0}
        old.send(*[line % (n, n) for n in range(1, 101)])
        ok = new.hello()
        assert ok == {"acked": {"critical": 0, "important": 0, "normal": 100}, "window": 1_048_576}
        rest = list(old.lines())
        assert rest[-2:] == ["ACK 100", "ERROR replaced"]
        new.send(*[line % (n, n) for n in range(91, 111)])
        answer = ""
        while answer != "ACK 20":
            answer = new.line()
    assert [row[0] for row in hub.rows('SELECT id FROM event ORDER BY "offset"')] == [f"s-{n}" for n in range(1, 111)]
    assert hub.rows("SELECT * FROM spool") == [("aaaa0001", "normal", "ward3", 110)]


@pytest.mark.parametrize("closing", [[], ["-N"]])
def test_netcat_is_a_producer_and_a_client(hub: Hub, closing: list[str]) -> None:
    """A person can push with nc, also one that closes its end at once, and read with nc."""
    nc = require_tool("nc")
    reader = subprocess.Popen(
        [nc, "127.0.0.1", str(hub.ports["critical"])], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    event = b'{"id":"1","source":"/me","type":"hello","priority":"critical","data":{"x":1}}\n'
    producer = subprocess.Popen(
        [nc, *closing, "127.0.0.1", str(hub.ports["ingest"])], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert producer.stdin is not None
    assert producer.stdout is not None
    try:
        # The reader is counted in before the event is sent: the hub answers both in the order of their coming.
        with Client(hub.ports["critical"]) as later:
            later.subscribe(after="now")
        producer.stdin.write(event)
        producer.stdin.flush()
        if closing:
            producer.stdin.close()
        assert producer.stdout.readline() == b"ACK 1\n"
        got = json.loads(reader.stdout.readline())
        assert (got["id"], got["rule"], got["data"]) == ("1", "hint", {"x": 1})
    finally:
        for process in (reader, producer):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


def test_a_strangers_parser_reads_what_the_hub_sends(
    hub: Hub, agent: Agent, panel: Panel, start: Callable[..., Any]
) -> None:
    """The cloudevents package takes every line, those of the hub's own events too."""
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    with Client(hub.ports["all"]) as watcher:
        watcher.subscribe(after="first")
        panel.print(b"ALARM 7 smoke\nDOOR 1\nx\n")
        with Client(hub.ports["ingest"]) as producer:
            producer.send("garbage", '{"id":"1","source":"/s","type":"t"}')
            kinds = set()
            for _ in range(5):
                line = watcher.line()
                event = JSONFormat().read(CloudEvent, line)
                kinds.add(event.get_type())
                assert event.get_id() == json.loads(line)["id"]
    assert kinds == {"panel.alarm", "panel.door", "notifyd.line", "notifyd.rejected", "t"}


@pytest.mark.parametrize("daemon", ["notify-hub", "notify-agent"])
def test_the_commands_work_from_any_folder(tmp_path: Path, daemon: str) -> None:
    """`twistd DAEMON --help` says what it does, run from a folder that has nothing to do with the project."""
    twistd = Path(sys.executable).with_name("twistd")
    done = subprocess.run([twistd, daemon, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--config=" in done.stdout
    assert "events" in done.stdout


def test_the_commands_work_from_the_wheel(tmp_path: Path) -> None:
    """The built wheel, installed by itself, has both daemons and notifyctl."""
    project = Path(__file__).parents[2]
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "dropin.cache"))
    python = sys.executable
    quiet = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*quiet, "wheel", "--no-deps", "--wheel-dir", tmp_path, copy], check=True, timeout=240)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", "--without-pip", home], check=True, timeout=60)
    inside = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    subprocess.run([*quiet, "--python", home / "bin/python", "install", "--no-deps", wheel], check=True, timeout=120)
    # What notifyd needs is taken from the environment of the tests; the .pth line does not bring its editable install.
    (inside / "needed.pth").write_text(str(Path(python).parents[1] / inside.relative_to(home)) + "\n")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    run = "from twisted.scripts.twistd import run; run()"
    for arguments in (
        ["-c", run, "notify-hub", "--help"],
        ["-c", run, "notify-agent", "--help"],
        ["-m", "notifyd.ctl.main", "--help"],
    ):
        done = subprocess.run(
            [home / "bin/python", *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [home / "bin/python", "-c", "import notifyd; print(notifyd.__file__)"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(home))
    assert os.access(home / "bin/notifyctl", os.X_OK)
