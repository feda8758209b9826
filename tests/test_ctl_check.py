"""``notifyctl check`` and the command itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
import pytest

from notifyd import __version__
from notifyd.ctl import main
from tests.fakehub import run

AGENT = '[[source]]\nname = "panel"\nport = "/dev/ttyUSB0"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (AGENT, "configures notify-agent: 1 source (panel on /dev/ttyUSB0), 0 rules, to the hub at tcp:127.0.0.1:1500"),
        (AGENT + AGENT.replace("panel", "b").replace("0", "1") + "[[source.rule]]\n", "2 sources"),
        ("", "configures notify-hub: 4 ports (ingest tcp:1500:interface=127.0.0.1, normal tcp:1600"),
        (
            '[listen]\nall = "unix:/run/x"\n[database]\nretention = "12h"',
            "all unix:/run/x), 0 rules, events kept for 0.5",
        ),
        ('[listen]\ningest = "systemd:domain=INET:index=0"', "ingest systemd:domain=INET:index=0"),
        (
            '[filter]\nfactory = "tests.checked:Filter"\n[[rule]]\npriority = "normal"\n[[suppress]]\n[[suppress]]\n'
            '[[lookup]]\nname = "zone"\nsql = "SELECT 1"\n',
            ", 1 rule, 1 lookup, filter tests.checked:Filter, 2 suppressions, events kept for 30 days",
        ),
    ],
)
def test_a_good_file_is_summed_up_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    """Whose file it is and what it sets up; status 0."""
    (path := tmp_path / "file.toml").write_text(text)
    status, out, err = run("check", str(path))
    assert (status, err) == (0, "")
    assert out.startswith(f"{path}: ")
    assert said in out
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[listen", "no valid TOML"),
        (b"\xff", "no UTF-8 text"),
        (b"[listen]\nnormal = 1600", "listen.normal: expected text, got a whole number"),
        (b"[listen]\nnormal = 'tcp:99999'", "listen.normal: 'tcp:99999': 99999 is no port number"),
        (b"[limits]\nmax = 1", "limits.max: unknown key"),
        (b'[filter]\nfactory = "nosuchmodule:F"', "filter.factory: nosuchmodule cannot be imported"),
        (b'[filter]\nfactory = "tests.checked:none"', "filter.factory: tests.checked has no none"),
        (b'[database]\nurl = "postgresql://h/d?frob=1"', "database.url: "),
        (b'[[lookup]]\nname = "a"\nsql = "SELECT 1"\ndatabase = "postgresql://h:x/d?y=z"', "lookup[0].database: "),
        (b'"\\u001b[2J" = 1', "\\x1b[2J: unknown key"),
        (AGENT.encode() + b"baud = 1", "source[0].baud: unknown key"),
        (b'hub = "nowhere"\n' + AGENT.encode(), "hub: 'nowhere' is no endpoint"),
        (AGENT.encode() + b"[[source.rule]]\nmatch = '('", "source[0].rule[0].match: no valid regular expression"),
    ],
)
def test_a_bad_file_is_told_with_file_key_and_reason(tmp_path: Path, text: bytes, said: str) -> None:
    """One line and status 1."""
    (path := tmp_path / "file.toml").write_bytes(text)
    status, out, err = run("check", str(path))
    assert (status, out) == (1, "")
    assert err.startswith(f"notifyctl: {path}: ")
    assert said in err
    assert "\x1b" not in err
    assert len(err.splitlines()) == 1


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With its name."""
    assert run("check", str(tmp_path / "none.toml")) == (
        1,
        "",
        f"notifyctl: {tmp_path / 'none.toml'}: No such file or directory\n",
    )


@pytest.mark.parametrize("arguments", [("--help",), ()])
def test_help_names_the_subcommands(arguments: tuple[str, ...]) -> None:
    """Also where nothing is asked for."""
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    for command in ("tail", "send", "history", "explain", "rules", "check"):
        assert f"\n  {command} " in out


def test_the_version_is_told() -> None:
    """The package's own."""
    assert run("--version") == (0, f"notifyctl, version {__version__}\n", "")


@pytest.mark.parametrize("arguments", [("tial",), ("--frob",), ("send",), ("check", "a", "b")])
def test_a_wrong_command_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    """Status 2."""
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_a_subcommand_that_is_not_installed_is_no_subcommand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others work all the same."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.endswith(".demo") else find(name))
    context = click.Context(main.notifyctl)
    assert isinstance(main.notifyctl, main.LazyGroup)
    assert main.notifyctl.list_commands(context) == [name for name in main.COMMANDS if name != "demo"]
    assert main.notifyctl.get_command(context, "demo") is None
