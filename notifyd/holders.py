"""Who has a device open, as far as this process may know: proc(5), in Linux.

Of processes of other users nothing but their locks can be seen, unless this one runs as root.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")

MOST_LOOKED_AT = 50_000
"""Open files that are looked at, of all processes together; it takes about 0.1 s."""


class Holder(NamedTuple):
    """A process that has a device open; its name is a ``?`` where it is not to be seen."""

    pid: int
    name: str


def holders(device: str) -> list[Holder]:
    """Gives the processes that have a device open, without this one.

    Args:
        device: its path.
    """
    try:
        status = os.stat(device)
        found = [process for process in _by_open_file(status, PROC) if process != os.getpid()]
    except OSError:
        return []
    return [Holder(process, _name(process, PROC) or "?") for process in found]


def find_holder(device: str, proc: Path = PROC) -> str | None:
    """Gives the program and the number of one process that has a device open, or its lock.

    Args:
        device: its path.
        proc: where the kernel tells of processes.

    Returns:
        Such as ``minicom, process 4711``; None where it is not to be seen.
    """
    try:
        status = os.stat(device)
        process = _by_lock(status, proc) or next(_by_open_file(status, proc), None)
    except OSError:
        return None
    if process is None:
        return None
    if process == os.getpid():
        return "another source of this agent"
    name = _name(process, proc)
    return f"process {process}" if name is None else f"{name}, process {process}"


def _by_open_file(device: os.stat_result, proc: Path) -> Iterator[int]:
    """Gives the processes that have a device open, the lowest number first."""
    left = MOST_LOOKED_AT
    for process in sorted(int(name) for name in os.listdir(proc) if name.isdecimal()):
        for file in _open_files(proc / str(process) / "fd"):
            left -= 1
            if left < 0:
                return
            if _is(file, device):
                yield process
                break


def _is(file: Path, device: os.stat_result) -> bool:
    """Tells whether an open file is a device."""
    with contextlib.suppress(OSError):
        # The name first: to ask after a file on a network that is away would take long.
        if os.readlink(file).startswith("/dev/"):
            status = os.stat(file)
            return stat.S_ISCHR(status.st_mode) and status.st_rdev == device.st_rdev
    return False


def _open_files(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except OSError:  # another user's, or ended
        return []


def _by_lock(device: os.stat_result, proc: Path) -> int | None:
    file = f"{os.major(device.st_dev):02x}:{os.minor(device.st_dev):02x}:{device.st_ino}"
    try:
        locks = (proc / "locks").read_text()
    except OSError:
        return None
    for line in locks.splitlines():
        words = line.split()  # 1: FLOCK ADVISORY WRITE 4711 00:05:93 0 EOF
        if file in words and words[words.index(file) - 1].isdigit():
            return int(words[words.index(file) - 1])
    return None


def _name(process: int, proc: Path) -> str | None:
    try:
        return (proc / str(process) / "comm").read_text("utf-8", "replace").strip()
    except OSError:
        return None
