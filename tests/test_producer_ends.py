"""Port 1500: every way in which a producer's connection ends."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd import wire
from notifyd.hub.producer import GRACE_S
from tests.hubkit import Hub, hello, line, spooled
from tests.logs import Logs

# --- the ends of a connection --------------------------------------------------------------------------------


def test_too_many_producers_are_turned_away(make_hub: Callable[..., Hub], logged: Any) -> None:
    """With ERROR, told once in the hub's log; when one goes, there is room again."""
    hub = make_hub(max_producers=2)
    kept = [hub.producer(), hub.producer()]
    for _ in range(3):
        turned_away = hub.producer()
        assert turned_away.lines() == [b"ERROR too many producers"]
        turned_away.send(line("x"))
        assert turned_away.transport.ended
        turned_away.lose()
    assert len([text for text in logged.text() if "turned away" in text]) == 1
    kept[0].lose()
    assert hub.producer(line("a")).lines() == [b"ACK 1"]
    assert hub.rows() == ["a"]


def test_a_peer_that_does_not_read_its_answers_is_not_read_from(hub: Hub) -> None:
    """While more than 64 KiB of them wait; then again."""
    producer = hub.producer(takes=False)
    sent = 0
    while producer.transport.reading:
        producer.send(*[b"PING"] * 100)
        sent += 500
        assert sent < 2 * wire.MAX_ANSWERS
    assert producer.transport.waiting > wire.MAX_ANSWERS
    producer.transport.drain()
    assert producer.transport.reading
    producer.send(line("a"))
    assert producer.lines()[-1] == b"ACK 1"


@pytest.mark.parametrize("lines", [(line("a"),), (hello(), spooled(1)), (b"junk",)])
@pytest.mark.parametrize("away", [False, True])
def test_a_half_closed_producer_still_gets_its_ack(hub: Hub, lines: tuple[bytes, ...], away: bool) -> None:
    """As with nc -N: the answers come, then the end."""
    hub.writes.held = away
    producer = hub.producer(*lines)
    producer.half_close()
    assert producer.transport.closing == (not away)
    hub.writes.release()
    assert producer.lines()[-1] == b"ACK 1"
    assert producer.transport.closing


@pytest.mark.parametrize("lines", [(), (hello(),), (b"PING",)])
@pytest.mark.parametrize("away", [False, True])
def test_a_half_closed_producer_with_nothing_in_hand_is_let_go(hub: Hub, lines: tuple[bytes, ...], away: bool) -> None:
    """At once, or when its HELLO is answered."""
    hub.writes.held = away
    producer = hub.producer(*lines)
    producer.half_close()
    hub.writes.release()
    assert producer.transport.closing
    assert b"ERROR" not in b"".join(producer.lines())


@pytest.mark.parametrize("ending", [b"\n", b"", b"\r\n"])
def test_a_line_over_the_limit_ends_the_connection(hub: Hub, logged: Any, ending: bytes) -> None:
    """With or without its end; what came before it is acknowledged, what comes behind it is not processed."""
    producer = hub.producer(line("a"))
    producer.protocol.dataReceived(line("b") + b"\n" + b"x" * (wire.MAX_LINE + 2) + ending + line("c") + b"\n")
    producer.send(line("d"))
    *acks, error = producer.lines()
    assert acks[-1] == b"ACK 2"
    assert error == b"ERROR a line is longer than 65536 bytes"
    assert hub.rows() == ["a", "b"]
    assert len([text for text in logged.text() if "longer" in text]) == 1


def test_a_line_of_the_limit_is_taken(hub: Hub) -> None:
    """Exactly 65,536 bytes, with LF or CRLF."""
    text = line("a", data="")
    text = text[:-2] + b"x" * (wire.MAX_LINE - len(text)) + text[-2:]
    assert len(text) == wire.MAX_LINE
    assert hub.producer(text, text + b"\r").lines() == [b"ACK 2"]


