"""One stream of a hub, subscribed without a break: resumed by offset after each loss of the connection."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from notifyd import wire
from notifyd.ctl.hubaddress import Address, why_not
from notifyd.endpoints import keep_alive

PING_AFTER_S = 10.0
"""Without a line from the hub for so long it is asked for one."""

DEAD_AFTER_S = 30.0
"""Without a line from the hub for so long it counts as gone."""

PASSING = ("too many", "the hub cannot answer now", "shutting down", "stopping")
"""How the reasons begin for which the hub may refuse a client today and take it in a moment."""

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 2.0
SETTLE_TIMEOUT_S = 2.0
"""How long leaving may wait for the hub to have read the last ACK."""


class Listener(Protocol):
    """Whom a subscription serves."""

    def show(self, lines: list[bytes]) -> int:
        """Shows event lines, and gives how many of them; fewer means that no more are wanted."""

    def notice(self, text: str) -> None:
        """Tells a change that does not end the subscription."""

    def fail(self, text: str) -> None:
        """Tells that the subscription is at its end."""


class Subscription:
    """What is known of one stream, whatever happens to its connections.

    Args:
        reactor: connects and keeps the time.
        stream: the stream's name.
        address: where the hub serves it.
        wish: where to begin, and under which name.
        listener: whom the events go to.
        jitter: gives a number from 0 to 1, so that clients do not all return at once.
    """

    def __init__(
        self,
        reactor: Any,
        stream: str,
        address: Address,
        wish: wire.Subscribe,
        listener: Listener,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.reactor = reactor
        self.stream = stream
        self.address = address
        self.listener = listener
        self.name = wish.name
        self.position: int | None = None
        self._wish = wish
        self._jitter = jitter
        self._failures = 0
        self._told_away = False
        self._connection: SubscriberConnection | None = None
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """Begins to connect, and goes on until :meth:`stop`."""
        self._running = Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """Closes the connection and connects no more."""
        if self._running is not None:
            self._running.addErrback(lambda failure: failure.trap(CancelledError))
            self._running.cancel()
        if self._connection is not None:
            self._connection.close()

    def settle(self) -> Deferred[None]:
        """Fires when the hub has read what was acknowledged, or will not; soon in any case."""
        settled: Deferred[None] = Deferred()
        if self.name is None or self._connection is None or not self._connection.ask(settled):
            settled.callback(None)
            return settled
        settled.addTimeout(SETTLE_TIMEOUT_S, self.reactor)
        return settled.addErrback(lambda _: None)

    def request(self) -> wire.Subscribe:
        """Gives what to ask the hub for now."""
        if self.position is None:
            return self._wish
        if self.name is not None:
            return wire.Subscribe(name=self.name)
        return wire.Subscribe(after=str(self.position))

    def subscribed(self, after: int) -> None:
        """The hub begins after that offset."""
        if self.name is not None and self.position is not None and after > self.position:
            self.listener.notice(
                f"{self.stream}: the hub goes on after {after}, not after {self.position} where this client was"
            )
        self.position = after if self.position is None else max(self.position, after)
        self._failures = 0
        if self._told_away:
            self._told_away = False
            self.listener.notice(f"{self.stream}: connected to {self.address}")

    def lost_events(self, gap: wire.Gap, after: int, before: int) -> None:
        """The hub no longer holds the events between two offsets."""
        self.listener.notice(
            f"{self.stream}: GAP: events after {after} and before {before} are no longer held ({gap.reason})"
        )
        self.position = max(self.position or 0, before - 1)

    async def _run(self) -> None:
        factory = protocol.Factory.forProtocol(lambda: SubscriberConnection(self))
        while True:
            try:
                self._connection = await self.address.endpoint(self.reactor).connect(factory)
                reason = await self._connection.lost
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - endpoints fail with whatever the platform raises
                reason = f"cannot connect to {self.address}: {why_not(error)}"
            self._connection = None
            if not self._told_away:
                self._told_away = True
                self.listener.notice(f"{self.stream}: {reason}; trying again")
            await deferLater(self.reactor, self._delay_s())

    def _delay_s(self) -> float:
        longest = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return longest * (0.5 + self._jitter() / 2)


class SubscriberConnection(protocol.Protocol):
    """One connection to a subscriber port.

    Args:
        subscription: what outlives the connection.
    """

    def __init__(self, subscription: Subscription) -> None:
        self.lost: Deferred[str] = Deferred()
        self._subscription = subscription
        self._splitter = wire.LineSplitter(wire.MAX_HUB_LINE)
        self._subscribed = False
        self._over = False
        self._sated = False
        self._reason = f"connection to {subscription.address} lost"
        self._received: int | None = None
        self._acked = -1
        self._heard_s = 0.0
        self._watch: Any = None
        self._asked: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Asks for the stream from where it was left."""
        keep_alive(self.transport)
        self._write(wire.encode_verb("SUBSCRIBE", self._subscription.request()))
        self._heard_s = self._subscription.reactor.seconds()
        self._watch = self._subscription.reactor.callLater(PING_AFTER_S, self._check_quiet)

    def dataReceived(self, data: bytes) -> None:
        """Shows the events of one read together, and acknowledges them once."""
        batch: list[tuple[int, bytes]] = []
        try:
            for line in self._splitter.feed(data):
                if self._over:
                    break
                if line.startswith(b"{"):
                    # Without a position it could not be told what of this comes again after OK.
                    if self._subscribed:
                        batch.append((read_offset(line), line))
                    continue
                self._show(batch)
                batch = []
                self._verb(line)
            self._show(batch)
            if self._splitter.overflow:
                raise wire.ProtocolError(f"a line of more than {wire.MAX_HUB_LINE} bytes")
        except wire.ProtocolError as error:
            address = self._subscription.address
            self._fail(f"{address} does not answer as a notify-hub does: {error}")
        # Counted from now: a reader that held this process up for a minute is not the hub's silence.
        self._heard_s = self._subscription.reactor.seconds()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """Lets the subscription connect again."""
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        self._answer_asked()
        if not self.lost.called:
            self.lost.callback(self._reason)

    def ask(self, settled: Deferred[None]) -> bool:
        """Fires ``settled`` once the hub has read all that was written; False where it need not be asked."""
        if self._acked < 0 or self._asked is not None:
            return False
        self._asked = settled
        self._write(b"PING\n")
        return True

    def close(self) -> None:
        """Closes the connection, and heeds nothing more of it."""
        self._over = True
        self._transport().abortConnection()

    def _show(self, batch: list[tuple[int, bytes]]) -> None:
        subscription = self._subscription
        if not batch or self._sated:
            return
        fresh = batch
        if subscription.position is not None and batch[0][0] <= subscription.position:
            fresh = [(offset, line) for offset, line in batch if offset > (subscription.position or 0)]
        if fresh:
            shown = subscription.listener.show([line for _, line in fresh])
            self._sated = shown < len(fresh)
            if shown == 0:
                return
            subscription.position = fresh[shown - 1][0]
        if subscription.name is None or subscription.position is None:
            return
        # What a connection before this one was sent is shown already, but its ACK may have been lost.
        acked = min(batch[-1][0], subscription.position)
        if acked > self._acked:
            self._acked = acked
            self._write(wire.encode_verb("ACK", acked))

    def _verb(self, line: bytes) -> None:
        verb, argument = wire.parse_verb(line) or (None, None)
        if verb is None:
            raise wire.ProtocolError(f"{line[:80].decode('utf-8', 'replace')!r}")
        if verb == "OK" and not self._subscribed:
            answer = wire.decode_payload("OK", argument, wire.SubscribeOk)
            self._subscribed = True
            self._subscription.subscribed(wire.parse_offset("OK: after", answer.after))
        elif verb == "GAP" and self._subscribed:
            gap = wire.decode_payload("GAP", argument, wire.Gap)
            after, before = wire.parse_offset("GAP: after", gap.after), wire.parse_offset("GAP: before", gap.before)
            self._subscription.lost_events(gap, after, before)
        elif verb == "ERROR":
            self._error((argument or b"").decode("utf-8", "replace"))
        elif verb == "PONG":
            self._answer_asked()

    def _error(self, reason: str) -> None:
        if reason == "replaced":
            self._fail(f"another client has taken over the name {self._subscription.name}")
        elif not self._subscribed and not reason.startswith(PASSING):
            self._fail(f"the hub refuses: {reason}")
        else:
            self._reason = f"the hub ended the connection: {reason}"
            self._transport().loseConnection()

    def _fail(self, text: str) -> None:
        self.close()
        self._subscription.listener.fail(f"{self._subscription.stream}: {text}")

    def _answer_asked(self) -> None:
        if self._asked is not None and not self._asked.called:
            self._asked.callback(None)

    def _check_quiet(self) -> None:
        reactor = self._subscription.reactor
        quiet_s = reactor.seconds() - self._heard_s
        if quiet_s >= DEAD_AFTER_S:
            self._reason = f"nothing heard from {self._subscription.address} for {quiet_s:.0f} s"
            self._transport().abortConnection()
            return
        if quiet_s >= PING_AFTER_S:
            self._write(b"PING\n")
            quiet_s = 0.0
        self._watch = reactor.callLater(PING_AFTER_S - quiet_s, self._check_quiet)

    def _write(self, data: bytes) -> None:
        self._transport().write(data)

    def _transport(self) -> Any:
        return self.transport


class _Offset(msgspec.Struct):
    offset: str


_decode_offset = msgspec.json.Decoder(_Offset).decode


def read_offset(line: bytes) -> int:
    """Gives the offset of an event line from the hub.

    Raises:
        ProtocolError: it has none.
    """
    offset: object
    try:
        offset = _decode_offset(line).offset
    except msgspec.MsgspecError:
        # Data may have unpaired surrogates, which only the standard library reads.
        try:
            offset = json.loads(line)["offset"]
        except (ValueError, LookupError, RecursionError):
            offset = None
    try:
        return wire.parse_offset("offset", offset if isinstance(offset, str) else None)
    except wire.ProtocolError:
        raise wire.ProtocolError(f"{line[:80].decode('utf-8', 'replace')!r} is no event with an offset") from None
