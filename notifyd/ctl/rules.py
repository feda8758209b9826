"""``notifyctl rules test``: what a changed configuration would have made of the events that are stored."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from notifyd.config import ConfigurationError
from notifyd.config_hub import HubConfig
from notifyd.ctl import eventlog, running
from notifyd.ctl.eventlog import LogPlace, StoredRow
from notifyd.ctl.history import DEEPEST_EVENT, STDOUT_FD
from notifyd.ctl.output import write_all
from notifyd.ctl.past import Past, Remembering, revive
from notifyd.ctl.rules_agent import test_agent
from notifyd.ctl.rules_report import Report
from notifyd.ctl.say import CommandError, complain
from notifyd.database import StateError
from notifyd.event import NotAcceptableError
from notifyd.hub.breaker import Tell
from notifyd.hub.classify import Classifier
from notifyd.hub.conditions import Matcher
from notifyd.hub.enrich import Enricher, make_lookup
from notifyd.hub.filtering import FilterRunner, Outcome, load_filter
from notifyd.hub.settle import decision_of
from notifyd.hub.stages import check_stages, own_database

BATCH_EVENTS = 500
"""Events that are looked up and filtered together: as many as are answered well within a timeout."""

PROGRESS_S = 0.5


@click.group(invoke_without_command=True)
@click.pass_context
def rules(ctx: click.Context) -> None:
    """Try rules before they are used: on the events that are stored, or on a recording."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


rules.add_command(test_agent)


@rules.command()
@click.option("--config", "config_path", metavar="NEW", required=True, help="The hub.toml to try.")
@click.option("--log-config", metavar="OLD", help="The hub.toml that says where the log is. Default: NEW does.")
@click.option("--database", metavar="URL", help="Read the event log there, whatever the files say.")
@eventlog.period_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--no-lookups", is_flag=True, help="Ask no database for what an event was not given then.")
@click.option("--filter", "ask_filter", is_flag=True, help="Call the filter of NEW, which is your code and may act.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of tables.")
def test(
    config_path: str,
    log_config: str | None,
    database: str | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    no_lookups: bool,
    ask_filter: bool,
    as_json: bool,
) -> None:
    """Classify stored events with NEW, and print which priorities would change.

    Nothing is touched. What a lookup gave then counts; where an event has no answer of a lookup, it is asked now.
    """
    if log_config is not None and database is not None:
        raise click.UsageError("--log-config and --database exclude each other", click.get_current_context())
    new = eventlog.find_log(config_path)
    place = new if log_config is None and database is None else eventlog.find_log(log_config or config_path, database)
    first, end = eventlog.moment("--since", since), eventlog.moment("--until", until)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), DEEPEST_EVENT))

    from twisted.internet import reactor

    try:
        check_stages(new.settings, config_path)
        made = load_filter(new.settings.filter, config_path) if ask_filter and new.settings.filter else None
        trial = Trial(reactor, new.settings, _database_of(place), made, ask_lookups=not no_lookups, tell=_tell)
    except (ConfigurationError, StateError) as error:
        raise CommandError(str(error)) from None
    log = eventlog.open_log(place)
    newest = log.newest()
    rows: Iterator[StoredRow] = log.scan(log.after(first, newest), newest if end is None else log.after(end, newest))
    report = Report(log.name, config_path, first, end)
    work = _work(reactor, trial, islice(rows, limit), report, as_json)
    running.run(
        reactor, Deferred.fromCoroutine(running.told(reactor, work)), lambda: running.leave(running.INTERRUPTED)
    )


def _database_of(place: LogPlace) -> str:
    """Gives the URL of the database that lookups without one are asked in."""
    return place.url or own_database(place.settings, place.state)


def _tell(kind: str, source: str, line: str, fields: dict[str, object]) -> None:
    """Says what the hub would send an event of its own about."""
    complain(line)


async def _work(reactor: Any, trial: Trial, rows: Iterator[StoredRow], report: Report, as_json: bool) -> int:
    await trial.run(rows, report, Progress() if sys.stderr is not None and sys.stderr.isatty() else None)
    await trial.stop()
    if as_json:
        text = report.to_json() + b"\n"
    else:
        terminal = os.isatty(STDOUT_FD)
        text = report.to_text(terminal=terminal).encode(sys.stdout.encoding if sys.stdout else "utf-8", "replace")
    write_all(STDOUT_FD, text)
    return 0


