"""What a device prints: bytes to frames, frames to events, and the answers to them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from notifyd import config_agent
from notifyd.agent.flood import FloodGate
from notifyd.agent.framing import Frame, make_framer
from notifyd.agent.linecounters import Counters
from notifyd.agent.replies import Replies
from notifyd.agent.rules import Rules
from notifyd.agent.teller import Teller
from notifyd.agent.timers import Timers
from notifyd.event import Event

LOOK_FOR_CALM_S = 1.0
"""How often a flood is looked at, whether it is over."""


class Reader:
    """Reads what the device of one source prints, while its port is open.

    Args:
        settings: of the source.
        agent: the agent's name.
        max_rate: frames a second; None where there is no limit.
        put: takes the events.
        replies: speaks to the device.
        counters: of the source.
        timers: of the source.
        clock: gives the reactor's seconds.
        now: gives the seconds since 1970.
        teller: of the source.
    """

    def __init__(
        self,
        settings: config_agent.Source,
        agent: str,
        max_rate: int | None,
        *,
        put: Callable[[Event], None],
        replies: Replies,
        counters: Counters,
        timers: Timers,
        clock: Callable[[], float],
        now: Callable[[], float],
        teller: Teller,
    ) -> None:
        self.rules = Rules(settings, agent)
        self.framer = make_framer(settings, now)
        self._put, self._replies, self._counters = put, replies, counters
        self._timers, self._clock, self._now, self._teller = timers, clock, now, teller
        self._gate = None if max_rate is None else FloodGate(max_rate, clock())

    def feed(self, data: bytes) -> None:
        """Takes a read."""
        frames = self.framer.feed(data, self._clock())
        self._replies.send(self.framer.replies())
        self._take(frames)
        self._arm()

    def end(self) -> None:
        """Takes what is left, since the port is gone, and begins anew."""
        if (rest := self.framer.flush()) is not None:
            self._take([rest])
        self._look_for_calm(at_once=True)

    def _tick(self) -> None:
        frames = self.framer.tick(self._clock())
        self._replies.send(self.framer.replies())
        self._take(frames)
        self._arm()

    def _arm(self) -> None:
        """Sees that time is given to the framing when it asks for it."""
        deadline_s = self.framer.deadline_s
        if deadline_s is None:
            return
        due_s = self._timers.due_at(self._tick)
        if due_s is None or due_s > deadline_s:  # one that comes early sets itself anew: that is cheaper
            self._timers.later(max(0.0, deadline_s - self._clock()), self._tick)

    # --- frames --------------------------------------------------------------------------------------

    def _take(self, frames: list[Frame]) -> None:
        if not frames:
            return
        read_at, now_s = self._now(), self._clock()
        is_calm = self._gate is None or self._gate.admit(len(frames), now_s)
        failure: Failure | None = None
        for frame in frames:
            try:
                event = self.rules.event(frame, read_at)
                if not is_calm and not self._passes(event, now_s):
                    event = None
                if event is not None:
                    self._put(event)
            except Exception:  # noqa: BLE001 - one frame must not cost the others, nor the port
                failure = failure or Failure()
                continue  # without an answer: the device will send it again
            if frame.reply:
                self._replies.add(frame.reply, is_stored_first=event is not None)
        self._counters.frames += len(frames)
        self._replies.go()
        if failure is not None:
            # Once per read: a line for each frame would cost more than the frames.
            self._teller.log.failure(
                "Source {source}: a frame could not be handled", failure, source=self._teller.source
            )

    # --- floods --------------------------------------------------------------------------------------

    def _passes(self, event: Event | None, now_s: float) -> bool:
        """Counts a frame, and tells whether its event is let through."""
        assert self._gate is not None  # noqa: S101 - is asked only where there is one
        was_flooding = self._gate.is_flooding
        exceeds = self._gate.exceeds(now_s)
        if self._gate.is_flooding and not was_flooding:
            self._tell_begin(self._gate.max_rate)
        if event is None:
            return False
        is_critical = event.priority == "critical"
        passes = self._gate.passes(self.rules.label, now_s, exceeds=exceeds, is_critical=is_critical)
        self._counters.thinned += not passes
        return passes

    def _tell_begin(self, max_rate: int) -> None:
        self._timers.later(LOOK_FOR_CALM_S, self._look_for_calm)
        self._teller.warn(
            "Source {source} prints more than {max_rate} frames a second: of what is beyond, critical events and the"
            " first of each rule in a second are sent, the rest is counted",
            max_rate=max_rate,
        )
        line = f"{self._teller.source} prints more than {max_rate} frames a second; not all of them are sent"
        self._teller.tell("flood", line, {"state": "began", "max_rate": max_rate})

    def _look_for_calm(self, *, at_once: bool = False) -> None:
        if self._gate is None or not self._gate.is_flooding:
            return
        flood = self._gate.calm(self._clock(), at_once=at_once)
        if flood is None:
            self._timers.later(LOOK_FOR_CALM_S, self._look_for_calm)
            return
        self._timers.cancel(self._look_for_calm)
        self._teller.info(
            "Source {source} no longer floods: in {seconds} s, {thinned} events were not sent",
            seconds=flood.seconds,
            thinned=flood.total,
        )
        line = f"The flood of {self._teller.source} is over; {flood.total} events were not sent"
        fields = {"state": "ended", "seconds": flood.seconds, "thinned": flood.total, "by_rule": flood.thinned}
        self._teller.tell("flood", line, fields)
