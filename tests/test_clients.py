"""Registered clients: who holds a name, and what waits to be written."""

from __future__ import annotations

import pytest

from notifyd.hub import clients as clients_module
from notifyd.hub.clients import Clients
from notifyd.hub.records import ClientRow
from notifyd.wire import ProtocolError


class Holder:
    def __init__(self) -> None:
        self.replaced = 0

    def replace(self) -> None:
        self.replaced += 1


@pytest.fixture
def woken() -> list[bool]:
    """Whether it was urgent, each time the writer was woken."""
    return []


@pytest.fixture
def clients(woken: list[bool]) -> Clients:
    """One client is known, at 5."""
    return Clients([ClientRow("old", "normal", 5, "then")], woken.append)


def test_a_known_name_is_given_with_its_position(clients: Clients) -> None:
    """To its own stream only; a name that nobody has is new."""
    known = clients.known("old", "normal")
    assert known is not None
    assert (known.acked, known.stored) == (5, True)
    assert clients.known("new", "normal") is None
    with pytest.raises(ProtocolError, match="stream normal"):
        clients.known("old", "critical")


def test_a_new_name_is_told_of_when_it_is_written(clients: Clients, woken: list[bool]) -> None:
    """And the writer is woken at once for it."""
    new = clients.add("new", "normal", 7, "now")
    fired: list[None] = []
    clients.stored(new).addCallback(fired.append)
    clients.stored(new).addCallback(fired.append)
    assert woken == [True, True]
    assert clients.urgent
    rows = clients.take()
    assert rows == [ClientRow("new", "normal", 7, "now")]
    assert fired == []
    clients.written(rows)
    assert len(fired) == 2
    assert not clients.urgent
    clients.stored(new).addCallback(fired.append)
    assert len(fired) == 3


def test_a_position_never_goes_back(clients: Clients) -> None:
    """Nor is one that changes while it is written forgotten."""
    client = clients.known("old", "normal")
    assert client is not None
    clients.acknowledge(client, 9, "a")
    clients.acknowledge(client, 8, "b")
    rows = clients.take()
    assert rows == [ClientRow("old", "normal", 9, "b")]
    assert not clients.dirty
    clients.acknowledge(client, 10, "c")
    clients.written(rows)
    assert clients.take() == [ClientRow("old", "normal", 10, "c")]


def test_a_name_is_held_by_the_newest_connection(clients: Clients) -> None:
    """The one before is told once; its leaving later changes nothing."""
    client = clients.known("old", "normal")
    assert client is not None
    first, second = Holder(), Holder()
    clients.hold(client, first, "1")
    clients.hold(client, second, "2")
    assert (first.replaced, second.replaced) == (1, 0)
    clients.release(client, first, "3")
    assert client.holder is second
    clients.release(client, second, "4")
    assert client.holder is None
    assert client.seen == "4"


def test_the_number_of_names_is_bounded(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are never forgotten."""
    monkeypatch.setattr(clients_module, "MAX_CLIENTS", 2)
    clients.add("new", "normal", 1, "now")
    with pytest.raises(ProtocolError, match="too many"):
        clients.add("another", "normal", 1, "now")
