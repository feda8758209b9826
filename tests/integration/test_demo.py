"""``notifyctl demo`` as a user starts it: real daemons, a table in which everything adds up, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration import rig

pytestmark = pytest.mark.xdist_group("demo")

LIMIT_S = 30.0


def start_demo(start: Callable[..., Any], folder: Path, program: str = "") -> rig.Process:
    """Starts the demo with a temporary folder of its own; ``program`` is run before it in the same process."""
    code = f"{program}\nfrom notifyd.ctl.main import main\nmain()"
    process: rig.Process = start(rig.Process, [sys.executable, "-c", code, "demo"], folder, {"TMPDIR": str(folder)})
    return process


def children_of(demo: rig.Process) -> list[int]:
    """Gives the process ids of a demo's daemons, whether it still runs or not."""
    found = []
    wanted = f"notifyd.ctl.demo_child\0{demo.popen.pid}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def assert_nothing_is_left(demo: rig.Process, folder: Path) -> None:
    """No process, no file."""
    assert children_of(demo) == []
    assert list(folder.iterdir()) == []


def rows(text: str) -> dict[str, list[str]]:
    """Gives the table's rows by what they count."""
    cells = [line.strip("│").split("│") for line in text.splitlines() if line.startswith("│")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


def test_the_demo_ends_by_itself_with_an_account_that_balances(start: Callable[..., Any], tmp_path: Path) -> None:
    """A person sees the panel, the clients, an outage and a pulled cable, and that nothing was lost."""
    began = time.monotonic()
    demo = start_demo(start, tmp_path)
    status = demo.wait(LIMIT_S + 5)
    assert status == 0, demo.text
    assert time.monotonic() - began < LIMIT_S
    assert_nothing_is_left(demo, tmp_path)

    text = demo.text
    assert "\x1b" not in text
    for shown in (
        "notify-hub is killed (SIGKILL)",
        "the cable is pulled",
        "notifyd.source.lost: it was unplugged",
        "notifyd.source.restored: back after",
        "nobody can read this: outside the promise",
        "It balances",
    ):
        assert shown in text, text
    table = rows(text)
    *lanes, own, total, _ = table["printed by the panel"]
    assert sum(map(int, lanes)) == int(total) > 20
    assert table["delivered to its client"][:3] == table["stored by the hub"][:3] == lanes
    events = int(total) + int(table["stored by the hub"][3])
    for row in ("stored by the agent", "acknowledged by the hub", "stored by the hub", "delivered to its client"):
        assert int(table[row][4]) == events
    assert int(table["waited for the hub"][4]) >= 8
    assert table["lost"][:5] == ["0"] * 5
    assert int(table["printed, cable out"][4]) == 2
    assert own == "·"
    # Each line of the panel's stands on the left once, and on the right at least once unless the cable was out.
    assert len(set(re.findall(r"^ +[\d.]+ (\d{3}) ", text, re.MULTILINE))) == int(total) + 2


def test_an_event_that_is_lost_on_its_way_is_found_out(start: Callable[..., Any], tmp_path: Path) -> None:
    """The panel says that it has printed a line, which never leaves it: the account tells, with status 1."""
    program = """
from notifyd.ctl import demo_panel
write = demo_panel.Panel._write
demo_panel.Panel._write = lambda panel, data: None if data.startswith(b"004") else write(panel, data)
"""
    demo = start_demo(start, tmp_path, program)
    assert demo.wait(LIMIT_S) == 1, demo.text
    assert "The account does not balance" in demo.text
    assert "not stored by the hub as critical: '004 ALARM 7 smoke in ward 3'" in demo.text
    assert rows(demo.text)["lost"][:5] == ["1", "0", "0", "0", "1"]
    assert "the last lines of notify-agent's log" in demo.text
    assert_nothing_is_left(demo, tmp_path)


def test_a_daemon_that_dies_ends_the_demo_with_its_log(start: Callable[..., Any], tmp_path: Path) -> None:
    """The demo does not wait for what will not come."""
    demo = start_demo(start, tmp_path)
    demo.wait_for("001 TEMP")
    agent = next(pid for pid in children_of(demo) if b"\0notify-agent\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(agent, signal.SIGKILL)
    assert demo.wait(LIMIT_S) == 1
    assert "notifyctl: the demo has failed: notify-agent has ended by itself" in demo.text
    assert "the last lines of notify-hub's log" in demo.text
    assert_nothing_is_left(demo, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(
    start: Callable[..., Any], tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, a closed terminal, or a supervisor: processes and files are gone, and one line says so."""
    demo = start_demo(start, tmp_path)
    demo.wait_for("001 TEMP")
    assert demo.signal(number) == 128 + number
    assert "notifyctl: the demo was interrupted" in demo.text
    assert "Traceback" not in demo.text
    assert_nothing_is_left(demo, tmp_path)


def test_daemons_do_not_outlive_a_demo_that_is_killed(start: Callable[..., Any], tmp_path: Path) -> None:
    """Even where the demo cannot do anything about it any more."""
    demo = start_demo(start, tmp_path)
    demo.wait_for("001 TEMP")
    assert len(children_of(demo)) == 2
    demo.kill()
    end = time.monotonic() + rig.TIMEOUT
    while children_of(demo) and time.monotonic() < end:
        time.sleep(0.01)
    assert children_of(demo) == []


def test_a_reader_that_has_seen_enough_ends_the_demo_quietly(tmp_path: Path) -> None:
    """``notifyctl demo | head``."""
    with subprocess.Popen(
        [sys.executable, "-m", "notifyd.ctl.main", "demo"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.readline()
        demo.stdout.close()
        assert demo.wait(LIMIT_S) == 1
        assert demo.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []
