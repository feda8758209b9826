"""Supervises one serial port: opens it, turns what it prints into events, and reopens it after any loss.

A port is *away* until it is open, and counts as back only once it is proven: it has delivered bytes, or has
stayed open for ``STEADY_S``. A port that opens and fails at once is therefore told as lost once, and is tried
as slowly as one that is not there.
"""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from notifyd import config_agent
from notifyd.agent.device import LineErrors, OpenPort, explain, open_port
from notifyd.agent.framing import Frame, Framer, LineFramer
from notifyd.agent.own import own_event
from notifyd.agent.rules import Rules
from notifyd.event import Event

FIRST_DELAY_S = 0.1
"""How long after a loss the port is tried again; each failure doubles it."""

MAX_DELAY_S = 5.0
"""The longest time between two tries: whoever plugs a cable in sees it work soon."""

STEADY_S = 2.0
"""For how long a port that prints nothing must stay open before it counts as back."""

LINE_ERRORS_EVERY_S = 60.0
"""How often the driver is asked whether bytes were lost."""

Opener = Callable[[Protocol, config_agent.Source, Any], OpenPort]


class SerialSource(service.Service):
    """One ``[[source]]``, from its port to its events.

    Args:
        reactor: reads the port and runs the timers.
        settings: of the source.
        agent: the agent's name.
        own_priority: of ``notifyd.source.lost`` and its like.
        put: takes each event; it must not block.
        random: gives 0.0 to 1.0, for jitter.
        opener: opens the port; raises whatever is wrong.
        now: the wall clock, in seconds since 1970.

    Attributes:
        frames: how many frames the device printed.
        line_errors: what the driver counted since the agent began to read the port.
    """

    log = Logger("notifyd")

    def __init__(
        self,
        reactor: Any,
        settings: config_agent.Source,
        agent: str,
        own_priority: str,
        put: Callable[[Event], None],
        random: Callable[[], float] = random_module.random,
        opener: Opener = open_port,
        now: Callable[[], float] = time.time,
    ) -> None:
        service.Service.setName(self, settings.name)
        self.frames = 0
        self.line_errors = LineErrors(lost=0, damaged=0)
        self._reactor = reactor
        self._settings = settings
        self._agent = agent
        self._own_priority = own_priority
        self._put = put
        self._random = random
        self._opener = opener
        self._now = now
        self._framer: Framer = LineFramer()
        self._rules = Rules(settings, agent)
        self._port: OpenPort | None = None
        self._timers: dict[Callable[[], None], Any] = {}
        self._delay_s = FIRST_DELAY_S
        self._lost_at: float | None = None  # by the reactor's clock; None while nobody was told of a loss
        self._reasons: list[str] = []  # what was told since it was lost
        self._opened_at = 0.0  # by the reactor's clock
        self._read_at = 0.0  # by the reactor's clock
        self._silent = False
        self._counted: LineErrors | None = None  # the driver's counters when they were last looked at

    @property
    def unmatched(self) -> int:
        """How many frames were dropped because no rule matched."""
        return self._rules.unmatched

    @property
    def skipped_bytes(self) -> int:
        """How many bytes were cut off frames that were too long."""
        return self._framer.skipped_bytes

    # --- coming and going ----------------------------------------------------------------------------

    def startService(self) -> None:
        """Tries the port for the first time."""
        service.Service.startService(self)
        self._try()

    def stopService(self) -> Deferred[None]:
        """Takes what the kernel holds and what has no line end yet, and closes the port."""
        was_running = self.running
        service.Service.stopService(self)
        self._cancel_timers()
        if self._port is not None:
            self._count_line_errors()
            self._port.drain()
            self._port.close()
        if was_running:
            self.log.info(
                "Source {source} is closed: {frames} frames were read; {unmatched} of them matched no rule"
                " and were dropped; {skipped} bytes were cut off long frames",
                source=self._settings.name,
                frames=self.frames,
                unmatched=self.unmatched,
                skipped=self.skipped_bytes,
            )
        return succeed(None)

    def _try(self) -> None:
        try:
            port = self._opener(_Receiver(self), self._settings, self._reactor)
        except Exception as error:  # noqa: BLE001 - pyserial, termios, drivers: it is tried again
            self._away(explain(error))
            return
        self._port = port
        self._opened_at = self._reactor.seconds()
        self._counted = port.line_errors()
        self._later(LINE_ERRORS_EVERY_S, self._look_at_line_errors)
        self._later(STEADY_S, self._proven)
        self._watch_silence()
        if self._lost_at is None:
            self._log_open()

    def _proven(self) -> None:
        """The port works: what was told as lost is told as restored, and the next loss is retried soon."""
        self._cancel(self._proven)
        self._delay_s = FIRST_DELAY_S
        if self._lost_at is None:
            return
        seconds = round(self._opened_at - self._lost_at, 3)
        reason = self._reasons[0]
        self._lost_at = None
        self._reasons.clear()
        self._log_open()
        self._tell(
            "restored",
            f"Port {self._settings.port} of {self._settings.name} is back after {seconds:.1f} s",
            {"reason": reason, "seconds": seconds},
        )

    def _log_open(self) -> None:
        self.log.info("Source {source}: {port} is open", source=self._settings.name, port=self._settings.port)

    def _port_lost(self, reason: Failure) -> None:
        self._port = None
        self._cancel_timers()
        if (rest := self._framer.flush()) is not None:
            self._take([rest])
        if self.running:
            self._away(explain(reason.value))

    def _away(self, reason: str) -> None:
        """Tells, where it was not told yet, that the port is away, and tries it again later."""
        delay_s, self._delay_s = self._delay_s, min(self._delay_s * 2, MAX_DELAY_S)
        self._later(delay_s * (0.5 + 0.5 * self._random()), self._try)
        if reason not in self._reasons:
            # Each reason once per loss: a port that comes and goes gives two by turns.
            self._reasons.append(reason)
            self.log.warn(
                "Source {source}: {port} cannot be read: {reason}; it is tried again until it can",
                source=self._settings.name,
                port=self._settings.port,
                reason=reason,
            )
        if self._lost_at is None:
            self._lost_at = self._reactor.seconds()
            line = f"Port {self._settings.port} of {self._settings.name} cannot be read: {reason}"
            self._tell("lost", line, {"reason": reason})

    # --- what the device prints ----------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        self._read_at = self._reactor.seconds()
        if self._proven in self._timers:
            self._proven()
        if self._silent:
            self._silent = False
            self.log.info("Source {source} speaks again", source=self._settings.name)
            self._watch_silence()
        self._take(self._framer.feed(data))

    def _take(self, frames: list[Frame]) -> None:
        read_at = self._now()
        failure: Failure | None = None
        for frame in frames:
            try:
                event = self._rules.event(frame, read_at)
                if event is not None:
                    self._put(event)
            except Exception:  # noqa: BLE001 - one frame must not cost the others, nor the port
                failure = failure or Failure()
        self.frames += len(frames)
        if failure is not None:
            # Once per read: a line for each frame would cost more than the frames.
            self.log.failure("Source {source}: a frame could not be handled", failure, source=self._settings.name)

    def _tell(self, what: str, line: str, fields: Mapping[str, object]) -> None:
        event = own_event(
            agent=self._agent,
            source=self._settings.name,
            type=f"notifyd.source.{what}",
            priority=self._own_priority,
            line=line,
            fields={"port": self._settings.port, **fields},
            now=self._now(),
        )
        try:
            self._put(event)
        except Exception:  # noqa: BLE001 - the port is supervised, whatever becomes of the event
            self.log.failure("Source {source}: an event of its own was not taken", source=self._settings.name)

    # --- silence -------------------------------------------------------------------------------------

    def _watch_silence(self) -> None:
        """Begins to count, unless the source was told to be silent and has not spoken since."""
        self._read_at = self._reactor.seconds()
        if self._settings.silence is not None and not self._silent:
            self._later(self._settings.silence, self._look_for_silence)

    def _look_for_silence(self) -> None:
        limit = float(self._settings.silence or 0)
        remaining = self._read_at + limit - self._reactor.seconds()
        if remaining > 0.001:  # it has spoken since; a timer that each read pushes on would cost more
            self._later(remaining, self._look_for_silence)
            return
        self._silent = True
        self.log.warn("Source {source} has been silent for {seconds} s", source=self._settings.name, seconds=limit)
        self._tell("silent", f"{self._settings.name} has printed nothing for {limit:g} s", {"seconds": limit})

    # --- what the driver counts ----------------------------------------------------------------------

    def _look_at_line_errors(self) -> None:
        self._count_line_errors()
        self._later(LINE_ERRORS_EVERY_S, self._look_at_line_errors)

    def _count_line_errors(self) -> None:
        """Adds what the driver has counted since the last look, and says so where it is more."""
        after = None if self._port is None or self._counted is None else self._port.line_errors()
        if after is None or self._counted is None:
            return
        lost, damaged = after.lost - self._counted.lost, after.damaged - self._counted.damaged
        self._counted = after
        if lost > 0 or damaged > 0:
            self.line_errors = LineErrors(self.line_errors.lost + lost, self.line_errors.damaged + damaged)
            self.log.warn(
                "Source {source}: the driver reports {lost} characters lost and {damaged} damaged",
                source=self._settings.name,
                lost=lost,
                damaged=damaged,
            )

    # --- timers --------------------------------------------------------------------------------------

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        def run() -> None:
            del self._timers[call]
            call()

        self._cancel(call)
        self._timers[call] = self._reactor.callLater(delay_s, run)

    def _cancel(self, call: Callable[[], None]) -> None:
        if (timer := self._timers.pop(call, None)) is not None:
            timer.cancel()

    def _cancel_timers(self) -> None:
        for call in list(self._timers):
            self._cancel(call)


class _Receiver(Protocol):
    """Connects a port to its source."""

    def __init__(self, source: SerialSource) -> None:
        self._source = source

    def dataReceived(self, data: bytes) -> None:
        """Hands a read on; an exception that left here would close the port."""
        try:
            self._source._received(data)
        except Exception:  # noqa: BLE001 - whatever it is
            self._source.log.failure("Source {source}: a read could not be handled", source=self._source._settings.name)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tells the source that its port is gone."""
        self._source._port_lost(reason)
