"""The documents and the code say the same: examples that work, links that lead somewhere, names and numbers."""

from __future__ import annotations

import ast
import re
import shlex
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from notifyd import config_agent, config_hub, event, wire
from notifyd.agent import framing, notices, pending, recorder, serialport, uplink
from notifyd.agent.framing import dsmr, espa, nmea
from notifyd.ctl import sniffing
from notifyd.ctl.main import COMMANDS, notifyctl
from notifyd.hub import agents, clients, ingest, producer, retention, subscriber
from tests.hubkit import Hub, spooled

ROOT = Path(__file__).parent.parent
README, PROTOCOL, OPERATIONS = ROOT / "README.md", ROOT / "docs/protocol.md", ROOT / "docs/operations.md"
FRAMINGS, FILTERS = ROOT / "docs/framings.md", ROOT / "docs/filters.md"
DOCUMENTS = (README, PROTOCOL, OPERATIONS, FRAMINGS, FILTERS, ROOT / "CHANGELOG.md")


def _blocks(path: Path, language: str) -> list[str]:
    """Gives the fenced blocks of a language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def _section(path: Path, title: str) -> str:
    """Gives what stands below a heading, up to the next one of its level or above."""
    text = path.read_text()
    heading = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert heading is not None, f"{path.name} has no heading {title!r}"
    rest = text[heading.end() :]
    end = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest if end is None else rest[: end.start()]


def _first_cells(text: str) -> list[str]:
    """Gives the first cell of each row of the tables in a text."""
    return [row.split(" | ")[0].removeprefix("| ") for row in text.splitlines() if row.startswith("| ")]


def _source(*parts: str) -> str:
    """Gives the code of a file or of all files in a folder, with string literals that follow each other joined."""
    path = ROOT.joinpath("notifyd", *parts)
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(file.read_text() for file in files))


# --- examples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_configuration_in_the_documents_is_accepted(path: Path) -> None:
    """What a person copies works; the first line of each block says which file it is of."""
    parsers: dict[str, Callable[[str, str], Any]] = {
        "# agent.toml": config_agent.parse_agent,
        "# hub.toml": config_hub.parse_hub,
    }
    for block in _blocks(path, "toml"):
        parsers[block.splitlines()[0]](block, path.name)


def test_the_readme_shows_how_a_device_is_configured() -> None:
    """The first device of a new user has a name, a port that stays the same, and a rule."""
    (block,) = (each for each in _blocks(README, "toml") if each.startswith("# agent.toml"))
    (source,) = config_agent.parse_agent(block, "README.md").source
    assert source.port.startswith("/dev/serial/by-id/")
    assert [rule.priority for rule in source.rule] == ["critical"]


def test_events_in_the_documents_are_events() -> None:
    """Each example of a whole event is accepted by the hub's own decoder."""
    found = re.findall(r'^ *(\{"specversion".*?\})$', README.read_text(), re.MULTILINE)
    found += [block.replace("\n ", "") for block in _blocks(PROTOCOL, "json")]
    whole = [line.strip() for line in found if "…" not in line]
    assert len(whole) >= 2
    for line in whole:
        event.decode(line.encode())


OF_SQLITE = re.compile("json_extract|julianday|strftime|GLOB")


def test_queries_in_the_documents_run(make_hub: Callable[..., Hub]) -> None:
    """Each is run on the database that it is for, with an event in the log; those without functions of one on both."""
    hub = make_hub(start=time.time())
    on_sqlite = isinstance(hub.connection, sqlite3.Connection)
    queries = [statement for path in DOCUMENTS for statement in _blocks(path, "sql")]
    variants = [query for query in queries if query.startswith("-- PostgreSQL\n")]
    special = [query for query in queries if OF_SQLITE.search(query)]
    assert len(variants) == len(special) >= 5
    hub.agent().send(spooled(1, data={"line": "a"}), b"junk")
    hub.pipeline.own_event("notifyd.agent.lost", "/hub/agents/ward3", "Agent ward3 …", {})
    hub.connection.commit()
    found = []
    for query in queries:
        if query not in (variants if on_sqlite else special):
            cursor = hub.connection.execute(query)
            found.append(len(cursor.fetchall()) if cursor.description else 0)
    assert sum(found) >= 10


def test_the_tables_have_the_columns_that_are_documented(hub: Hub) -> None:
    """Other programs ask for them by name."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", _section(PROTOCOL, "Tables"), re.MULTILINE)
    assert [table for table, _ in rows] == ["event", "spool", "subscriber", "schema_version"]
    for table, columns in rows:
        actual = [column[0] for column in hub.execute(f"SELECT * FROM {table}").description]
        assert re.findall(r"`(\w+)`", columns) == actual


# --- links and commands --------------------------------------------------------------------------------


def _anchors(path: Path) -> set[str]:
    """Gives the anchors that a Markdown viewer makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link names a file that is there, and a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


