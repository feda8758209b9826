"""The demo's clients: registered with the hub, acknowledging what they get, and coming back whenever the hub does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure

from notifyd import wire
from notifyd.ctl.demo_account import Delivery, read_event
from notifyd.ctl.demo_wait import Changes, DemoError

RETRY_S = 0.1
"""How soon a client tries again: all of them are to be back before the agent is."""

CONNECT_S = 2.0


class Client(ClientService):
    """One client of one port.

    Args:
        reactor: for its connections.
        changes: is told of everything.
        stream: the priority that it listens to.
        port: the hub's port of that priority.
        arrived: is called with each event, and whether it has come before.
        lost: is called when a connection that stood is lost.
    """

    # ClientService has a line for each retry.
    _log = Logger(observer=LogPublisher())  # type: ignore[arg-type]  # zope

    def __init__(
        self,
        reactor: Any,
        changes: Changes,
        stream: str,
        port: int,
        arrived: Callable[[Delivery, bool], None],
        lost: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.deliveries: list[Delivery] = []
        self.gaps: list[str] = []
        self.connections = 0
        self.subscribed = False
        self.lines_by_connection: dict[int, int] = {}
        self.changes = changes
        self._arrived, self._lost = arrived, lost
        self._seen: set[tuple[str, str]] = set()
        endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=CONNECT_S)
        factory: Any = Factory.forProtocol(lambda: _Connection(self))
        factory.noisy = False
        super().__init__(endpoint, factory, retryPolicy=lambda _: RETRY_S, clock=reactor)

    def delivered(self) -> int:
        """Counts the events that have come, each once."""
        return len(self._seen)

    def take(self, line: bytes, connection: int) -> Delivery:
        """Takes an event."""
        delivery = Delivery(self.stream, connection, read_event(line))
        key = delivery.event.key
        is_repeat = key in self._seen
        self._seen.add(key)
        self.deliveries.append(delivery)
        self._arrived(delivery, is_repeat)
        self.changes.happened()
        return delivery

    def disconnected(self, was_subscribed: bool) -> None:
        """A connection has ended."""
        self.subscribed = False
        if was_subscribed and self.running:
            self._lost()
        self.changes.happened()


class _Connection(Protocol):
    """One connection of a client's."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._splitter = wire.LineSplitter(wire.MAX_HUB_LINE)
        self._number = 0

    def connectionMade(self) -> None:
        """Registers; a new name begins with the first event."""
        client = self._client
        self._number = client.connections = client.connections + 1
        client.lines_by_connection[self._number] = 0
        self._write(wire.encode_verb("SUBSCRIBE", wire.Subscribe(name=f"demo-{client.stream}", after="first")))

    def dataReceived(self, data: bytes) -> None:
        """Takes the hub's lines."""
        try:
            for line in self._splitter.feed(data):
                self._line(line)
        except Exception as error:  # noqa: BLE001 - whatever it is, the demo must end and say so
            self._client.changes.fail(DemoError(f"the client of {self._client.stream} failed: {error!r}"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The hub is gone."""
        self._client.disconnected(self._client.subscribed)

    def _line(self, line: bytes) -> None:
        client = self._client
        verb, argument = wire.parse_verb(line) or ("", None)
        if verb == "OK":
            client.subscribed = True
            client.changes.happened()
        elif verb == "GAP":
            client.gaps.append((argument or b"").decode("utf-8", "replace"))
        elif verb == "ERROR":
            raise DemoError(f"the hub says ERROR {(argument or b'').decode('utf-8', 'replace')}")
        elif not verb:
            client.lines_by_connection[self._number] += 1
            if client.subscribed:  # what comes before OK is to be thrown away
                delivery = client.take(line, self._number)
                self._write(wire.encode_verb("ACK", delivery.event.offset))

    def _write(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)
