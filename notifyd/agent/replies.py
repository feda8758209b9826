"""What is sent to a device: answers to its frames, once these are stored, and what it is asked now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from notifyd import config_agent
from notifyd.agent.linecounters import Counters
from notifyd.agent.port import OpenPort
from notifyd.agent.teller import Teller
from notifyd.agent.timers import Timers

MAX_WAITING = 4096
"""Bytes of answers that wait for the spool: a device that goes on without them has no use for more."""

LAST_WORDS_S = 1.0
"""How long a stop waits until the device has the answers to what was stored."""

_LOOK_EVERY_S = 0.02


class Replies:
    """Speaks to the device of one source.

    Args:
        settings: of the source.
        flush: gives a Deferred that fires once every event that was put so far is stored.
        counters: of the source.
        timers: of the source.
        teller: of the source.
    """

    def __init__(
        self,
        settings: config_agent.Source,
        flush: Callable[[], Deferred[None]],
        counters: Counters,
        timers: Timers,
        teller: Teller,
    ) -> None:
        self._greeting = settings.on_open.encode("latin-1")
        self._poll = b"" if settings.poll is None else settings.poll.send.encode("latin-1")
        self._poll_every_s = 0.0 if settings.poll is None else float(settings.poll.every)
        self._flush, self._counters, self._timers, self._teller = flush, counters, timers, teller
        self._port: OpenPort | None = None
        self._new: list[bytes] = []  # in order; they go together
        self._must_store = False  # whether one of them waits for its event
        self._storing: list[bytes] | None = None  # they wait for the flush that runs
        self._waiting_bytes = 0
        self._opening = 0  # tells answers to a port that is gone by now
        self._is_taken = True

    # --- with the port -------------------------------------------------------------------------------

    def opened(self, port: OpenPort) -> None:
        """Greets the device, and asks it for the first time."""
        self._port = port
        self._is_taken = True
        if self._greeting:
            self.send(self._greeting)
        if self._poll:
            self._ask()

    def closed(self) -> None:
        """Forgets what was not sent: the device will not know what it answers to."""
        self._port = None
        self._opening += 1
        self._counters.not_taken += len(self._new) + len(self._storing or ())
        self._new, self._storing, self._must_store, self._waiting_bytes = [], None, False, 0

    def send(self, data: bytes) -> None:
        """Sends at once; what the device does not take is counted, and told when it begins."""
        if not data or self._port is None:
            return
        if self._port.send(data):
            if not self._is_taken and self._port.unsent <= len(data):
                self._is_taken = True
                self._teller.info("Source {source}: {port} takes again what is sent to it")
        else:
            self._drop()

    def _drop(self) -> None:
        self._counters.not_taken += 1
        if self._is_taken:
            self._is_taken = False
            self._teller.warn("Source {source}: {port} does not take what is sent to it; it is not sent until it does")

    def _ask(self) -> None:
        self._timers.later(self._poll_every_s, self._ask)
        if self._port is not None and self._port.unsent:
            self._drop()  # it has not taken the last one
        else:
            self.send(self._poll)

    # --- answers to frames ---------------------------------------------------------------------------

    def add(self, reply: bytes, *, is_stored_first: bool) -> None:
        """Takes the answer to a frame.

        Args:
            reply: the answer.
            is_stored_first: whether an event has come of the frame, which was put.
        """
        if self._waiting_bytes + len(reply) > MAX_WAITING:
            self._drop()
            return
        self._waiting_bytes += len(reply)
        self._new.append(reply)
        self._must_store = self._must_store or is_stored_first

    def go(self) -> None:
        """Sends what was added, in order, once the events that it answers to are stored."""
        if self._storing is not None or not self._new:
            return
        replies, self._new = self._new, []
        must_store, self._must_store = self._must_store, False
        if not must_store:
            self._send_all(replies)
            return
        self._storing = replies
        opening = self._opening

        def stored(_: object) -> None:
            if opening == self._opening:
                self._storing = None
                self._send_all(replies)
                self.go()

        def lost(_: object) -> None:
            if opening == self._opening:
                self._storing = None
                self._waiting_bytes -= sum(map(len, replies))
                self._counters.not_taken += len(replies)

        self._flush().addCallbacks(stored, lost)

    def _send_all(self, replies: list[bytes]) -> None:
        for reply in replies:
            self._waiting_bytes -= len(reply)
            self.send(reply)

    # --- at the end ----------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is on its way to the device."""
        return self._storing is not None or bool(self._new)

    def finish(self, reactor: Any) -> Deferred[None]:
        """Gives a Deferred that fires when the device has its answers, or after ``LAST_WORDS_S``."""
        if not self.is_waiting:
            return succeed(None)
        done: Deferred[None] = Deferred()
        end = reactor.seconds() + LAST_WORDS_S

        def look() -> None:
            is_sent = not self.is_waiting and (self._port is None or not self._port.unsent)
            if is_sent or reactor.seconds() >= end:
                done.callback(None)
            else:
                reactor.callLater(_LOOK_EVERY_S, look)

        look()
        return done
