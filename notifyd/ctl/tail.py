"""``notifyctl tail``: shows streams as they come, without a miss or a repeat when the hub restarts."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from twisted.internet.defer import Deferred, DeferredList

from notifyd import wire
from notifyd.ctl import hubaddress, running
from notifyd.ctl.output import EscapedPipe, Output, Pipe, watch_reader
from notifyd.ctl.say import CommandError, complain
from notifyd.ctl.subscription import Subscription

DEFAULT_STREAMS = ("normal", "important", "critical")
STDOUT_FD = 1
DEEPEST_EVENT = 5_000
"""Levels of recursion for parsers: the hub passes events on that are nested 1,000 deep."""


@click.command()
@click.argument("streams", nargs=-1, type=click.Choice(hubaddress.STREAMS), metavar="[STREAM]...")
@hubaddress.hub_options
@click.option("--after", metavar="OFFSET", help="Begin after that offset; also first or now. Default: now.")
@click.option("--since", metavar="TIME", help="Begin with what the hub received then, as 2026-11-22T10:00:00Z.")
@click.option("--name", metavar="NAME", help="Be a registered client: the hub keeps the place. One STREAM only.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--json", "as_json", is_flag=True, help="Event lines as the hub sends them, also on a terminal.")
def tail(
    streams: tuple[str, ...],
    hub: str | None,
    config: str | None,
    after: str | None,
    since: str | None,
    name: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Show events as they come: a table on a terminal, JSON lines in a pipe.

    STREAM is normal, important, critical, error or all; default: normal important critical.
    A connection that is lost is made again, and the events go on where they were.
    """
    wish = _wish(after, since, name)
    if name is not None and len(set(streams)) != 1:
        raise click.UsageError("--name goes with exactly one STREAM", click.get_current_context())
    chosen = ["all"] if "all" in streams else list(dict.fromkeys(streams or DEFAULT_STREAMS))
    addresses = hubaddress.find(chosen, hub, config)
    output = _output(as_json)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), DEEPEST_EVENT))

    from twisted.internet import reactor

    running_tail = Tail(reactor, output, count)
    for stream, address in addresses.items():
        running_tail.follow(Subscription(reactor, stream, address, wish, running_tail))
    watch_reader(reactor, STDOUT_FD, lambda: running_tail.finish(0))
    running.run(reactor, running_tail.done, lambda: running_tail.finish(running.INTERRUPTED))


def _wish(after: str | None, since: str | None, name: str | None) -> wire.Subscribe:
    """Checks where to begin by the rules of the hub itself."""
    context = click.get_current_context()
    if after is not None and since is not None:
        raise click.UsageError("--after and --since exclude each other", context)
    if after is None and since is None and name is None:
        after = "now"
    given = {"after": after, "since": since, "name": name}
    for option, value in given.items():
        if value is None:
            continue
        try:
            wire.decode_subscribe(wire.encode_verb("", wire.Subscribe(**{option: value})).strip())
        except (wire.ProtocolError, UnicodeEncodeError) as error:
            reason = str(error).removeprefix("SUBSCRIBE: ").removeprefix(f"{option} ")
            raise click.BadParameter(reason, context, param_hint=f"--{option}") from None
    return wire.Subscribe(**given)


def _output(as_json: bool) -> Output:
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    if not os.isatty(STDOUT_FD):
        return Pipe(STDOUT_FD)
    if as_json:
        return EscapedPipe(STDOUT_FD)
    from notifyd.ctl.screen import Screen

    screen = Screen(STDOUT_FD, sys.stdout.encoding)
    screen.write([])  # the header, so that a person sees at once that it has begun
    return screen


class Tail:
    """Puts what several subscriptions bring on one output, and knows when it is enough.

    Args:
        reactor: keeps the time.
        output: where events go.
        count: how many events are wanted; None for no end.
    """

    def __init__(self, reactor: Any, output: Output, count: int | None = None) -> None:
        self.done: Deferred[int] = Deferred()
        self._reactor = reactor
        self._output = output
        self._wanted = count
        self._finishing = False
        self._subscriptions: list[Subscription] = []

    def follow(self, subscription: Subscription) -> None:
        """Begins with one more stream."""
        self._subscriptions.append(subscription)
        subscription.start()

    def show(self, lines: list[bytes]) -> int:
        """Writes event lines, as many as are wanted and can be written; gives how many."""
        if self._finishing:
            return 0
        lines = lines[: self._wanted]
        try:
            self._output.write(lines)
        except BrokenPipeError:
            self.finish(0)
            return 0
        except OSError as error:
            self.fail(f"cannot write to standard output: {error.strerror}")
            return 0
        if self._wanted is not None:
            self._wanted -= len(lines)
            if self._wanted == 0:
                self.finish(0)
        return len(lines)

    def notice(self, text: str) -> None:
        """Tells a change."""
        if not self._finishing:
            complain(text)

    def fail(self, text: str) -> None:
        """Ends with status 1."""
        self.notice(text)
        self.finish(1)

    def finish(self, status: int) -> None:
        """Shows nothing more, and ends once the hub knows what was acknowledged."""
        if self._finishing:
            return
        self._finishing = True
        # Later, since the subscription that has just shown its last event has yet to acknowledge it.
        self._reactor.callLater(0, self._settle, status)

    def _settle(self, status: int) -> None:
        settled = DeferredList([subscription.settle() for subscription in self._subscriptions])
        settled.addCallback(lambda _: self.done.callback(status))
