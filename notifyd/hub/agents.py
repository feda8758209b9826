"""Which agents are connected, and the events that tell when one has been away for too long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from notifyd.config import Duration

MAX_AGENTS = 10_000
"""Agents that are watched: names come from the network, so their number is bounded."""


class AgentWatch:
    """Tells of agents that are lost, and of their return.

    Args:
        reactor: its clock is used.
        lost_after: how long an agent may be away.
        known: the agents of earlier runs, and whether they were lost when the hub stopped.
        tell: sends an event of the hub's own: type, source, sentence, fields.
        note: has the next commit note whether an agent is lost.
    """

    def __init__(
        self,
        reactor: Any,
        lost_after: Duration,
        known: Mapping[str, bool],
        tell: Callable[[str, str, str, dict[str, object]], None],
        note: Callable[[str, bool], None],
    ) -> None:
        self._reactor = reactor
        self._lost_after = lost_after
        self._tell = tell
        self._note = note
        self._lost = dict.fromkeys(agent for agent, lost in known.items() if lost)  # the longest lost first
        self._known = set(known)
        self._connections: dict[str, set[object]] = {}
        self._timers: dict[str, Any] = {}
        self._stopped = False

    def start(self) -> None:
        """Begins to wait for the agents of earlier runs."""
        for agent in self._known - self._lost.keys():
            self._wait_for(agent)

    def stop(self) -> None:
        """Stops waiting; connections that end from now on are the stop's doing."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def connected(self, agent: str, connection: object) -> None:
        """Is called when an agent has said HELLO."""
        self._connections.setdefault(agent, set()).add(connection)
        if timer := self._timers.pop(agent, None):
            timer.cancel()
        if agent in self._lost:
            del self._lost[agent]
            self._note(agent, False)
            line = f"Agent {agent} is connected again."
            self._tell("notifyd.agent.restored", f"/hub/agents/{agent}", line, {"agent": agent})

    def disconnected(self, agent: str, connection: object) -> None:
        """Is called when a connection of an agent is gone or replaced."""
        connections = self._connections.get(agent)
        if connections is None or connection not in connections:
            return
        connections.discard(connection)
        if not connections:
            del self._connections[agent]
            self._wait_for(agent)

    def _wait_for(self, agent: str) -> None:
        if self._stopped or agent in self._timers:
            return
        while self._lost and len(self._timers) + len(self._lost) >= MAX_AGENTS:
            del self._lost[next(iter(self._lost))]  # its return will not be told; the others' loss is worth more
        if len(self._timers) < MAX_AGENTS:
            self._timers[agent] = self._reactor.callLater(self._lost_after, self._give_up, agent)

    def _give_up(self, agent: str) -> None:
        del self._timers[agent]
        self._lost[agent] = None
        self._note(agent, True)
        seconds = float(self._lost_after)
        line = f"Agent {agent} has had no connection for {seconds:g} s."
        self._tell("notifyd.agent.lost", f"/hub/agents/{agent}", line, {"agent": agent, "seconds": seconds})
