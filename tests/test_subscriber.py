"""Ports 1600 to 1604: what a client asks for, what it gets, and every way in which its connection ends."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from notifyd import wire
from tests.hubkit import Hub, line, offset, payload, subscribe

BIG = "x" * 10_000


# --- reading without a word ----------------------------------------------------------------------------------


def test_a_client_that_only_connects_gets_what_comes_from_then_on(hub: Hub) -> None:
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Of its port's priority, exactly as it is stored, and nothing else."""
    hub.put("before")
    client, other = hub.client("normal"), hub.client("critical")
    hub.put("a", "b")
    hub.put("c", priority="critical")
    assert [each.decode() for each in client.lines()] == hub.rows("body", "id IN ('a', 'b')")
    assert other.ids() == ["c"]


def test_the_ports_error_and_all_are_streams_too(hub: Hub) -> None:
    """All has every event, in the order of the offsets."""
    everything, errors = hub.client("all"), hub.client("error")
    hub.put("a")
    hub.put("b", priority="urgent")
    hub.put("c", priority="important")
    assert errors.ids() == ["b"]
    assert everything.ids() == ["a", "b", "c"]


# --- SUBSCRIBE -----------------------------------------------------------------------------------------------


def test_subscribe_after_an_offset_goes_on_behind_it(hub: Hub) -> None:
    """From memory as from the log; OK names the stream and the offset."""
    hub.put("a", "b", "c")
    after = offset(hub, "a")
    client = hub.client("normal", subscribe(after=after))
    ok, *rest = client.lines()
    assert payload(ok) == {"stream": "normal", "after": after}
    assert [json.loads(each)["id"] for each in rest] == ["b", "c"]
    hub.put("d")
    assert client.ids() == ["d"]


@pytest.mark.parametrize("restart", [False, True])
def test_subscribe_first_begins_with_the_oldest_event(make_hub: Callable[..., Hub], restart: bool) -> None:
    """Without a gap, also after a restart when everything is only in the log."""
    hub = make_hub()
    hub.put("x", priority="critical")
    hub.put("a", "b")
    first = int(offset(hub, "a"))
    if restart:
        hub = make_hub(start=hub.now() + 1)
    ok, *rest = hub.client("normal", subscribe(after="first")).lines()
    assert int(payload(ok)["after"]) == first - 1
    assert [json.loads(each)["id"] for each in rest] == ["a", "b"]


def test_subscribe_now_begins_with_what_comes_next(hub: Hub) -> None:
    """So does a SUBSCRIBE that asks for nothing."""
    hub.put("a")
    for wish in (subscribe(after="now"), b"SUBSCRIBE {}", b'SUBSCRIBE {"token":"unused"}'):
        client = hub.client("normal", wish)
        (ok,) = client.lines()
        assert payload(ok)["after"] == offset(hub, "a")
    hub.put("b")
    assert client.ids() == ["b"]


def test_subscribe_since_begins_with_the_first_event_of_that_time(hub: Hub) -> None:
    """At or after it, by when the hub read it, in any time zone."""
    for name in "abc":
        hub.put(name)
        hub.clock.advance(10)
    for since, expected in {
        "2026-11-22T10:00:00Z": "abc",
        "0001-01-01T00:00:00+23:59": "abc",
        "0000-01-01T00:00:00Z": "abc",
        "0900-01-01T00:00:00Z": "abc",
        "2026-11-22T10:00:00.000001Z": "bc",
        "2026-11-22T11:00:10+01:00": "bc",
        "2026-11-22T10:00:20Z": "c",
        "2026-11-22T10:00:20.000001Z": "",
        "9999-12-31T23:59:59-23:59": "",
    }.items():
        ok, *rest = hub.client("normal", subscribe(since=since)).lines()
        assert ok.startswith(b"OK ")
        assert [json.loads(each)["id"] for each in rest] == list(expected), since


def test_since_misses_nothing_of_a_producer_whose_hello_waited(hub: Hub) -> None:
    """What waited behind a HELLO is stored after what came meanwhile, and a search by time still finds all of it."""
    hub.writes.held = True
    agent = hub.producer(b'HELLO {"agent":"a","spool":"s"}', line("early", sequence="1", priority="normal"))
    hub.clock.advance(100)
    hub.producer(line("late", priority="normal"))
    hub.writes.release()
    assert agent.lines()[-1] == b"ACK 1"
    assert hub.rows("received") == sorted(hub.rows("received"))


