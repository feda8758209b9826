"""Supervises one port: opens it, has what it prints read, and reopens it after any loss.

A port is *away* until it is open, and counts as back only once it is proven: it has delivered bytes, or has
stayed open for ``STEADY_S``. A port that opens and fails at once is therefore told as lost once, and is tried
as slowly as one that is not there.
"""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable
from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from notifyd import config_agent
from notifyd.agent.linecounters import Counters, LineCounters
from notifyd.agent.linewatch import LineWatch
from notifyd.agent.opening import open_port
from notifyd.agent.port import NO_DEVICE, UNPLUGGED, OpenPort, PortError, explain
from notifyd.agent.reader import Reader
from notifyd.agent.recorder import NoRecorder
from notifyd.agent.replies import Replies
from notifyd.agent.silence import Silence
from notifyd.agent.teller import Teller
from notifyd.agent.timers import Timers
from notifyd.event import Event

FIRST_DELAY_S = 0.1
"""How long after a loss the port is tried again; each failure doubles it."""

MAX_DELAY_S = 5.0
"""The longest time between two tries: whoever plugs a cable in sees it work soon."""

STEADY_S = 2.0
"""For how long a port that prints nothing must stay open before it counts as back."""

SLOW_S = 8.0
"""How long opening may take before the port counts as lost; it is waited for all the same."""

LASTS_S = 5.0
"""For how long another reason must last before it is told of a port that is away already."""

MAX_REASONS = 5
"""Reasons that are told of one loss: a port may give ever new ones."""

AHEAD_BYTES = 2**20
"""Bytes that are read of what can wait, such as a file, before they must be stored: memory would not hold it all."""

Opener = Callable[[Protocol, config_agent.Source, Any], Any]


def _at_once() -> Deferred[None]:
    return succeed(None)


