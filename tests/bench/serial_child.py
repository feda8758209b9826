"""Runs the agent for the benchmark, and notes when each of its commits was done.

The time is taken in the reactor's thread, when the database's thread has reported the commit. It is later than the
commit by the switch of threads, well below a millisecond, and never earlier: what is measured is too long by that.
"""

from __future__ import annotations

import signal
import struct
import sys
import time
from typing import Any

from twisted.application import app
from twisted.scripts.twistd import run

from notifyd.agent.spool import Spool

NOTE = struct.Struct("<qq")
"""CLOCK_REALTIME in nanoseconds, and the highest sequence that was stored then."""


def main(log: str, arguments: list[str]) -> None:
    """Becomes ``twistd -n``; the notes are in the file ``log`` when it has ended."""
    notes: list[bytes] = []
    highest = [0]
    make_job, commit = Spool._job, Spool._commit

    def job(self: Any, rows: dict[Any, list[Any]], lost: Any) -> Any:
        highest[0] = max((lane[-1][0] for lane in rows.values() if lane), default=0)
        return make_job(self, rows, lost)

    async def noted(self: Any) -> None:
        await commit(self)
        if highest[0]:
            notes.append(NOTE.pack(time.time_ns(), highest[0]))

    def leave(_signal: int) -> None:
        with open(log, "wb") as file:
            file.write(b"".join(notes))
        sys.exit(0)

    Spool._job = job  # type: ignore[method-assign]
    Spool._commit = noted  # type: ignore[method-assign]
    app._exitWithSignal = leave
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.argv = ["twistd", "-n", "--pidfile=", *arguments]
    run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
