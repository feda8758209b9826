"""What a person sees of the demo, on a terminal and elsewhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from notifyd.ctl import demo_screen
from notifyd.ctl.demo_account import Delivery, Printed, Seen
from notifyd.ctl.demo_screen import Screen
from notifyd.event import Priority

PORTS = {"ingest": 31500, "normal": 31600, "important": 31601, "critical": 31602}
CUSTOM = {"ingest": 1500, "normal": 1600, "important": 1601, "critical": 1602}


class Shown:
    """A screen on a pipe, with a clock that stands still."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.clock = Clock()
        self._reader, self.writer = os.pipe()
        self.errors: list[OSError] = []
        self.screen = Screen(self.writer, encoding, self.clock, self.errors.append)
        self.screen.ports = PORTS

    def text(self) -> str:
        """Gives what has been written since."""
        return os.read(self._reader, 1_000_000).decode()

    def close(self) -> None:
        """Closes the reading end."""
        os.close(self._reader)


@pytest.fixture
def shown() -> Iterator[Shown]:
    """A screen."""
    made = Shown()
    yield made
    made.close()
    os.close(made.writer)


def delivery(offset: int, priority: str, line: str, **event: Any) -> Delivery:
    """Gives an event that a client was sent."""
    described = {"type": "panel.x", "fields": {}, **event}
    return Delivery(
        priority,
        1,
        Seen(str(offset), "/ward3/panel", str(offset), described["type"], priority, line, described["fields"]),
    )


def test_what_the_panel_prints_and_what_clients_get_stand_side_by_side(shown: Shown) -> None:
    """No colours where there is no terminal."""
    shown.screen.printed(Printed("001 TEMP 4 21.5", Priority.NORMAL, cable=True))
    shown.screen.arrived(delivery(1, "normal", "001 TEMP 4 21.5"), False)
    shown.clock.advance(demo_screen.GATHER_S)
    left, right = shown.text().splitlines()
    assert left.split() == ["0.0", "001", "TEMP", "4", "21.5"]
    assert right.split() == ["0.0", "31600", "normal", "001", "TEMP", "4", "21.5"]
    assert right.index("31600") > len(left.rstrip())
    assert "\x1b" not in left + right


def test_events_that_come_together_are_shown_in_the_order_of_the_hubs_log(shown: Shown) -> None:
    """Which of the sockets was read first says nothing."""
    shown.screen.arrived(delivery(9, "normal", "nine"), False)
    shown.screen.arrived(delivery(7, "critical", "seven"), True)
    shown.screen.flush()
    lines = shown.text().splitlines()
    assert [line.split()[3:] for line in lines] == [["seven", "again,", "same", "id"], ["nine"]]
    assert shown.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("what", "fields", "text"),
    [
        ("lost", {"reason": "it was unplugged"}, "notifyd.source.lost: it was unplugged"),
        ("restored", {"seconds": 1.23, "reason": "x"}, "notifyd.source.restored: back after 1.2 s"),
        ("silent", {}, "notifyd.source.silent: a sentence"),
    ],
)
def test_an_event_of_a_daemon_about_itself_is_shown_in_short(what: str, fields: dict[str, Any], text: str) -> None:
    """Its type, and what matters of the rest."""
    own = delivery(1, "important", "a sentence", type=f"notifyd.source.{what}", fields=fields)
    assert demo_screen.describe(own.event) == text


def test_what_is_printed_with_the_cable_out_is_said_to_be_lost(shown: Shown) -> None:
    """It is not counted as delivered, and not hidden."""
    shown.screen.printed(Printed("001 TEMP 4 21.5", Priority.NORMAL, cable=False))
    assert "nobody can read this: outside the promise" in shown.text()


def test_the_beginning_says_which_ports_were_taken(shown: Shown) -> None:
    """And draws who is connected to whom."""
    shown.screen.begin({**CUSTOM, "normal": 31600}, CUSTOM, 15)
    text = shown.text()
    assert "Taken on this machine by another program: 1600 (31600 instead)." in text
    assert "notify-agent ──1500──→ notify-hub" in text


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    """Nothing is a question mark."""
    made = Shown("ascii")
    made.screen.begin(CUSTOM, CUSTOM, 15)
    made.screen.act("1  Normal life", "text")
    text = made.text()
    assert "notify-agent --1500--> notify-hub -+-" in text
    assert "?" not in text
    made.close()
    os.close(made.writer)


def test_the_tail_of_a_log_cannot_command_the_terminal(shown: Shown) -> None:
    """It is shown as it is, line by line."""
    shown.screen.log_tail("the log", ["one", "two\x1b[2J"])
    assert shown.text().split("\n") == ["", "the log", "one", "two\\x1b[2J", ""]


def test_a_reader_that_has_gone_is_told_to_whoever_runs_the_demo() -> None:
    """``notifyctl demo | head`` ends."""
    made = Shown()
    made.close()
    made.screen.note("text")
    assert [error.errno for error in made.errors] == [errno.EPIPE]
    os.close(made.writer)
