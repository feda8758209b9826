"""Port 1500: HELLO, takeover, PING, the window, and every way in which a producer's connection ends."""

from __future__ import annotations

import pytest

from notifyd import wire
from notifyd.hub import ingest
from notifyd.hub.ingest import PLAIN_BUDGET, WINDOW_BUDGET, WINDOW_LEAST
from notifyd.hub.producer import LINE_COST, SILENCE_S
from tests.hubkit import Hub, hello, line, payload, spooled
from tests.hubparts import LOCKED

PADDING = "x" * 1000


# --- HELLO ---------------------------------------------------------------------------------------------------


def test_hello_is_answered_with_what_is_durable_and_the_window(hub: Hub) -> None:
    """A spool that the hub has never seen has nothing acknowledged, and the full window."""
    producer = hub.producer(b'HELLO {"agent":"ward3","spool":"6f1c2a9e","token":"unused"}')
    assert producer.lines() == [b'OK {"acked":{"critical":0,"important":0,"normal":0},"window":1048576}']


@pytest.mark.parametrize(
    "bad",
    [
        b"HELLO", b"HELLO {", b"HELLO []", b"HELLO 1", b'HELLO {"agent":"a"}', b'HELLO {"spool":"a"}',
        b'HELLO {"agent":"","spool":"a"}', b'HELLO {"agent":"a","spool":5}', b'HELLO {"agent":"a\\n","spool":"s"}',
        b'HELLO {"agent":"a","spool":"\\u0000"}', b'HELLO {"agent":"' + b"a" * 256 + b'","spool":"s"}',
        b'HELLO {"agent":"\xff","spool":"s"}', b'HELLO {"agent":"\\ud800","spool":"s"}',
        b'HELLO {"agent":"a","spool":"s","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)  # fmt: skip
def test_a_malformed_hello_ends_the_connection(hub: Hub, bad: bytes) -> None:
    """With ERROR, and nothing that comes behind it is processed."""
    producer = hub.producer(bad, line())
    (answer,) = producer.lines()
    assert answer.startswith(b"ERROR HELLO")
    assert producer.transport.ended
    assert hub.rows() == []


@pytest.mark.parametrize("before", [line("early"), b"PING", b"junk"])
def test_hello_comes_first_or_not_at_all(hub: Hub, before: bytes) -> None:
    """A late HELLO is a protocol error; what came before it is stored and acknowledged first."""
    producer = hub.producer(before)
    producer.send(hello())
    answers = producer.lines()
    assert answers[-1] == b"ERROR HELLO must be the first line"
    assert (b"ACK 1" in answers) == (before != b"PING")
    again = hub.producer(before, hello(), line("late")).lines()
    assert again == answers
    assert "late" not in hub.rows()


@pytest.mark.parametrize("held", [False, True])
def test_hello_twice_is_an_error(hub: Hub, held: bool) -> None:
    """Whether or not the first one has been answered."""
    hub.writes.held = held
    producer = hub.producer(hello(), spooled(1), hello("other"), spooled(2))
    hub.writes.release()
    answers = producer.lines()
    assert answers[-1] == b"ERROR HELLO comes twice"
    assert hub.rows() == ([] if held else ["s-1"])
    if not held:
        assert answers[-2] == b"ACK 1"


def test_what_follows_a_hello_in_the_same_read_waits_for_its_answer(hub: Hub) -> None:
    """The answer comes first, then the ACK, and repeats among it are known as such."""
    first = hub.agent()
    first.send(spooled(1))
    first.lose()
    hub.writes.held = True
    producer = hub.producer(hello(), spooled(1), spooled(2))
    assert producer.lines() == []
    hub.writes.release()
    answers = producer.lines()
    assert payload(answers[0])["acked"]["normal"] == 1
    assert answers[1:] == [b"ACK 2"]
    assert hub.rows() == ["s-1", "s-2"]


def test_hello_waits_for_a_database_that_is_away(hub: Hub) -> None:
    """PONG comes meanwhile, OK when the positions can be read."""
    hub.writes.faults = [LOCKED, LOCKED]
    producer = hub.producer(hello(), b"PING")
    assert producer.lines() == [b"PONG"]
    hub.clock.advance(1)
    hub.clock.advance(5)
    assert producer.lines()[0].startswith(b"OK ")


def test_a_producer_that_goes_before_its_hello_is_answered_leaves_nothing_behind(hub: Hub) -> None:
    """Its lines were never processed, its window is given back, and the next HELLO is served."""
    hub.writes.held = True
    producer = hub.producer(hello(), spooled(1))
    producer.lose()
    hub.writes.release()
    assert hub.rows() == []
    assert (hub.ingest.windows, hub.ingest.plain_bytes) == (0, 0)
    agent = hub.producer(hello(), spooled(1))
    assert agent.lines()[-1] == b"ACK 1"


# --- PING, silence, the window -------------------------------------------------------------------------------


def test_ping_is_answered_in_its_place(hub: Hub) -> None:
    """With or without HELLO."""
    assert hub.producer(b"PING", b"PING").lines() == [b"PONG", b"PONG"]
    agent = hub.agent()
    agent.send(b"PING")
    assert agent.lines() == [b"PONG"]


@pytest.mark.parametrize("bad", [b"PING x", b"OK", b"SUBSCRIBE {}", b"ACK 1", b"BYE", b"A" * 60_000])
def test_a_verb_of_another_port_ends_the_connection(hub: Hub, bad: bytes) -> None:
    """ERROR, closed; what came before it is acknowledged first, what comes behind it is not processed."""
    producer = hub.producer(line("a"), bad, line("b"))
    ack, error = producer.lines()
    assert ack == b"ACK 1"
    assert error.startswith(b"ERROR ")
    assert len(error) < 1_100
    assert producer.transport.ended
    assert hub.rows() == ["a"]


@pytest.mark.parametrize("text", [b"Alarm", b"PING\tx", b"ping", b"PING1", b"ALARM-7 x", b"PING "])
def test_what_is_no_verb_is_an_event_line(hub: Hub, text: bytes) -> None:
    """Refused as an event, and the connection goes on."""
    producer = hub.producer(text, b"", b"\r", line("a"))
    assert [each.split()[0] for each in producer.lines()] == [b"REJECT", b"ACK"]
    assert hub.rows("id", "type <> 'notifyd.rejected'") == ["a"]


def test_ping_is_answered_while_the_database_is_away(hub: Hub) -> None:
    """Also with a whole window of unacknowledged lines, so that the agent knows the hub is there."""
    agent = hub.agent()
    hub.writes.held = True
    size = 0
    while True:
        text = spooled(size + 1, data=PADDING)
        if size + len(text) + 1 > wire.WINDOW:
            break
        size += len(text) + 1
        agent.send(text)
    assert agent.transport.reading
    agent.send(b"PING")
    assert agent.lines() == [b"PONG"]


def test_beyond_its_window_an_agent_is_not_read_from(hub: Hub) -> None:
    """And it is again as soon as there is room."""
    agent = hub.agent()
    hub.writes.held = True
    sent = 0
    while agent.transport.reading:
        sent += 1
        agent.send(spooled(sent, data=PADDING))
        assert sent < 2_000
    assert sent * len(spooled(1, data=PADDING)) > wire.WINDOW
    hub.writes.release()
    assert agent.transport.reading
    assert agent.lines()[-1] == b"ACK %d" % sent


def test_windows_shrink_as_agents_come_and_grow_as_they_go(hub: Hub) -> None:
    """All together they stay bounded, and each has room for the longest line."""
    agents = [hub.producer(hello(f"spool-{n}")) for n in range(100)]
    windows = [payload(agent.lines()[0])["window"] for agent in agents]
    assert windows[0] == wire.WINDOW
    assert min(windows) >= WINDOW_LEAST
    assert sum(windows) < WINDOW_BUDGET + 100 * WINDOW_LEAST
    for agent in agents:
        agent.lose()
    assert hub.ingest.windows == 0


def test_strangers_that_are_ahead_are_paused_and_resumed(hub: Hub) -> None:
    """By TCP: one that is far ahead by itself, all when together they fill the budget; nothing is lost."""
    hub.writes.held = True
    first = hub.producer()
    sent = 0
    while first.transport.reading:
        first.send(*[line("x", data=PADDING)] * 50)
        sent += 50
        assert sent < 3_000
    second = hub.producer(line("a"))
    assert second.transport.reading
    hub.writes.release()
    assert first.transport.reading
    assert first.lines()[-1] == b"ACK %d" % sent


def test_the_budget_of_all_strangers_is_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it nobody is read who has something in hand; when half is stored, everybody is again."""
    monkeypatch.setattr(ingest, "PLAIN_BUDGET", 100_000)
    assert PLAIN_BUDGET > 100_000
    hub.writes.held = True
    many = [hub.producer() for _ in range(20)]
    for producer in many:
        producer.send(*[line("x", data=PADDING)] * 10)
    assert hub.ingest.plain_is_full
    assert [producer.transport.reading for producer in many[10:]] == [False] * 10
    newcomer = hub.producer()
    assert newcomer.transport.reading
    hub.writes.release()
    assert all(producer.transport.reading for producer in many)
    assert [producer.lines()[-1] for producer in many] == [b"ACK 10"] * 20
    assert hub.ingest.plain_bytes == 0


def test_a_line_costs_something_however_short(hub: Hub) -> None:
    """So that a flood of nothing fills no memory."""
    hub.writes.held = True
    hub.producer(*[b"x"] * 100)
    assert hub.ingest.plain_bytes == 100 * LINE_COST


def test_a_silent_agent_is_closed_after_a_minute(hub: Hub) -> None:
    """One that sends PING is not, nor is a stranger who has said no HELLO."""
    hub.ingest.start()
    silent, alive, stranger = hub.agent("a"), hub.agent("b"), hub.producer(line())
    for _ in range(13):
        alive.send(b"PING")
        hub.clock.advance(SILENCE_S / 12)
    assert silent.lines() == [b"ERROR silent for 60 s"]
    assert silent.transport.ended
    assert not alive.transport.ended
    assert not stranger.transport.ended
    hub.ingest.stop()


def test_an_agent_that_the_hub_does_not_read_is_not_silent(hub: Hub) -> None:
    """While the hub has paused it, its PING could not be heard."""
    hub.ingest.start()
    agent = hub.agent()
    hub.writes.held = True
    sent = 0
    while agent.transport.reading:
        sent += 1
        agent.send(spooled(sent, data=PADDING))
    hub.clock.pump([SILENCE_S / 12] * 30)
    assert not agent.transport.ended
    hub.writes.release()
    hub.clock.pump([SILENCE_S / 12] * 11)
    assert not agent.transport.ended
    hub.clock.pump([SILENCE_S / 12] * 2)
    assert agent.lines()[-1] == b"ERROR silent for 60 s"
    hub.ingest.stop()
