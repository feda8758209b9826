"""Port 1500: a newer connection takes over for a spool."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hubkit import Hub, hello, payload, spooled
from tests.logs import Logs

# --- takeover ------------------------------------------------------------------------------------------------


def test_a_newer_connection_takes_the_spool_over(hub: Hub) -> None:
    """The old one is told, and what it sends later is not processed."""
    old = hub.agent()
    old.send(spooled(1))
    new = hub.producer(hello())
    assert old.lines() == [b"ACK 1", b"ERROR replaced"]
    assert payload(new.lines()[0])["acked"]["normal"] == 1
    old.send(spooled(2), b"PING")
    assert old.lines() == []
    new.send(spooled(2))
    assert new.lines() == [b"ACK 1"]
    assert hub.rows() == ["s-1", "s-2"]


def test_a_takeover_first_finishes_what_the_hub_had_read(hub: Hub) -> None:
    """Acknowledged to the old one, counted in the answer to the new one."""
    old = hub.agent()
    hub.writes.held = True
    old.send(spooled(1))
    new = hub.producer(hello())
    assert (old.lines(), new.lines()) == ([], [])
    assert not old.transport.reading
    hub.writes.release()
    assert old.lines() == [b"ACK 1", b"ERROR replaced"]
    assert payload(new.lines()[0])["acked"]["normal"] == 1


@pytest.mark.parametrize("second_lost", [False, True])
def test_a_third_connection_takes_over_while_the_second_still_waits(hub: Hub, second_lost: bool) -> None:
    """Only the newest is answered, after the oldest has finished."""
    first = hub.agent()
    hub.writes.held = True
    first.send(spooled(1))
    second = hub.producer(hello(), spooled(1), spooled(9))
    if second_lost:
        second.lose()
    third = hub.producer(hello(), spooled(1), spooled(2))
    assert third.lines() == []
    hub.writes.release()
    assert first.lines() == [b"ACK 1", b"ERROR replaced"]
    assert second.lines() == ([] if second_lost else [b"ERROR replaced"])
    answers = third.lines()
    assert payload(answers[0])["acked"]["normal"] == 1
    assert answers[1:] == [b"ACK 2"]
    assert hub.rows() == ["s-1", "s-2"]
    for peer in (first, second, third):
        peer.lose()
    assert (hub.ingest.windows, hub.ingest.plain_bytes, hub.spools._spools) == (0, 0, {})


def test_a_takeover_goes_on_when_the_old_connection_is_lost_meanwhile(hub: Hub) -> None:
    """What it had sent is still stored, and what the new one repeats of it is still known."""
    old = hub.agent()
    hub.writes.held = True
    old.send(spooled(1))
    new = hub.producer(hello(), spooled(1), spooled(2))
    old.lose()
    hub.writes.release()
    assert new.lines()[-1] == b"ACK 2"
    assert hub.rows() == ["s-1", "s-2"]


def test_spools_do_not_disturb_each_other(hub: Hub) -> None:
    """Two agents, or two spools of one agent, with the same sequences."""
    one, two = hub.agent("one"), hub.agent("two")
    one.send(spooled(1))
    two.send(spooled(1))
    assert one.lines() == two.lines() == [b"ACK 1"]
    assert len(hub.rows()) == 2


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("chsrl"), st.integers(0, 3)), max_size=30))
def test_however_agents_reconnect_nothing_is_lost_or_repeated(logs: Logs, steps: list[tuple[str, int]]) -> None:
    """Any order of connecting, sending, losing and commits: what was acknowledged is stored, once and in order."""
    hub = logs.emptied()()
    try:
        peers, acked, sent = [hub.producer(hello())], 0, {}
        for step, which in steps:
            peer = peers[which % len(peers)]
            if step == "c":
                peers.append(hub.producer(hello(), spooled(1), spooled(2)))
                sent[id(peers[-1])] = 2
            elif step == "h":
                hub.writes.held = True
            elif step == "r":
                hub.writes.release()
            elif step == "l":
                peer.lose()
            elif not peer.lost and not peer.transport.ended:
                sent[id(peer)] = sent.get(id(peer), 0) + 1
                peer.send(spooled(sent[id(peer)]))
            for each in peers:
                for answer in each.lines():
                    if answer.startswith(b"ACK "):
                        acked = max(acked, int(answer[4:]))
            assert len(hub.rows()) >= acked
        hub.writes.release()
        rows = hub.rows()
        assert rows == [f"s-{n + 1}" for n in range(len(rows))]
        newest = hub.producer(hello())
        assert payload(newest.lines()[0])["acked"]["normal"] == len(rows)
        for each in [*peers, newest]:
            each.lose()
        assert (hub.ingest.windows, hub.ingest.plain_bytes, hub.spools._spools) == (0, 0, {})
    finally:
        hub.close()
