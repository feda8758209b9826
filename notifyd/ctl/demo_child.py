"""Runs twistd as a child of the demo: out of reach of Ctrl-C, and never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of prctl(2): which signal a process gets when its parent ends, however that comes about."""


def tie_to_parent(parent: int) -> None:
    """Has the kernel end this process when the demo ends; the demo alone decides when it ends before.

    Args:
        parent: the demo's process id.

    Raises:
        SystemExit: the demo has ended already.
    """
    # Ctrl-C goes to the terminal's whole process group, and the demo stops its children in its own order.
    os.setpgid(0, 0)
    with contextlib.suppress(AttributeError, OSError):  # Linux has it; elsewhere the demo's own clean-up must do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def main(arguments: list[str]) -> None:
    """Becomes ``twistd -n``; the first argument is the demo's process id, the rest goes to twistd."""
    tie_to_parent(int(arguments[0]))
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", "-n", "--pidfile=", *arguments[1:]]
    run()


if __name__ == "__main__":
    main(sys.argv[1:])
