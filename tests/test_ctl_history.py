"""``notifyctl history``: pages through the log, on both databases."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from notifyd.ctl import eventlog
from notifyd.ctl.eventlog import StoredRow
from notifyd.ctl.history import CHUNK_EVENTS, chunks
from tests.ctllog import Kept
from tests.fakehub import BOUND_S, notifyctl, read_some, run
from tests.hubkit import line

HOSTILE = "boo \x1b[2J\x1b]0;owned\x07 \x9b31m \u202eevil\u2069 \x7f\r\b [red]markup[/red] :smile:"


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every page hold little."""
    monkeypatch.setattr(eventlog, "PAGE_BYTES", 1)


def row(offset: int, **columns: object) -> StoredRow:
    """Gives a row of the log."""
    plain = StoredRow(offset, f"e{offset}", "/s", "t", "normal", "", "", None, "hint", "{}", None, False)
    return plain._replace(**columns)


def fill(kept: Kept) -> None:
    """Stores six events, ten seconds apart from 10:00:00 on."""
    for number, (kind, priority) in enumerate(
        [("door.open", "normal"), ("panel.alarm", "critical"), ("door.shut", "normal"),
         ("panel.alarm", "important"), ("door.open", "nonsense"), ("panel.test", "normal")], 1
    ):  # fmt: skip
        source = "/ward3/panel" if number % 2 else "/ward4/panel"
        kept.hub.producer(line(str(number), type=kind, priority=priority, source=source, data={"line": f"no {number}"}))
        kept.hub.clock.advance(10)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "123456"),
        (("--reverse",), "654321"),
        (("--limit", "2"), "12"),
        (("--limit", "2", "--reverse"), "65"),
        (("--since", "2026-11-22T10:00:20Z"), "3456"),
        (("--since", "2026-11-22T11:00:20.5+01:00"), "456"),
        (("--until", "2026-11-22T10:00:20Z"), "12"),
        (("--since", "2026-11-22T10:00:10Z", "--until", "2026-11-22T10:00:30Z"), "23"),
        (("--since", "2026-11-22T12:00:00Z"), ""),
        (("--until", "2026-11-22T09:00:00Z"), ""),
        (("--priority", "normal"), "136"),
        (("--priority", "critical", "--priority", "important"), "24"),
        (("--priority", "normal", "--priority", "critical", "--reverse"), "6321"),
        (("--priority", "error"), "5"),
        (("--priority", "error", "--suppressed"), "5"),
        (("--type", "door.*"), "135"),
        (("--type", "door.open", "--type", "*.test", "--source", "/ward4/*"), "6"),
        (("--source", "/ward3/panel"), "135"),
        (("--grep", 'line": "no [13]'), "13"),
        (("--grep", '"id":"2"'), "2"),
        (("--grep", "nowhere"), ""),
        (("--type", "panel.*", "--priority", "normal", "--since", "2026-11-22T10:00:10Z"), "6"),
    ],
)
def test_what_is_asked_for_is_shown(sqlite_log: Kept, arguments: tuple[str, ...], wanted: str) -> None:
    """Filters, times, order and limit go together."""
    fill(sqlite_log)
    assert "".join(sqlite_log.ids(*arguments)) == wanted


def test_both_databases_are_paged_through(kept: Kept) -> None:
    """Oldest first, newest first, by time and by priority, as many as the log holds."""
    for start in range(0, 600, 200):
        kept.hub.put(*map(str, range(start, start + 200)), priority="critical" if start == 200 else "normal")
        kept.hub.clock.advance(10)
    every = [str(number) for number in range(600)]
    assert kept.ids() == every
    assert kept.ids("--reverse", "--suppressed") == every[::-1]
    assert kept.ids("--since", "2026-11-22T10:00:10Z", "--until", "2026-11-22T10:00:20Z") == every[200:400]
    assert kept.ids("--priority", "normal", "--priority", "critical", "--reverse") == every[::-1]
    assert kept.ids("--priority", "critical", "--limit", "3") == ["200", "201", "202"]


def test_a_pipe_gets_the_lines_as_they_are_stored(kept: Kept) -> None:
    """Byte by byte, whatever is in them."""
    kept.hub.put("1", data={"line": HOSTILE}, more=["é", 1])
    kept.hub.put("2")
    assert kept.output("history").encode() == b"".join(body.encode() + b"\n" for body in kept.hub.rows("body"))


def test_a_length_of_time_counts_back_from_now(sqlite_log: Kept) -> None:
    """Two hours ago is two hours ago."""
    now_s = time.time()
    sqlite_log.hub.start = now_s - 7000
    sqlite_log.hub.put("old")
    sqlite_log.hub.start = now_s - 60
    sqlite_log.hub.put("new")
    assert sqlite_log.ids("--since", "1h") == ["new"]
    assert sqlite_log.ids("--since", "2h") == ["old", "new"]
    assert sqlite_log.ids("--since", "1d", "--until", "30m") == ["old"]


