"""Which processes have a device open, by ``/proc``."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple


class Holder(NamedTuple):
    """A process that has a device open."""

    pid: int
    name: str


def holders(device: str) -> list[Holder]:
    """Gives the processes that have ``device`` open, without this one.

    Those of other users are seen by root only; proc(5).
    """
    try:
        wanted = os.stat(device).st_rdev
        numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    except OSError:
        return []
    found = (pid for pid in sorted(numbers) if pid != os.getpid() and wanted and _has_open(pid, wanted))
    return [Holder(pid, _name(pid)) for pid in found]


def _has_open(pid: int, wanted: int) -> bool:
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for number in os.listdir(folder):
            with contextlib.suppress(OSError):
                path = f"{folder}/{number}"
                if os.readlink(path).startswith("/dev/") and os.stat(path).st_rdev == wanted:
                    return True
    return False


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"
