"""Ports 1600 to 1604: slow clients, and every way in which a connection ends."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from notifyd import wire
from notifyd.hub.subscriber import GRACE_S, HALF_CLOSED_PROBE_S, READ_RETRY_S
from tests.hubkit import Hub, payload, subscribe
from tests.hubparts import LOCKED

BIG = "x" * 10_000


# --- slow clients --------------------------------------------------------------------------------------------


def test_a_slow_client_is_served_from_the_log_and_delays_nobody(make_hub: Callable[..., Hub]) -> None:
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Memory stays bounded, nothing is lost, and the quick one has everything at once."""
    hub = make_hub(stream_memory=65_536)
    slow, quick = hub.client(takes=False), hub.client()
    ids = [str(n) for n in range(100)]
    for each in ids:
        hub.put(each, data=BIG)
    assert quick.ids() == ids
    assert slow.transport.waiting < 200_000
    assert hub.backplane.streams["normal"].memory <= 65_536
    for _ in range(100):
        slow.transport.drain()
    assert slow.ids() == ids
    hub.put("more")
    assert slow.ids() == ["more"]


def test_a_client_goes_on_when_the_log_cannot_be_read_for_a_while(make_hub: Callable[..., Hub], logged: Any) -> None:
    """It waits, the others do not, and the operator is told once an outage."""
    hub = make_hub()
    hub.put("a")
    hub = make_hub(start=hub.now() + 1)
    for _ in range(2):
        hub.reads.faults = [LOCKED] * 3
        client = hub.client("normal", subscribe(after="first"))
        hub.clock.pump([READ_RETRY_S] * 4)
        assert [json.loads(each)["id"] for each in client.lines()[1:]] == ["a"]
    hub.reads.faults = [None, LOCKED, LOCKED]
    client = hub.client("normal", subscribe(after="first"))
    hub.clock.pump([READ_RETRY_S] * 4)
    assert [json.loads(each)["id"] for each in client.lines()[1:]] == ["a"]
    assert len([text for text in logged.text() if "cannot be read back" in text]) == 3


def test_a_client_that_takes_nothing_is_closed_and_told_of(hub: Hub, logged: Any) -> None:
    """After stall_timeout, even if it sends PING; not one that takes a byte now and then, or has nothing waiting."""
    hub.ports["normal"].start()
    stalled, trickling, content = hub.client(takes=False), hub.client(takes=False), hub.client()
    hub.put("a", data="x" * 40_000)
    hub.put("b", data="x" * 40_000)
    for _ in range(40):
        trickling.transport.acked += 1
        stalled.send(b"PING")
        hub.clock.advance(10)
    assert stalled.transport.aborted
    assert not trickling.transport.aborted
    assert not content.transport.aborted
    assert len([text for text in logged.text("warn") if "taken nothing" in text]) == 1
    hub.ports["normal"].stop()


@pytest.mark.parametrize("subscribed", [False, True])
def test_a_flood_of_pings_by_a_client_that_does_not_read_is_bounded(hub: Hub, subscribed: bool) -> None:
    """It is not read from while more than 64 KiB of answers wait, and is again when it has taken them."""
    client = hub.client("normal", *([b"SUBSCRIBE {}"] if subscribed else []), takes=False)
    sent = 0
    while client.transport.reading:
        client.send(*[b"PING"] * 1000)
        sent += 5_000
        assert sent < 4 * wire.MAX_ANSWERS
    client.transport.drain()
    assert client.transport.reading
    hub.put("a")
    assert json.loads(client.lines()[-1])["id"] == "a"


def test_pings_are_answered_though_events_wait(hub: Hub) -> None:
    """A slow client learns that the hub is there."""
    client = hub.client(takes=False)
    hub.put("a", data="x" * 40_000)
    hub.put("b", data="x" * 40_000)
    client.send(b"PING")
    assert client.lines()[-1] == b"PONG"


# --- the ends of a connection --------------------------------------------------------------------------------


