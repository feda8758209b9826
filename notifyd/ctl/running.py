"""Runs a command's work under the reactor, and ends the process with its status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

INTERRUPTED = 128 + signal.SIGINT


def run(reactor: Any, work: Deferred[int], interrupt: Callable[[], object]) -> NoReturn:
    """Runs the reactor until ``work`` gives the exit status.

    Args:
        reactor: is run, and never stopped in the ordinary way.
        work: fires with the exit status.
        interrupt: called in the reactor at Ctrl-C, and sees to it that ``work`` fires soon; a second
            Ctrl-C ends the process at once.
    """

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        reactor.callFromThread(interrupt)

    signal.signal(signal.SIGINT, interrupted)
    work.addCallback(leave).addErrback(_broken)
    reactor.run(installSignalHandlers=False)
    leave(1)


def leave(status: int) -> NoReturn:
    """Ends the process now."""
    # reactor.stop() would wait for the resolver's thread, and that for a name server that is away.
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        status = status or 1
    os._exit(status)


def _broken(failure: Failure) -> NoReturn:
    failure.printTraceback()
    leave(1)
