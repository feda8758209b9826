"""The reconnecting client that drains the spool into the hub.

What is sent and not acknowledged is kept as segments, one a write. Everything that is not acknowledged
when a connection ends is read from the spool again on the next one.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet import endpoints as twisted_endpoints
from twisted.internet import interfaces
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from notifyd import endpoints, wire
from notifyd.agent.spool import Spool
from notifyd.agent.spool_store import Batch
from notifyd.event import LANES
from notifyd.wire import ProtocolError

PING_AFTER_S = 10.0
"""Without a line from the hub for so long it is asked whether it lives; part of the contract."""

DEAD_AFTER_S = 30.0
"""Without a line from the hub for so long the connection is dropped; part of the contract."""

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 5.0
"""The first and the longest wait before the hub is tried again; jitter takes up to a half off."""

REPLACED_WAIT_S = 5.0
"""The least wait after ``ERROR replaced``: two copies of one spool must not fight at full speed."""

STOP_GRACE_S = 1.0
"""At a stop, how long what is stored may still be sent and acknowledged, and then how long closing may take."""

MAX_POSITION = 2**62
"""A hub that claims more than this is not believed: SQLite's integers end soon after."""

REJECTS_LOGGED = 5
"""Rejected events that are logged on one connection; the rest is counted."""


