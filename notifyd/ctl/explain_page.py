"""The page of ``notifyctl explain``: an event's life for a person to read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from notifyd.ctl.say import printable

_LABEL = 12
"""Columns of what stands on the left."""

_COLOURS = {"normal": "green", "important": "yellow", "critical": "red", "error": "magenta"}


class _Page:
    def __init__(self, coloured: bool) -> None:
        self._coloured = coloured
        self.lines: list[str] = []

    def title(self, text: str) -> None:
        if self.lines:
            self.lines.append("")
        shown = printable(text)
        self.lines.append(click.style(shown, bold=True) if self._coloured else shown)

    def row(self, label: str, text: str, colour: str | None = None) -> None:
        shown = printable(text)
        if colour is not None and self._coloured:
            shown = click.style(shown, fg=colour, bold=True)
        self.lines.append(
            f"  {printable(label):<{_LABEL}}{' ' if len(printable(label)) >= _LABEL else ''}{shown}".rstrip()
        )


def write_page(life: Mapping[str, Any], *, coloured: bool) -> str:
    """Gives the page.

    Args:
        life: what ``notifyctl explain --json`` prints.
        coloured: whether a terminal obeys it.
    """
    page = _Page(coloured)
    page.title(f"Event {life['id']}")
    page.row("source", life["source"])
    page.row("type", life["type"])
    page.row("text", life["text"])
    page.row("priority", life["priority"], _COLOURS.get(life["priority"]))
    if life["others"]:
        page.row("same id", f"older events at the offsets {', '.join(life['others'])}")
    _way(page, life)
    _lookups(page, life)
    _rules(page, life)
    _clients(page, life)
    return "\n".join(page.lines) + "\n"


def _way(page: _Page, life: Mapping[str, Any]) -> None:
    page.title("Its way")
    page.row("read", _read(life))
    delay = life["delay_s"]
    seconds = f"{abs(delay):.6f}".rstrip("0").rstrip(".")
    later = f"{seconds} s later" if delay >= 0 else f"{seconds} s earlier by the hub's clock"
    page.row("received", f"{life['received']}, {later}")
    page.row("stored", f"at offset {life['offset']}")
    sent = "to nobody: it repeats an event of its kind" if life["suppressed"] else f"on stream {life['stream']}"
    page.row("sent", sent)
    page.row("kept until", f"{life['expires']}{', so it will be deleted any moment' if life['expired'] else ''}")


def _read(life: Mapping[str, Any]) -> str:
    if life["kind"] != "event":
        return f"{life['time']}, made by the hub itself"
    if life["agent"] is None:
        return f"{life['time']}, by the producer's word"
    spool = f", spool {life['spool']}" if life["spool"] is not None else ""
    sequence = f", sequence {life['sequence'].lstrip('0') or '0'}" if life["sequence"] is not None else ""
    return f"{life['time']} by agent {life['agent']}{spool}{sequence}"


def _lookups(page: _Page, life: Mapping[str, Any]) -> None:
    if not life["lookups"]:
        return
    page.title("Lookups")
    for lookup in life["lookups"]:
        page.row(lookup["name"], f"then: {_answer(lookup['then'])}")
        if lookup["why_not"] is not None:
            page.row("", f"now:  not asked: {lookup['why_not']}")
        elif lookup["now"] is not None:
            same = _answer(lookup["now"]) == _answer(lookup["then"])
            page.row("", f"now:  {'the same' if same else _answer(lookup['now'])}")


def _answer(answer: Mapping[str, Any]) -> str:
    if answer["state"] == "found":
        row = json.loads(bytes(answer["row"]))
        return _pairs(row.items()) if isinstance(row, dict) else json.dumps(row, ensure_ascii=False)
    if answer["state"] == "unavailable":
        return f"unavailable: {answer['reason']}" if "reason" in answer else "unavailable"
    return str(answer["state"])


def _pairs(items: Iterable[tuple[str, Any]]) -> str:
    return " ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in items)


def _rules(page: _Page, life: Mapping[str, Any]) -> None:
    page.title("What decided")
    if life["kind"] != "rejected":
        page.row("hint", life["hint"] or "none on record")
    page.row("then", _decision(life), _COLOURS.get(life["priority"]))
    rules, now = life["rules"], life["now"]
    if rules is None:
        page.row("", "rules are not asked about such an event of the hub's own")
        return
    if life["filter"] is not None:
        _filter(page, life["filter"])
    file = life["config"] or "the settings of a hub without a configuration file"
    page.title(f"The rules of {file}")
    for missed in rules["missed"]:
        page.row("no", f"{missed['rule']}: {missed['condition']}")
    page.row("yes", _decision(rules), _COLOURS.get(rules["priority"]))
    if _key(rules) != _key(life) and life["rule"] != "filter":
        page.row("", "This is not what was decided then: the configuration has changed since.")
    if _key(now) != _key(rules):
        why = "" if now["rule"] == "filter" else ", with what lookups give now"
        page.row("today", f"{_decision(now)}{why}", _COLOURS.get(now["priority"]))


def _filter(page: _Page, own: Mapping[str, Any]) -> None:
    if not own["asked"]:
        text = f"{own['factory']} was not called: --filter does that"
    elif own["decision"] is None:
        text = f"{own['factory']} leaves it to the rules now"
    else:
        text = f"{own['factory']} says now: {_decision(own['decision'])}"
    page.row("filter", text)


def _key(decision: Mapping[str, Any]) -> tuple[Any, Any]:
    return decision["priority"], decision["rule"]


def _decision(decision: Mapping[str, Any]) -> str:
    rule = decision["rule"]
    by = {"hint": "the producer's hint", "default": "the default", "filter": "the filter"}.get(rule, f"rule {rule!r}")
    reason = f" [{decision['reason']}]" if decision["reason"] else ""
    return f"{decision['priority'] or 'thrown away'} by {by}{reason}"


def _clients(page: _Page, life: Mapping[str, Any]) -> None:
    page.title(f"Registered clients of {life['stream']}, and of all")
    if not life["clients"]:
        page.row("", "none")
    for client in life["clients"]:
        place = "past it" if client["past"] else "not past it"
        if life["suppressed"]:
            place += ", and was not sent it"
        stream = ", of all" if client["stream"] == "all" else ""
        page.row(client["name"], f"{place} (at {client['acked']}, last seen {client['seen']}{stream})")
