"""One client's connection on ports 1600 to 1604: its cursor, its verbs, and how it is kept supplied."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import error, interfaces
from twisted.internet.defer import Deferred
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from notifyd import event as events
from notifyd import wire
from notifyd.database import in_one_line
from notifyd.endpoints import keep_alive, say_farewell
from notifyd.hub.backplane import Chunk
from notifyd.hub.clients import Client
from notifyd.hub.direct import Outlet
from notifyd.hub.readback import Page, Pages
from notifyd.wire import LineSplitter, ProtocolError, Subscribe, SubscribeOk

if TYPE_CHECKING:
    from notifyd.hub.subscribers import SubscriberFactory

GRACE_S = 5.0
"""How long the last words may take to reach the peer."""

HALF_CLOSED_PROBE_S = 3
"""Idle time after which a peer that sends no more is probed for whether it is still there."""

AT_ONCE = 512 * 1024
"""Bytes that a client behind the others is sent before the reactor looks after them."""

READ_RETRY_S = 0.5
"""Pause before the log is read again after it could not be."""

FREE_UNFINISHED = 1024
UNFINISHED_BUDGET = 16 * 2**20
"""Bytes of lines that are not complete, or wait for a SUBSCRIBE: what each client may have, and what all of them
together may have beyond that. A client that would exceed the latter is closed: no verb is that long."""

MAX_HELD = 1_000
"""Lines behind a SUBSCRIBE that is not answered yet; beyond them the client is not read from."""


@implementer(interfaces.IPushProducer, interfaces.IHalfCloseableProtocol)
class SubscriberProtocol(LineReceiver):
    """One client's connection: a cursor in its stream, and a push producer on its transport."""

    factory: SubscriberFactory
    transport: Any  # Twisted declares its interfaces for zope, not for type checkers
    delimiter = b"\n"

    def __init__(self, factory: SubscriberFactory) -> None:
        self.factory = factory
        self._stream = factory.stream
        self._splitter = LineSplitter(wire.MAX_LINE)
        self._peer = "?"
        self._cursor = 0
        self._sent = 0  # the highest offset that the client can know of
        self._client: Client | None = None
        self._subscribed = False
        self._resolving = False  # SUBSCRIBE is being answered: no event is sent meanwhile
        self._held: list[bytes] = []  # lines behind a SUBSCRIBE that is not answered
        self._held_paused = False
        self._counted = 0  # of the budget for unfinished lines
        self._paused = False
        self._reading_log = False
        self._pages = Pages(factory.crowd.reader, factory.stream)
        self._answers = 0  # bytes of PONG since the buffer was empty
        self._ending = self._lost = False
        self._timer: Any = None
        self._taken = -1  # what the peer had taken when last looked at
        self._taken_s = 0.0

    # --- the connection ---------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Counts the connection in; from now on it gets every event of its stream."""
        address = self.transport.getPeer()
        self._peer = f"{address.host}:{address.port}" if hasattr(address, "host") else str(address)
        keep_alive(self.transport)
        self._cursor = self._sent = self._stream.end
        self.transport.registerProducer(self, True)
        self._outlet = Outlet(self.transport, self)
        if self.factory.admit(self):
            self._pump()
        else:
            self._fail("too many subscribers")

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008 - as Twisted
        """Counts the connection out."""
        self._lost = True
        self._pages.drop()
        self._stream.listeners.discard(self)
        self.factory.leave(self)
        self._count_unfinished()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._client is not None:
            self.factory.crowd.clients.release(self._client, self, self.factory.stamp())

    def readConnectionLost(self) -> None:
        """Is called when the peer sends no more: it may still want to read, as ``nc`` does without a terminal.

        Whether it has gone altogether is only seen by sending something, so the kernel probes it soon.
        """
        if self._ending:
            self.transport.loseConnection()
        else:
            keep_alive(self.transport, idle_s=HALF_CLOSED_PROBE_S)

    def writeConnectionLost(self) -> None:
        """Is called when the last words are out."""

    def dataReceived(self, data: bytes) -> None:
        """Handles the verbs that have arrived."""
        if self._ending:
            return
        for line in self._splitter.feed(data):
            try:
                self._line(line)
            except ProtocolError as problem:
                self._fail(str(problem))
            if self._ending:
                return
        if self._splitter.overflow:
            self._fail(f"a line is longer than {wire.MAX_LINE} bytes")
        self._count_unfinished()

    def _count_unfinished(self) -> None:
        """Keeps account of the bytes that this client makes the hub hold."""
        size = 0 if self._ending or self._lost else self._splitter.held + sum(map(len, self._held))
        counted = size if size > FREE_UNFINISHED else 0
        crowd = self.factory.crowd
        crowd.unfinished += counted - self._counted
        self._counted = counted
        if counted and crowd.unfinished > UNFINISHED_BUDGET:
            self._fail("the hub has no room for such long lines now")

    def _line(self, line: bytes) -> None:
        verb = wire.parse_verb(line)
        if verb is None:
            raise ProtocolError("this port takes verbs only; events go to the ingest port")
        if verb[0] == "PING":
            if verb[1] is not None:
                raise ProtocolError("PING takes no argument")
            self._answer_ping()
        elif self._resolving:
            self._held.append(line)
            if not self._held_paused and (len(self._held) >= MAX_HELD or sum(map(len, self._held)) > wire.MAX_ANSWERS):
                self._held_paused = True
                self.transport.pauseProducing()
        elif verb[0] == "ACK":
            self._acknowledge(wire.parse_count("ACK", verb[1]))
        elif verb[0] == "SUBSCRIBE":
            self._subscribe(wire.decode_subscribe(verb[1]))
        else:
            raise ProtocolError(f"{verb[0][:40]} is no verb of this port")

    def _answer_ping(self) -> None:
        self._outlet.send(b"PONG\n")
        self._answers += 5
        if self._paused and self._answers > wire.MAX_ANSWERS:
            self.transport.pauseProducing()

    def _acknowledge(self, offset: int) -> None:
        if self._client is None:
            raise ProtocolError("ACK needs a SUBSCRIBE with a name")
        if offset > self._sent:
            raise ProtocolError("ACK is beyond what was sent")
        self.factory.crowd.clients.acknowledge(self._client, offset, self.factory.stamp())

    # --- SUBSCRIBE ----------------------------------------------------------------------------------------

    def _subscribe(self, wish: Subscribe) -> None:
        if self._subscribed:
            raise ProtocolError("SUBSCRIBE comes twice")
        self._subscribed = True
        offset = None if wish.after in (None, "first", "now") else wire.parse_offset("SUBSCRIBE: after", wish.after)
        if offset is not None and offset > self._stream.end:
            raise ProtocolError("SUBSCRIBE: after is beyond the end of the log")
        self._resolving = True
        self._pages.drop()
        self._stream.listeners.discard(self)
        Deferred.fromCoroutine(self._resolve(wish, offset)).addErrback(self._resolve_failed)

    async def _resolve(self, wish: Subscribe, offset: int | None) -> None:
        clients, stream = self.factory.crowd.clients, self._stream
        client = None if wish.name is None else clients.known(wish.name, stream.name)
        if client is None:
            position = await self._position(wish, offset)
            if self._lost or self._ending:
                return
            if wish.name is not None:
                # Somebody else may have registered the name while the log was read.
                client = clients.known(wish.name, stream.name)
                client = client or clients.add(wish.name, stream.name, position, self.factory.stamp())
        if client is not None:
            self._client = client
            clients.hold(client, self, self.factory.stamp())
            await clients.stored(client)
            position = client.acked
        if self._lost or self._ending:
            return
        self._cursor = self._sent = position
        self._outlet.send(wire.encode_verb("OK", SubscribeOk(stream.name, str(position))))
        self._resolved()

    async def _position(self, wish: Subscribe, offset: int | None) -> int:
        """Finds the offset behind which a client begins that has none of its own."""
        reader, stream = self.factory.crowd.reader, self._stream
        if offset is not None:
            return offset
        if wish.since is not None:
            moment = events.format_time(events.parse_time(wish.since))
            return await self._until_read(lambda: reader.since(stream.name, moment, stream.end))
        if wish.after == "first":
            return await self._until_read(lambda: reader.first(stream.name, stream.end))
        return stream.end

    async def _until_read(self, read: Callable[[], Deferred[int]]) -> int:
        while True:
            try:
                offset = await read()
            except Exception as problem:  # noqa: BLE001 - the database is away: the client waits, as it does for events
                self._reading_failed(problem)
                pause: Deferred[None] = Deferred()
                self._timer = self.factory.reactor.callLater(READ_RETRY_S, pause.callback, None)
                await pause
            else:
                self.factory.crowd.reading_fails = False
                return min(offset, self._stream.end)

    def _resolve_failed(self, failure: Failure) -> None:
        if failure.check(ProtocolError):
            self._fail(failure.getErrorMessage())
        else:
            self.factory.log.failure("A SUBSCRIBE could not be answered.", failure)
            self._fail("the hub cannot answer now")

    def _resolved(self) -> None:
        self._resolving = False
        held, self._held = self._held, []
        for line in held:
            try:
                self._line(line)
            except ProtocolError as problem:
                self._fail(str(problem))
                return
        self._count_unfinished()
        if self._held_paused:
            self._held_paused = False
            self.transport.resumeProducing()
        self._pump()

    # --- events -------------------------------------------------------------------------------------------

    def deliver(self, chunk: Chunk) -> None:
        """Takes a chunk at once: everything before it has been written."""
        self._cursor = self._sent = chunk.last
        self.factory.crowd.delivered += len(chunk.offsets)
        self._outlet.send(chunk.data)

    def _pump(self) -> None:
        """Goes on from the cursor, from memory while it is there, else from the log, until the client is paused."""
        stream, left = self._stream, AT_ONCE
        while not (self._paused or self._resolving or self._reading_log or self._ending or self._lost):
            if self._cursor < stream.start:
                self._read_log()
                return
            chunk = stream.read(self._cursor)
            if chunk is None:
                stream.listeners.add(self)
                return
            start, count = chunk.behind(self._cursor)
            self._cursor = self._sent = chunk.last
            self.factory.crowd.delivered += count
            self._outlet.send(chunk.data, start)
            left -= len(chunk.data) - start
            if left <= 0:
                self._outlet.wait()

    def _read_log(self) -> None:
        self._reading_log = True
        page = self._pages.read(self._cursor)
        page.addCallbacks(self._on_page, self._on_page_failed, callbackArgs=(self._cursor,))
        page.addErrback(lambda failure: self.factory.log.failure("A page of the log could not be sent.", failure))

    def _on_page(self, page: Page, asked_after: int) -> None:
        self._reading_log = False
        self.factory.crowd.reading_fails = False
        if self._lost or self._ending:
            return
        if self._resolving or self._cursor != asked_after:
            self._pump()  # SUBSCRIBE has moved the cursor meanwhile
            return
        self.factory.crowd.delivered += page.events
        self._cursor = self._sent = page.last
        if page.gap is not None:
            self._outlet.send(wire.encode_verb("GAP", page.gap))
        if page.data:
            self._outlet.send(page.data)
        self._pump()

    def _on_page_failed(self, failure: Failure) -> None:
        self._reading_failed(failure.value)
        if not self._lost and not self._ending:
            self._timer = self.factory.reactor.callLater(READ_RETRY_S, self._read_again)

    def _read_again(self) -> None:
        self._reading_log = False
        self._pump()

    def _reading_failed(self, problem: BaseException | None) -> None:
        crowd = self.factory.crowd
        if not crowd.reading_fails:
            crowd.reading_fails = True
            self.factory.log.error("The log cannot be read back; clients wait: {error}", error=in_one_line(problem))

    # --- back pressure ------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Is called by the transport when more than its buffer waits to be sent."""
        if not self._paused:  # the transport calls at every write, a PONG's too: only the first begins to count
            self._taken = -1
        self._paused = True
        self._stream.listeners.discard(self)

    def resumeProducing(self) -> None:
        """Is called by the transport when everything has been sent."""
        self._paused = False
        if self._answers > wire.MAX_ANSWERS and not self._ending:
            self.transport.resumeProducing()
        self._answers = 0
        self._outlet.go_on()
        self._pump()

    def stopProducing(self) -> None:
        """Is called by the transport when the connection is lost: see :meth:`connectionLost`."""

    def close_if_stalled(self) -> None:
        """Closes a client that has taken no byte for too long though some wait for it."""
        if not self._paused or self._lost or self._ending:
            return
        taken, now = self._outlet.taken, self.factory.reactor.seconds()
        if taken != self._taken:
            self._taken, self._taken_s = taken, now
        elif now - self._taken_s >= self.factory.crowd.stall_timeout_s:
            self.factory.log.warn(
                "The client of {stream} at {peer} is closed: it has taken nothing for {seconds} s.",
                stream=self._stream.name,
                seconds=self.factory.crowd.stall_timeout_s,
                peer=self._peer,
                client=None if self._client is None else self._client.name,
            )
            self._ending = True
            self.transport.abortConnection()

    # --- ending -------------------------------------------------------------------------------------------

    def replace(self) -> None:
        """Is called when another connection has taken this one's name over."""
        self._client = None
        self._fail("replaced")

    def _fail(self, reason: str) -> None:
        if self._ending or self._lost:
            return
        self._ending = True
        self._held.clear()
        self._splitter = LineSplitter(wire.MAX_LINE)
        self._count_unfinished()
        self.factory.log.warn(
            "The client of {stream} at {peer} is closed: {reason}",
            stream=self._stream.name,
            reason=reason,
            peer=self._peer,
        )
        self._outlet.push()
        say_farewell(self.transport, wire.encode_verb("ERROR", reason))
        self._cut_off_later()

    def close(self) -> None:
        """Closes the connection, within a bounded time."""
        if not self._ending and not self._lost:
            self._ending = True
            self._outlet.push()
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self._cut_off_later()

    def _cut_off_later(self) -> None:
        self._stream.listeners.discard(self)  # no event is sent any more
        self._pages.drop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self.factory.reactor.callLater(GRACE_S, self.transport.abortConnection)
