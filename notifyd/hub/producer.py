"""One producer's connection on port 1500: its verbs, its window, its acknowledgements and its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet import error, interfaces
from twisted.internet.defer import Deferred
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from notifyd import wire
from notifyd.endpoints import keep_alive, say_farewell
from notifyd.hub.intake import Parcel
from notifyd.hub.spools import Spool
from notifyd.wire import HelloOk, LineSplitter, ProtocolError

if TYPE_CHECKING:
    from notifyd.hub.ingest import IngestFactory

SILENCE_S = 60.0
"""A producer that said HELLO and sends no line for so long is closed."""

GRACE_S = 5.0
"""How long an end waits for the database or for the peer to take the last words."""

PARCEL_LINES = 128
"""Lines that go through the pipeline together: a read of tiny lines is many parcels, so that no batch grows by it."""

READ_SIZE = 64 * 1024
SMALL_READ_SIZE = 1024
"""Bytes of one read, and of one read where memory is short: tiny lines take many times their bytes."""

LINE_COST = 64
"""Bytes that a short line counts for at least: less than any acceptable event; a flood of nothing is bounded by it."""


def cost(lines: Sequence[bytes]) -> int:
    """Gives the bytes that lines, at least one, count for."""
    if len(min(lines, key=len)) + 1 >= LINE_COST:
        return sum(map(len, lines)) + len(lines)
    return sum(max(len(line) + 1, LINE_COST) for line in lines)


@implementer(interfaces.IPushProducer, interfaces.IHalfCloseableProtocol)
class IngestProtocol(LineReceiver):
    """One producer's connection.

    It speaks bytes to a transport like any LineReceiver, but splits a whole read at once: see
    :class:`notifyd.wire.LineSplitter`.
    """

    factory: IngestFactory
    transport: Any  # Twisted declares its interfaces for zope, not for type checkers
    delimiter = b"\n"

    def __init__(self, factory: IngestFactory) -> None:
        self.factory = factory
        self.agent: str | None = None
        self.spool: Spool | None = None
        self._splitter = LineSplitter(wire.MAX_LINE)
        self._peer = "?"
        self._lines = 0  # event lines read
        self._acked = 0  # event lines that are durable
        self._in_hand = 0  # bytes of the others, as they count
        self._window = 0
        self._saw_line = False
        self._hello: Spool | None = None  # what HELLO claims, as long as it is not answered
        self._held: list[Parcel] = []  # what came behind a HELLO that is not answered
        self._ending: str | None = None  # the reason, once nothing more is read; empty where the peer has ended
        self._answers_wait = False
        self._reading = True
        self._last_line_s = 0.0
        self._grace: Any = None
        self._finished: list[Deferred[None]] = []
        self._closing = False
        self._lost = False

    # --- the connection ---------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Counts the connection in."""
        address = self.transport.getPeer()
        self._peer = f"{address.host}:{address.port}" if hasattr(address, "host") else str(address)
        keep_alive(self.transport)
        self._last_line_s = self.factory.reactor.seconds()
        self.transport.registerProducer(self, True)
        if self.factory.admit(self):
            self.update_reading()
        else:
            self._fail("too many producers")

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008 - as Twisted
        """Counts the connection out; what was read is stored all the same."""
        self._lost = True
        self.factory.leave(self)
        self._end_hello()
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self.factory.return_window(self._window)
        if self.spool is not None:
            if self.spool.speaker is self:
                self.spool.speaker = None
                self.factory.agents.disconnected(self.agent or "", self)
                self.factory.log.info(
                    "An agent is gone: {agent} at {peer}.",
                    agent=self.agent,
                    spool=self.spool.name,
                    peer=self._peer,
                )
            if not self._in_hand:
                self._leave_spool()
        self._tell_finished()

    def readConnectionLost(self) -> None:
        """Is called when the peer sends no more, as ``nc -N`` does: it still gets its ACK, then the end."""
        if self._closing:
            self.transport.loseConnection()
            return
        if self._ending is None:
            self._ending = ""
        if not self._in_hand and self._hello is None:
            self._tell_finished()

    def writeConnectionLost(self) -> None:
        """Is called when the last words are out."""

    def _leave_spool(self) -> None:
        if self.spool is not None:
            self.factory.spools.leave(self.spool)
            self.spool = None

    def dataReceived(self, data: bytes) -> None:
        """Splits what has arrived, and handles its lines as one batch."""
        if self._ending is not None:
            return
        lines = self._splitter.feed(data)
        received_s = self.factory.now()
        if lines:
            self._last_line_s = self.factory.reactor.seconds()
            self._handle(lines, received_s)
        if self._splitter.overflow and self._ending is None:
            self._fail(f"a line is longer than {wire.MAX_LINE} bytes")

    def _handle(self, lines: list[bytes], received_s: float) -> None:
        start = 0
        for index, line in enumerate(lines):
            if not 65 <= line[0] <= 90:  # no verb: it does not begin with a capital letter
                continue
            verb = wire.parse_verb(line)
            if verb is None:
                continue
            self._events(lines[start:index], received_s)
            start = index + 1
            try:
                self._verb(*verb)
            except ProtocolError as problem:
                self._fail(str(problem))
            self._saw_line = True
            if self._ending is not None:
                return
        self._events(lines[start:], received_s)

    def _events(self, lines: list[bytes], received_s: float) -> None:
        if not lines:
            return
        self._saw_line = True
        for start in range(0, len(lines), PARCEL_LINES):
            some = lines[start : start + PARCEL_LINES]
            size = cost(some)
            parcel = Parcel(self, some, received_s, self._lines + 1, size)
            self._lines += len(some)
            self._count(size)
            if self._hello is not None:
                self._held.append(parcel)
            else:
                self.factory.pipeline.submit(parcel)

    # --- verbs ------------------------------------------------------------------------------------------

    def _verb(self, verb: str, argument: bytes | None) -> None:
        if verb == "PING":
            if argument is not None:
                raise ProtocolError("PING takes no argument")
            self._write(b"PONG\n")
        elif verb == "HELLO":
            self._on_hello(argument)
        else:
            raise ProtocolError(f"{verb[:40]} is no verb of this port")

    def _on_hello(self, argument: bytes | None) -> None:
        if self._hello is not None or self.spool is not None:
            raise ProtocolError("HELLO comes twice")
        if self._saw_line:
            raise ProtocolError("HELLO must be the first line")
        hello = wire.decode_hello(argument)
        self.agent = hello.agent
        self._hello = self.factory.spools.use(hello.spool)
        self._window = self.factory.grant_window()
        Deferred.fromCoroutine(self._answer_hello(self._hello)).addErrback(self._hello_failed)

    async def _answer_hello(self, spool: Spool) -> None:
        claimed = await self.factory.spools.claim(spool, self)
        if not claimed or self._hello is None or self._ending:
            return
        self._hello, self.spool = None, spool
        self.factory.plain_changed(-self._in_hand)
        self._write(wire.encode_verb("OK", HelloOk(dict(spool.durable), self._window)))
        self.factory.agents.connected(self.agent or "", self)
        self.factory.log.info(
            "An agent has come: {agent} at {peer}.", agent=self.agent, spool=spool.name, peer=self._peer
        )
        held, self._held = self._held, []
        now = self.factory.now()
        for parcel in held:
            # What others sent meanwhile has its offsets: received ascends with them, or since would miss some.
            parcel.received_s = now
            self.factory.pipeline.submit(parcel)
        if self._ending == "" and not self._in_hand:
            self.close()

    def _hello_failed(self, failure: Failure) -> None:
        self.factory.log.failure("A HELLO could not be answered.", failure)
        self._fail("the hub cannot answer now")

    def _end_hello(self) -> None:
        """Gives up a HELLO that is not answered; what came behind it was never processed."""
        spool, self._hello = self._hello, None
        if spool is None:
            return
        if spool.speaker is self:
            spool.speaker = None
        self.factory.spools.leave(spool)
        self._count(-sum(parcel.size for parcel in self._held))
        self._held.clear()

    # --- what becomes durable ------------------------------------------------------------------------------

    def stored(self, parcels: Sequence[Parcel]) -> None:
        """Acknowledges lines that are durable, after naming those that were refused."""
        answer = [
            wire.encode_verb("REJECT", f"{number} {reason}") for parcel in parcels for number, reason in parcel.rejects
        ]
        self._acked += sum(parcel.count for parcel in parcels)
        answer.append(b"ACK %d\n" % self._acked)
        self._write(b"".join(answer))
        self._count(-sum(parcel.size for parcel in parcels))
        if not self._in_hand:
            if self._lost:
                self._leave_spool()
            self._tell_finished()

    def _count(self, size: int) -> None:
        self._in_hand += size
        if self.spool is None:
            self.factory.plain_changed(size)
        self.update_reading()

    def finish_replaced(self) -> Deferred[None]:
        """Is called when a newer connection speaks for this one's spool."""
        self.factory.log.warn(
            "Another connection takes over for agent {agent}; {peer} is closed.",
            agent=self.agent,
            peer=self._peer,
        )
        self.factory.agents.disconnected(self.agent or "", self)
        self._end_hello()
        self._fail("replaced", bounded=False)
        done: Deferred[None] = Deferred()
        self._finished.append(done)
        if self._lost or not self._in_hand:
            self._tell_finished()
        return done

    def _tell_finished(self) -> None:
        if self._ending == "":
            self.close()
        elif self._ending is not None:
            self._say_error()
        waiting, self._finished = self._finished, []
        for done in waiting:
            done.callback(None)

    # --- ending -------------------------------------------------------------------------------------------

    def _fail(self, reason: str, *, bounded: bool = True) -> None:
        """Processes nothing more, and ends once what was read before is durable, or after a while."""
        if self._ending:
            return
        self._ending = reason
        if reason != "replaced":
            self.factory.log.warn("The producer at {peer} is closed: {reason}", reason=reason, peer=self._peer)
        self.stop_reading()
        if not self._in_hand or self._hello is not None:
            self._say_error()
        elif bounded:
            self._grace = self.factory.reactor.callLater(GRACE_S, self._say_error)

    def _say_error(self) -> None:
        """Sends the reason and closes; a peer that does not take it is cut off."""
        if self._ending is None or self._lost or self._closing:
            return
        self._closing = True
        say_farewell(self.transport, wire.encode_verb("ERROR", self._ending))
        self._cut_off_later()

    def close(self) -> None:
        """Closes the connection, within a bounded time."""
        if self._lost or self._closing:
            return
        self._closing = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._cut_off_later()

    def _cut_off_later(self) -> None:
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self._grace = self.factory.reactor.callLater(GRACE_S, self.transport.abortConnection)

    def close_if_silent(self) -> None:
        """Closes a producer that said HELLO and is silent for too long, unless it is the hub that does not read."""
        if self.spool is None or self._ending is not None or not (self._reading or self._answers_wait):
            return
        if self.factory.reactor.seconds() - self._last_line_s >= SILENCE_S:
            self._fail(f"silent for {SILENCE_S:.0f} s")

    # --- reading and writing ----------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if not self._lost and not self._closing:
            self.transport.write(data)

    def stop_reading(self) -> None:
        """Reads nothing more, for good."""
        self._ending = self._ending or "the hub stops"
        self.update_reading()

    def update_reading(self) -> None:
        """Reads, or stops reading, as what is in hand and what waits for the peer demand."""
        if self._lost or self._closing:
            return
        if self._ending is not None or self._answers_wait:
            wanted = False
        elif self._window:
            wanted = self._in_hand < self._window + wire.MAX_LINE
            self.transport.bufferSize = READ_SIZE if self._window == wire.WINDOW else SMALL_READ_SIZE
        else:
            # Where the budget is used up a newcomer is still heard, since its first line may be HELLO.
            full = self.factory.plain_is_full
            wanted = self._in_hand <= wire.WINDOW and (not full or not self._saw_line)
            self.transport.bufferSize = SMALL_READ_SIZE if full else READ_SIZE
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._last_line_s = self.factory.reactor.seconds()
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def pauseProducing(self) -> None:
        """Is called by the transport when more than 64 KiB of answers wait."""
        self._answers_wait = True
        self.update_reading()

    def resumeProducing(self) -> None:
        """Is called by the transport when the answers are out."""
        self._answers_wait = False
        self.update_reading()

    def stopProducing(self) -> None:
        """Is called by the transport when the connection is lost: see :meth:`connectionLost`."""