def test_repeats_that_were_sent_to_nobody_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    """Of a storm there is its first event and its summary, as clients were sent them."""
    kept = Kept(tmp_path, toml='[[suppress]]\nname = "storm"\nwindow = "60s"\n')
    kept.hub.put("a", "b", "c")
    kept.hub.clock.advance(61)
    kept.hub.put("d")
    summary = kept.hub.rows("id", "rule = 'storm'")
    assert kept.ids() == kept.ids("--priority", "normal") == ["a", *summary, "d"]
    assert (
        kept.ids("--suppressed") == kept.ids("--suppressed", "--priority", "normal") == ["a", "b", "c", *summary, "d"]
    )
    kept.hub.close()


def test_pages_are_bounded_and_leave_nothing_out(sqlite_log: Kept, small_pages: None) -> None:
    """However little a page holds."""
    sqlite_log.hub.put(*"abcdefg")
    log = eventlog.open_log(eventlog.find_log(sqlite_log.config))
    newest = log.newest()
    assert [row.id for row in log.scan(0, newest)] == list("abcdefg")
    assert [row.id for row in log.scan(0, newest, reverse=True)] == list("gfedcba")
    rows = log.scan(0, newest, priorities=("normal", "error"), suppressed=False)
    assert next(rows).id == "a"
    sqlite_log.hub.put("h")  # no transaction is open between two pages
    assert [row.id for row in rows] == list("bcdefg")
    log.close()


