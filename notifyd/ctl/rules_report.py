"""What a changed configuration would do, counted, and written for people or for programs."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from notifyd.ctl.eventlog import StoredRow
from notifyd.ctl.say import printable
from notifyd.ctl.screen import STYLES, describe
from notifyd.event import Priority
from notifyd.hub.classify import Decision

EXAMPLES = 3
"""Events that are shown of each move."""

DROP = "drop"
"""Where an event goes that a rule throws away."""

MAX_TEXT = 300
"""Characters of an example's text."""

_WIDTH = 120
"""Columns, where it is not a terminal that says."""

_ORDER = {name: number for number, name in enumerate(("error", "critical", "important", "normal", DROP))}


@dataclass
class Move:
    """The events that would move from one priority to another."""

    before: str
    after: str
    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: StoredRow, decision: Decision) -> None:
        """Counts an event."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(
                {
                    "offset": str(row.offset), "time": row.time, "received": row.received,
                    "source": row.source, "type": row.type,
                    "text": describe(row.body.encode()).text[:MAX_TEXT],
                    "rule": row.rule, "new_rule": decision.rule, "new_reason": decision.reason,
                }
            )  # fmt: skip


@dataclass
class Report:
    """The account of a test.

    Attributes:
        log: where the events were read.
        config: the file that was tested.
        moves: by priorities before and after.
        unchanged: events that keep their priority.
        other_rule: those of them that get it from another rule.
        left_out: events about which nothing can be said, by the reason.
        notes: what has to be known about the others, with their number.
    """

    log: str
    config: str
    since: str | None = None
    until: str | None = None
    moves: dict[tuple[str, str], Move] = field(default_factory=dict)
    unchanged: int = 0
    other_rule: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def tested(self) -> int:
        """How many events were classified."""
        return self.unchanged + sum(move.count for move in self.moves.values())

    def add(self, row: StoredRow, decision: Decision) -> None:
        """Counts an event and what would be decided about it."""
        after = DROP if decision.drop else decision.priority.value
        if after == row.priority:
            self.unchanged += 1
            self.other_rule += decision.rule != row.rule
            return
        key = (row.priority, after)
        move = self.moves.get(key)
        if move is None:
            move = self.moves[key] = Move(*key)
        move.add(row, decision)

    def leave_out(self, reason: str) -> None:
        """Counts an event that is not classified."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def note(self, text: str, count: int = 1) -> None:
        """Counts events of which something has to be known."""
        if count:
            self.notes[text] = self.notes.get(text, 0) + count

    def sorted_moves(self) -> list[Move]:
        """Gives the moves: new errors, then what is thrown away, then the most urgent before."""
        return sorted(
            self.moves.values(),
            key=lambda move: (
                move.after != Priority.ERROR, move.after != DROP, _ORDER.get(move.before, 9), _ORDER.get(move.after, 9)
            ),
        )  # fmt: skip

    def to_json(self) -> bytes:
        """Gives the account as one object."""
        document = {
            "log": self.log, "config": self.config, "since": self.since, "until": self.until, "tested": self.tested,
            "unchanged": self.unchanged, "unchanged_by_another_rule": self.other_rule,
            "moved": [
                {"from": move.before, "to": move.after, "count": move.count, "examples": move.examples}
                for move in self.sorted_moves()
            ],
            "left_out": self.left_out, "notes": self.notes,
        }  # fmt: skip
        return json.dumps(document).encode()

    def to_text(self, *, terminal: bool, width: int | None = None) -> str:
        """Gives the account as tables.

        Args:
            terminal: whether it may be in colour.
            width: columns; None for those of the terminal, or for what fits on most.
        """
        width = width if width is not None or terminal else _WIDTH
        console = Console(
            file=io.StringIO(), force_terminal=terminal, width=width, markup=False, highlight=False, emoji=False
        )
        with console.capture() as capture:
            period = f"{f', from {self.since}' if self.since else ''}{f', until {self.until}' if self.until else ''}"
            console.print(printable(f"{_count(self.tested)} of {self.log}{period}, classified with {self.config}:"))
            moves = self.sorted_moves()
            if moves:
                console.print(_overview(moves))
            other = f" ({self.other_rule:,} of them by another rule)" if self.other_rule else ""
            console.print(f"{_count(self.unchanged)} would stay as they are{other}.")
            for text, count in {**self.left_out, **self.notes}.items():
                console.print(printable(f"{_count(count)} {text}."))
            for move in moves:
                console.print()
                console.print(Text.assemble(*_heading(move), f": {_count(move.count)}"))
                console.print(_examples(move))
        return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _count(number: int) -> str:
    return f"{number:,} event" if number == 1 else f"{number:,} events"


def _styled(priority: str) -> Text:
    return Text(printable(priority), style=STYLES.get(priority, "bold"))


def _heading(move: Move) -> list[Text | str]:
    return [_styled(move.before), " → ", _styled(move.after)]


def _overview(moves: list[Move]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(3):
        table.add_column(min_width=9, justify="right" if column == 2 else "left")
    table.add_row(*(Text(title, style="bold") for title in ("  from", "to", "events")))
    for move in moves:
        table.add_row(Text("  ").append(_styled(move.before)), _styled(move.after), f"{move.count:,}")
    return table


def _examples(move: Move) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(5):
        table.add_column(overflow="fold", no_wrap=column < 2)
    for example in move.examples:
        rule = Text(printable(f"{example['rule']} → {example['new_rule']}"))
        if example["new_reason"]:
            rule.append(printable(f" [{example['new_reason']}]"), style="dim")
        place = printable(f"{example['source']} {example['type']}")
        table.add_row(
            Text(f"  {example['offset']}"),
            Text(printable(f"{example['received'][:19]}Z"), style="dim"),
            place,
            example["text"],
            rule,
        )
    return table
