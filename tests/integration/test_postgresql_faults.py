"""The hub on a PostgreSQL server that stops, dies, hangs and cuts: nothing lost, nothing twice, no restart."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notifyd.daemon import STOP_TIMEOUT_S
from notifyd.postgresql import CONNECT_TIMEOUT_S
from tests.integration.rig import Client, Collector, Hub, Process
from tests.postgres import Cluster

ROUNDS = 4
IN_FLIGHT = 1_000
EACH = 500
"""Events that a client gets before each fault."""


class Producer(threading.Thread):
    """Sends events of a spool without a pause; comes back with what was not acknowledged, as an agent does."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._done = threading.Event()
        self._closing = threading.Event()
        self.sent = self.acked = 0
        self.connections = 0
        self.start()

    def run(self) -> None:
        """Sends until it is told to finish, and all is acknowledged."""
        while not self._is_over:
            with contextlib.suppress(OSError), Client(self._port) as client:
                self._send(client)

    @property
    def _is_over(self) -> bool:
        return self._closing.is_set() or (self._done.is_set() and self.acked == self.sent)

    def _send(self, client: Client) -> None:
        self.connections += 1
        base = self.acked = client.hello()["acked"].get("normal", 0)
        client.send(*map(event, range(base + 1, self.sent + 1)))
        while not self._is_over:
            if not self._done.is_set() and self.sent - self.acked < IN_FLIGHT:
                client.send(*map(event, range(self.sent + 1, self.sent + 11)))
                self.sent += 10
            try:
                line = client.line(0.01)
            except TimeoutError:
                continue
            if not line:
                return
            assert line.startswith("ACK "), line
            self.acked = base + int(line[4:])

    def finish(self) -> int:
        """Sends no more; gives how many events were acknowledged, which is all."""
        self._done.set()
        self.join(60)
        assert not self.is_alive()
        assert self.acked == self.sent
        return self.sent

    def close(self) -> None:
        """Gives up: the next test's hub may have the same port."""
        self._closing.set()
        self.join(60)


def event(number: int) -> str:
    """Gives an event line; one lane, so that its sequences are its order."""
    members = {
        "id": f"s-{number}",
        "source": "/ward3/panel",
        "type": "t",
        "priority": "normal",
        "sequence": str(number),
    }
    return json.dumps(members)


@pytest.fixture
def made(tmp_path: Path, postgres_url: str, start: Callable[..., Any]) -> Hub:
    """A hub that runs on PostgreSQL."""
    hub: Hub = start(Hub, tmp_path, url=postgres_url)
    hub.start()
    return hub


def stop_and_start(mode: str) -> Callable[[Cluster, Process], None]:
    """Gives what stops the server, lets the hub notice, and starts it."""

    def fault(server: Cluster, hub: Process) -> None:
        seen = len(hub.text)
        server.kill() if mode == "kill" else server.stop(mode)
        hub.wait_for("The database cannot be used", start=seen)
        server.start()
        hub.wait_for("The database can be used again", start=seen)

    return fault


def freeze(server: Cluster, hub: Process) -> None:
    """Has the server hang for a moment."""
    server.freeze()
    threading.Event().wait(0.3)
    server.thaw()


def terminate(server: Cluster, hub: Process) -> None:
    """Cuts off whichever of the hub's sessions is in the midst of something, again and again."""
    query = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'notify-hub%' AND state <> 'idle' AND pid <> pg_backend_pid()
    """
    cut = 0
    for _ in range(2_000):
        cut += len(server.execute(query))
        if cut >= 5:
            return
    raise AssertionError("the hub does nothing")


FAULTS = {
    "stopped": stop_and_start("fast"),
    "immediate": stop_and_start("immediate"),
    "killed": stop_and_start("kill"),
    "frozen": freeze,
    "terminated": terminate,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_whatever_happens_to_the_server_nothing_is_lost_or_repeated(
    postgres: Cluster, made: Hub, start: Callable[..., Any], fault: Callable[[Cluster, Process], None]
) -> None:
    """While events flow: each is stored once, each client gets each once, in order, and the hub is never restarted."""
    assert made.process is not None
    clients = [start(Collector, made.ports[name], f"client-{name}") for name in ("normal", "all")]
    producer = start(Producer, made.ports["ingest"])
    for _ in range(ROUNDS):
        seen = len(clients[0].events)
        clients[0].wait(lambda events, seen=seen: len(events) > seen + EACH)
        fault(postgres, made.process)
    seen = len(clients[0].events)
    clients[0].wait(lambda events, seen=seen: len(events) > seen + EACH)
    count = producer.finish()
    expected = [f"s-{n}" for n in range(1, count + 1)]
    rows = made.rows('SELECT id, "offset" FROM event WHERE type = ? ORDER BY "offset"', "t")
    assert [row[0] for row in rows] == expected
    assert count > ROUNDS * EACH
    for client in clients:
        events = [each for each in client.wait(lambda events: events[-1]["id"] == expected[-1]) if each["type"] == "t"]
        assert [(each["id"], int(each["offset"])) for each in events] == rows
        assert not client.gaps
    assert made.rows("SELECT lane, sequence FROM spool") == [("normal", count)]
    assert producer.connections == 1
    assert made.process.alive
    changes = re.findall("The database can(not| be used again)", made.process.text)
    assert changes == ["not", " be used again"] * (len(changes) // 2)
    assert "Traceback" not in made.process.text
    assert made.process.stop() == 0


def test_a_frozen_server_does_not_hold_up_a_stop(postgres: Cluster, made: Hub) -> None:
    """It ends in bounded time, says that something was not stored, and the producer is not told otherwise."""
    assert made.process is not None
    with Client(made.ports["ingest"]) as producer:
        postgres.freeze()
        producer.send(event(1), "PING")
        assert producer.line() == "PONG"
        begun = time.monotonic()
        made.process.stop()
        assert time.monotonic() - begun < STOP_TIMEOUT_S + CONNECT_TIMEOUT_S + 2
        assert made.process.text.count("The database has not answered until the end") == 1
        assert producer.line() == ""
    postgres.thaw()
    assert made.start()


def test_of_two_hubs_that_start_at_once_one_serves(
    tmp_path: Path, postgres_url: str, start: Callable[..., Any]
) -> None:
    """On an empty database; the other is told why, and can be started as soon as the first is killed."""
    hubs = [start(Hub, tmp_path / name, url=postgres_url) for name in ("one", "two")]
    processes = [hub.start(wait=False) for hub in hubs]
    for process in processes:
        process.wait_for("notify-hub is ready|another hub")
    serving, refused = sorted(processes, key=lambda process: "is ready" not in process.text)
    assert refused.wait() == 1
    assert re.search(
        r"notify-hub: another hub \(notify-hub \w+, process \d+ of the server, from .*\) uses", refused.text
    )
    assert "Traceback" not in refused.text
    assert serving.alive
    serving.kill()
    second = hubs[processes.index(refused)]
    second.start()
    with Client(second.ports["ingest"]) as producer:
        producer.send(event(1))
        assert producer.line() == "ACK 1"
