"""The database of a lookup fails while events flow: nothing lost, nothing twice, nobody held for too long."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notifyd.daemon import STOP_TIMEOUT_S
from tests.integration import faults
from tests.integration.faults import LANES, Seen, Ward
from tests.integration.rig import Client, Hub
from tests.postgres import Cluster

TIMEOUT_S = 1.0
SLACK_S = 2.0
"""For a machine that others use too; ``python -m tests.bench.faults`` measures."""

on_both_logs = pytest.mark.parametrize("log", ["sqlite", "postgresql"])

LOST = "Lookup zone is lost"
RESTORED = "Lookup zone works again"


def flow_for(seconds: float) -> None:
    """Lets events flow for a while."""
    threading.Event().wait(seconds)


def outage(ward: Ward, fault: contextlib.AbstractContextManager[None]) -> tuple[float, float, float]:
    """Has a fault come and go; gives when it was told, when it was lifted, and when that was told."""
    warm(ward)
    seen = len(ward.process.text)
    with fault:
        ward.process.wait_for(LOST, start=seen)
        lost_s = time.monotonic()
        flow_for(1.5)
        lifted_s = time.monotonic()
    ward.process.wait_for(RESTORED, start=seen)
    restored_s = time.monotonic()
    flow_for(0.5)
    return lost_s, lifted_s, restored_s


def warm(ward: Ward) -> None:
    """Lets events flow until the keys that come again are cached."""
    ward.clients["critical"].wait(lambda events: len(events) > 20)


def own_events(ward: Ward) -> list[str]:
    """Gives the types of what the hub told about the lookup, in the order in which it was stored."""
    query = "SELECT type FROM event WHERE source = '/hub/lookup/zone' ORDER BY \"offset\""
    return [kind for (kind,) in ward.hub.rows(query)]


def assert_complete(ward: Ward) -> dict[str, list[Seen]]:
    """Nothing is lost, doubled, reordered or held for too long, for clients and in the log; gives what came."""
    seen = ward.finish()
    for lane in LANES:
        sent = [key for key in ward.flow.sent if key.startswith(lane)]
        assert [each.event["id"] for each in seen[lane]] == sent
        query = 'SELECT id FROM event WHERE priority = ? AND source = ? ORDER BY "offset"'
        assert [key for (key,) in ward.hub.rows(query, lane, "/ward3/panel")] == sent
        assert not ward.clients[lane].gaps
    worst = max(seen["critical"], key=lambda each: each.latency_s)
    assert worst.latency_s < TIMEOUT_S + SLACK_S, worst
    for each in seen["critical"] + seen["normal"]:
        data = each.event["data"]
        assert ("context" in data) != ("unavailable" in data), each
        if each.unavailable:
            assert data["unavailable"] == ["zone"]
        else:
            assert set(data["context"]["zone"]) == {"location"}
    return seen


def assert_told_once(
    ward: Ward, seen: dict[str, list[Seen]], lost_s: float, lifted_s: float, restored_s: float
) -> None:
    """Events say what they lack, and only these; the outage was told once, in the log and as events."""
    everything = seen["critical"] + seen["normal"]
    during = [each for each in everything if lost_s < each.sent_s < lifted_s - 1.0]  # not those that are on their way
    assert len(during) > 10
    assert all(each.unavailable != each.cached for each in during)
    after = [each for each in everything if each.sent_s > restored_s]
    assert len(after) > 10
    late = [each for each in after if each.unavailable]
    assert len(late) < len(after) / 4, late  # none, unless the machine itself stands still for a second
    assert own_events(ward) == ["notifyd.lookup.lost", "notifyd.lookup.restored"]
    assert ward.process.text.count(LOST) == ward.process.text.count(RESTORED) == 1
    assert "Traceback" not in ward.process.text


@pytest.mark.parametrize("name", list(faults.OUTAGES))
def test_events_flow_on_while_the_server_is_away(
    name: str, postgres: Cluster, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """Stopped, killed, frozen, locked, slow, full: events go on without it, marked, and with it again afterwards."""
    url = faults.make_postgresql(postgres)
    ward = start(Ward, tmp_path, url, TIMEOUT_S)
    told = outage(ward, faults.OUTAGES[name](postgres, url))
    assert_told_once(ward, assert_complete(ward), *told)


def test_sessions_that_are_ended_in_the_midst_of_a_question(
    postgres: Cluster, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """A server that cuts sessions off and lets new ones in costs no event its order, and is told evenly if at all."""
    url = faults.make_postgresql(postgres)
    ward = start(Ward, tmp_path, url, TIMEOUT_S)
    warm(ward)
    with faults.terminated(postgres, url):
        flow_for(0.5)
    if LOST in ward.process.text:
        ward.process.wait_for(RESTORED)
    flow_for(0.2)
    assert_complete(ward)
    told = own_events(ward)
    assert told == ["notifyd.lookup.lost", "notifyd.lookup.restored"] * (len(told) // 2)
    assert (ward.process.text.count(LOST), ward.process.text.count(RESTORED)) == (len(told) // 2, len(told) // 2)


@pytest.mark.parametrize("name", list(faults.FILE_OUTAGES))
def test_events_flow_on_while_the_file_is_away(name: str, tmp_path: Path, start: Callable[..., Any]) -> None:
    """Gone, garbage, locked, closed to the hub: events go on without it, marked, and with it again afterwards."""
    powerless = name == "folder forbidden"
    if powerless and not faults.can_be_powerless():
        pytest.skip("this user reads every folder, and setpriv cannot take that from the hub")
    url = faults.make_sqlite(tmp_path)
    path = Path(url.removeprefix("sqlite:///"))
    ward = start(Ward, tmp_path, url, TIMEOUT_S, powerless=powerless)
    told = outage(ward, faults.FILE_OUTAGES[name](path))
    assert_told_once(ward, assert_complete(ward), *told)


@pytest.fixture
def both(postgres: Cluster, tmp_path: Path, start: Callable[..., Any]) -> tuple[Ward, Cluster, str]:
    """A ward on a server, for several outages."""
    url = faults.make_postgresql(postgres)
    return start(Ward, tmp_path, url, TIMEOUT_S), postgres, url


@on_both_logs
def test_a_stop_while_the_database_hangs_ends_in_bounded_time(
    log: str, postgres: Cluster, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """SIGTERM ends a hub whose lookup, and whose log if it is there too, wait for a server that stands still."""
    settings = f"""
        [[lookup]]
        name = "zone"
        sql = "{faults.SQL}"
        database = "{faults.make_postgresql(postgres)}"
        timeout = "10m"
    """
    hub = start(Hub, tmp_path, settings, url=postgres.fresh_url() if log == "postgresql" else None)
    process = hub.start()
    with Client(hub.ports["ingest"]) as producer:
        event = {"id": "1", "source": "/s", "type": "t", "priority": "normal", "data": {"fields": {"zone": "1"}}}
        producer.send(json.dumps(event))
        assert producer.line() == "ACK 1"
        postgres.freeze()
        event["data"] = {"fields": {"zone": "2"}}
        producer.send(json.dumps(event), "PING")
        assert producer.line() == "PONG"
        process.popen.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S + 10)


def test_outages_that_follow_each_other_are_told_one_by_one(both: tuple[Ward, Cluster, str]) -> None:
    """Three outages of one run are told as lost, restored, lost, restored, lost, restored."""
    ward, server, url = both
    for name in ("stopped", "locked", "killed"):
        outage(ward, faults.OUTAGES[name](server, url))
    assert_complete(ward)
    assert own_events(ward) == ["notifyd.lookup.lost", "notifyd.lookup.restored"] * 3
    assert ward.process.text.count(LOST) == ward.process.text.count(RESTORED) == 3
