"""The hub stays below 150 MiB, whatever its peers do to it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import Client, Hub

MOST_MIB = 150


@pytest.fixture
def small_hub(tmp_path: Path, start: Callable[..., Any]) -> Hub:
    """A hub whose streams hold little, so that what is measured is what its peers make it hold."""
    hub: Hub = start(Hub, tmp_path, limits='stream_memory = "1MiB"')
    hub.start()
    return hub


@contextlib.contextmanager
def locked(hub: Hub) -> Iterator[None]:
    """Holds the lock of the hub's database."""
    other = sqlite3.connect(hub.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def flood(hub: Hub, port: str, connections: int, data: bytes) -> float:
    """Sends the same bytes on many connections, as far as they are taken, and gives the most memory in MiB."""
    assert hub.process is not None
    clients = [Client(hub.ports[port]) for _ in range(connections)]
    most = 0.0
    try:
        for number, client in enumerate(clients):
            client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.socket.send(data)
            if number % 20 == 0:
                most = max(most, hub.process.memory_mib())
        # One more connection is heard after all that the others have sent so far.
        with Client(hub.ports["normal"]) as last:
            last.send("PING")
            assert last.line() == "PONG"
        return max(most, hub.process.memory_mib())
    finally:
        for client in clients:
            client.close()


def test_floods_of_tiny_lines_from_hundreds_of_producers(small_hub: Hub) -> None:
    """300 producers send lines of two bytes while the database is locked; one that says HELLO is still heard."""
    with locked(small_hub):
        assert flood(small_hub, "ingest", 300, b"xy\n" * 20_000) < MOST_MIB
        with Client(small_hub.ports["ingest"]) as agent:
            agent.send('HELLO {"agent":"a","spool":"s"}', "PING")
            assert agent.line() == "PONG"


def test_unfinished_lines_of_a_thousand_clients(small_hub: Hub) -> None:
    """Nobody needs 65,000 bytes for a verb: clients that together hold too much are told so and closed."""
    assert flood(small_hub, "normal", 800, b"x" * 65_000) < MOST_MIB


def test_lines_behind_a_subscribe_that_waits_for_the_database(small_hub: Hub) -> None:
    """What a client sends behind its SUBSCRIBE is held in a bounded amount until it is answered."""
    lines = b'SUBSCRIBE {"name":"n"}\n' + (b"ACK " + b"0" * 60_000 + b"\n") * 100
    with locked(small_hub):
        assert flood(small_hub, "normal", 50, lines) < MOST_MIB
