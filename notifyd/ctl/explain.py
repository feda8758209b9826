"""``notifyctl explain``: the life of one event, and what would become of it today."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import click
import msgspec
from msgspec import UNSET, Raw
from twisted.internet.defer import CancelledError, Deferred, DeferredList

from notifyd.config import ConfigurationError
from notifyd.config_hub import HubConfig
from notifyd.config_hub import Lookup as LookupSettings
from notifyd.ctl import eventlog, running
from notifyd.ctl.eventlog import LogReader, StoredRow
from notifyd.ctl.explain_page import write_page
from notifyd.ctl.history import DEEPEST_EVENT, STDOUT_FD
from notifyd.ctl.output import escape_json, write_all
from notifyd.ctl.past import Past, revive
from notifyd.ctl.say import CommandError
from notifyd.ctl.screen import describe
from notifyd.database import StateError
from notifyd.event import NotAcceptableError, format_time, parse_time
from notifyd.hub.classify import Classifier, Decision
from notifyd.hub.conditions import Matcher
from notifyd.hub.enrich import make_lookup
from notifyd.hub.filtering import FilterRunner, load_filter
from notifyd.hub.lookup_query import Refused
from notifyd.hub.lookup_row import Row
from notifyd.hub.settle import decision_of
from notifyd.hub.stages import check_stages, own_database

MAX_OTHERS = 10
"""Further events of the same id that are told."""

OTHERS_EVENTS = 1_000_000
"""Events behind the newest with an id among which others are looked for: about a second."""

PATIENCE_S = 2.0
"""So much longer than its timeout a lookup may take to come to an end."""


@click.command()
@click.argument("event", metavar="ID_OR_OFFSET")
@click.option("--filter", "ask_filter", is_flag=True, help="Call the filter too, which is your code and may act.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of a page.")
@eventlog.log_options
def explain(event: str, ask_filter: bool, as_json: bool, config_path: str | None, database: str | None) -> None:
    """Print an event's life, why it has its priority, and which clients are past it.

    An offset is found at once. An id is looked for from the newest event backwards, which takes a while in a long
    log. Lookups are asked now as they were then, and nothing is written.
    """
    try:
        event.encode()
    except UnicodeEncodeError:
        raise click.UsageError("ID_OR_OFFSET is no UTF-8", click.get_current_context()) from None
    sys.setrecursionlimit(max(sys.getrecursionlimit(), DEEPEST_EVENT))
    place = eventlog.find_log(config_path, database)
    settings = place.settings
    try:
        check_stages(settings, place.path)
        made = load_filter(settings.filter, place.path) if ask_filter and settings.filter is not None else None
    except (ConfigurationError, StateError) as error:
        raise CommandError(str(error)) from None
    log = eventlog.open_log(place)
    row, others = find(log, event)
    try:
        past, fresh = revive(row, time.time()), revive(row, time.time())
    except NotAcceptableError as error:
        raise CommandError(f"the event at offset {row.offset} cannot be read: {error}") from None
    life = describe_life(log, past, settings)
    life["others"] = [str(offset) for offset in others]
    life["config"] = place.path if config_path is not None else None

    from twisted.internet import reactor

    judge = Judge(reactor, settings, place.url or own_database(settings, place.state), made)
    work = _work(judge, life, past, fresh, as_json)
    running.run(
        reactor, Deferred.fromCoroutine(running.told(reactor, work)), lambda: running.leave(running.INTERRUPTED)
    )


async def _work(judge: Judge, life: dict[str, Any], past: Past, fresh: Past, as_json: bool) -> int:
    life.update(await judge.judge(past, fresh))
    life["event"] = Raw(past.row.body.encode())
    terminal = os.isatty(STDOUT_FD)
    if as_json:
        line = msgspec.json.encode(life)
        write_all(STDOUT_FD, (escape_json(line) if terminal else line) + b"\n")
    else:
        coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        page = write_page(life, coloured=coloured)
        write_all(STDOUT_FD, page.encode(sys.stdout.encoding if sys.stdout else "utf-8", "replace"))
    return 0


def find(log: LogReader, wanted: str) -> tuple[StoredRow, list[int]]:
    """Finds an event by its offset, else the newest by its id.

    Returns:
        the event, and the offsets of older ones with the same id, :data:`MAX_OTHERS` at most.

    Raises:
        CommandError: there is none.
    """
    if wanted.isascii() and wanted.isdigit() and int(wanted[:30]) <= eventlog.MAX_OFFSET:
        row = log.event(int(wanted[:30]))
        if row is not None:
            return row, []
    found: list[int] = []
    looked_at = 0
    for _, offsets in log.offsets_of(wanted, log.newest() + 1):
        found += offsets
        looked_at = looked_at + eventlog.SEARCH_STEP if found else 0
        if len(found) > MAX_OTHERS or looked_at >= OTHERS_EVENTS:
            break
    row = log.event(found[0]) if found else None
    if row is not None:
        return row, found[1 : MAX_OTHERS + 1]
    expired = log.expired()
    more = ""
    if expired is not None:
        more = f"; those up to offset {expired[0]}, received until {expired[1]}, have expired"
    raise CommandError(f"no event in {log.name} has the offset or the id {wanted!r}{more}")


def describe_life(log: LogReader, past: Past, settings: HubConfig, now_s: float | None = None) -> dict[str, Any]:
    """Gives what the log knows of an event, as JSON can hold it."""
    row, event = past.row, past.event
    spool, _, number = row.id.rpartition("-")
    sequence = None if event.sequence is UNSET else event.sequence
    spooled = row.agent is not None and sequence is not None and sequence.lstrip("0") == number.lstrip("0")
    expires_s = parse_time(row.received) + settings.database.retention
    kind = "rejected" if past.is_rejected else "summary" if past.is_summary else "own" if past.own else "event"
    return {
        "id": row.id, "offset": str(row.offset), "kind": kind, "source": row.source, "type": row.type,
        "text": describe(row.body.encode()).text, "time": row.time, "agent": row.agent,
        "spool": spool if spooled else None, "sequence": sequence, "received": row.received,
        "delay_s": round(past.age(), 6), "stream": row.priority, "suppressed": bool(row.suppressed),
        "expires": format_time(expires_s), "expired": expires_s < (time.time() if now_s is None else now_s),
        "hint": row.hint, "priority": row.priority, "rule": row.rule, "reason": _reason(row),
        "clients": [
            {"name": each.name, "stream": each.stream, "acked": str(each.acked), "past": each.acked >= row.offset,
             "seen": each.seen}
            for each in log.clients(row.priority)
        ],
    }  # fmt: skip


def _reason(row: StoredRow) -> str | None:
    reason = json.loads(row.body).get("reason")
    return reason if isinstance(reason, str) else None


class Judge:
    """Asks lookups, the filter and the rules of a configuration about one event.

    Args:
        reactor: for lookups and the filter.
        settings: the configuration.
        own_url: the database of lookups that name none.
        made: what the filter's factory has made; None where it is not to be asked.
    """

    def __init__(self, reactor: Any, settings: HubConfig, own_url: str, made: object = None) -> None:
        self._reactor = reactor
        self._settings = settings
        self._own_url = own_url
        self._made = made
        self._classifier = Classifier(settings.rule, settings.default_priority)

    async def judge(self, past: Past, fresh: Past) -> dict[str, Any]:
        """Gives what lookups gave then and give now, and what rules say of both, as JSON can hold it.

        Args:
            past: the event; its context of then is put back.
            fresh: the same, which gets the context of now.
        """
        if past.is_rejected or past.is_summary:
            return {"lookups": [], "filter": None, "rules": None, "now": None}
        lookups = [] if past.own else await self._look_up(past, fresh)
        found: dict[str, Any] = {"lookups": lookups, "filter": None}
        outcome = None
        if self._settings.filter is not None and not past.own:
            found["filter"] = {"factory": self._settings.filter.factory, "asked": self._made is not None}
            if self._made is not None:
                runner = FilterRunner(self._reactor, self._settings.filter, self._made)
                (outcome,) = await runner.run([fresh], [fresh.row.received])
                runner.stop()
                found["filter"]["decision"] = None if outcome is None else _decision(decision_of(outcome))
            else:
                known = {each.name for each in self._settings.lookup}
                fresh.recall(name for name in fresh.then if name not in known)
        past.recall()
        explanation = self._classifier.explain(past)
        missed = [{"rule": rule, "condition": condition} for rule, condition in explanation.missed]
        found["rules"] = {"missed": missed, **_decision(explanation.decision)}
        now = self._classifier.classify(fresh) if outcome is None else decision_of(outcome)
        found["now"] = _decision(now)
        return found

    async def _look_up(self, past: Past, fresh: Past) -> list[dict[str, Any]]:
        asked = [(self._prepare(each, past, fresh), each) for each in self._settings.lookup]
        waiting = [self._ask(told, each, fresh) for told, each in asked if told["why_not"] is None]
        await DeferredList([Deferred.fromCoroutine(each) for each in waiting], consumeErrors=True)
        known = {each.name for each in self._settings.lookup}
        rest = [
            {"name": name, "why_not": "no lookup has this name now", "then": _then(past, name), "now": None}
            for name in past.then
            if name not in known
        ]
        return [told for told, _ in asked] + rest

    def _prepare(self, settings: LookupSettings, past: Past, fresh: Past) -> dict[str, Any]:
        """Tells what a lookup gave then, and why it is not for the event, where it is not."""
        why_not = Matcher(settings).failure(fresh)
        if why_not is None:
            lacking = self._make(settings).lacks(fresh)
            why_not = None if lacking is None else f"the event has no {lacking}, which the statement needs"
        return {"name": settings.name, "why_not": why_not, "then": _then(past, settings.name), "now": None}

    def _make(self, settings: LookupSettings) -> Any:
        try:
            return make_lookup(settings, self._own_url, reactor=self._reactor, tell=lambda *_: None)
        except StateError as error:
            raise CommandError(str(error)) from None

    async def _ask(self, told: dict[str, Any], settings: LookupSettings, fresh: Past) -> None:
        lookup = self._make(settings)
        patience_s = settings.timeout + PATIENCE_S
        told["now"] = {"state": "unavailable", "reason": f"no answer within {patience_s:g} s"}
        asking = lookup.inquire(fresh)
        asking.addTimeout(patience_s, self._reactor, onTimeoutCancel=lambda *_: None)
        try:
            outcome = await asking
        except CancelledError:
            outcome = None
        answer = outcome.answers[0] if outcome is not None and outcome.answers else None
        if outcome is None or outcome.fault is not None or isinstance(answer, Refused):
            fresh.lack(settings.name)
            if isinstance(answer, Refused):
                told["now"]["reason"] = answer.reason
            elif outcome is not None:
                told["now"]["reason"] = outcome.fault
        elif isinstance(answer, Row):
            fresh.add_context(settings.name, answer.value, answer.encoded)
            told["now"] = {"state": "found", "row": Raw(answer.encoded)}
        else:
            fresh.add_context(settings.name, None, b"null")
            told["now"] = {"state": "no row"}


def _then(past: Past, name: str) -> Mapping[str, Any]:
    """Tells what a lookup gave when the event was received."""
    if name in past.then:
        row = past.then[name]
        return {"state": "no row"} if row is None else {"state": "found", "row": Raw(json.dumps(row).encode())}
    return {"state": "unavailable" if name in past.unavailable_then else "not asked"}


def _decision(decision: Decision) -> dict[str, Any]:
    priority = None if decision.drop else decision.priority.value
    return {"priority": priority, "rule": decision.rule, "reason": decision.reason, "drop": decision.drop}
