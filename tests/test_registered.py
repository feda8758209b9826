"""Ports 1600 to 1604: registered clients, their positions and their names."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from notifyd.hub.subscriber import MAX_HELD
from tests.hubkit import Hub, offset, payload, subscribe

BIG = "x" * 10_000


# --- registered clients --------------------------------------------------------------------------------------


def test_a_registered_client_goes_on_from_its_acknowledged_position(make_hub: Callable[..., Hub]) -> None:
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Gives an event's offset."""
    """Over reconnects, and over a restart of the hub."""
    hub = make_hub()
    client = hub.client("normal", subscribe(name="pager-7"))
    hub.put("a", "b", "c")
    client.send(b"ACK " + offset(hub, "b").encode())
    client.lose()
    again = hub.client("normal", subscribe(name="pager-7"))
    assert [json.loads(each)["id"] for each in again.lines()[1:]] == ["c"]
    again.lose()
    hub.clock.advance(1)
    hub = make_hub(start=hub.now() + 1)
    again = hub.client("normal", subscribe(name="pager-7"))
    ok, *rest = again.lines()
    assert payload(ok)["after"] == offset(hub, "b")
    assert [json.loads(each)["id"] for each in rest] == ["c"]


def test_positions_are_on_the_disk_within_a_second(hub: Hub) -> None:
    """Also when no event comes to be written along, and several in one commit."""
    clients = [hub.client("normal", subscribe(name=f"n{n}")) for n in range(5)]
    hub.put("a")
    hub.clock.advance(1)
    commits = hub.writes.runs
    for client in clients:
        client.send(b"ACK " + offset(hub, "a").encode())
    assert hub.writes.runs == commits
    hub.clock.advance(1)
    assert hub.writes.runs == commits + 1
    acked = hub.execute("SELECT DISTINCT acked FROM subscriber").fetchall()
    assert acked == [(int(offset(hub, "a")),)]


def test_a_new_name_is_answered_when_its_position_is_on_the_disk(hub: Hub) -> None:
    """Otherwise a crash would skip what came after."""
    hub.writes.held = True
    client = hub.client("normal", subscribe(name="n"))
    assert client.lines() == []
    hub.writes.step()
    assert client.lines()[0].startswith(b"OK ")
    known = hub.client("normal", subscribe(name="n"))
    assert known.lines()[0].startswith(b"OK "), "a name that is known needs no commit"
    hub.writes.release()


@pytest.mark.parametrize(
    ("wish", "expected"),
    [({"after": "first"}, "ab"), ({"since": "2026-11-22T10:00:00Z"}, "ab"), ({}, ""), ({"after": "now"}, "")],
)
def test_a_new_name_starts_where_it_says_else_now(hub: Hub, wish: dict[str, str], expected: str) -> None:
    """And a known one from its own position, whatever it says."""
    hub.put("a", "b")
    first = hub.client("normal", subscribe(name="n", **wish))
    assert [json.loads(each)["id"] for each in first.lines()[1:]] == list(expected)
    first.lose()
    hub.put("c")
    again = hub.client("normal", subscribe(name="n", after="now"))
    assert [json.loads(each)["id"] for each in again.lines()[1:]] == [*expected, "c"]


def test_a_name_belongs_to_one_stream(hub: Hub) -> None:
    """Using it for another is an error, also while it is being registered."""
    hub.client("normal", subscribe(name="n"))
    assert hub.client("critical", subscribe(name="n")).lines() == [b"ERROR the name belongs to the stream normal"]
    hub.reads.held = True
    slow = hub.client("critical", subscribe(name="m", after="first"))
    hub.client("normal", subscribe(name="m"))
    hub.reads.release()
    assert slow.lines() == [b"ERROR the name belongs to the stream normal"]


def test_a_second_connection_under_a_name_takes_it_over(hub: Hub) -> None:
    """The first is told, and its later ACKs count for nothing."""
    first = hub.client("normal", subscribe(name="n"))
    hub.put("a", "b")
    first.send(b"ACK " + offset(hub, "a").encode())
    first.lines()
    second = hub.client("normal", subscribe(name="n"))
    assert first.lines() == [b"ERROR replaced"]
    assert first.transport.half_closed
    first.send(b"ACK " + offset(hub, "b").encode())
    first.lose()
    second.lose()
    third = hub.client("normal", subscribe(name="n"))
    assert [json.loads(each)["id"] for each in third.lines()[1:]] == ["b"]


