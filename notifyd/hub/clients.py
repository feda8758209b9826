"""Registered clients: whose name has which position, who holds the name now, and what waits to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred

from notifyd.hub.records import ClientRow
from notifyd.wire import ProtocolError

MAX_CLIENTS = 100_000
"""Names that the hub remembers: they are never forgotten, so their number is bounded."""


class Holder(Protocol):
    """The connection that has a name at the moment."""

    def replace(self) -> None:
        """Is called when a newer connection has taken the name over."""


class Client:
    """One registered client; ``acked`` is the offset up to which it has dealt with everything."""

    __slots__ = ("acked", "holder", "name", "seen", "stored", "stream")

    def __init__(self, name: str, stream: str, acked: int, seen: str, stored: bool) -> None:
        self.name = name
        self.stream = stream
        self.acked = acked
        self.seen = seen
        self.stored = stored
        self.holder: Holder | None = None


class Clients:
    """All registered clients of the hub.

    Args:
        rows: what the log holds of them at the start.
        wake: is called when a position waits to be written.
    """

    def __init__(self, rows: Iterable[ClientRow], wake: Callable[[bool], None]) -> None:
        self._clients = {row.name: Client(*row, stored=True) for row in rows}
        self._dirty: dict[str, Client] = {}
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._wake = wake

    def known(self, name: str, stream: str) -> Client | None:
        """Gives the client of that name, None where it is new.

        Raises:
            ProtocolError: the name belongs to another stream.
        """
        client = self._clients.get(name)
        if client is not None and client.stream != stream:
            raise ProtocolError(f"the name belongs to the stream {client.stream}")
        return client

    def add(self, name: str, stream: str, position: int, seen: str) -> Client:
        """Registers a new name; :meth:`stored` tells when that is durable.

        Raises:
            ProtocolError: there are too many.
        """
        if len(self._clients) >= MAX_CLIENTS:
            raise ProtocolError("too many registered clients")
        client = self._clients[name] = Client(name, stream, position, seen, stored=False)
        self._dirty[name] = client
        return client

    def stored(self, client: Client) -> Deferred[None]:
        """Fires when the client is on the disk."""
        done: Deferred[None] = Deferred()
        if client.stored:
            done.callback(None)
        else:
            self._waiting.setdefault(client.name, []).append(done)
            self._wake(True)
        return done

    def hold(self, client: Client, holder: Holder, seen: str) -> None:
        """Gives a client's name to a connection; the one that had it is told."""
        previous, client.holder = client.holder, holder
        self.touch(client, seen)
        if previous is not None:
            previous.replace()

    def release(self, client: Client, holder: Holder, seen: str) -> None:
        """Is called when a connection that may have had the name is gone."""
        if client.holder is holder:
            client.holder = None
            self.touch(client, seen)

    def acknowledge(self, client: Client, offset: int, seen: str) -> None:
        """Moves a client's position; one that goes back is ignored."""
        client.acked = max(client.acked, offset)
        self.touch(client, seen)

    def touch(self, client: Client, seen: str) -> None:
        """Notes that a client was there, to be written within a second."""
        client.seen = seen
        self._dirty[client.name] = client
        self._wake(False)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for a name to be stored."""
        return bool(self._waiting)

    @property
    def dirty(self) -> bool:
        """Whether positions wait to be written."""
        return bool(self._dirty)

    def take(self) -> list[ClientRow]:
        """Gives the positions that wait, to be written with the next commit."""
        rows = [ClientRow(each.name, each.stream, each.acked, each.seen) for each in self._dirty.values()]
        self._dirty.clear()
        return rows

    def written(self, rows: Iterable[ClientRow]) -> None:
        """Is called when rows that :meth:`take` gave are on the disk."""
        for row in rows:
            self._clients[row.name].stored = True
            for done in self._waiting.pop(row.name, ()):
                done.callback(None)
