"""Which agents are lost and which are back, also over a restart of the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from notifyd.hub import agents
from tests.hubkit import T0, Hub, hello, spooled


def told(hub: Hub) -> list[tuple[str, str]]:
    """Gives the hub's own events about agents so far: the kind's last word, and the agent."""
    rows = hub.rows("body", "type LIKE 'notifyd.agent.%'")
    return [(json.loads(row)["type"].rpartition(".")[2], json.loads(row)["data"]["fields"]["agent"]) for row in rows]


def test_an_agent_without_a_connection_is_lost_after_a_while_and_restored_when_it_comes_back(hub: Hub) -> None:
    """Each is one event of the configured priority, whose source names the agent."""
    client = hub.client("important")
    agent = hub.agent()
    agent.lose()
    hub.clock.advance(59)
    assert client.lines() == []
    hub.clock.advance(1)
    lost = json.loads(client.lines()[0])
    assert (lost["type"], lost["source"], lost["priority"]) == ("notifyd.agent.lost", "/hub/agents/ward3", "important")
    assert lost["data"]["fields"] == {"agent": "ward3", "seconds": 60.0}
    hub.clock.advance(1000)
    hub.agent()
    restored = json.loads(client.lines()[0])
    assert restored["type"] == "notifyd.agent.restored"
    assert told(hub) == [("lost", "ward3"), ("restored", "ward3")]


def test_an_agent_that_is_back_in_time_is_not_lost(hub: Hub) -> None:
    """Nothing is told; the time counts from its last connection."""
    for _ in range(5):
        agent = hub.agent()
        hub.clock.advance(50)
        agent.lose()
        hub.clock.advance(50)
    assert told(hub) == []


def test_an_agent_with_two_spools_is_there_as_long_as_one_is_connected(hub: Hub) -> None:
    """Connections of one name are counted."""
    one, two = hub.agent("a"), hub.agent("b")
    one.lose()
    hub.clock.advance(100)
    assert told(hub) == []
    two.lose()
    hub.clock.advance(60)
    assert told(hub) == [("lost", "ward3")]


def test_a_takeover_is_no_loss(hub: Hub) -> None:
    """Nor is the end of the connection that was replaced."""
    old = hub.agent()
    hub.agent()
    old.lose()
    hub.clock.advance(1000)
    assert told(hub) == []


def test_an_agent_that_stays_away_over_a_restart_is_told_once(make_hub: Callable[..., Hub]) -> None:
    """Lost before the restart: nothing more until it is back. There before it: it is given its time again."""
    hub = make_hub()
    for name in ("gone", "there"):
        agent = hub.agent(name, name)
        agent.send(spooled(1))
        if name == "gone":
            agent.lose()
            hub.clock.advance(60)
    hub = make_hub(start=T0 + 1000)
    hub.agents.start()
    hub.clock.advance(59)
    assert told(hub) == [("lost", "gone")]
    hub.clock.advance(1)
    assert told(hub) == [("lost", "gone"), ("lost", "there")]
    hub = make_hub(start=T0 + 3000)
    hub.agents.start()
    hub.clock.advance(1000)
    hub.agent("gone", "gone")
    hub.agent("there", "there")
    assert told(hub)[2:] == [("restored", "gone"), ("restored", "there")]
    hub = make_hub(start=T0 + 5000)
    assert hub.memory.agents == {"gone": False, "there": False}


def test_nothing_is_waited_for_after_the_stop(hub: Hub) -> None:
    """Connections that end because the hub stops are no losses, and leave nothing scheduled."""
    agent = hub.agent()
    hub.agents.stop()
    agent.lose()
    assert not hub.clock.getDelayedCalls()


def test_a_stranger_is_no_agent(hub: Hub) -> None:
    """Without HELLO nobody is missed."""
    hub.producer(spooled(1)).lose()
    hub.clock.advance(1000)
    assert told(hub) == []


def test_the_number_of_watched_agents_is_bounded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come from the network."""
    monkeypatch.setattr(agents, "MAX_AGENTS", 3)
    peers: list[Any] = [hub.producer(hello(str(n), f"a{n}")) for n in range(6)]
    for peer in peers:
        peer.lose()
    hub.clock.advance(100)
    assert len(told(hub)) == 3


def test_agents_that_were_lost_long_ago_make_room_for_others(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names have been lost, the loss of one more is told."""
    monkeypatch.setattr(agents, "MAX_AGENTS", 3)
    for number in range(6):
        hub.agent(f"s{number}", f"a{number}").lose()
        hub.clock.advance(100)
    assert told(hub) == [("lost", f"a{number}") for number in range(6)]


def test_an_agent_is_known_to_be_lost_only_once_it_is_told(hub: Hub) -> None:
    """A crash in between must not leave a note without its event: nobody would ever be told."""
    sender = hub.agent()
    hub.writes.held = True
    for start in range(1, 4_001, 500):
        sender.send(*[spooled(number) for number in range(start, start + 500)])
    hub.pipeline.agent_state("ward9", True)
    hub.pipeline.own_event("notifyd.agent.lost", "/hub/agents/ward9", "It is lost.", {})
    states: list[tuple[int, int]] = []
    for _ in range(40):
        if hub.writes.waiting:
            hub.writes.step()
        hub.clock.advance(0)
        noted = hub.execute("SELECT count(*) FROM agent WHERE agent = 'ward9'").fetchone()[0]
        states.append((noted, len(hub.rows("id", "type = 'notifyd.agent.lost'"))))
    assert set(states) == {(0, 0), (1, 1)}