def test_a_name_that_is_being_registered_can_be_taken_over(hub: Hub) -> None:
    """By somebody who is quicker with the same new name: one of them is answered, the other replaced."""
    hub.writes.held = True
    first = hub.client("normal", subscribe(name="n"))
    second = hub.client("normal", subscribe(name="n"))
    hub.writes.release()
    assert first.lines() == [b"ERROR replaced"]
    assert second.lines()[0].startswith(b"OK")


@pytest.mark.parametrize("ack", ["sent + 1", "9" * 30, "-1", "", "1.5"])
def test_an_ack_beyond_what_was_sent_is_an_error(hub: Hub, ack: str) -> None:
    """It would skip what the client has never seen; so would one that is no number."""
    client = hub.client("normal", subscribe(name="n"))
    hub.put("a")
    hub.put("b", priority="critical")
    number = str(int(offset(hub, "a")) + 1) if ack == "sent + 1" else ack
    client.lines()
    client.send(b"ACK " + number.encode())
    assert client.lines()[0].startswith(b"ERROR ")


def test_an_ack_that_goes_back_is_ignored(hub: Hub) -> None:
    """And one that repeats."""
    client = hub.client("normal", subscribe(name="n"))
    hub.put("a", "b")
    for number in (offset(hub, "b"), offset(hub, "a"), "0", offset(hub, "b")):
        client.send(b"ACK " + number.encode())
    assert b"ERROR" not in b"".join(client.lines())
    client.lose()
    assert len(hub.client("normal", subscribe(name="n")).lines()) == 1


def test_acks_that_follow_subscribe_at_once_wait_for_its_answer(hub: Hub) -> None:
    """A client may send them in one go; a flood of them is not read without end."""
    hub.put("a")
    hub.client("normal", subscribe(name="n", after="first")).lose()
    hub.reads.held = True
    position = str(int(offset(hub, "a")) - 1).encode()
    client = hub.client("normal", subscribe(name="m", after="first"), b"ACK " + position, b"PING")
    assert client.lines() == [b"PONG"]
    client.send(*[b"ACK " + position] * MAX_HELD)
    assert not client.transport.reading
    hub.reads.release()
    assert client.transport.reading
    assert [each[:2] for each in client.lines()] == [b"OK", b'{"']


def test_a_client_that_leaves_before_it_is_answered_leaves_its_name_free(hub: Hub) -> None:
    """Nothing goes wrong when the answer comes too late."""
    for pool in (hub.reads, hub.writes):
        pool.held = True
        client = hub.client("normal", subscribe(name="n", after="first"))
        client.lose()
        pool.release()
        assert client.lines() == []
    assert hub.client("normal", subscribe(name="n")).lines()[0].startswith(b"OK")


def test_an_ack_of_what_is_stored_but_not_sent_yet_is_an_error(hub: Hub) -> None:
    """What counts is what this connection was sent, not what the log holds."""
    hub.put(*"abcdefghij", data="x" * 40_000)
    client = hub.client("normal", subscribe(name="n", after="first"), takes=False)
    sent = [json.loads(each)["id"] for each in client.lines()[1:]]
    assert 0 < len(sent) < 10
    client.send(b"ACK " + offset(hub, sent[-1]).encode())
    assert client.lines() == []
    client.send(b"ACK " + offset(hub, "j").encode())
    assert client.lines() == [b"ERROR ACK is beyond what was sent"]


def test_an_ack_before_the_log_was_read_is_an_error(make_hub: Callable[..., Hub]) -> None:
    """Nothing has been sent yet, though the client was told where it begins."""
    make_hub().put("a")
    hub = make_hub()
    hub.reads.held = True
    client = hub.client("normal", subscribe(name="n", after="0"))
    assert client.lines()[0].startswith(b"OK ")
    client.send(b"ACK " + offset(hub, "a").encode())
    assert client.lines() == [b"ERROR ACK is beyond what was sent"]
    hub.reads.release()
