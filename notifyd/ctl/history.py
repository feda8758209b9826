"""``notifyctl history``: pages through the hub's event log."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import click

from notifyd.conditions import Pattern
from notifyd.ctl import eventlog
from notifyd.ctl.eventlog import StoredRow
from notifyd.ctl.output import Pipe, escape_json
from notifyd.ctl.say import CommandError, complain
from notifyd.event import Priority

STDOUT_FD = 1
DEEPEST_EVENT = 5_000
"""Levels of recursion for parsers: the hub stores events that are nested 1,000 deep."""

CHUNK_EVENTS = 200
CHUNK_S = 0.1
"""Events that are shown together, and for how long those that have been found wait for more."""

REPEAT = "(repeat, sent to nobody)"

Wanted = Callable[[StoredRow], bool]


@click.command()
@eventlog.period_options
@click.option("--priority", "priorities", multiple=True, type=click.Choice([each.value for each in Priority]),
              help="Only events of this priority; may be repeated.")  # fmt: skip
@click.option("--type", "types", multiple=True, metavar="GLOB", help="Only of types like this; may be repeated.")
@click.option("--source", "sources", multiple=True, metavar="GLOB", help="Only of sources like this; may be repeated.")
@click.option("--grep", metavar="REGEX", help="Only events in whose line of JSON this is found.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--reverse", is_flag=True, help="The newest first.")
@click.option("--suppressed", is_flag=True, help="Also repeats that were sent to nobody; a table marks them.")
@click.option("--json", "as_json", is_flag=True, help="Event lines as they are stored, also on a terminal.")
@eventlog.log_options
def history(
    since: str | None,
    until: str | None,
    priorities: tuple[str, ...],
    types: tuple[str, ...],
    sources: tuple[str, ...],
    grep: str | None,
    limit: int | None,
    reverse: bool,
    suppressed: bool,
    as_json: bool,
    config_path: str | None,
    database: str | None,
) -> None:
    """Page through the event log: a table on a terminal, JSON lines in a pipe.

    The log is read where the hub keeps it, whether the hub runs or not. What is shown is what clients were sent;
    of a storm that is its first event and the summary, unless --suppressed asks for every repeat.
    """
    first, end = eventlog.moment("--since", since), eventlog.moment("--until", until)
    wanted = _wanted(types, sources, grep)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), DEEPEST_EVENT))
    log = eventlog.open_log(eventlog.find_log(config_path, database))
    newest = log.newest()
    last = newest if end is None else log.after(end, newest)
    rows = log.scan(log.after(first, newest), last, priorities=priorities, suppressed=suppressed, reverse=reverse)
    show(chunks(rows, wanted, limit), as_json)
    log.close()


def _wanted(types: Sequence[str], sources: Sequence[str], grep: str | None) -> Wanted:
    """Gives what tells whether an event is asked for; raises click.BadParameter."""
    try:
        found = None if grep is None else re.compile(grep).search
    except (re.error, RecursionError, OverflowError) as error:
        raise click.BadParameter(f"{grep!r} is no regular expression: {error}", param_hint="--grep") from None
    like_type = [Pattern(text).fits for text in types]
    like_source = [Pattern(text).fits for text in sources]

    def wanted(row: StoredRow) -> bool:
        return (
            (not like_type or any(fits(row.type) for fits in like_type))
            and (not like_source or any(fits(row.source) for fits in like_source))
            and (found is None or found(row.body) is not None)
        )

    return wanted


def chunks(
    rows: Iterable[StoredRow], wanted: Wanted, limit: int | None, clock: Callable[[], float] = time.monotonic
) -> Iterator[list[StoredRow]]:
    """Gives the events that are asked for, some at a time.

    Args:
        rows: events.
        wanted: tells which are asked for.
        limit: how many at most; None for all.
        clock: tells how long those that were found have waited.
    """
    chunk: list[StoredRow] = []
    left = limit
    began_s = clock()
    for row in rows:
        if wanted(row):
            chunk.append(row)
            if left is not None:
                left -= 1
                if left == 0:
                    break
        if chunk and (len(chunk) >= CHUNK_EVENTS or clock() - began_s > CHUNK_S):
            yield chunk
            chunk, began_s = [], clock()
    if chunk:
        yield chunk


def show(found: Iterator[list[StoredRow]], as_json: bool) -> None:
    """Writes events: into a pipe as they are stored, for a person through a pager."""
    try:
        if not os.isatty(STDOUT_FD):
            pipe = Pipe(STDOUT_FD)
            for chunk in found:
                pipe.write([row.body.encode() for row in chunk])
            return
        first = next(found, None)
        if first is None:
            complain("no event in the log is such")
            return
        texts = (_json if as_json else _table())(chain([first], found))
        os.environ.setdefault("LESS", "-FRX")  # ends by itself where all of it fits on the screen
        click.echo_via_pager(texts, color=None if os.isatty(0) else True)
    except BrokenPipeError:
        return
    except OSError as error:
        raise CommandError(f"cannot write to standard output: {error.strerror}") from None


def _json(found: Iterable[list[StoredRow]]) -> Iterator[str]:
    for chunk in found:
        yield "".join(f"{escape_json(row.body.encode()).decode()}\n" for row in chunk)


def _table() -> Callable[[Iterable[list[StoredRow]]], Iterator[str]]:
    from notifyd.ctl.screen import Screen, describe

    screen = Screen(STDOUT_FD, sys.stdout.encoding)

    def table(found: Iterable[list[StoredRow]]) -> Iterator[str]:
        for chunk in found:
            rows = [(row, describe(row.body.encode())) for row in chunk]
            yield screen.render(
                replace(shown, text=f"{REPEAT} {shown.text}".rstrip()) if row.suppressed else shown
                for row, shown in rows
            )

    return table
