"""``notifyctl demo``: the real pair, a simulated alarm panel, and an account of every event."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from notifyd.ctl.demo_daemons import Ports
from notifyd.ctl.demo_screen import Screen
from notifyd.ctl.demo_story import Story
from notifyd.ctl.demo_wait import Changes, DemoError
from notifyd.ctl.running import leave
from notifyd.ctl.say import CommandError, complain

STDOUT_FD = 1

DEADLINE_S = 26.0
"""How long the story may take: with the clean-up behind it the demo ends within 30 s, whatever happens."""

SHOWN_LOG_LINES = 12
"""Lines of each daemon's log that are shown when the demo fails."""


@click.command()
def demo() -> None:
    """See it work: a panel, the agent, the hub, three clients; an outage and a pulled cable; nothing lost.

    Everything is started for the demo and removed at its end, which comes in under 30 seconds. Exit status 1
    when one event is not accounted for.
    """
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    from twisted.internet import reactor

    running = Demo(reactor, STDOUT_FD, sys.stdout.encoding)
    # Later, since the reactor puts its own handlers of signals in place when it starts.
    running.call_when_running()
    running.reactor.run()
    leave(1)


class Demo:
    """One run: gives the story a folder, bounds it in time, and clears everything away.

    Args:
        reactor: runs it.
        fd: where it is shown.
        encoding: of that.
    """

    def __init__(self, reactor: Any, fd: int, encoding: str) -> None:
        self.reactor = reactor
        self._changes = Changes(reactor)
        self._screen = Screen(fd, encoding, reactor, self._changes.fail)
        self._work: Deferred[int] | None = None
        self._interrupted: int | None = None
        self._is_clearing = False
        self._complaint = ""  # for when everything is cleared away

    def call_when_running(self) -> None:
        """Has the story begin with the reactor, and the process end with the story."""
        self.reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                signal.signal(number, lambda number, _: self.reactor.callFromThread(self._interrupt, number))
        self._work = Deferred.fromCoroutine(self.run())
        self._work.addBoth(_end)

    def _interrupt(self, number: int) -> None:
        if self._interrupted is None and self._work is not None and not self._is_clearing:
            self._interrupted = number
            self._work.cancel()

    async def run(self) -> int:
        """Plays the story, and gives the exit status."""
        folder, ports = Path(tempfile.mkdtemp(prefix="notifyd-demo-")), Ports()
        story = Story(self.reactor, self._changes, self._screen, folder)
        deadline = self.reactor.callLater(DEADLINE_S, self._changes.fail, DemoError(f"not done in {DEADLINE_S:g} s"))
        try:
            return await self._play(story, ports)
        finally:
            self._is_clearing = True  # which takes a moment, and is not to be cut short
            if deadline.active():
                deadline.cancel()
            await story.clear_away()
            ports.release()
            shutil.rmtree(folder, ignore_errors=True)
            if self._complaint:
                complain(self._complaint)

    async def _play(self, story: Story, ports: Ports) -> int:
        try:
            balances = await story.play(ports.choose())
        except CancelledError:
            self._complaint = "the demo was interrupted; its daemons have ended and its folder is removed"
            return 128 + (self._interrupted or signal.SIGINT)
        except BrokenPipeError:
            return 1  # whoever read it has seen enough, and not the account
        except OSError as error:
            self._complaint = f"the demo cannot go on: {error}"
            return 1
        except DemoError as error:
            self._complaint = f"the demo has failed: {error}"
            balances = False
        if not balances:
            self._show_logs(story)
        return 0 if balances else 1

    def _show_logs(self, story: Story) -> None:
        for daemon in story.daemons:
            tail = list(daemon.lines)[-SHOWN_LOG_LINES:]
            self._screen.log_tail(f"the last lines of {daemon.name}'s log (run {daemon.run})", tail)


def _end(result: int | Failure) -> None:
    if isinstance(result, Failure):
        result.printTraceback()
        result = 1
    leave(result)