class Uplink(ClientService):
    """The connection to the hub, made again for ever.

    Args:
        reactor: for connections and timers.
        hub: its endpoint string.
        agent: the agent's name, for HELLO.
        spool: what is drained; its ``on_stored`` and ``on_identity`` are taken over.
        endpoint: a client endpoint in place of ``hub``'s.
        jitter: gives a number from 0 to 1.
    """

    # ClientService has a line for each retry; the changes of state are logged here.
    _log = Logger(observer=LogPublisher())  # type: ignore[arg-type]  # zope
    log = Logger("notifyd.agent")

    def __init__(
        self,
        reactor: Any,
        hub: str,
        *,
        agent: str,
        spool: Spool,
        endpoint: Any = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.reactor, self.hub, self.agent, self.spool, self._jitter = reactor, hub, agent, spool, jitter
        self.connection: HubConnection | None = None
        self.is_stopping = False
        self._failures = 0
        self._least_wait_s = 0.0
        self._trouble: str | None = None
        target: Any = _Watched(endpoint or twisted_endpoints.clientFromString(reactor, hub), self._unreachable)
        factory: Any = _Factory(self)
        super().__init__(target, factory, retryPolicy=self._wait_before_retry, clock=reactor)
        spool.on_stored = self._stored
        spool.on_identity = self._identity_changed

    # --- what the connection tells -----------------------------------------------------------------------

    def connected(self, connection: HubConnection) -> None:
        """A connection stands; the hub has not answered yet."""
        self.connection = connection
        self._least_wait_s = 0.0

    def welcomed(self) -> None:
        """The hub has said OK: only now it counts as reached."""
        self._failures = 0
        self._trouble = None
        self.log.info("Connected to the hub {hub} as {agent}.", hub=self.hub, agent=self.agent)

    def replaced(self, connection: HubConnection) -> None:
        """Another agent with the same spool has taken over."""
        if connection is self.connection:
            self._least_wait_s = REPLACED_WAIT_S
            self.spool.leave_name()

    def lost(self, connection: HubConnection, reason: str) -> None:
        """A connection has ended."""
        if connection is self.connection:
            self.connection = None
            self.spool.release()
        if not self.is_stopping:
            self._note_trouble(reason)

    def _unreachable(self, failure: Failure) -> Failure:
        if not self.is_stopping:
            self._note_trouble(failure.getErrorMessage())
        return failure

    def _note_trouble(self, reason: str) -> None:
        # One line a change: between a first failure and the hub's next OK nothing new is told.
        if self._trouble is None:
            self.log.warn("No connection to the hub {hub}, trying again: {reason}", hub=self.hub, reason=reason)
        self._trouble = reason

    def _wait_before_retry(self, attempts: int) -> float:
        """Gives the seconds to wait; the service's own count begins anew at each TCP connection, ours at OK."""
        wait = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return max(wait * (1 - self._jitter() / 2), self._least_wait_s * (1 + self._jitter() / 2))

    # --- what the spool tells ----------------------------------------------------------------------------

    def _stored(self) -> None:
        if self.connection is not None:
            self.connection.pump()

    def _identity_changed(self) -> None:
        if self.connection is not None:
            self.connection.identity_changed()

    # --- stopping ----------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Sends what is stored and waits for its ACK, within ``STOP_GRACE_S``; then closes, by force if need be."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.is_stopping = True
        if self.connection is not None:
            idle = self.connection.when_idle().addTimeout(STOP_GRACE_S, self.reactor)
            await idle.addErrback(lambda failure: None)
        force = self.reactor.callLater(STOP_GRACE_S, self._abort)
        try:
            await super().stopService()
        finally:
            if force.active():
                force.cancel()

    def _abort(self) -> None:
        if self.connection is not None:
            self.connection.abort()


@implementer(interfaces.IProtocolFactory)
class _Factory:
    """Makes the protocol of each connection."""

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink

    def doStart(self) -> None:
        """Nothing to prepare."""

    def doStop(self) -> None:
        """Nothing to clean up."""

    def buildProtocol(self, address: Any) -> HubConnection:
        """Makes one."""
        return HubConnection(self._uplink)


@implementer(interfaces.IStreamClientEndpoint)
class _Watched:
    """An endpoint that tells why a connection could not be made."""

    def __init__(self, endpoint: Any, on_failure: Callable[[Failure], Failure]) -> None:
        self._endpoint, self._on_failure = endpoint, on_failure

    def connect(self, factory: Any) -> Any:
        """Connects as the endpoint does."""
        return self._endpoint.connect(factory).addErrback(self._on_failure)


class _Segment:
    """A batch of which some is not acknowledged."""

    __slots__ = ("batch", "bytes_done", "done")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.done = self.bytes_done = 0


class HubConnection(Protocol):
    """One connection to the hub; from its OK on it keeps the hub's window full."""

    log = Logger("notifyd.agent")

    def __init__(self, uplink: Uplink) -> None:
        self._uplink, self._spool, self._clock = uplink, uplink.spool, uplink.reactor
        self._splitter = wire.LineSplitter(wire.MAX_HUB_LINE)
        self._is_greeted = self._is_welcome = self._is_reading = self._is_over = False
        self._window = self._bytes_in_flight = self._sent = self._acked = self._rejected = 0
        self._segments: deque[_Segment] = deque()
        self._reason: str | None = None
        self._heard_at = self._pinged_at = 0.0
        self._quiet_call: Any = None
        self._idle_waiters: list[Deferred[None]] = []

    # --- the transport -----------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Introduces the spool."""
        endpoints.keep_alive(self.transport)
        self._heard_at = self._pinged_at = self._clock.seconds()
        self._quiet_call = self._clock.callLater(PING_AFTER_S, self._quiet)
        self._uplink.connected(self)
        if self._spool.is_open:
            self._greet()

    def dataReceived(self, data: bytes) -> None:
        """Handles the hub's lines."""
        lines = self._splitter.feed(data)
        if lines:
            self._heard_at = self._clock.seconds()
        try:
            for line in lines:
                if self._is_over:
                    return
                self._handle(line)
            if self._splitter.overflow:
                raise ProtocolError(f"a line of more than {wire.MAX_HUB_LINE} bytes")
        except ProtocolError as error:
            self._end(f"the hub broke the protocol: {error}")
        self.pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Ends the connection's work; what is not acknowledged stays in the spool."""
        self._is_over = True
        if self._quiet_call is not None and self._quiet_call.active():
            self._quiet_call.cancel()
        if self._rejected > REJECTS_LOGGED:
            self.log.warn("The hub rejected {count} events on the connection that ended.", count=self._rejected)
        self._uplink.lost(self, self._reason or reason.getErrorMessage())
        self._settle_idle()

    def _write(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._is_over = True
        self.abort()

    def abort(self) -> None:
        """Ends the connection without waiting for the hub to read."""
        transport: Any = self.transport
        transport.abortConnection()

    # --- the protocol ------------------------------------------------------------------------------------

    def _greet(self) -> None:
        self._is_greeted = True
        hello = wire.Hello(agent=self._uplink.agent, spool=self._spool.spool_id)
        self._write(wire.encode_verb("HELLO", hello))

    def identity_changed(self) -> None:
        """The spool is known now, or it is another: what this connection has sent is the former one's."""
        if self._is_greeted:
            self._end("the spool is a new one")
        elif not self._is_over:
            self._greet()

    def _handle(self, line: bytes) -> None:
        verb, argument = wire.parse_verb(line) or ("", None)
        if verb == "ACK" and self._is_welcome:
            self._acknowledged(wire.parse_count("ACK", argument))
        elif verb == "PONG":
            pass
        elif verb == "OK" and self._is_greeted and not self._window:
            self._ok(wire.decode_payload("OK", argument, wire.HelloOk))
        elif verb == "REJECT" and self._is_welcome:
            self._reject(*wire.split_reject(argument))
        elif verb == "ERROR":
            reason = (argument or b"").decode("utf-8", "replace")
            if reason == "replaced":
                self._uplink.replaced(self)
            self._end(f"the hub says: {reason[:1000]!r}")
        else:
            raise ProtocolError(f"unexpected line {line[:100]!r}")

    def _ok(self, ok: wire.HelloOk) -> None:
        if ok.window <= wire.MAX_LINE:
            raise ProtocolError(f"a window of {ok.window} bytes is smaller than a line")
        if not all(0 <= ok.acked.get(lane, 0) < MAX_POSITION for lane in LANES):
            raise ProtocolError(f"acked is out of range: {ok.acked}")
        self._window = ok.window
        self._spool.resume(ok.acked).addCallback(self._resumed)

    def _resumed(self, _: None) -> None:
        if not self._is_over:
            self._is_welcome = True
            self._uplink.welcomed()
            self.pump()

    def _acknowledged(self, count: int) -> None:
        if count > self._sent:
            raise ProtocolError(f"ACK {count}, but only {self._sent} events were sent")
        left = count - self._acked
        self._acked = max(self._acked, count)
        while left > 0:
            segment = self._segments[0]
            batch = segment.batch
            taken = min(left, batch.count - segment.done)
            left -= taken
            segment.done += taken
            if segment.done == batch.count:
                self._segments.popleft()
                last, end = batch.last, len(batch.lines)
            else:
                last, end = batch.locate(segment.done - 1)
            self._bytes_in_flight -= end - segment.bytes_done
            segment.bytes_done = end
            self._spool.acknowledge(batch.lane, last)
        self._settle_idle()

    def _reject(self, number: int, reason: str) -> None:
        if not self._acked < number <= self._sent:
            raise ProtocolError(f"REJECT {number} of {self._sent} events")
        self._rejected += 1
        self._spool.counters.rejected += 1
        if self._rejected <= REJECTS_LOGGED:
            self.log.warn("The hub rejected an event, which it keeps as an error: {reason}", reason=reason[:1000])

    # --- sending -----------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Sends what there is room for; one read at a time."""
        if self._is_reading or self._is_over or not self._is_welcome:
            return
        room = self._window - self._bytes_in_flight
        if room <= wire.MAX_LINE or not self._spool.has_unsent():  # whatever comes next has room for sure
            return
        self._is_reading = True
        reading = Deferred.fromCoroutine(self._spool.next(room))
        reading.addCallback(self._send)
        reading.addErrback(lambda failure: self.log.failure("Sending has stopped.", failure))

    def _send(self, batch: Batch | None) -> None:
        self._is_reading = False
        if batch is None or self._is_over:
            self._settle_idle()
            return  # what changes that calls pump: an ACK, a commit, a new connection
        self._segments.append(_Segment(batch))
        self._bytes_in_flight += len(batch.lines)
        self._sent += batch.count
        self._spool.counters.sent += batch.count
        self._write(batch.lines)
        self.pump()

    # --- silence, and the end ----------------------------------------------------------------------------

    def _quiet(self) -> None:
        now = self._clock.seconds()
        if now - self._heard_at >= DEAD_AFTER_S:
            self._end(f"nothing came from it for {DEAD_AFTER_S:.0f} s")
            return
        if now - max(self._heard_at, self._pinged_at) >= PING_AFTER_S:
            self._pinged_at = now
            self._write(b"PING\n")
        due = min(max(self._heard_at, self._pinged_at) + PING_AFTER_S, self._heard_at + DEAD_AFTER_S)
        self._quiet_call = self._clock.callLater(due - now, self._quiet)

    def when_idle(self) -> Deferred[None]:
        """Gives a Deferred that fires when everything stored is sent and acknowledged, or nothing more can be."""
        idle: Deferred[None] = Deferred()
        self._idle_waiters.append(idle)
        self._settle_idle()
        return idle

    def _settle_idle(self) -> None:
        is_busy = self._segments or self._is_reading or self._spool.has_unsent()
        if is_busy and self._is_welcome and not self._is_over:
            return
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            waiter.callback(None)
