"""The files in ``etc/``: they parse, show every setting with its default, and satisfy systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from notifyd import config_agent, config_hub
from notifyd.config import Duration
from tests.tools import require_tool

ETC = Path(__file__).parent.parent / "etc"
SETTING = re.compile(r"^#(?=[a-z_]+ = |\[)", re.MULTILINE)


def _uncommented(name: str) -> str:
    return SETTING.sub("", (ETC / name).read_text())


def _keys(kind: Any) -> set[str]:
    """Gives every key that a configuration knows, at any depth."""
    found: set[str] = set()
    for field in msgspec.structs.fields(kind):
        found.add(field.encode_name)
        for inner in (field.type, *getattr(field.type, "__args__", ()), *_item_types(field.type)):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                found |= _keys(inner)
    return found


def _item_types(kind: Any) -> list[Any]:
    """Looks through Annotated."""
    return [item for argument in getattr(kind, "__args__", ()) for item in getattr(argument, "__args__", ())]


def _of_one_decision(text: str) -> str:
    """Leaves out what excludes the example's priority."""
    return re.sub(r"^(priority_from|drop) = .*$", "", text, flags=re.MULTILINE)


def test_the_files_can_be_used_as_they_are() -> None:
    """The agent's with its one example source, the hub's with its defaults."""
    agent = config_agent.parse_agent((ETC / "agent.toml").read_text(), "agent.toml")
    assert len(agent.source) == 1
    assert agent.source[0].sends_unmatched
    assert config_hub.parse_hub((ETC / "hub.toml").read_text(), "hub.toml") == config_hub.HubConfig()


def test_what_is_commented_out_in_the_agents_file_is_the_default() -> None:
    """Taking the "#" off changes nothing, but for what has no fixed default."""
    shown = config_agent.parse_agent((ETC / "agent.toml").read_text(), "agent.toml")
    full = config_agent.parse_agent(_uncommented("agent.toml"), "agent.toml")
    assert (full.name, full.state, full.source[0].silence) == ("ward3", "/var/lib/notify-agent", 90)
    assert full.source[0].poll == config_agent.Poll(send="STATUS\r", every=Duration(10))
    assert full.limits.max_rate == 1000
    source = msgspec.structs.replace(full.source[0], silence=None, poll=None)
    assert full.record.folder == "/var/lib/notify-agent/recordings"
    record = msgspec.structs.replace(full.record, folder=None)
    limits = config_agent.AgentLimits()
    cleared = msgspec.structs.replace(full, name=None, state=None, limits=limits, source=(source,), record=record)
    assert cleared == shown


def test_what_is_commented_out_in_the_hubs_file_is_the_default() -> None:
    """Taking the "#" off changes nothing, but for what has no fixed default."""
    text = _of_one_decision(_uncommented("hub.toml"))
    full = config_hub.parse_hub(text, "hub.toml")
    assert (full.state, full.listen.error, full.listen.all) == (
        "/var/lib/notify-hub",
        "tcp:1603:interface=127.0.0.1",
        "tcp:1604:interface=127.0.0.1",
    )
    assert full.database.url == "sqlite:////var/lib/notify-hub/hub.db"
    assert [rule.name for rule in full.rule] == ["intensive care"]
    lookup, suppress = full.lookup[0], full.suppress[0]
    assert (lookup.cache, lookup.cache_entries, lookup.timeout) == (60, 10_000, 2)
    assert full.filter == config_hub.Filter(factory="mypackage.module:name")
    assert suppress.window == config_hub.Suppress().window
    defaults = config_hub.HubConfig()
    assert full.own_events == defaults.own_events
    assert full.limits == defaults.limits
    assert full.database.retention == defaults.database.retention
    assert msgspec.structs.replace(full.listen, error=None, all=None) == defaults.listen
    assert full.default_priority == defaults.default_priority


@pytest.mark.parametrize(
    ("name", "kind"), [("agent.toml", config_agent.AgentConfig), ("hub.toml", config_hub.HubConfig)]
)
def test_every_setting_is_shown(name: str, kind: Any) -> None:
    """Nobody has to look for a setting elsewhere."""
    text = _uncommented(name)
    # A table has its line, a key its line or a place in a table that is written in one.
    shown = r'^(\[+[a-z.]*)?{key}( = |\])|[{{,] "?{key}"? = '
    missing = {key for key in _keys(kind) if not re.search(shown.format(key=re.escape(key)), text, re.MULTILINE)}
    assert missing == set()
    tomllib.loads(text)


@pytest.mark.parametrize("daemon", ["agent", "hub"])
def test_systemd_takes_the_unit(daemon: str, tmp_path: Path) -> None:
    """With the program in place, ``systemd-analyze verify`` has nothing to say about it."""
    verify = require_tool("systemd-analyze")
    text = (ETC / f"notify-{daemon}.service").read_text()
    program = "/opt/notifyd/bin/twistd"
    assert f"ExecStart={program} -n --pidfile= notify-{daemon} --config /etc/notifyd/{daemon}.toml\n" in text
    unit = tmp_path / f"notify-{daemon}.service"
    unit.write_text(text.replace(program, shutil.which("true") or sys.executable))
    done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_users_of_the_units_can_be_created(tmp_path: Path) -> None:
    """``systemd-sysusers`` reads the file, and it names the users that the units run as."""
    sysusers = require_tool("systemd-sysusers")
    file = ETC / "notifyd.sysusers.conf"
    done = subprocess.run(
        [sysusers, "--dry-run", "--root", str(tmp_path), str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for daemon in ("agent", "hub"):
        unit = (ETC / f"notify-{daemon}.service").read_text()
        assert f"\nUser=notify-{daemon}\n" in unit
        assert f"u notify-{daemon} " in file.read_text()
        assert f"Creating user 'notify-{daemon}'" in done.stdout + done.stderr
