"""The layout: what may import what, checked in the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "notifyd"
PURE = [
    "event.py",
    "times.py",
    "wire.py",
    "config.py",
    "config_agent.py",
    "config_hub.py",
    "portname.py",
    "sqltext.py",
    "filters.py",
    "frozen.py",
    "hub/draft.py",
    "hub/kinds.py",
    "hub/records.py",
    "hub/suppress.py",
    "hub/windows.py",
    "hub/filter_calls.py",
    "hub/json_value.py",
    "hub/classify.py",
    "hub/lookup_cache.py",
    "hub/lookup_row.py",
    "hub/conditions.py",
    "hub/rulesets.py",
    "hub/ruletree.py",
    "conditions.py",
    "agent/framing/__init__.py",
    "agent/framing/base.py",
    "agent/framing/checksums.py",
    "agent/framing/lines.py",
    "agent/framing/fixed.py",
    "agent/framing/stx.py",
    "agent/framing/nmea.py",
    "agent/framing/dsmr.py",
    "agent/framing/espa.py",
    "agent/framing/dc09.py",
    "agent/framing/contact_id.py",
    "agent/rules.py",
    "agent/recording.py",
    "agent/guess.py",
    "agent/trial.py",
    "agent/flood.py",
    "agent/linecounters.py",
    "agent/telnet.py",
]
IO = {"twisted", "socket", "subprocess", "threading", "asyncio", "sqlite3", "select", "os", "io", "shutil", "tempfile"}
IO_CALLS = {"open", "print", "input", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "stat", "mkdir"}


def imported(path: Path) -> Iterator[str]:
    """Gives the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_twisted_and_do_no_io(name: str) -> None:
    """They can be used and tested without a reactor, a file or a socket."""
    path = PACKAGE / name
    assert not {module.split(".")[0] for module in imported(path)} & IO
    calls = {
        getattr(node.func, "id", getattr(node.func, "attr", ""))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    assert not calls & IO_CALLS


@pytest.mark.parametrize("name", [name for name in PURE if "/" not in name])
def test_importing_a_pure_module_loads_no_twisted(name: str) -> None:
    """Not through another module of ours either."""
    code = f"import notifyd.{name[:-3]}, sys; sys.exit('twisted' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(("room", "other"), [("agent", "hub"), ("hub", "agent"), ("agent", "ctl"), ("hub", "ctl")])
def test_the_rooms_never_import_each_other(room: str, other: str) -> None:
    """What both need stands beside them."""
    for path in (PACKAGE / room).rglob("*.py"):
        assert not [module for module in imported(path) if module.startswith(f"notifyd.{other}")], path


def test_shared_modules_import_no_room() -> None:
    """Imports run one way."""
    for path in PACKAGE.glob("*.py"):
        rooms = ("notifyd.agent", "notifyd.hub", "notifyd.ctl")
        assert not [module for module in imported(path) if module.startswith(rooms)], path


def test_nothing_imports_the_reactor_when_it_is_imported() -> None:
    """Twistd chooses the reactor after it has read the options."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if "ctl" not in path.parts and path.name != "__init__.py"
    ]
    code = f"import {', '.join(modules)}, sys; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0


def test_the_plugin_file_only_declares() -> None:
    """A docstring, one import and ServiceMaker lines: whatever else fails there breaks every twistd command."""
    plugins = ROOT / "twisted" / "plugins"
    assert not list((ROOT / "twisted").rglob("__init__.py")), "it would hide the real Twisted"
    tree = ast.parse((plugins / "notifyd_plugins.py").read_text())
    docstring, imports, *makers = tree.body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(imports, ast.ImportFrom)
    for maker in makers:
        assert isinstance(maker, ast.Assign)
        assert isinstance(maker.value, ast.Call)
        assert getattr(maker.value.func, "id", "") == "ServiceMaker"
    assert len(makers) == 2


def test_modules_stay_small() -> None:
    """A module nearing 400 lines holds two subjects."""
    for path in (*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")):
        assert len(path.read_text().splitlines()) <= 400, path