class SerialSource(service.Service):
    """One ``[[source]]``, from its port to its events.

    Args:
        reactor: reads the port and runs the timers.
        settings: of the source.
        agent: the agent's name.
        own_priority: of ``notifyd.source.lost`` and its like.
        put: takes each event; it must not block.
        flush: gives a Deferred that fires once all that was put is stored.
        max_rate: frames a second, beyond which they are thinned; None where there is no limit.
        random: gives 0.0 to 1.0, for jitter.
        opener: opens the port, at once or later; raises whatever is wrong.
        now: the wall clock, in seconds since 1970.
        recorder: is told what the port does.

    Attributes:
        counters: what became of what the device printed.
        first_try: fires when it is known whether the port could be opened at once.
    """

    log = Logger("notifyd")

    def __init__(
        self,
        reactor: Any,
        settings: config_agent.Source,
        agent: str,
        own_priority: str,
        put: Callable[[Event], None],
        flush: Callable[[], Deferred[None]] = _at_once,
        max_rate: int | None = None,
        random: Callable[[], float] = random_module.random,
        opener: Opener = open_port,
        now: Callable[[], float] = time.time,
        recorder: NoRecorder | None = None,
    ) -> None:
        service.Service.setName(self, settings.name)
        self.counters = Counters()
        self.first_try: Deferred[None] = Deferred()
        self._reactor, self._settings, self._flush = reactor, settings, flush
        self._random, self._opener = random, opener
        clock = reactor.seconds
        self._timers = Timers(reactor)
        self._teller = Teller(settings, agent, own_priority, put, now)
        self._silence = Silence(settings.silence, self._timers, clock, self._teller)
        self._watch = LineWatch(self.counters, self._timers, clock, self._teller)
        self._replies = Replies(settings, flush, self.counters, self._timers, self._teller)
        self._reader = Reader(
            settings,
            agent,
            max_rate,
            put=put,
            replies=self._replies,
            counters=self.counters,
            timers=self._timers,
            clock=clock,
            now=now,
            teller=self._teller,
        )
        self._recorder = recorder or NoRecorder()
        self._opening: Deferred[Any] | None = None
        self._port: OpenPort | None = None
        self._delay_s = FIRST_DELAY_S
        self._lost_at: float | None = None  # by the reactor's clock; None while nobody was told of a loss
        self._reasons: list[str] = []  # what was told since it was lost
        self._latest_reason = ""
        self._latest_since = 0.0  # by the reactor's clock
        self._opened_at = 0.0  # by the reactor's clock
        self._was_open_s = 0.0  # how long, when it was lost
        self._bytes = 0  # read since the port was opened
        self._lost_bytes = 0  # read before it was told as lost
        self._unstored_bytes = 0  # read of what can wait since that was stored last

    @property
    def frames(self) -> int:
        """How many frames the device printed."""
        return self.counters.frames

    @property
    def unmatched(self) -> int:
        """How many frames were dropped because no rule matched."""
        return self._reader.rules.unmatched

    @property
    def skipped_bytes(self) -> int:
        """How many bytes were cut off frames that were too long."""
        return self._reader.framer.skipped_bytes

    @property
    def line_errors(self) -> LineCounters:
        """What the driver counted since the agent began to read the port."""
        return self.counters.line

    # --- coming and going ----------------------------------------------------------------------------

    def startService(self) -> None:
        """Tries the port for the first time."""
        service.Service.startService(self)
        self._try()

    def stopService(self) -> Deferred[None]:
        """Takes what the kernel holds and what has no line end yet, sends what that asks for, and closes the port."""
        if not self.running:
            return succeed(None)
        service.Service.stopService(self)
        self._timers.cancel_all()
        if self._opening is not None:
            self._opening.cancel()
        if self._port is not None:
            self._watch.closing(is_last=True)
            self._port.drain()
        if self._port is not None:
            self._port.pause()
        finished = self._replies.finish(self._reactor)
        return finished.addCallback(lambda _: self._close())

    def _close(self) -> None:
        if self._port is not None:
            self._port.close()
        self._timers.cancel_all()
        line = self.counters.line
        self._teller.info(
            "Source {source} is closed: {frames} frames were read; {unmatched} of them matched no rule"
            " and were dropped; {skipped} bytes were cut off long frames; {thinned} events were left out in floods;"
            " {not_taken} answers or polls were not taken; {lost} characters were lost and {damaged} came damaged",
            frames=self.frames,
            unmatched=self.unmatched,
            skipped=self.skipped_bytes,
            thinned=self.counters.thinned,
            not_taken=self.counters.not_taken,
            lost=line.lost,
            damaged=line.damaged,
        )

    def _try(self) -> None:
        self._bytes, self._was_open_s = 0, 0.0
        self._timers.later(SLOW_S, self._slow)
        opening: Deferred[OpenPort] = maybeDeferred(self._opener, _Receiver(self), self._settings, self._reactor)
        self._opening = opening
        opening.addCallbacks(self._opened, self._not_opened)
        opening.addErrback(self._mistake)

    def _slow(self) -> None:
        self._tell_away(f"it has not opened for {SLOW_S:g} s, and is waited for")

    def _opened(self, port: OpenPort) -> None:
        self._opening = None
        self._timers.cancel(self._slow)
        self._port = port
        self._recorder.opened()
        self._opened_at = self._reactor.seconds()
        self._unstored_bytes = 0
        self.counters.openings += 1
        self._watch.opened(port)
        self._timers.later(STEADY_S, self._proven)
        self._silence.opened()
        if self._lost_at is None:
            self._log_open()
        self._replies.opened(port)
        self._tried()

    def _not_opened(self, failure: Failure) -> None:
        self._opening = None
        self._timers.cancel(self._slow)
        if self.running:  # else it was cancelled
            self._away(failure.value)
        self._tried()

    def _mistake(self, failure: Failure) -> None:
        self.log.failure("Source {source}: its port could not be supervised", failure, source=self._settings.name)

    def _tried(self) -> None:
        if not self.first_try.called:
            self.first_try.callback(None)

    def _proven(self) -> None:
        """The port works: what was told as lost is told as restored, and the next loss is retried soon."""
        self._timers.cancel(self._proven)
        self._delay_s = FIRST_DELAY_S
        if self._lost_at is None:
            return
        seconds = round(self._opened_at - self._lost_at, 3)
        reason = self._reasons[0]
        self._lost_at = None
        self._reasons.clear()
        self._log_open()
        self._teller.tell(
            "restored",
            f"Port {self._settings.port} of {self._settings.name} is back after {seconds:.1f} s",
            {"reason": reason, "seconds": seconds, "bytes": self._lost_bytes},
        )

    def _log_open(self) -> None:
        where = self._settings.port if self._port is None else self._port.where
        is_other = self._settings.port.startswith("usb:")
        self._teller.info(
            "Source {source}: {what} is open", what=f"{self._settings.port} ({where})" if is_other else where
        )

    def _port_lost(self, reason: Failure) -> None:
        self._was_open_s = self._reactor.seconds() - self._opened_at
        self._recorder.closed(explain(reason.value) if self.running else "")
        if self.running:
            self._watch.closing(is_last=False)
        self._port = None
        self._timers.cancel_all()
        self._reader.end()
        self._replies.closed()
        self._timers.cancel_all()
        if self.running:
            self._away(reason.value)

    def _away(self, error: BaseException | None) -> None:
        """Tells, where it was not told yet, that the port is away, and tries it again later."""
        if not (isinstance(error, PortError) and error.is_final):
            delay_s, self._delay_s = self._delay_s, min(self._delay_s * 2, MAX_DELAY_S)
            self._timers.later(delay_s * (0.5 + 0.5 * self._random()), self._try)
        self._tell_away(explain(error))

    def _tell_away(self, reason: str) -> None:
        now = self._reactor.seconds()
        if self._lost_at is not None:
            if self._is_news(reason, now):
                self._log_away(reason)
            return
        self._lost_at = self._latest_since = now
        self._lost_bytes = self._bytes
        self._log_away(reason)
        self._teller.tell(
            "lost",
            f"Port {self._settings.port} of {self._settings.name} cannot be read: {reason}",
            {"reason": reason, "seconds": round(self._was_open_s, 3), "bytes": self._bytes},
        )

    def _is_news(self, reason: str, now: float) -> bool:
        """Tells whether another reason is worth a line: it is new, has lasted, and says more than those before."""
        if reason != self._latest_reason:
            self._latest_reason, self._latest_since = reason, now
        has_lasted = now - self._latest_since >= LASTS_S
        is_known = reason in self._reasons or len(self._reasons) >= MAX_REASONS
        return has_lasted and not is_known and (self._reasons[0], reason) != (UNPLUGGED, NO_DEVICE)

    def _log_away(self, reason: str) -> None:
        self._reasons.append(reason)
        self._latest_reason = reason
        self._teller.warn(
            "Source {source}: {port} cannot be read: {reason}; it is tried again until it can", reason=reason
        )

    # --- what the device prints ----------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        self._bytes += len(data)
        self.counters.bytes += len(data)
        if self._proven in self._timers:
            self._prove()
        self._recorder.data(data)
        self._silence.spoke(len(data))
        self._reader.feed(data)
        if self._port is not None and self._port.can_wait:
            self._hold_back(self._port, len(data))

    def _prove(self) -> None:
        """Takes bytes for a proof that the port works, once it has been open for as long as its kind asks."""
        proven_at = self._opened_at + (0.0 if self._port is None else self._port.proof_s)
        if self._reactor.seconds() >= proven_at:
            self._proven()
        elif (self._timers.due_at(self._proven) or 0.0) > proven_at:
            self._timers.later(proven_at - self._reactor.seconds(), self._proven)

    def _hold_back(self, port: OpenPort, count: int) -> None:
        """Reads on only when what was read is stored."""
        self._unstored_bytes += count
        if self._unstored_bytes >= AHEAD_BYTES:
            self._unstored_bytes = 0
            port.pause()
            self._flush().addBoth(lambda _: port.resume())


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
