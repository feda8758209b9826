"""``notifyctl rules test-agent``: what an agent's rules make of a recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from notifyd.agent.recording import Entry, Kind, encode, encode_header
from notifyd.agent.trial import Trial
from tests.fakehub import run
from tests.replaying import replay
from tests.serialtools import settings

CONFIG = r"""
name = "ward3"
[[source]]
name = "panel"
port = "/dev/ttyUSB0"
[[source.rule]]
name = "alarm"
match = '^ALARM (?P<zone>\d+)'
type = "panel.alarm"
priority = "critical"
[[source.rule]]
match = '^FAULT'
type = "panel.fault"
[[source.rule]]
match = '^NEVER'
type = "panel.never"
"""
OTHER = '[[source]]\nname = "scale"\nport = "/dev/ttyUSB1"\n'
ENTRIES = [
    Entry(0.0, Kind.OPEN),
    Entry(1.0, Kind.DATA, b"ALARM 7 smoke\r\nFAULT 1\r\nhello\r\n"),
    Entry(2.0, Kind.DATA, b"ALARM 8 \x1b[2J\r\nALARM"),
    Entry(3.0, Kind.CLOSE, text="it was unplugged, or hung up"),
]
RECORDING = encode_header(settings(), "2026-11-22T10:00:00.000000Z", "0.1.0") + b"".join(map(encode, ENTRIES))


@pytest.fixture
def config(tmp_path: Path) -> str:
    """An agent.toml with two sources."""
    (path := tmp_path / "agent.toml").write_text(CONFIG + OTHER)
    return str(path)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording of the first one."""
    (path := tmp_path / "panel.rec").write_bytes(RECORDING)
    return path


def test_a_person_sees_what_each_rule_makes_of_it(config: str, recording: Path) -> None:
    """How often, of which type and priority, with examples; what is dropped; and rules that match nothing."""
    status, out, err = run("rules", "test-agent", str(recording), "--config", config)
    assert (status, err) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert rows[0] == ["2", "alarm", "panel.alarm", "critical", "ALARM 7 smoke  zone=7"]
    assert rows[2] == ["1", "rule 2", "panel.fault", "normal", "FAULT 1"]
    assert ["0", "rule 3", "panel.never", "", "matches nothing here"] in rows
    assert ["2", "no rule", "", "dropped", "hello"] in rows
    assert "5 frames, 0 damaged, 1 cut or without an end" in out
    assert "\x1b" not in out


def test_a_program_gets_the_events_as_they_would_be_spooled(config: str, recording: Path) -> None:
    """The same as the agent's own, with the times of the recording, but for id and sequence."""
    status, out, err = run("rules", "test-agent", str(recording), "--config", config, "--json")
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["type"] for event in events] == ["panel.alarm", "panel.fault", "panel.alarm"]
    assert events[0] == {
        "specversion": "1.0",
        "source": "/ward3/panel",
        "type": "panel.alarm",
        "time": "2026-11-22T10:00:01.000000Z",
        "priority": "critical",
        "data": {"line": "ALARM 7 smoke", "fields": {"zone": "7"}},
    }


def test_the_trial_gives_the_events_that_the_agent_would() -> None:
    """Torn lines among them, when the port is lost."""
    source = settings(rule=[{"match": "A(?P<x>.)", "type": "a"}], unmatched="send")
    judged = list(Trial(source, "ward3", 1_795_384_923.5).run(ENTRIES))
    agents = [event for event in replay(ENTRIES, source) if ".source." not in str(event.type)]
    assert [each.event for each in judged] == agents
    assert [each.rule for each in judged] == [0, 0, None, 0, 0]


def test_any_file_is_tried_and_has_no_times(config: str, tmp_path: Path) -> None:
    """What a terminal program has saved."""
    (path := tmp_path / "saved.log").write_bytes(b"ALARM 7\nALARM 8\n")
    status, out, _ = run("rules", "test-agent", str(path), "--config", config, "--source", "panel", "--json")
    assert status == 0
    assert ["time" in json.loads(line) for line in out.splitlines()] == [False, False]


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (b"x\n", [], "has several sources: choose one by --source, of panel, scale"),
        (b"x\n", ["--source", "other"], "has no source other: choose one by --source, of panel, scale"),
        (RECORDING + b"7.0 dat", ["--json"], "its last line has no end, and is left out"),
        (RECORDING + b"7.0 lost 512\n", ["--json"], "512 bytes were not recorded, since the disk was too slow"),
        (RECORDING + b"junk\n", ["--json"], "line 6: expected a time and open, data, close or lost"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    config: str, tmp_path: Path, content: bytes, arguments: list[str], said: str
) -> None:
    """Status 1 where nothing can be made of it."""
    (path := tmp_path / "file").write_bytes(content)
    status, _, err = run("rules", "test-agent", str(path), "--config", config, *arguments)
    assert said in err
    assert len(err.splitlines()) == 1
    assert status == (0 if "last line" in said or "512" in said else 1)


def test_a_file_that_is_not_there_is_told(config: str) -> None:
    """Be it the recording or the configuration."""
    assert run("rules", "test-agent", "/none", "--config", config) == (
        1, "", "notifyctl: /none: No such file or directory\n",
    )  # fmt: skip
    assert run("rules", "test-agent", "/none", "--config", "/none.toml")[0] == 1
