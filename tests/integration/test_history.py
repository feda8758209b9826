"""The commands that read the log, beside a hub that runs and after it was stopped."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import TIMEOUT, Client, Hub

SETTINGS = """
[[lookup]]
name = "zone"
sql = "SELECT location, priority FROM zone WHERE zone = :zone"
database = "sqlite:///{zones}"

[[rule]]
name = "night"
type = "door.*"
priority = "important"

[[rule]]
name = "by zone"
priority_from = "context.zone.priority"
"""


@pytest.fixture
def zones(tmp_path: Path) -> Path:
    """A database that the hub looks zones up in."""
    path = tmp_path / "zones.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE zone (zone TEXT PRIMARY KEY, location TEXT, priority TEXT)")
        connection.execute("INSERT INTO zone VALUES ('7', 'Kitchen', 'critical'), ('8', 'Hall', 'normal')")
    connection.close()
    return path


def notifyctl(*arguments: str) -> str:
    """Runs a command to its end, and gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "notifyd.ctl.main", *arguments], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_past_can_be_asked_while_the_hub_runs_and_after(
    tmp_path: Path, start: Callable[..., Any], zones: Path
) -> None:
    """History, the life of an event with its lookup, and what a changed rule would have done."""
    hub: Hub = start(Hub, tmp_path / "hub", SETTINGS.format(zones=zones))
    process = hub.start()
    with Client(hub.ports["critical"]) as pager, Client(hub.ports["ingest"]) as producer:
        assert pager.subscribe(name="pager-7").startswith("OK ")
        for number, zone in enumerate("7879", 1):
            data = {"line": f"ALARM {zone} smoke", "fields": {"zone": zone}}
            event = {
                "id": str(number),
                "source": "/panel",
                "type": "panel.alarm",
                "priority": "important",
                "data": data,
            }
            producer.send(json.dumps(event))
            assert producer.line() == f"ACK {number}"
        pager.event()
        pager.send(f"ACK {pager.event()['offset']}", "PING")
        assert pager.line() == "PONG"
        with sqlite3.connect(zones) as connection:
            connection.execute("UPDATE zone SET location = 'Cellar', priority = 'important' WHERE zone = '7'")
        connection.close()
        config = str(hub.config)
        changed = tmp_path / "new.toml"
        changed.write_text(hub.config.read_text().replace('type = "door.*"', 'where = { "fields.zone" = 8 }'))

        history = notifyctl("history", "--config", config)
        assert [json.loads(line)["rule"] for line in history.splitlines()] == ["by zone", "by zone", "by zone", "hint"]
        life = json.loads(notifyctl("explain", "3", "--json", "--config", config))
        (lookup,) = life["lookups"]
        assert lookup["then"]["row"] == {"location": "Kitchen", "priority": "critical"}
        assert lookup["now"]["row"] == {"location": "Cellar", "priority": "important"}
        assert (life["rules"]["priority"], life["now"]["priority"]) == ("critical", "important")
        assert [each["rule"] for each in life["rules"]["missed"]] == ["night"]
        assert [each["name"] for each in life["clients"]] == ["pager-7"]
        report = json.loads(notifyctl("rules", "test", "--json", "--config", str(changed)))
        assert (report["tested"], report["unchanged"]) == (4, 3)
        (move,) = report["moved"]
        assert (move["from"], move["to"], move["examples"][0]["new_rule"]) == ("normal", "important", "night")
    assert process.alive
    process.stop()
    assert notifyctl("history", "--config", config) == history
    life = json.loads(notifyctl("explain", "3", "--json", "--config", config))
    assert [(each["name"], each["past"]) for each in life["clients"]] == [("pager-7", True)]
    assert json.loads(notifyctl("rules", "test", "--json", "--config", str(changed)))["moved"] == report["moved"]
    hub.start()
