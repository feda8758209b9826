"""Where the spool stands, per lane: what is there, what is in flight, what the hub has."""

from __future__ import annotations

from collections.abc import Mapping

from notifyd.agent.spool_commit import Job, Outcome, Shift
from notifyd.agent.spool_store import Batch, Opened
from notifyd.event import LANES, Priority


class Positions:
    """What is known of the file as of the last commit, and how far connections have read it.

    Attributes:
        acked: the highest sequence that the hub has acknowledged.
        counts: events there are, notices left out.
        tops: the highest sequence that is there, or was.
        notices: the sequence of the notice that can still be updated, or None.
        read: how far the current connection has read; up to here a lane is in flight.
        sent_high: how far any connection of this process has read, or a process before it may have.
        connection: counts connections, so that what was begun for one is not mistaken for another's.
    """

    def __init__(self) -> None:
        self.acked = dict.fromkeys(LANES, 0)
        self.counts = dict.fromkeys(LANES, 0)
        self.tops = dict.fromkeys(LANES, 0)
        self.notices: dict[Priority, int | None] = dict.fromkeys(LANES)
        self.read = dict.fromkeys(LANES, 0)
        self.sent_high = dict.fromkeys(LANES, 0)
        self.connection = 0

    def begin(self, opened: Opened, following: int) -> None:
        """Takes up a file that is new to this process, whose next sequence is ``following``."""
        self.reopen(opened)
        self.acked = dict(opened.acked)
        # Of what was there before, nobody knows whether it was sent: no notice is updated any more.
        self.notices = dict.fromkeys(LANES)
        self.sent_high = dict.fromkeys(LANES, following - 1)
        self.start_connection(dict.fromkeys(LANES, 0))

    def reopen(self, opened: Opened) -> None:
        """Takes up a file that was only closed in between."""
        self.counts, self.tops = dict(opened.counts), dict(opened.tops)

    def start_connection(self, read: Mapping[Priority, int]) -> None:
        """Begins (or ends) a connection: it has everything up to ``read``, and nothing else is in flight."""
        self.connection += 1
        self.read = dict(read)

    def next_lane(self) -> Priority | None:
        """Gives the most urgent lane that the connection has not read to its end."""
        return next((lane for lane in LANES if self.tops[lane] > self.read[lane]), None)

    def note_read(self, lane: Priority, batch: Batch | None) -> None:
        """Takes note of what the connection has read; None means that there is nothing more in the lane."""
        if batch is None:  # dropped since, or removed by hand
            self.read[lane] = max(self.read[lane], self.tops[lane])
            return
        self.read[lane] = batch.last
        self.sent_high[lane] = max(self.sent_high[lane], batch.last)
        notice = self.notices[lane]
        if notice is not None and notice <= batch.last:
            self.notices[lane] = None  # it is sent as it is: the next drop opens another

    def note_commit(self, job: Job, outcome: Outcome, connection: int) -> None:
        """Takes note of a commit that was begun under ``connection``."""
        self.counts = outcome.counts
        self.notices = outcome.notices
        if connection != self.connection:  # what is in flight has changed meanwhile
            self.notices = dict.fromkeys(LANES)
        for lane in LANES:
            self.tops[lane] = max(self.tops[lane], outcome.tops[lane])
            self.acked[lane] = max(self.acked[lane], job.acked.get(lane, 0))
            if job.told is not None:
                self.sent_high[lane] = max(self.sent_high[lane], job.told[lane])

    def forgotten(self, told: Mapping[Priority, int]) -> dict[str, tuple[int, int]]:
        """Gives the range per lane that was acknowledged, and that the hub no longer has."""
        return {lane.value: (told[lane] + 1, self.acked[lane]) for lane in LANES if told[lane] < self.acked[lane]}

    def collision(
        self, told: Mapping[Priority, int], waiting: Mapping[Priority, int], shift: Shift | None
    ) -> Shift | None:
        """Finds events that no hub can have, under numbers that this hub has: a copy of this spool has used them.

        Args:
            told: what the hub has.
            waiting: the highest sequence that waits in memory.
            shift: one that was not carried out yet.

        Returns:
            How they are to be numbered anew, from the state of the file on; None where nothing is to be done.
        """
        before = 0 if shift is None else shift.delta
        collides = any(
            max(self.tops[lane] + before, waiting[lane]) > self.sent_high[lane] < told[lane] for lane in LANES
        )
        delta = max(told.values()) - min(self.sent_high.values())
        return Shift(dict(self.sent_high), delta) if collides and delta > before else None
