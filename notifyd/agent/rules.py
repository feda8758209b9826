"""Rules: a frame to an event, by the first ``[[source.rule]]`` that matches. Pure; total over any bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from notifyd import config_agent
from notifyd.agent.framing.base import Frame, decode
from notifyd.conditions import ABSENT, Where
from notifyd.event import DAMAGED_TYPE, Event, encode, format_time, raw_data
from notifyd.wire import MAX_LINE

RESERVED = 256
"""Bytes of a line that are left for what the spool fills in, ``id`` and ``sequence``, and for the LF."""

UNMATCHED_TYPE = "notifyd.line"
"""The type of an event that no rule gave one."""

_NO_FIELDS: Mapping[str, str] = {}

UNMATCHED = "unmatched"
"""Stands for a rule's name in counts of what no rule matched."""


class _Outcome(msgspec.Struct, frozen=True):
    """What a frame becomes."""

    type: str
    priority: str
    max_data: int  # bytes that the other attributes leave for ``data``
    search: Callable[[str], re.Match[str] | None] = lambda _: None
    has_groups: bool = False
    where: tuple[Where, ...] = ()
    label: str = UNMATCHED


class Rules:
    """The rules of one source.

    Args:
        source: its settings; the regular expressions and the encoding in them have been checked.
        agent_name: the first part of the events' ``source``.

    Attributes:
        unmatched: how many frames no rule matched and ``unmatched = "drop"`` left out.
        label: the name of the rule that gave the last event, or its place in the file as ``rule 2``.
    """

    def __init__(self, source: config_agent.Source, agent_name: str) -> None:
        self.unmatched = 0
        self.label = UNMATCHED
        self._source = f"/{agent_name}/{source.name}"
        self._encoding = source.encoding
        self._read_at = 0.0
        self._time = format_time(0.0)
        names = [rule.name for rule in source.rule]
        labels = [
            name if name is not None and names.count(name) == 1 else f"rule {number}"
            for number, name in enumerate(names, 1)
        ]
        self._rules = tuple(self._rule(*each, source) for each in zip(source.rule, labels, strict=True))
        sends = source.sends_unmatched
        self._otherwise = self._outcome(UNMATCHED_TYPE, source.priority) if sends else None
        self._damaged = self._outcome(DAMAGED_TYPE, "normal")

    def event(self, frame: Frame, read_at: float) -> Event | None:
        """Gives the event that ``frame`` is; the spool fills in ``id`` and ``sequence``.

        Args:
            frame: what the device printed.
            read_at: when its last byte was read, in seconds since 1970.

        Returns:
            None where no rule matches and the source drops what no rule matches.
        """
        line, intact = decode(frame.data, self._encoding)
        if frame.damaged is not None:  # what it says is not to be trusted: no rule is asked
            return self._event(self._damaged, frame, line, {"reason": frame.damaged}, False, read_at)
        parsed = frame.fields or _NO_FIELDS
        for rule in self._rules:
            if match := rule.search(line):
                fields = {**parsed, **_groups(match)} if rule.has_groups else parsed
                if not rule.where or _all_hold(rule.where, fields):
                    return self._event(rule, frame, line, fields, intact, read_at)
        if self._otherwise is None:
            self.unmatched += 1
            return None
        return self._event(self._otherwise, frame, line, parsed, intact, read_at)

    def _rule(self, rule: config_agent.SourceRule, label: str, source: config_agent.Source) -> _Outcome:
        pattern = re.compile(rule.match)
        outcome = self._outcome(rule.type, rule.priority or source.priority)
        where = tuple(Where(name, expected) for name, expected in rule.where.items())
        groups = bool(pattern.groupindex)
        return msgspec.structs.replace(outcome, search=pattern.search, has_groups=groups, where=where, label=label)

    def _outcome(self, type_: str, priority: str) -> _Outcome:
        empty = encode(self._envelope(type_, priority, raw_data({})))
        return _Outcome(type_, priority, MAX_LINE - RESERVED - len(empty))

    def _envelope(self, type_: str, priority: str, data: msgspec.Raw) -> Event:
        return Event(
            specversion="1.0",
            id="",
            source=self._source,
            type=type_,
            time=self._time,
            priority=priority,
            data=data,
        )

    def _event(
        self, outcome: _Outcome, frame: Frame, line: str, fields: Mapping[str, str], intact: bool, read_at: float
    ) -> Event:
        if read_at != self._read_at:
            self._read_at, self._time = read_at, format_time(read_at)
        self.label = outcome.label
        members: dict[str, object] = {"line": line, "fields": fields}
        if not intact:
            members["raw"] = frame.data  # msgspec writes bytes as base64
        if frame.truncated:
            members["truncated"] = True
        data = raw_data(members)
        if len(memoryview(data)) > outcome.max_data:
            data = _cut_down(members, frame, outcome.max_data)
        return self._envelope(outcome.type, outcome.priority, data)


def _groups(match: re.Match[str]) -> dict[str, str]:
    """Gives the named groups that took part in the match."""
    return {name: text for name, text in match.groupdict().items() if text is not None}


def _all_hold(conditions: tuple[Where, ...], fields: Mapping[str, str]) -> bool:
    for where in conditions:  # noqa: SIM110 - a generator would cost more than the conditions
        if not where.holds(fields.get(where.path, ABSENT)):
            return False
    return True


def _cut_down(members: dict[str, object], frame: Frame, limit: int) -> msgspec.Raw:
    """Leaves out ``fields`` and, where that is not enough, ``line``; no byte of the frame is lost."""
    members["truncated"] = True
    del members["fields"]
    data = raw_data(members)
    if len(memoryview(data)) > limit:
        del members["line"]
        members["raw"] = frame.data
        data = raw_data(members)
    return data
