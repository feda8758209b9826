"""Storms, with a hub that is killed while they blow: what is counted, told and stored adds up exactly."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import Client, Collector, Hub, without_repeats

EVENTS, KINDS, KILLS, BLOCK = 5_000, 10, 6, 25
WINDOW_S = 3
SETTINGS = f"""
[[suppress]]
name = "doors"
type = "door.*"
by = ["source", "fields.zone"]
window = "{WINDOW_S}s"
"""


class Storm(threading.Thread):
    """A spool of events of ten kinds, which sends again what was not acknowledged."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.acked = self.connections = 0
        self._port = port
        self._closing = threading.Event()
        self.start()

    def run(self) -> None:
        """Sends until all is acknowledged."""
        while self.acked < EVENTS and not self._closing.is_set():
            try:
                with Client(self._port, 5) as client:
                    self._send(client)
            except (OSError, AssertionError):  # the hub is not there, or was killed before it said OK
                self._closing.wait(0.05)

    def _send(self, client: Client) -> None:
        base = client.hello(spool="storm")["acked"].get("normal", 0)
        sent = self.acked = base
        self.connections += 1
        while self.acked < EVENTS:
            if sent < EVENTS:
                self._closing.wait(0.02)
                block = range(sent + 1, min(sent + BLOCK, EVENTS) + 1)
                client.send(*map(event, block))
                sent = block[-1]
            try:
                line = client.line(0.03)
            except TimeoutError:
                continue
            if not line:
                return
            self.acked = base + int(line.removeprefix("ACK "))

    def close(self) -> None:
        """Stops sending."""
        self._closing.set()


def event(number: int) -> str:
    """Gives an event line."""
    return json.dumps({
        "id": f"s-{number}", "source": "/ward3/doors", "type": "door.open", "priority": "normal",
        "sequence": str(number), "data": {"fields": {"zone": str(number % KINDS)}},
    })  # fmt: skip


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_hub_that_is_killed_in_a_storm_counts_every_repeat_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """SIGKILL at random moments: each event is stored once; repeats reach nobody, and their counts are exact."""
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else None
    hub = start(Hub, tmp_path, SETTINGS, url=url)
    hub.start()
    everyone = [start(Collector, hub.ports[stream], stream) for stream in ("normal", "all")]
    storm = start(Storm, hub.ports["ingest"])
    randomness = random.Random(4)
    for _ in range(KILLS):
        time.sleep(randomness.uniform(0.1, 0.9))
        hub.process.kill()
        check_sums(hub)
        hub.start()
    storm.join(120)
    assert storm.acked == EVENTS
    assert storm.connections > KILLS / 2  # it blew while the hub was killed
    for _ in range(200):
        if not hub.rows("SELECT 1 FROM suppression"):
            break
        time.sleep(0.1)
    check_sums(hub)
    assert hub.rows("SELECT count(*) FROM suppression") == [(0,)]

    rows = hub.rows('SELECT id, suppressed, body FROM event WHERE agent IS NOT NULL ORDER BY "offset"')
    assert [row[0] for row in rows] == [f"s-{number}" for number in range(1, EVENTS + 1)]
    assert not any(row[1] for row in rows[:KINDS])
    told = [json.loads(body) for (body,) in hub.rows("SELECT body FROM event WHERE rule = 'doors' ORDER BY \"offset\"")]
    assert len({each["data"]["of"] for each in told}) == len(told)
    per_zone = Counter(json.loads(row[2])["data"]["fields"]["zone"] for row in rows if row[1])
    counted: Counter[str] = Counter()
    for each in told:
        counted[each["data"]["fields"]["zone"]] += each["data"]["repeated"]
    assert counted == per_zone
    assert len(per_zone) == KINDS

    want = hub.rows("SELECT source, id FROM event WHERE NOT suppressed AND priority = 'normal' ORDER BY \"offset\"")
    for client in everyone:
        client.wait(lambda events: len(normal(events)) >= len(want))
        assert [(each["source"], each["id"]) for each in normal(client.events)] == want


def normal(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives the normal events, each once: a crash may have forgotten a client's position."""
    return [each for each in without_repeats(events) if each["priority"] == "normal"]


def check_sums(hub: Hub) -> None:
    """The suppressed events in the log of a hub that does nothing are as many as summaries and open windows say."""
    query = """
        SELECT (SELECT count(*) FROM event WHERE suppressed), (SELECT coalesce(sum(repeated), 0) FROM suppression)
    """
    ((suppressed, waiting),) = hub.rows(query)
    bodies = hub.rows("SELECT body FROM event WHERE rule = 'doors'")
    told = sum(json.loads(body)["data"]["repeated"] for (body,) in bodies)
    assert suppressed == waiting + told
