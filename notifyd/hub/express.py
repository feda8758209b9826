"""The express way from lines to a batch: for parcels whose events are all alike, column by column.

An event has no draft, no kind and no entry of its own here: that is a third of what the reactor's thread does for it
otherwise. What is not like that goes the long way, through drafts, and comes to the same.
"""

from __future__ import annotations

from msgspec import UNSET
from twisted.logger import Logger

from notifyd import event as events
from notifyd import manyevents
from notifyd.event import HINTS
from notifyd.hub.classify import Classifier
from notifyd.hub.entries import Kind, LaneRun, Position
from notifyd.hub.intake import Counters, Parcel, lane_run
from notifyd.hub.records import Batch
from notifyd.hub.settle import Alike, Settler

PASSED_OVER = 15
"""Parcels that are not tried after one that had to go the long way: its neighbours are like it."""


class Express:
    """Takes parcels from their lines to the batch. To be used where nothing is looked up, compared or asked.

    Args:
        classifier: decides the priority of all events of a parcel.
        settler: completes them.
        counters: are brought up to date.
    """

    logger = Logger("notifyd.hub.pipeline")

    def __init__(self, classifier: Classifier, settler: Settler, counters: Counters) -> None:
        self._classifier = classifier
        self._settler = settler
        self._counters = counters
        self._pass_over = 0

    def take(self, parcel: Parcel, batch: Batch) -> bool:
        """Settles a parcel's events; where that cannot be done nothing was, and the answer is False."""
        if not parcel.lines or parcel.own:
            return False
        if self._pass_over:
            self._pass_over -= 1
            return False
        try:
            if self._take(parcel, batch):
                parcel.lines = ()
                return True
        except Exception:  # noqa: BLE001 - it will come again, and cost one event's priority, not the hub
            self.logger.debug("A parcel goes the long way.")
        self._pass_over = PASSED_OVER
        return False

    def _take(self, parcel: Parcel, batch: Batch) -> bool:
        found = manyevents.decode_all(parcel.lines, complete=True)
        if found is None or len(lanes := {event.priority for event in found}) > 1:
            return False
        (lane,) = lanes
        producer = parcel.producer
        agent, spool = ("", None) if producer is None else (producer.agent or "", producer.spool)
        run: LaneRun | None = None
        if spool is not None:
            run = lane_run(found, spool, agent)
            if run is None:
                return False
        decision = self._classifier.decide_alike(found)
        if decision is None or decision.drop or decision.attributes or decision.reason is not None:
            return False
        hint = None if lane is UNSET or lane not in HINTS else lane
        kind = Kind(decision.word, hint, None if run is None else agent)
        received = events.format_time(parcel.received_s)
        settled = Alike(found, parcel.lines, received, kind, run)
        if not self._settler.settle_alike(settled, decision, batch):
            return False
        self._counters.received += len(found)
        if spool is not None and run is not None:
            last = int(run.sequences[-1])
            parcel.positions[run.lane] = Position(run.spool, run.lane, agent, last)
            spool.known[run.lane] = last
        return True
