"""Settling: drafts to entries. Each event gets its priority, its offset and its line, or is discarded by a rule."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET
from twisted.logger import Logger

from notifyd import event as events
from notifyd import wire
from notifyd.event import Event, Priority
from notifyd.hub.classify import Classifier, Decision
from notifyd.hub.draft import Draft
from notifyd.hub.filtering import Outcome, reason_of
from notifyd.hub.intake import Counters, Refusal, rejected_entry
from notifyd.hub.records import Batch, Entry
from notifyd.hub.suppress import Suppressor
from notifyd.hub.unclassified import Unclassified
from notifyd.hub.windows import Summary


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
        self._classifier = classifier
        self._suppressor = suppressor
        self._unclassified = unclassified
        self._counters = counters

    def settle(
        self, items: Sequence[Draft | Refusal], outcomes: Sequence[Outcome] | None, until_s: float, batch: Batch
    ) -> None:
        """Adds entries, and positions of what is discarded, to a batch.

        Args:
            items: in their order.
            outcomes: what the operator's own code has said of each; None where there is none.
            until_s: when what comes next was received, or the time where nothing waits: windows of repeats that
                have ended by then are told, also where nothing comes that is stored.
            batch: is added to.
        """
        for index, item in enumerate(items):
            if isinstance(item, Refusal):
                self._refuse(item.line, item.reason, item, batch)
                continue
            try:
                self._settle(item, None if outcomes is None else outcomes[index], batch)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must cost one event's priority, not the hub
                self.logger.failure("An event could not be processed.")
                self._refuse(item.line, f"it could not be processed: {type(error).__name__}", item, batch)
        self.end_windows(until_s, batch)

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
        decision = self._classifier.classify(draft) if outcome is None else decision_of(outcome)
        if decision.drop:
            dropped = self._counters.dropped
            dropped[decision.rule] = dropped.get(decision.rule, 0) + 1
            if draft.position is not None:
                batch.dropped.append(draft.position)
            return
        suppressed = False
        if self._suppressor is not None:
            for summary in self._suppressor.due(draft.received_s):
                self._tell(summary, draft.received, batch)
            suppressed = self._suppressor.judge(
                draft, priority=decision.word, offset=self.last + 1, received_s=draft.received_s
            )
            self._counters.suppressed += suppressed
        self._append(draft, decision, suppressed, batch)
        if decision.rule == "default" and decision.priority is Priority.ERROR:
            self._unclassified.tell(event, decision.reason)

    def _append(self, draft: Draft, decision: Decision, suppressed: bool, batch: Batch) -> None:
        event, received, hint = draft.event, draft.received, draft.hint
        offset = self.last + 1
        if event.specversion is UNSET and events.extension(event, "specversion") is None:
            event.specversion = "1.0"
        if event.time is UNSET:
            event.time = received
        event.offset = str(offset)
        if draft.own:
            event.id = event.offset
        event.priority = decision.word
        event.received = received
        event.rule = decision.rule
        event.reason = UNSET if decision.reason is None else decision.reason
        draft.write_data()
        line = encode(event, decision)
        if len(line) > wire.MAX_HUB_LINE:
            draft.write_data(leave_out_context=True)
            line = encode(event, decision)
        batch.entries.append(Entry(offset, event, line, draft.position, hint, suppressed))
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


def encode(event: Event, decision: Decision) -> bytes:
    """Gives an event's line with the attributes that its rule adds."""
    line = events.encode(event)
    return events.add_attributes(line, event, decision.attributes) if decision.attributes else line
