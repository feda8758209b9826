"""The demo's alarm panel: a simulated device on a pty, behind a name that stays when it is plugged in again."""

from __future__ import annotations

import contextlib
import os
import tty
from pathlib import Path

from notifyd.ctl.demo_account import Printed
from notifyd.ctl.demo_wait import DemoError
from notifyd.event import Priority

KINDS = {"ALARM": Priority.CRITICAL, "DOOR": Priority.IMPORTANT, "TEMP": Priority.NORMAL}
"""The first word of what the panel prints, and the priority that the demo's agent.toml gives it."""

RULES = r"""
[[source.rule]]
name = "alarm"
match = '^\d+ ALARM (?P<zone>\d+) (?P<text>.*)$'
type = "panel.alarm"
priority = "critical"

[[source.rule]]
name = "door"
match = '^\d+ DOOR (?P<door>\d+) (?P<state>.*)$'
type = "panel.door"
priority = "important"

[[source.rule]]
name = "temperature"
match = '^\d+ TEMP (?P<sensor>\d+) (?P<celsius>[\d.]+)$'
type = "panel.temperature"
priority = "normal"
"""


class Panel:
    """A device that numbers what it prints, as such panels do.

    Args:
        link: the name of its port.
    """

    def __init__(self, link: Path) -> None:
        self.printed: list[Printed] = []
        self._link = link
        self._master = self._slave = -1

    def plug(self) -> None:
        """Plugs the cable in."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._link.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        """Pulls the cable, where it is in."""
        if self._master < 0:
            return
        with contextlib.suppress(FileNotFoundError):
            self._link.unlink()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def print(self, text: str) -> Printed:
        """Prints a line, whether the cable is in or not.

        Raises:
            DemoError: nobody reads the port.
        """
        line = f"{len(self.printed) + 1:03d} {text}"
        printed = Printed(line, KINDS[text.split()[0]], cable=self._master >= 0)
        self.printed.append(printed)
        if printed.cable:
            self._write(line.encode() + b"\r\n")
        return printed

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._master, data)
        except OSError as error:
            raise DemoError(f"the panel's port takes nothing: {error.strerror}") from None
        if written < len(data):
            raise DemoError("the panel's port takes no more: nobody reads it")