def test_an_error_waits_for_the_acks_of_what_was_read_before_it(hub: Hub) -> None:
    """But not for ever: while the database is away the connection ends after a while."""
    hub.writes.held = True
    patient, hurried = hub.producer(line("a"), b"NONSENSE"), hub.producer(line("b"), b"NONSENSE")
    hub.clock.advance(GRACE_S - 1)
    assert patient.lines() == []
    assert not patient.transport.reading
    hub.writes.step()
    assert [each.split()[0] for each in patient.lines()] == [b"ACK", b"ERROR"]
    hub.clock.advance(1)
    assert [each.split()[0] for each in hurried.lines()] == [b"ERROR"]
    hub.writes.release()
    assert hub.rows() == ["a", "b"]
    assert hurried.lines() == []


def test_a_peer_that_does_not_close_is_cut_off(hub: Hub) -> None:
    """After ERROR its own half is thrown away for a while, then the connection."""
    producer = hub.producer(b"NONSENSE")
    assert producer.transport.half_closed
    assert producer.transport.reading, "what still comes must be read off, or the kernel resets the connection"
    producer.protocol.dataReceived(b"x" * 100_000)
    assert not producer.transport.aborted
    hub.clock.advance(GRACE_S)
    assert producer.transport.aborted
    late = hub.producer(b"NONSENSE")
    late.half_close()
    assert late.transport.closing


def test_what_was_read_is_stored_though_the_connection_is_lost(hub: Hub) -> None:
    """The hub owes it to nobody to forget it."""
    hub.writes.held = True
    producer, agent = hub.producer(line("a")), hub.producer(hello())
    hub.writes.step()
    hub.writes.step()
    agent.send(spooled(1))
    for peer in (producer, agent):
        peer.lose()
    hub.writes.release()
    assert hub.rows() == ["a", "s-1"]
    assert (hub.ingest.windows, hub.ingest.plain_bytes, hub.spools._spools) == (0, 0, {})


def test_a_stop_acknowledges_what_was_read_and_reads_no_more(hub: Hub) -> None:
    """Then every connection is closed, within a bounded time."""
    hub.writes.held = True
    busy, idle, agent = hub.producer(line("a")), hub.producer(), hub.producer(hello())
    hub.ingest.stop()
    busy.send(line("b"))
    hub.writes.release()
    assert busy.lines() == [b"ACK 1", b"ERROR the hub stops"]
    hub.ingest.close()
    assert all(peer.transport.ended for peer in (busy, idle, agent))
    assert hub.rows() == ["a"]
    hub.clock.advance(GRACE_S)
    assert all(peer.transport.aborted for peer in (busy, idle, agent))


def test_a_vanished_producer_is_found_by_keepalive(hub: Hub) -> None:
    """The kernel probes; TCP_USER_TIMEOUT stays off."""
    options = {option[1]: option[2] for option in hub.producer().transport.options if option[0] == socket.IPPROTO_TCP}
    assert options[socket.TCP_KEEPIDLE] <= 60
    assert socket.TCP_USER_TIMEOUT not in options


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_split_of_the_bytes_gives_the_same(logs: Logs, data: st.DataObject) -> None:
    """TCP knows no lines: however the bytes arrive, the same events are stored and the same lines refused."""
    stream = hello() + b"\r\n" + spooled(1) + b"\n\r\n\nPING\n" + spooled(2) + b"\r\njunk\n" + spooled(3) + b"\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    hub = logs.emptied()()
    try:
        producer = hub.producer()
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            producer.protocol.dataReceived(stream[start:end])
        answers = producer.lines()
        assert answers[-1] == b"ACK 4"
        assert [each for each in answers if each[:3] != b"ACK"][1:] == [b"PONG", b"REJECT 3 no JSON object"]
        assert [json.loads(body)["data"] for body in hub.rows("body", "priority='error'")] == [{"line": "junk"}]
        assert hub.rows("id", "priority<>'error'") == ["s-1", "s-2", "s-3"]
    finally:
        hub.close()