class Progress:
    """Says now and then, on a line of its own that it takes away again, how many events have been classified."""

    def __init__(self) -> None:
        self._due_s = time.monotonic() + PROGRESS_S
        self._shown = False

    def __call__(self, count: int) -> None:
        """Is called with the number every so often."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + PROGRESS_S
            self._shown = True
            click.echo(f"\r{count:,} events ", err=True, nl=False)

    def end(self) -> None:
        """Takes the line away."""
        if self._shown:
            click.echo(f"\r{' ' * 30}\r", err=True, nl=False)


class Trial:
    """Classifies events of the past with a configuration.

    Args:
        reactor: for lookups and the filter.
        settings: the configuration.
        own_url: the database of lookups that name none.
        made: what the filter's factory has made; None where it is not to be asked.
        ask_lookups: whether lookups are asked for what an event was not given then.
        tell: is told when a lookup's database is ill.

    Raises:
        StateError: a database cannot be asked by this installation.
    """

    def __init__(
        self, reactor: Any, settings: HubConfig, own_url: str, made: object = None, *, ask_lookups: bool, tell: Tell
    ) -> None:
        self._reactor = reactor
        self._classifier = Classifier(settings.rule, settings.default_priority)
        self._hooks: list[Remembering] = []
        for each in settings.lookup:
            hook = Remembering(each.name, Matcher(each).matches, ask=ask_lookups)
            hook.lookup = make_lookup(each, own_url, reactor=reactor, tell=tell, matches=hook)
            self._hooks.append(hook)
        self._names = frozenset(hook.name for hook in self._hooks)
        lookups = [hook.lookup for hook in self._hooks if hook.lookup is not None]
        self._enricher = Enricher(reactor, lookups) if lookups else None
        self._runner = None if settings.filter is None or made is None else FilterRunner(reactor, settings.filter, made)
        self._has_filter = settings.filter is not None

    async def stop(self) -> None:
        """Ends what still waits."""
        if self._enricher is not None:
            await self._enricher.stop()
        if self._runner is not None:
            self._runner.stop()

    async def run(self, rows: Iterator[StoredRow], report: Report, progress: Progress | None = None) -> None:
        """Classifies events, and counts them in a report."""
        count = 0
        while batch := list(islice(rows, BATCH_EVENTS)):
            await self._classify(self._revive(batch, report), report)
            count += len(batch)
            if progress is not None:
                progress(count)
            await deferLater(self._reactor, 0)  # lets Ctrl-C through
        if progress is not None:
            progress.end()
        for hook in self._hooks:
            report.note(f"were looked up now in {hook.name}, having no answer of it", hook.asked)
            report.note(f"have no answer of lookup {hook.name}, which was not asked", hook.not_asked)

    def _revive(self, rows: Iterable[StoredRow], report: Report) -> list[Past]:
        pasts: list[Past] = []
        now_s = time.time()
        for row in rows:
            try:
                past = revive(row, now_s)
            except NotAcceptableError:
                report.leave_out("cannot be read, and are left out")
                continue
            if past.own and (past.is_rejected or past.is_summary):
                report.leave_out("are left out: refused lines and summaries of repeats are not for rules")
                continue
            if self._has_filter and self._runner is None and row.rule == "filter":
                report.leave_out("are left out, since the filter decided about them: --filter asks it")
                continue
            if row.hint is None:
                if row.rule == "hint":
                    report.note("are of before hints were kept: their priority is taken for it")
                elif not past.own:
                    report.note("have no hint in the log: they had none, or are of before it was kept")
            pasts.append(past)
        return pasts

    async def _classify(self, pasts: list[Past], report: Report) -> None:
        producers = [past for past in pasts if not past.own]
        if self._enricher is not None:
            waiting = self._enricher.enrich(producers)
            if waiting is not None:
                await waiting
            for past in producers:
                if past.unavailable:
                    self._note_unavailable(past, report)
        outcomes: Iterator[Outcome] | None = None
        if self._runner is not None:
            outcomes = iter(await self._runner.run(producers, [past.row.received for past in producers]))
        elif self._has_filter:  # what is in the context under other names, it has put there
            for past in producers:
                past.recall(name for name in past.then if name not in self._names)
        for past in pasts:
            outcome = None if outcomes is None or past.own else next(outcomes)
            report.add(past.row, self._classifier.classify(past) if outcome is None else decision_of(outcome))

    def _note_unavailable(self, past: Past, report: Report) -> None:
        for name in past.unavailable:
            when = "then" if name in past.unavailable_then else "now"
            report.note(f"go without lookup {name}, which could not be asked {when}")
