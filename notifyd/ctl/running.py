"""Runs a command's work under the reactor, and ends the process with its status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from notifyd.ctl.say import complain

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


async def told(reactor: Any, work: Awaitable[int]) -> int:
    """Gives the exit status of ``work``; what went wrong in it is told in one line."""
    await deferLater(reactor, 0)  # until the reactor runs, Ctrl-C would go to whatever the work calls
    try:
        return await work
    except click.ClickException as error:
        complain(error.format_message())
        return error.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        complain(f"cannot write to standard output: {error.strerror}")
        return 1


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