def test_what_came_before_ok_is_to_be_thrown_away_and_comes_again(hub: Hub) -> None:
    """No event comes between SUBSCRIBE and OK; behind OK the stream goes on from the offset."""
    hub.put("a")
    client = hub.client()
    hub.put("b")
    assert client.ids() == ["b"]
    hub.reads.held = True
    client.send(subscribe(after="first"))
    hub.put("c")
    assert client.lines() == []
    hub.reads.release()
    ok, *rest = client.lines()
    assert ok.startswith(b"OK")
    assert [json.loads(each)["id"] for each in rest] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "bad",
    [
        b"SUBSCRIBE", b"SUBSCRIBE {", b"SUBSCRIBE []", b'SUBSCRIBE {"after":5}', b'SUBSCRIBE {"after":""}',
        b'SUBSCRIBE {"after":"-1"}', b'SUBSCRIBE {"after":"1.0"}', b'SUBSCRIBE {"after":"0x1"}',
        b'SUBSCRIBE {"after":"\xd9\xa3"}', b'SUBSCRIBE {"after":" 1"}', b'SUBSCRIBE {"after":"last"}',
        b'SUBSCRIBE {"since":"yesterday"}', b'SUBSCRIBE {"since":5}', b'SUBSCRIBE {"name":""}',
        b'SUBSCRIBE {"name":"a\\u0000"}', b'SUBSCRIBE {"name":"a\\nb"}', b'SUBSCRIBE {"name":7}',
        b'SUBSCRIBE {"after":"1","since":"2026-11-22T10:00:00Z"}', b'SUBSCRIBE {"after":"9223372036854775808"}',
        b'SUBSCRIBE {"after":"99999999999999999999999"}',
        b'SUBSCRIBE {"after":"' + b"0" * 5000 + b'99999999999999999"}',
        b"HELLO {}", b'{"id":"1"}', b"hello", b"ACK", b"ACK 1", b"ACK x", b"BYE", b"PING 1", b"OK", b"EVENT",
        b'SUBSCRIBE {"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", b'SUBSCRIBE {"name":"\xff"}',
    ],
)  # fmt: skip
def test_what_the_port_does_not_take_ends_the_connection(hub: Hub, bad: bytes) -> None:
    """ERROR, closed, and nothing that comes behind it counts; other clients go on."""
    other = hub.client()
    client = hub.client("normal", bad, b"PING")
    (answer,) = client.lines()
    assert answer.startswith(b"ERROR ")
    assert len(answer) > 10
    assert client.transport.half_closed
    client.send(b"PING")
    hub.put("a")
    assert client.lines() == []
    assert other.ids() == ["a"]


def test_an_offset_may_have_leading_zeros(hub: Hub) -> None:
    """However many: it is a decimal string."""
    hub.put("a", "b")
    (ok, event) = hub.client("normal", subscribe(after="0" * 6000 + offset(hub, "a"))).lines()
    assert payload(ok)["after"] == offset(hub, "a")
    assert json.loads(event)["id"] == "b"


def test_an_offset_beyond_the_end_is_an_error(hub: Hub) -> None:
    """The end itself is not; it is that of the whole log, whatever the priority."""
    hub.put("a", priority="critical")
    end = int(offset(hub, "a"))
    assert hub.client("normal", subscribe(after=str(end))).lines()[0].startswith(b"OK")
    assert hub.client("normal", subscribe(after=str(end + 1))).lines() == [
        b"ERROR SUBSCRIBE: after is beyond the end of the log"
    ]


@pytest.mark.parametrize("held", [False, True])
def test_subscribe_twice_is_an_error(hub: Hub, held: bool) -> None:
    """Whether or not the first has been answered."""
    hub.reads.held = held
    client = hub.client("normal", subscribe(after="first"), subscribe(after="now"))
    hub.reads.release()
    assert client.lines()[-1] == b"ERROR SUBSCRIBE comes twice"


def test_a_line_over_the_limit_ends_the_connection(hub: Hub) -> None:
    """With or without its end, and logged once."""
    client = hub.client()
    client.protocol.dataReceived(b"PING\n" + b"x" * (wire.MAX_LINE + 1))
    assert client.lines() == [b"PONG", b"ERROR a line is longer than 65536 bytes"]
    assert client.transport.ended