def test_events_are_shown_many_at_a_time_but_do_not_wait_for_long() -> None:
    """Those that were found are shown when a while is over, though the search goes on."""
    times = iter([0.0, 0.05, 0.2, 0.2, 0.25])
    few = chunks((row(number) for number in range(3)), lambda _: True, None, lambda: next(times))
    assert [[each.offset for each in chunk] for chunk in few] == [[0, 1], [2]]
    many = chunks((row(number) for number in range(CHUNK_EVENTS + 1)), lambda _: True, None, lambda: 0.0)
    assert [len(chunk) for chunk in many] == [CHUNK_EVENTS, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--grep", "("), "--grep: '(' is no regular expression"),
        (("--since", "yesterday"), "--since: 'yesterday' is no time such as 2026-11-22T10:00:00Z, and no length"),
        (("--until", "\x1b[2J"), "--until"),
        (("--priority", "urgent"), "--priority"),
        (("--limit", "0"), "--limit"),
        (("--database", "mysql://x/y"), "--database: 'mysql' is no database"),
        (("--frob",), "No such option"),
        (("more",), "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(sqlite_log: Kept, arguments: tuple[str, ...], said: str) -> None:
    """Status 2."""
    status, out, err = sqlite_log.run("history", *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert said.replace("'", "") in err.replace("'", "")
    assert "\x1b" not in err


@pytest.mark.parametrize("command", [("history",), ("explain", "1"), ("rules", "test")])
def test_a_log_that_is_not_there_is_told_with_what_to_do(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Without a configuration it is the one of a hub without one; nothing is made."""
    (tmp_path / "new.toml").write_text("")
    file = ("--config", str(tmp_path / "new.toml")) if command[0] == "rules" else ()
    status, out, err = run(*command, *file, env={"XDG_STATE_HOME": str(tmp_path), "STATE_DIRECTORY": ""})
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert f"there is no event log {tmp_path}/notify-hub/hub.db: name the hub's file with --config" in err
    assert not (tmp_path / "notify-hub").exists()


def test_the_log_of_a_hub_without_a_configuration_is_found(sqlite_log: Kept) -> None:
    """As the hub finds it, or by its URL."""
    sqlite_log.hub.put("1")
    folder = str(sqlite_log.folder)
    assert '"id":"1"' in run("history", env={"STATE_DIRECTORY": folder})[1]
    url = f"sqlite:///{folder}/hub.db"
    assert '"id":"1"' in run("history", "--database", url, env={"XDG_STATE_HOME": "/nowhere"})[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE schema_version SET version = 99", "its schema has version 99, this notifyd knows"),
        ("UPDATE schema_version SET version = 1", "a start of this version's hub updates it"),
        ("DROP TABLE schema_version", "is no event log of notifyd"),
    ],
)
def test_a_log_of_another_version_is_told(kept: Kept, change: str, said: str) -> None:
    """And is left as it is."""
    kept.hub.execute(change)
    kept.hub.connection.commit()
    status, out, err = kept.run("history")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert said in err


@pytest.mark.parametrize(
    ("content", "said"), [(b"no database " * 100, "is corrupt"), (None, "Is a directory"), (b"", "is no event log")]
)
def test_a_file_that_is_no_log_is_told(tmp_path: Path, content: bytes | None, said: str) -> None:
    """In one line."""
    path = tmp_path / "hub.db"
    path.mkdir() if content is None else path.write_bytes(content)
    status, out, err = run("history", "--database", f"sqlite:///{path}")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert said in err


def test_a_log_that_may_not_be_read_is_told(sqlite_log: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """With whom to be."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(click.ClickException, match=r"you may not read .* sudo -u notify-hub notifyctl"):
        eventlog._check_file(sqlite_log.folder / "hub.db")


def test_a_server_that_is_away_is_told() -> None:
    """Without its password."""
    status, out, err = run("history", "--database", "postgresql://someone:secret@127.0.0.1:1/none")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "cannot be read now" in err
    assert "secret" not in err


def test_a_reader_that_has_seen_enough_ends_it_quietly(sqlite_log: Kept) -> None:
    """`| head` is no fault."""
    for start in range(0, 4000, 500):
        sqlite_log.hub.put(*map(str, range(start, start + 500)))
    with notifyctl("history", "--config", sqlite_log.config) as process:
        assert json.loads(process.line())["id"] == "0"
        assert process.popen.stdout is not None
        process.popen.stdout.close()
        assert process.popen.stderr is not None
        assert process.popen.stderr.read() == b""
        assert process.popen.wait(BOUND_S) == 0


@pytest.mark.parametrize("command", ["history", "explain 1", "rules test"])
def test_a_closed_output_is_told(sqlite_log: Kept, command: str) -> None:
    """And nothing is written to whatever was opened in its place."""
    sqlite_log.hub.put("1")
    before = (sqlite_log.folder / "hub.db").read_bytes()
    shell = f"exec {sys.executable} -m notifyd.ctl.main {command} --config {sqlite_log.config} >&-"
    done = subprocess.run(["sh", "-c", shell], stderr=subprocess.PIPE, text=True, timeout=BOUND_S)
    assert (done.returncode, done.stderr) == (1, "notifyctl: standard output is closed\n")
    assert (sqlite_log.folder / "hub.db").read_bytes() == before


def test_ctrl_c_ends_it(sqlite_log: Kept) -> None:
    """With status 130 and without a word but the end of the line."""
    for start in range(0, 4000, 500):
        sqlite_log.hub.put(*map(str, range(start, start + 500)))
    with notifyctl("history", "--config", sqlite_log.config) as process:
        process.line()  # it goes on when the pipe is read further, and so it still runs
        process.interrupt()
        status, _, err = process.end()
        assert (status, err.strip()) == (130, "")


def on_a_terminal(*arguments: str, **env: str) -> str:
    """Gives what ``notifyctl`` sends to a terminal, which it also has for its input."""
    shown, terminal = os.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "150", "LANG": "C.UTF-8", "TZ": "UTC", **env}
    process = subprocess.Popen(
        [sys.executable, "-m", "notifyd.ctl.main", *arguments],
        stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=environ,
    )  # fmt: skip
    os.close(terminal)
    received, deadline = b"", time.monotonic() + BOUND_S
    while data := read_some(shown, deadline):
        received += data
    err = process.communicate(timeout=BOUND_S)[1]
    os.close(shown)
    assert process.returncode == 0, err
    return received.decode()


def test_a_person_gets_a_table_through_the_pager(tmp_path: Path) -> None:
    """Repeats that were sent to nobody are marked."""
    kept = Kept(tmp_path, toml='[[suppress]]\nwindow = "60s"\n')
    kept.hub.put("a", "b", data={"line": "ALARM 7"}, priority="critical")
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho paged; cat\n")
    pager.chmod(0o755)
    shown = on_a_terminal("history", "--config", kept.config, "--suppressed", PAGER=str(pager))
    assert shown.startswith("paged")
    assert shown.count("ALARM 7") == 2
    assert shown.count("(repeat, sent to nobody) ALARM 7") == 1
    for text in ("time", "10:00:00", "critical", "/ward3/panel", "panel.alarm"):
        assert text in shown
    shown = on_a_terminal("history", "--config", kept.config, "--json", PAGER=str(pager))
    assert '"id":"a"' in shown
    kept.hub.close()


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_no_event_can_command_the_terminal(sqlite_log: Kept, json_too: tuple[str, ...]) -> None:
    """Escape sequences are shown and not obeyed; so is markup."""
    sqlite_log.hub.put("1", data={"line": HOSTILE, "context": {HOSTILE: {HOSTILE: HOSTILE}}}, source=HOSTILE)
    shown = on_a_terminal(
        "history", "--config", sqlite_log.config, *json_too, PAGER="cat", COLUMNS="2000", NO_COLOR="1"
    )
    assert shown.replace("\r\n", "").isprintable()
    assert "[red]markup[/red] :smile:" in shown


def test_the_log_is_only_read(sqlite_log: Kept) -> None:
    """Not a byte of it changes."""
    fill(sqlite_log)
    before = (sqlite_log.folder / "hub.db").read_bytes()
    sqlite_log.ids("--reverse", "--priority", "normal")
    assert (sqlite_log.folder / "hub.db").read_bytes() == before
    log = eventlog.open_log(eventlog.find_log(sqlite_log.config))
    with pytest.raises(click.ClickException, match=r"readonly|read-only"):
        log._ask(lambda cursor: cursor.execute("DELETE FROM entry"))
    log.close()
    with sqlite3.connect(sqlite_log.folder / "hub.db") as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (6,)
    connection.close()