def test_make_has_every_target_that_is_named() -> None:
    """Both in the README's text and in its examples."""
    named = set(re.findall(r"(?:^    |`)make ([a-z]+)\b", README.read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_notifyctl_takes_every_command_that_is_shown(path: Path) -> None:
    """Its subcommands and options are there; the words behind them are up to the reader."""
    shown = re.findall(r"(?:^ {4,}(?:\$ )?|`)notifyctl ([a-z]+)([^`\n#|>]*)", path.read_text(), re.MULTILINE)
    if path is README:
        assert {name for name, _ in shown} >= {"tail", "send", "check"}
    for name, arguments in shown:
        assert name in COMMANDS
        command = notifyctl.get_command(click.Context(notifyctl), name)
        assert command is not None
        if isinstance(command, click.Group):
            command = command.commands[arguments.split()[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in shlex.split(arguments) if word.startswith("--")} <= options


# --- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "module"), [("1500: producers", "producer.py"), ("1600 to 1604: clients", "subscriber.py")]
)
def test_every_verb_is_documented(title: str, module: str) -> None:
    """The verbs in the tables of a port are those that its code takes and sends."""
    cells = " ".join(_first_cells(_section(PROTOCOL, title)))
    documented = set(re.findall(r"`([A-Z]{2,})\b", cells))
    in_code = {text or data for text, data in re.findall(r'\W"([A-Z]{2,})"|b"([A-Z]{2,})[ \\]', _source("hub", module))}
    assert documented == in_code


def test_every_event_of_notifyds_own_is_documented() -> None:
    """The table has each type that the code sends, and no other."""
    code = re.sub(r"Logger\([^)]*\)", "", _source("agent") + _source("hub") + _source("event.py"))
    sent = set(re.findall(r'"(notifyd\.[a-z]+(?:\.[a-z]+)?)"', code)) - {"notifyd.line"}
    sent |= {f"notifyd.source.{what}" for what in re.findall(r'\btell\(\s*"([a-z]+)"', code)}
    table = _first_cells(_section(PROTOCOL, "Events of notifyd's own"))
    assert {cell.strip("`") for cell in table if cell.startswith("`notifyd.")} == sent


def test_every_attribute_is_documented() -> None:
    """What the hub knows of an event stands in the table, but for CloudEvents' optional ones, which it passes on."""
    documented = {cell.strip("`") for cell in _first_cells(_section(PROTOCOL, "Events")) if cell.startswith("`")}
    known = set(event.Event.__struct_fields__)
    assert known - documented == {"subject", "datacontenttype", "dataschema", "data_base64"}


def test_every_framing_has_a_section_with_its_keys() -> None:
    """What a device needs is found under the name that the configuration has."""
    for name in get_args(config_agent.FramingName):
        section = FRAMINGS.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f'framing = "{name}"' in section
        for key, framings in config_agent.FRAMING_KEYS.items():
            assert key == "bad_frames" or name not in framings or f"`{key}`" in section, (name, key)


def _templates() -> list[re.Pattern[str]]:
    """Gives a pattern for each text of some length in the code, whatever is filled in."""
    patterns = []
    for file in (ROOT / "notifyd").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                text = "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            fixed = re.split(r"\{[^{}]*\}", text)
            if "\n" not in text and sum(map(len, fixed)) >= 10:
                patterns.append(re.compile(".*".join(map(re.escape, fixed))))
    return patterns


@pytest.mark.parametrize("title", ["Agent", "Hub", "The last line of a daemon that ends with status 1"])
def test_lines_of_the_log_are_as_documented(title: str) -> None:
    """Whoever looks for a line of the log in the guide finds it, word for word."""
    not_ours = {"FILE: key: reason", "Couldn't listen on …"}  # put together from parts; Twisted's
    templates = _templates()
    lines = [line for cell in _first_cells(_section(OPERATIONS, title)) for line in re.findall(r"`([^`]+)`", cell)]
    assert len(lines) >= 6
    unknown = [line for line in lines if line not in not_ours and not any(each.fullmatch(line) for each in templates)]
    assert unknown == []


def test_reasons_of_a_port_are_as_documented() -> None:
    """Each reason in the table on troubleshooting is one that the agent gives."""
    code = _source("agent")
    cells = _first_cells(_section(OPERATIONS, "A device that does not speak"))
    reasons = [reason for cell in cells for reason in re.findall(r"`([^`]+)`", cell)]
    assert len(reasons) >= 6
    for reason in reasons:
        assert reason.split("…")[0].rstrip(" :") in code


# --- numbers -------------------------------------------------------------------------------------------

LIMITS = config_hub.Limits()
MIB = 2**20


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        (PROTOCOL, "65,536 bytes", wire.MAX_LINE),
        (PROTOCOL, "131,072 bytes", wire.MAX_HUB_LINE),
        (PROTOCOL, "1,000 levels", event.MAX_NESTING),
        (PROTOCOL, "8,192 bytes", framing.MAX_FRAME),
        (FRAMINGS, "8,192 bytes", framing.MAX_FRAME),
        (FRAMINGS, "or 15 s without", espa.SELECTED_S),
        (FRAMINGS, "At most 100", dsmr.MAX_FIELDS),
        (FRAMINGS, "`f1` to `f80`", nmea.MAX_FIELDS),
        (PROTOCOL, "8,192 bytes", event.MAX_QUOTED_LINE),
        (PROTOCOL, "255 characters", wire.MAX_NAME),
        (PROTOCOL, "100,000", clients.MAX_CLIENTS),
        (PROTOCOL, "at most 10,000 are", agents.MAX_AGENTS),
        (PROTOCOL, "`max_producers`, 1,000", LIMITS.max_producers),
        (PROTOCOL, "`max_subscribers`, 10,000", LIMITS.max_subscribers),
        (PROTOCOL, "not answered | 1,000", subscriber.MAX_HELD),
        (PROTOCOL, "at least 66,560", ingest.WINDOW_LEAST),
        (PROTOCOL, "at most 100 ranges", notices.MAX_RANGES),
        (PROTOCOL, "silent for 60 s", producer.SILENCE_S),
        (PROTOCOL, "at most 5 s", producer.GRACE_S),
        (PROTOCOL, "open for 2 s", serialport.STEADY_S),
        (PROTOCOL, "after 10 s", uplink.PING_AFTER_S),
        (PROTOCOL, "after 30 s", uplink.DEAD_AFTER_S),
        (PROTOCOL, "counts 64 bytes", producer.LINE_COST),
        (PROTOCOL, "more than 64 KiB", wire.MAX_ANSWERS / 1024),
        (PROTOCOL, "It is 1 MiB", wire.WINDOW / MIB),
        (PROTOCOL, "left of 32 MiB", ingest.WINDOW_BUDGET / MIB),
        (PROTOCOL, "`stall_timeout`, 5 minutes", LIMITS.stall_timeout / 60),
        (OPERATIONS, "`max_events`, 1,000,000", config_agent.SpoolSettings().max_events),
        (OPERATIONS, "`stream_memory`, 64 MiB", LIMITS.stream_memory / MIB),
        (OPERATIONS, "written | 16 MiB", pending.MAX_BYTES / MIB),
        (OPERATIONS, "without `HELLO` | 16 MiB", ingest.PLAIN_BUDGET / MIB),
        (OPERATIONS, "windows of all producers with `HELLO` | 32 MiB", ingest.WINDOW_BUDGET / MIB),
        (OPERATIONS, "`retention` (30 days)", config_hub.Database().retention / 86_400),
        (OPERATIONS, "`agent_lost_after` (60 s)", config_hub.HubOwnEvents().agent_lost_after),
        (OPERATIONS, "for 24 hours", retention.DISTRUST_S / 3600),
        (OPERATIONS, "deleted in one commit | 4,000", retention.EXPIRE_AT_ONCE),
        (OPERATIONS, "`max_files` of `max_size`, 8 of", config_agent.RecordSettings().max_files),
        (OPERATIONS, "8 of 16 MiB", config_agent.RecordSettings().max_size / MIB),
        (OPERATIONS, "disk is slow | 4 MiB", recorder.MAX_WAITING / MIB),
        (OPERATIONS, "first 3 s or 512 bytes", sniffing.GATHER_S),
        (OPERATIONS, "first 3 s or 512 bytes", sniffing.GATHER_BYTES),
        (README, "(30 days)", config_hub.Database().retention / 86_400),
    ],
)
def test_a_limit_has_the_number_that_is_documented(path: Path, text: str, value: float) -> None:
    """The figure in the text is the one in the code."""
    assert text in " ".join(path.read_text().split())
    figures = [figure.replace(",", "") for figure in re.findall(r"[0-9][0-9,]*", text)]
    assert f"{value:.0f}" in figures
