"""Settling: drafts to entries. Each event gets its priority, its offset and its line, or is discarded by a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import UNSET, json
from twisted.logger import Logger

from notifyd import event as events
from notifyd import manyevents, wire
from notifyd.event import HINTS, Event, Priority
from notifyd.hub.attributes import add_attributes
from notifyd.hub.classify import Classifier, Decision
from notifyd.hub.draft import Draft
from notifyd.hub.entries import Entry, Kind, LaneRun
from notifyd.hub.filtering import Outcome, reason_of
from notifyd.hub.intake import Counters, Refusal, rejected_entry
from notifyd.hub.records import Batch
from notifyd.hub.suppress import Suppressor
from notifyd.hub.unclassified import Unclassified
from notifyd.hub.windows import Summary

_event_of, _position_of, _priority_of = attrgetter("event"), attrgetter("position"), attrgetter("event.priority")
_HINT_OF: dict[Any, str] = {word: word for word in HINTS}


class Alike(NamedTuple):
    """Events of which each is the same in most things.

    Attributes:
        found: they lack nothing but what the hub gives them.
        lines: as they came.
        received: when they did, as RFC 3339.
        kind: of all.
        run: what they say about their spool.
    """

    found: Sequence[Event]
    lines: Sequence[bytes]
    received: str
    kind: Kind
    run: LaneRun | None


class Settler:
    """Makes what is stored.

    Args:
        classifier: decides the priority where the operator's own code does not.
        suppressor: says which events repeat others; None where nothing is suppressed.
        unclassified: is told of events that nothing has classified.
        counters: are brought up to date.
        last: the log's last offset.
    """

    logger = Logger("notifyd.hub.pipeline")

    def __init__(
        self,
        *,
        classifier: Classifier,
        suppressor: Suppressor | None,
        unclassified: Unclassified,
        counters: Counters,
        last: int,
    ) -> None:
        self.last = last
        self.classifier = classifier
        self._suppressor = suppressor
        self._unclassified = unclassified
        self.counters = counters

    def settle(
        self, items: Sequence[Draft | Refusal], outcomes: Sequence[Outcome] | None, until_s: float, batch: Batch
    ) -> None:
        """Adds entries to a batch.

        Args:
            items: in their order.
            outcomes: what the operator's own code has said of each; None where there is none.
            until_s: when what comes next was received, or the time where nothing waits: windows of repeats that
                have ended by then are told, also where nothing comes that is stored.
            batch: is added to.
        """
        if not self._settle_all(items, outcomes, batch):
            self._settle_each(items, outcomes, batch)
        self.end_windows(until_s, batch)

    def _settle_each(self, items: Sequence[Draft | Refusal], outcomes: Sequence[Outcome] | None, batch: Batch) -> None:
        for index, item in enumerate(items):
            if isinstance(item, Refusal):
                self._refuse(item.line, item.reason, item, batch)
                continue
            try:
                self._settle(item, None if outcomes is None else outcomes[index], batch)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must cost one event's priority, not the hub
                self.logger.failure("An event could not be processed.")
                self._refuse(item.line, f"it could not be processed: {type(error).__name__}", item, batch)

    def _settle_all(self, items: Sequence[Draft | Refusal], outcomes: Sequence[Outcome] | None, batch: Batch) -> bool:
        """Adds the entries of all events at once, at a fraction of what each costs by itself.

        Returns:
            Whether it could be done. If not, nothing was: one is refused, dropped, or to be compared with others, or
            something is wrong with one, which is found by taking each by itself.
        """
        if outcomes is not None or self._suppressor is not None or Refusal in map(type, items):
            return False
        drafts: Sequence[Draft] = items  # type: ignore[assignment]  # as was just seen
        asked = list(map(_priority_of, drafts))
        given = [draft.event.data for draft in drafts]
        try:
            decisions = self.classifier.classify_all(drafts)
            distinct = {id(decision): decision for decision in decisions}.values()
            if any(decision.drop for decision in distinct):
                return False
            stamp_all(drafts, decisions, self.last + 1)
            data, sizes = manyevents.encode_all(list(map(_event_of, drafts)))
            if any(decision.attributes for decision in distinct) or max(sizes, default=0) > wire.MAX_HUB_LINE:
                lines = [events.encode(draft.event) for draft in drafts]
                lines = list(map(shortened, map(with_attributes, lines, drafts, decisions), drafts, decisions))
                data, sizes = manyevents.join_lines(lines)
        except Exception:  # noqa: BLE001 - it will come again, and cost one event's priority, not the hub
            for draft, priority, old in zip(drafts, asked, given, strict=True):
                draft.event.priority, draft.event.data = priority, old
            return False
        positions = list(map(_position_of, drafts))
        agents = [None if position is None else position.agent for position in positions]
        if len(distinct) == len(set(asked)) == len(set(agents)) == 1:
            kinds: Kind | Iterator[Kind] = Kind(decisions[0].word, _HINT_OF.get(asked[0]), agents[0])
        else:
            kinds = map(Kind, [each.word for each in decisions], map(_HINT_OF.get, asked), agents)
        batch.entries.extend(self.last + 1, data, sizes, kinds, positions)
        self.last += len(drafts)
        if any(is_unclassified(decision) for decision in distinct):
            for draft, decision in zip(drafts, decisions, strict=True):
                if is_unclassified(decision):
                    self._unclassified.tell(draft.event, decision.reason)
        return True

    def settle_alike(self, alike: Alike, decision: Decision, batch: Batch) -> bool:
        """Adds events, about which one decision was made, to a batch.

        Args:
            alike: the events.
            decision: adds no attributes, and has no reason.
            batch: is added to.

        Returns:
            Whether it could be done. If not, nothing was but to the events: a line is too long.
        """
        first, found = self.last + 1, alike.found
        data, sizes = self._add_to_lines(alike, decision) or self._encode_alike(alike, decision)
        if max(sizes) > wire.MAX_HUB_LINE:
            return False
        batch.entries.extend(first, data, sizes, alike.kind, alike.run or (None,) * len(found))
        self.last += len(found)
        return True

    def _add_to_lines(self, alike: Alike, decision: Decision) -> tuple[bytes, list[int]] | None:
        if alike.run is None or alike.kind.hint != decision.word:
            return None  # not even the priority may stay as it is
        members = b',"received":"%b","rule":%b' % (alike.received.encode(), json.encode(decision.rule))
        return manyevents.append_members(alike.found, alike.lines, self.last + 1, members)

    def _encode_alike(self, alike: Alike, decision: Decision) -> tuple[bytes, list[int]]:
        found, received = alike.found, alike.received
        priority, rule = decision.word, decision.rule
        for event, offset in zip(found, offset_texts(self.last + 1, len(found)), strict=True):
            event.offset = offset
            event.priority = priority
            event.received = received
            event.rule = rule
        return manyevents.encode_all(found, alike.lines)

    def end_windows(self, until_s: float, batch: Batch) -> None:
        """Adds what tells of the windows of repeats that have ended; no event received before may wait."""
        if self._suppressor is not None:
            for summary in self._suppressor.due(until_s):
                self._tell(summary, events.format_time(until_s), batch)

    def close(self, batch: Batch) -> None:
        """Adds what is written along with a batch, once nothing more comes into it."""
        if self._suppressor is not None:
            batch.windows = self._suppressor.take_changes()

    def _refuse(self, line: bytes, reason: str, item: Draft | Refusal, batch: Batch) -> None:
        self.last += 1
        position = item.position if isinstance(item, Draft) else None
        batch.entries.append(rejected_entry(self.last, line, reason, item.received, position))

    def _settle(self, draft: Draft, outcome: Outcome, batch: Batch) -> None:
        event = draft.event
        decision = self.classifier.classify(draft) if outcome is None else decision_of(outcome)
        if decision.drop:
            dropped = self.counters.dropped
            dropped[decision.rule] = dropped.get(decision.rule, 0) + 1
            return
        suppressed = False
        if self._suppressor is not None:
            for summary in self._suppressor.due(draft.received_s):
                self._tell(summary, draft.received, batch)
            suppressed = self._suppressor.judge(
                draft, priority=decision.word, offset=self.last + 1, received_s=draft.received_s
            )
            self.counters.suppressed += suppressed
        self._append(draft, decision, suppressed, batch)
        if is_unclassified(decision):
            self._unclassified.tell(event, decision.reason)

    def _append(self, draft: Draft, decision: Decision, suppressed: bool, batch: Batch) -> None:
        hint = draft.hint
        offset = self.last + 1
        stamp(draft, decision, str(offset))
        line = shortened(with_attributes(events.encode(draft.event), draft, decision), draft, decision)
        agent = None if draft.position is None else draft.position.agent
        kind = Kind(decision.word, hint, agent, suppressed)
        batch.entries.append(Entry(offset, line, kind, draft.position))
        self.last = offset

    def _tell(self, summary: Summary, received: str, batch: Batch) -> None:
        """Adds the event that tells how often one was repeated; the rules have spoken about the first."""
        own = Event(id="", source=summary.source, type=summary.type, data=events.raw_data(summary.data))
        decision = Decision(Priority(summary.priority), summary.rule)
        self._append(Draft(own, received, own=True), decision, False, batch)


def decision_of(outcome: Outcome) -> Decision:
    """Decides as the operator's own code has said; an event for which it failed is an error."""
    priority = outcome if isinstance(outcome, Priority) else Priority.ERROR
    return Decision(priority, "filter", reason_of(outcome))


