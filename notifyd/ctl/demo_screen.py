"""What a person sees of the demo: on the left what the panel prints, on the right what the clients get."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from notifyd.ctl.demo_account import Delivery, Printed, Seen
from notifyd.ctl.output import write_all
from notifyd.ctl.say import printable
from notifyd.ctl.screen import STYLES

PLAIN_WIDTH = 100
"""Columns where there is no terminal."""

LINE_WIDTH = 28
"""Columns of what the panel prints."""

GATHER_S = 0.04
"""How long what the clients get is gathered: three sockets are read by turns, and the hub's order is to be seen."""

ASCII: dict[int, str | int] = {**dict.fromkeys(map(ord, "╭╮╰╯├┤┬┴┼"), "+"), **str.maketrans("─│→·✔✘", "-|>.+x")}
"""What stands for the drawing where the terminal's encoding does not have it."""


class Screen:
    """Writes what happens, as it happens.

    Args:
        fd: where to.
        encoding: of that.
        clock: the reactor.
        failed: is called with the error when it cannot be written any more.
    """

    def __init__(self, fd: int, encoding: str, clock: Any, failed: Callable[[OSError], None]) -> None:
        self.ports: Mapping[str, int] = {}
        self._fd, self._encoding, self._clock, self._failed = fd, encoding, clock, failed
        self._started_s = clock.seconds()
        self._gathered: list[tuple[Delivery, bool, Text]] = []
        self._gather_call: Any = None
        is_terminal = os.isatty(fd)
        # The console renders and never writes, so that every error of writing is met in one place.
        self._console = Console(
            file=io.StringIO(),
            force_terminal=is_terminal,
            color_system="auto" if is_terminal and not os.environ.get("NO_COLOR") else None,
            width=None if is_terminal else PLAIN_WIDTH,
            markup=False,
            highlight=False,
            emoji=False,
        )

    @property
    def width(self) -> int:
        """Gives the columns that there are."""
        return self._console.width

    # --- the whole width -----------------------------------------------------------------------------------

    def begin(self, ports: Mapping[str, int], custom: Mapping[str, int], seconds: int) -> None:
        """Says what is to be seen, and draws it."""
        self.ports = ports
        title = Text("notifyd", "bold cyan").append(": a device on a serial line, its events, and who is told", "bold")
        cast = (
            "The agent and the hub are the real ones, as processes of their own. The alarm panel is simulated, on a "
            f"pty. This takes about {seconds} seconds and leaves nothing behind."
        )
        self.write("", title, "", *self._picture(ports), "", Text(cast, "dim"))
        if taken := [f"{custom[name]} ({ports[name]} instead)" for name in ports if ports[name] != custom[name]]:
            self.write(Text(f"Taken on this machine by another program: {', '.join(taken)}.", "yellow"))

    @staticmethod
    def _picture(ports: Mapping[str, int]) -> list[Text]:
        stem = f"  panel ──pty──→ notify-agent ──{ports['ingest']}──→ notify-hub ─"
        lines = []
        for name, start in (("critical", "╭"), ("important", "┼"), ("normal", "╰")):
            line = Text(stem if start == "┼" else " " * len(stem)).append(f"{start}─ ")
            lines.append(line.append(f"{ports[name]} {name}", STYLES[name]).append(" " * (10 - len(name)) + "→ client"))
        return lines

    def act(self, title: str, text: str) -> None:
        """Begins an act."""
        self.write("", Rule(Text(title, "bold cyan"), align="left", style="cyan"), Text(text), "")
        heads = f"the panel prints {'─' * (LINE_WIDTH - 19)}→", "the clients get"
        self.write(self._pair("", Text(heads[0], "dim"), Text(heads[1], "dim")))

    def change(self, text: str, style: str = "bold") -> None:
        """Tells of a change, as in "the hub is killed"."""
        self.write(self._grid((5, None), (Text(self._now(), "dim"), Text(text, style))))

    def note(self, text: str) -> None:
        """Explains what has just been seen."""
        self.write(Padding(Text(text, "dim"), (0, 0, 0, 6)))

    def log_tail(self, title: str, lines: Iterable[str]) -> None:
        """Shows what a daemon has logged."""
        self.write("", Text(title, "bold"), *(Text(printable(line), "dim") for line in lines))

    # --- left and right ------------------------------------------------------------------------------------

    def printed(self, printed: Printed) -> None:
        """Shows a line of the panel's."""
        if printed.cable:
            self.write(self._row(self._now(), Text(printed.line), "", ""))
            return
        unread = Text("nobody can read this: outside the promise", "red")
        self.write(self._pair(self._now(), Text(printed.line, "red strike"), unread))

    def arrived(self, delivery: Delivery, is_repeat: bool) -> None:
        """Shows an event that a client was sent; in a moment, among those that came with it."""
        self._gathered.append((delivery, is_repeat, Text(self._now(), "dim")))
        if self._gather_call is None:
            self._gather_call = self._clock.callLater(GATHER_S, self.flush)

    def flush(self) -> None:
        """Shows what is gathered, in the order of the hub's log."""
        call, self._gather_call = self._gather_call, None
        if call is not None and call.active():
            call.cancel()
        gathered, self._gathered = self._gathered, []
        gathered.sort(key=lambda entry: int(entry[0].event.offset))
        self.write(*(self._arrival(*entry) for entry in gathered))

    def _arrival(self, delivery: Delivery, is_repeat: bool, when: Text) -> RenderableType:
        stream = delivery.stream
        text = Text(printable(describe(delivery.event)), "bold magenta" if delivery.event.is_own else "")
        if is_repeat:
            text.append(" again, same id", "dim")
        return self._row(when, "", Text(f"{self.ports[stream]} {stream}", STYLES[stream]), text)

    def _row(self, when: Text | str, left: Text | str, label: Text | str, text: Text | str) -> Table:
        label_width = 6 + max(len(str(port)) for port in self.ports.values()) + 4
        return self._grid((5, LINE_WIDTH, label_width, None), (_dim(when), left, label, text))

    def _pair(self, when: str, left: Text, right: Text) -> Table:
        return self._grid((5, LINE_WIDTH, None), (_dim(when), left, right))

    @staticmethod
    def _grid(widths: Iterable[int | None], cells: Iterable[RenderableType]) -> Table:
        grid = Table.grid(padding=(0, 1, 0, 0))
        for index, width in enumerate(widths):
            grid.add_column(width=width, justify="left" if index else "right", overflow="fold")
        grid.add_row(*cells)
        return grid

    # --- writing -------------------------------------------------------------------------------------------

    def _now(self) -> str:
        return f"{self._clock.seconds() - self._started_s:.1f}"

    def write(self, *what: RenderableType) -> None:
        """Writes at once."""
        with self._console.capture() as capture:
            for each in what:
                self._console.print(each)
        text = capture.get()
        if not self._encoding.lower().startswith("utf"):
            text = text.translate(ASCII)
        try:
            write_all(self._fd, text.encode(self._encoding, "replace"))
        except OSError as error:
            self._failed(error)


def describe(event: Seen) -> str:
    """Gives what is shown of an event: what the panel printed, or what a daemon tells of itself."""
    if not event.is_own:
        return event.line
    if event.type.endswith(".restored") and "seconds" in event.fields:
        return f"{event.type}: back after {event.fields['seconds']:.1f} s"
    return f"{event.type}: {event.fields.get('reason', event.line)}"


def _dim(text: Text | str) -> Text:
    return Text(text, "dim") if isinstance(text, str) else text