def test_too_many_subscribers_are_turned_away(make_hub: Callable[..., Hub], logged: Any) -> None:
    """Over all ports together; told once in the hub's log; when one goes, there is room again."""
    hub = make_hub(max_subscribers=2)
    kept = [hub.client("normal"), hub.client("critical")]
    for _ in range(3):
        turned_away = hub.client("important")
        assert turned_away.lines() == [b"ERROR too many subscribers"]
        assert turned_away.transport.ended
        turned_away.lose()
    assert len([text for text in logged.text() if "turned away" in text]) == 1
    kept[0].lose()
    client = hub.client("important")
    hub.put("a", priority="important")
    assert client.ids() == ["a"]


def test_a_client_that_sends_no_more_still_reads(hub: Hub) -> None:
    """As nc without a terminal; whether it is still there is asked of the kernel soon."""
    client = hub.client()
    client.half_close()
    hub.put("a")
    assert client.ids() == ["a"]
    assert (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, HALF_CLOSED_PROBE_S) in client.transport.options


def test_a_client_has_keepalive_and_no_user_timeout(hub: Hub) -> None:
    """TCP_USER_TIMEOUT would abort a living client whose window is closed."""
    options = {option[1] for option in hub.client().transport.options if option[0] == socket.IPPROTO_TCP}
    assert socket.TCP_KEEPIDLE in options
    assert socket.TCP_USER_TIMEOUT not in options


def test_a_client_that_does_not_close_after_its_error_is_cut_off(hub: Hub) -> None:
    """Its half is read off for a while; when it closes by itself, that is the end."""
    rude, polite = hub.client("normal", b"BYE"), hub.client("normal", b"BYE")
    rude.send(b"BYE" * 1000)
    polite.half_close()
    assert polite.transport.closing
    hub.clock.advance(GRACE_S)
    assert rude.transport.aborted


def test_a_stop_closes_every_client_within_a_bounded_time(hub: Hub) -> None:
    """Also one that does not read."""
    clients = [hub.client(), hub.client(takes=False), hub.client("normal", subscribe(name="n"))]
    for port in hub.ports.values():
        port.stop()
    assert all(client.transport.closing for client in clients)
    hub.clock.advance(GRACE_S)
    assert all(client.transport.aborted for client in clients)
    hub.put("a")
    assert clients[0].lines() == []


def test_events_delivered_are_counted(hub: Hub) -> None:
    """From memory as from the log."""
    hub.client()
    hub.put("a", "b")
    hub.client("normal", subscribe(after="first"))
    assert hub.crowd.delivered == 4


def test_a_page_that_comes_after_a_subscribe_is_thrown_away(make_hub: Callable[..., Hub]) -> None:
    """A slow client that asks for another place is sent nothing of its old one behind the OK."""
    hub = make_hub(stream_memory=65_536)
    client = hub.client(takes=False)
    ids = [str(n) for n in range(30)]
    for each in ids:
        hub.put(each, data=BIG)
    hub.reads.held = True
    client.transport.drain()
    client.lines()
    client.send(subscribe(after="0"))
    hub.reads.release()
    for _ in range(40):
        client.transport.drain()
    ok, *rest = client.lines()
    assert payload(ok)["after"] == "0"
    assert [json.loads(each)["id"] for each in rest] == ids
    assert hub.reader.ahead == 0


@pytest.mark.parametrize("leaves", ["by subscribing", "for good"])
def test_who_leaves_the_log_makes_room_for_others(make_hub: Callable[..., Hub], leaves: str) -> None:
    """Few clients at once are read ahead."""
    hub = make_hub(stream_memory=65_536)
    client = hub.client(takes=False)
    for each in range(300):
        hub.put(str(each), data=BIG)
    client.transport.drain()
    assert hub.reader.ahead == 1
    if leaves == "for good":
        client.lose()
    else:
        client.send(subscribe(after="now"))
        for _ in range(40):
            client.transport.drain()
    assert hub.reader.ahead == 0
