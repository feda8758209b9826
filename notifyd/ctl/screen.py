"""Events for a person on a terminal: a table in colour, in which no event can command the terminal."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from notifyd.ctl.output import write_all
from notifyd.ctl.say import printable
from notifyd.event import parse_time

MAX_SHOWN = 2_000
"""Characters of an event's text that are shown: a person reads no more, and ``--json`` has the rest."""

STYLES = {
    "normal": "green",
    "important": "bold yellow",
    "critical": "bold white on red",
    "error": "bold magenta",
}


@dataclass(frozen=True)
class Row:
    """What is shown of one event; every text can be printed as it is."""

    when: dt.datetime | None
    priority: str
    source: str
    type: str
    text: str
    context: str


class Screen:
    """Writes events as a table.

    Args:
        fd: the terminal's file descriptor.
        encoding: the terminal's.
        width: columns; None for those that the terminal has at the time.
    """

    def __init__(self, fd: int, encoding: str = "utf-8", width: int | None = None) -> None:
        self._fd = fd
        self._encoding = encoding
        # The console renders and never writes, so that every error of writing is met in one place.
        self._console = Console(
            file=io.StringIO(), force_terminal=True, width=width, markup=False, highlight=False, emoji=False
        )
        self._day: dt.date | None = None
        self._begun = False

    def write(self, lines: list[bytes]) -> None:
        """Writes one row an event, and a line where another day begins; the first call writes the header."""
        write_all(self._fd, self.render(map(describe, lines)).encode(self._encoding, "replace"))

    def render(self, rows: Iterable[Row]) -> str:
        """Gives what :meth:`write` would write of rows."""
        with self._console.capture() as capture:
            if not self._begun:
                self._begun = True
                self._print_header()
            table = self._table()
            for row in rows:
                if row.when is not None and row.when.date() != self._day:
                    self._day = row.when.date()
                    self._print(table)
                    self._console.print(Text(f"{self._day:%Y-%m-%d}", style="dim"))
                    table = self._table()
                _add(table, row)
            self._print(table)
        return capture.get()

    def _print_header(self) -> None:
        table = self._table()
        table.add_row(*(Text(title, style="bold") for title in ("time", "priority", "source", "type", "text")))
        self._print(table)

    def _print(self, table: Table) -> None:
        if table.row_count:
            self._console.print(table)

    def _table(self) -> Table:
        names = max(8, min(24, self._console.width // 5))
        table = Table.grid(padding=(0, 2, 0, 0))
        for width in (8, 9, names, names):
            table.add_column(width=width, overflow="fold")
        table.add_column(overflow="fold")
        return table


def _add(table: Table, row: Row) -> None:
    text = Text(row.text)
    if row.context:
        text.append("  " if row.text else "").append(row.context, style="cyan")
    table.add_row(
        Text("" if row.when is None else f"{row.when:%H:%M:%S}", style="dim"),
        Text(row.priority, style=STYLES.get(row.priority, "")),
        Text(row.source),
        Text(row.type, style="bold"),
        text,
    )


def describe(line: bytes) -> Row:
    """Gives what is shown of an event line, whatever is in it."""
    try:
        event = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
    if not isinstance(event, dict):
        return Row(None, "", "", "", _cut(printable(line.decode("utf-8", "replace"))), "")
    data = event.get("data")
    notes = _context(data)
    if "reason" in event:
        notes.append(f"[{_plain(event['reason'])}]")
    return Row(
        when=_local(event.get("time")),
        priority=_plain(event.get("priority", "")),
        source=_plain(event.get("source", "")),
        type=_plain(event.get("type", "")),
        text=_text(event, data),
        context=_cut("  ".join(notes)),
    )


def _local(time: object) -> dt.datetime | None:
    try:
        return dt.datetime.fromtimestamp(parse_time(time), dt.UTC).astimezone() if isinstance(time, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def _text(event: Mapping[str, Any], data: object) -> str:
    if isinstance(data, dict):
        if isinstance(data.get("line"), str):
            return _plain(data["line"]) + (" [cut]" if data.get("truncated") is True else "")
        data = {key: value for key, value in data.items() if key not in ("context", "unavailable")}
        return _plain(data) if data else ""
    if data is not None:
        return _plain(data)
    return "(binary data)" if "data_base64" in event else ""


def _context(data: object) -> list[str]:
    """Writes the rows that the hub looked up, as in ``zone: location=North responder=Ann``."""
    if not isinstance(data, dict):
        return []
    parts = []
    context = data.get("context")
    for name, found in context.items() if isinstance(context, dict) else ():
        if isinstance(found, dict):
            shown = " ".join(f"{_plain(key)}={_plain(value)}" for key, value in found.items())
        else:
            shown = "not found" if found is None else _plain(found)
        parts.append(f"{_plain(name)}: {shown}")
    if unavailable := data.get("unavailable"):
        names = unavailable if isinstance(unavailable, list) else [unavailable]
        parts.append(f"unavailable: {', '.join(map(_plain, names))}")
    return parts


def _plain(value: object) -> str:
    if isinstance(value, str):
        return _cut(printable(value))
    try:
        return _cut(printable(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))
    except (ValueError, RecursionError):
        return "(too deep to show)"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} [{len(text) - MAX_SHOWN} more]"