def is_unclassified(decision: Decision) -> bool:
    """Tells whether nothing has classified an event, so that it is an error."""
    return decision.rule == "default" and decision.priority is Priority.ERROR


def stamp(draft: Draft, decision: Decision, offset: str) -> None:
    """Completes an event: its place, its priority, what was found out about it."""
    event = draft.event
    if event.specversion is UNSET and events.extension(event, "specversion") is None:
        event.specversion = "1.0"
    if event.time is UNSET:
        event.time = draft.received
    event.offset = offset
    if draft.own:
        event.id = offset
    event.priority = decision.word
    event.received = draft.received
    event.rule = decision.rule
    if decision.reason is not None:
        event.reason = decision.reason
    if draft.is_changed:
        draft.write_data()


def stamp_all(drafts: Sequence[Draft], decisions: Sequence[Decision], first: int) -> None:
    """Completes events, whose offsets begin with ``first``: what most of them lack without asking for the rest."""
    for draft, decision, offset in zip(drafts, decisions, offset_texts(first, len(drafts)), strict=True):
        event = draft.event
        if event.specversion is UNSET or event.time is UNSET or decision.reason or draft.own or draft.is_changed:
            stamp(draft, decision, offset)
            continue
        event.offset = offset
        event.priority = decision.word
        event.received = draft.received
        event.rule = decision.rule


_LAST_FIGURES = [f"{number:03}" for number in range(1_000)]


def offset_texts(first: int, count: int) -> list[str]:
    """Gives offsets that follow each other as texts: what comes before the last figures is written once."""
    texts: list[str] = []
    while len(texts) < count:
        high, low = divmod(first + len(texts), 1_000)
        some = _LAST_FIGURES[low : low + count - len(texts)]
        texts += map(str(high).__add__, some) if high else map(str, range(low, low + len(some)))
    return texts


def with_attributes(line: bytes, draft: Draft, decision: Decision) -> bytes:
    """Gives an event's line with the attributes that its rule adds."""
    return add_attributes(line, draft.event, decision.attributes) if decision.attributes else line


def shortened(line: bytes, draft: Draft, decision: Decision) -> bytes:
    """Gives an event's line, without what was found out about it where it would be too long."""
    if len(line) <= wire.MAX_HUB_LINE:
        return line
    draft.write_data(leave_out_context=True)
    return with_attributes(events.encode(draft.event), draft, decision)
