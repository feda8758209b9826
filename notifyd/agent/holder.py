"""Who has a serial device open, as far as this process may know: proc(5), in Linux.

Of processes of other users nothing but their locks can be seen, unless the agent runs as root.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

MOST_LOOKED_AT = 50_000
"""Open files that are looked at, of all processes together; it takes about 0.1 s."""


def find_holder(device: str, proc: Path = Path("/proc")) -> str | None:
    """Gives the program and the number of a process that has a device open.

    Args:
        device: its path.
        proc: where the kernel tells of processes.

    Returns:
        Such as ``minicom, process 4711``; None where it is not to be seen.
    """
    try:
        status = os.stat(device)
        process = _by_lock(status, proc) or _by_open_file(status, proc)
    except OSError:
        return None
    if process == os.getpid():
        return "another source of this agent"
    return None if process is None else _described(process, proc)


def _by_open_file(device: os.stat_result, proc: Path) -> int | None:
    left = MOST_LOOKED_AT
    for process in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        for file in _open_files(proc / str(process) / "fd"):
            left -= 1
            if left < 0:
                return None
            with contextlib.suppress(OSError):
                # The name first: to ask after a file on a network that is away would take long.
                if os.readlink(file).startswith("/dev/"):
                    status = os.stat(file)
                    if stat.S_ISCHR(status.st_mode) and status.st_rdev == device.st_rdev:
                        return process
    return None


def _open_files(folder: Path) -> Iterator[Path]:
    try:
        names = os.listdir(folder)
    except OSError:  # another user's, or ended
        return
    yield from (folder / name for name in names)


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


def _described(process: int, proc: Path) -> str:
    try:
        name = (proc / str(process) / "comm").read_text("utf-8", "replace").strip()
    except OSError:
        return f"process {process}"
    return f"{name}, process {process}"
