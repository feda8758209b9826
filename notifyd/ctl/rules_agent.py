"""``notifyctl rules test-agent``: what an agent's framing and rules make of a recording."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from notifyd.agent.recording import Header, Playback, RecordingError, escape
from notifyd.agent.trial import Judged, Trial
from notifyd.config import ConfigurationError
from notifyd.config_agent import AgentConfig, Source, parse_agent
from notifyd.ctl.output import write_all
from notifyd.ctl.say import CommandError, complain, printable
from notifyd.ctl.screen import STYLES
from notifyd.daemon import read_configuration
from notifyd.event import data_object, encode, parse_time

READ = 64 * 1024
"""Bytes of a file that are held at once."""

EXAMPLES = 3
"""Frames that are shown of each kind."""

MAX_SHOWN = 200
"""Characters of an example."""

MAX_KINDS = 1_000
"""Kinds of outcomes that are told apart: more than rules and priorities can give, unless a file has that many rules."""

EVENTS_AT_ONCE = 500
"""Events that are written with one system call."""

STDOUT_FD = 1


def file_chunks(path: str) -> Iterator[bytes]:
    """Gives a file's content in pieces.

    Raises:
        CommandError: (from the iteration) it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            while chunk := file.read(READ):
                yield chunk
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from None


@click.command("test-agent")
@click.argument("file")
@click.option("--config", "config_path", metavar="FILE", required=True, help="The agent.toml whose rules are tried.")
@click.option("--source", "name", metavar="NAME", help="Its source. Default: the recording's, or the only one.")
@click.option("--json", "as_json", is_flag=True, help="The events as they would be spooled, without id and sequence.")
def test_agent(file: str, config_path: str, name: str | None, as_json: bool) -> None:
    """Show what the rules of an agent.toml make of FILE, a recording or just what a device printed."""
    try:
        settings = read_configuration(config_path, parse_agent)
        playback = Playback(file_chunks(file))
        source = pick_source(settings, config_path, name, playback.header)
        trial = Trial(source, settings.name or "agent", _begin(playback.header))
        judged = trial.run(playback)
        if as_json:
            _write_events(judged, has_time=playback.header is not None)
        else:
            report = Report(source)
            for each in judged:
                report.add(each)
            write_all(STDOUT_FD, report.text().encode(sys.stdout.encoding if sys.stdout else "utf-8", "replace"))
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    except RecordingError as error:
        raise CommandError(f"{file}: {error}") from None
    except BrokenPipeError:
        return
    if trial.lost:
        complain(f"{file}: {trial.lost:,} bytes were not recorded, since the disk was too slow")
    if playback.is_torn:
        complain(f"{file}: its last line has no end, and is left out")


def pick_source(settings: AgentConfig, path: str, name: str | None, header: Header | None) -> Source:
    """Gives the source that is meant.

    Args:
        settings: of the agent.
        path: the file's name, for messages.
        name: what was asked for; None for the one that was recorded, or the only one.
        header: of a recording.

    Raises:
        CommandError: there is no such source, or several.
    """
    sources = {source.name: source for source in settings.source}
    wanted = name or (header.source_name if header is not None else None)
    if wanted is not None and wanted in sources:
        return sources[wanted]
    if name is None and len(sources) == 1:
        return settings.source[0]
    names = ", ".join(sources)
    if wanted is not None:
        raise CommandError(f"{path} has no source {wanted}: choose one by --source, of {names}")
    raise CommandError(f"{path} has several sources: choose one by --source, of {names}")


def _begin(header: Header | None) -> float:
    try:
        return 0.0 if header is None else parse_time(header.begin)
    except (ValueError, OverflowError):
        return 0.0


def _write_events(judged: Iterator[Judged], *, has_time: bool) -> None:
    lines: list[bytes] = []
    for each in judged:
        if each.event is None:
            continue
        members: dict[str, Any] = msgspec.json.decode(encode(each.event))
        del members["id"]
        if not has_time:  # a file that is no recording has none
            del members["time"]
        lines.append(msgspec.json.encode(members) + b"\n")
        if len(lines) >= EVENTS_AT_ONCE:
            write_all(STDOUT_FD, b"".join(lines))
            lines.clear()
    write_all(STDOUT_FD, b"".join(lines))


@dataclass
class _Outcome:
    """Frames of one kind."""

    count: int = 0
    examples: list[Text] = field(default_factory=list)

    def add(self, example: Text) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


class Report:
    """Counts what frames become, and shows it.

    Args:
        source: whose rules they are.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._outcomes: dict[tuple[int, str, str, str], _Outcome] = {}
        self.frames = self.damaged = self.truncated = 0

    def add(self, judged: Judged) -> None:
        """Counts a frame."""
        self.frames += 1
        self.damaged += judged.frame.damaged is not None
        self.truncated += judged.frame.truncated
        if judged.event is None:
            rule, kind, priority = ("no rule" if judged.frame.damaged is None else "damaged"), "", "dropped"
        else:
            rule = self._rule_name(judged.rule)
            kind, priority = str(judged.event.type), str(judged.event.priority)
        order = len(self._source.rule) if judged.rule is None else judged.rule
        key = (order, rule, kind, priority)
        if key in self._outcomes or len(self._outcomes) < MAX_KINDS:
            self._outcomes.setdefault(key, _Outcome()).add(_example(judged))

    def _rule_name(self, index: int | None) -> str:
        if index is None:
            return "no rule"
        return self._source.rule[index].name or f"rule {index + 1}"

    def text(self) -> str:
        """Gives the table and a line of totals."""
        table = Table(title=f"What source {printable(self._source.name)} makes of it", title_style="bold")
        table.add_column("frames", justify="right")
        for title in ("rule", "type", "priority", "examples"):
            table.add_column(title, overflow="fold")
        for (_, name, kind, priority), outcome in sorted(self._outcomes.items(), key=lambda item: item[0]):
            style = STYLES.get(priority, "dim")
            cells = (Text(printable(name)), Text(printable(kind)), Text(priority, style))
            table.add_row(f"{outcome.count:,}", *cells, Text("\n").join(outcome.examples))
        for index in self._unused():
            rule = self._source.rule[index]
            cells = (Text(printable(self._rule_name(index))), Text(printable(rule.type)), Text(rule.priority or ""))
            table.add_row("0", *cells, Text("matches nothing here", "dim"))
        terminal = os.isatty(STDOUT_FD)
        console = Console(force_terminal=terminal, width=None if terminal else 160, markup=False, highlight=False)
        with console.capture() as capture:
            console.print(table)
            console.print(f"{self.frames:,} frames, {self.damaged:,} damaged, {self.truncated:,} cut or without an end")
        return capture.get()

    def _unused(self) -> list[int]:
        used = {order for order, *_ in self._outcomes}
        return [index for index in range(len(self._source.rule)) if index not in used]


def _example(judged: Judged) -> Text:
    text = Text(escape(judged.frame.data).decode()[:MAX_SHOWN])
    fields = {} if judged.event is None else data_object(judged.event).get("fields") or {}
    if judged.frame.damaged is not None:
        text.append("  ").append(printable(judged.frame.damaged), style="yellow")
    if fields:
        told = ", ".join(f"{name}={value}" for name, value in fields.items())
        text.append("  ").append(printable(told)[:MAX_SHOWN], style="cyan")
    return text
