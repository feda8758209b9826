"""The demo's story: normal life, an outage of the hub, a pulled cable; and the account at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet import defer

from notifyd.ctl.demo_account import Account, Delivery, read_event
from notifyd.ctl.demo_client import Client
from notifyd.ctl.demo_daemons import Daemon, count_waiting, read_events, write_configuration
from notifyd.ctl.demo_panel import Panel
from notifyd.ctl.demo_screen import Screen
from notifyd.ctl.demo_verdict import WIDE, table, verdict
from notifyd.ctl.demo_wait import Changes
from notifyd.ctl.hubaddress import PORTS
from notifyd.event import LANES

ABOUT_S = 15
"""How long the story takes where nothing is slow."""

PACE_S = 0.3
"""Between two lines of the panel's: a person can follow, and is not bored."""

SETTLE_S = 3.0
"""How long what was printed may take to reach the clients before the account is made without it."""

CONNECT_S = 8.0
"""How long a connection may take to be made again: the agent waits up to 5 s between two tries."""

CABLE_S = 8.0
"""How long the agent may take to notice the cable: it waits up to 5 s between two tries."""

NORMAL_LIFE = (
    "TEMP 4 21.5", "DOOR 12 open", "TEMP 5 20.9", "ALARM 7 smoke in ward 3", "TEMP 4 21.6",
    "DOOR 12 closed", "ALARM 7 over", "TEMP 5 21.0", "DOOR 3 open",
)  # fmt: skip
BEFORE_OUTAGE = ("TEMP 4 21.8", "ALARM 2 call from bed 14")
ON_ITS_WAY = "DOOR 1 closed"  # when the hub is killed: nobody knows how far it has come
OUTAGE = (
    "TEMP 4 23.8", "TEMP 5 21.1", "DOOR 3 forced", "TEMP 4 27.1", "ALARM 4 heat in kitchen",
    "DOOR 12 open", "TEMP 4 31.6", "ALARM 4 smoke in kitchen",
)  # fmt: skip
COMING_BACK = ("TEMP 4 33.0", "DOOR 1 open", "TEMP 4 32.2", "ALARM 4 over")
AFTER_OUTAGE = ("TEMP 4 29.4", "DOOR 3 closed")
CABLE_OUT = ("TEMP 5 21.2", "ALARM 9 battery low")
CABLE_IN = ("TEMP 4 22.0", "ALARM 9 battery good", "DOOR 12 closed", "TEMP 5 21.1")


class Story:
    """Plays the story.

    Args:
        reactor: runs the daemons and the clients.
        changes: is told of all that happens.
        screen: shows it.
        folder: for everything that is written; its owner removes it.

    Attributes:
        daemons: every run of a daemon.
    """

    def __init__(self, reactor: Any, changes: Changes, screen: Screen, folder: Path) -> None:
        self.daemons: list[Daemon] = []
        self._reactor, self._changes, self._screen, self._folder = reactor, changes, screen, folder
        self._panel = Panel(folder / "panel")
        self._clients: list[Client] = []
        self._started_s = reactor.seconds()
        self._hub_is_up = False

    async def play(self, ports: dict[str, int]) -> bool:
        """Plays it, and tells whether the account balances."""
        self._screen.begin(ports, PORTS, ABOUT_S)
        self._configs = write_configuration(self._folder, ports, self._folder / "panel")
        await self._set_up(ports)
        await self._normal_life()
        await self._outage()
        await self._cable()
        account = await self._close()
        problems = account.problems()
        ending = verdict(account, problems, self._reactor.seconds() - self._started_s)
        self._screen.write("", table(account, ports, wide=self._screen.width >= WIDE), *ending)
        return not problems

    async def clear_away(self) -> None:
        """Ends whatever runs; a daemon that does not run any more is none the worse for it."""
        self._hub_is_up = False
        self._screen.flush()
        self._panel.unplug()
        for daemon in self.daemons:
            with contextlib.suppress(defer.TimeoutError):
                await daemon.kill()
        for client in self._clients:
            stopped: defer.Deferred[object] = defer.maybeDeferred(client.stopService)
            with contextlib.suppress(defer.TimeoutError):
                await stopped.addTimeout(1.0, self._reactor)

    # --- the acts ------------------------------------------------------------------------------------------

    async def _set_up(self, ports: dict[str, int]) -> None:
        self._panel.plug()
        self._agent = self._start("notify-agent")
        self._hub = self._start("notify-hub")
        await self._hub.ready()
        self._hub_is_up = True
        for lane in LANES:
            stream = lane.value
            client = Client(self._reactor, self._changes, stream, ports[stream], self._screen.arrived, self._lost)
            self._clients.append(client)
            client.startService()
        await self._changes.until("the clients to be registered", self._all_subscribed, CONNECT_S)
        await self._agent.ready()
        await self._changes.until("the agent to open the panel's port", lambda: self._agent.said("is open"), CABLE_S)
        await self._changes.until("the agent to reach the hub", lambda: self._connections(1), CONNECT_S)

    async def _normal_life(self) -> None:
        self._screen.act(
            "1  Normal life",
            "What the panel prints is critical, important or normal, and goes to its client at once.",
        )
        await self._print(NORMAL_LIFE)

    async def _outage(self) -> None:
        screen = self._screen
        screen.act(
            "2  The hub goes down",
            "The panel prints on. The agent keeps what it cannot send, on its disk.",
        )
        await self._print(BEFORE_OUTAGE)
        screen.printed(self._panel.print(ON_ITS_WAY))
        self._hub_is_up = False
        self._printed_before = len(self._panel.printed)
        await self._hub.kill()
        self._connections_before = {client.stream: client.connections for client in self._clients}
        screen.flush()
        screen.change("notify-hub is killed (SIGKILL); the clients lose their connections", "bold red")
        self._stored_before = len(read_events(self._folder))
        await self._print(OUTAGE)
        self._outage_lines = [printed.line for printed in self._panel.printed[self._printed_before :]]
        self._waiting = count_waiting(self._folder)
        waiting = ", ".join(f"{count} {lane}" for lane, count in self._waiting.items())
        screen.change(f"notify-hub starts again; {sum(self._waiting.values())} events wait: {waiting}", "bold")
        self._hub = self._start("notify-hub")
        await self._hub.ready()
        await self._changes.until("the clients to come back", self._all_subscribed, CONNECT_S)
        self._hub_is_up = True
        screen.flush()
        screen.change("notify-hub is ready, the clients are back; the agent is about to try again", "bold green")
        more = iter(COMING_BACK)
        while not await self._changes.settles(lambda: self._connections(2), 2 * PACE_S):
            if (text := next(more, None)) is None:
                break
            screen.printed(self._panel.print(text))
        await self._changes.until("the agent to come back", lambda: self._connections(2), CONNECT_S)
        await self._settle()
        screen.flush()
        screen.note("It has all come: critical, then important, then normal, each in order.")
        await self._print(AFTER_OUTAGE)

    async def _cable(self) -> None:
        screen = self._screen
        screen.act(
            "3  The cable is pulled",
            "What it prints now is lost, but not in silence: the agent tells of the cable.",
        )
        await self._settle()
        self._panel.unplug()
        screen.change("the cable is pulled", "bold red")
        await self._changes.until("the agent to tell of the loss", lambda: self._told("lost"), CABLE_S)
        screen.flush()
        await self._print(CABLE_OUT)
        self._panel.plug()
        screen.change("the cable is in again; the agent finds it by itself, with growing pauses", "bold green")
        await self._changes.until("the agent to tell of the port's return", lambda: self._told("restored"), CABLE_S)
        screen.flush()
        await self._print(CABLE_IN)

    async def _close(self) -> Account:
        await self._settle()
        self._hub_is_up = False
        self._screen.flush()
        await self._agent.stop()
        await self._hub.stop()
        await self._changes.settles(lambda: not any(client.subscribed for client in self._clients), SETTLE_S)
        return Account(
            printed=self._panel.printed,
            agent=self._agent.counters(),
            waiting=self._waiting,
            hub=self._hub.counters(),
            stored_before=self._stored_before,
            stored=[read_event(line) for line in read_events(self._folder)],
            deliveries={client.stream: client.deliveries for client in self._clients},
            gaps=[gap for client in self._clients for gap in client.gaps],
            lines_since_restart=sum(self._lines_since_restart()),
            outage=self._outage_lines,
        )

    # --- their parts ---------------------------------------------------------------------------------------

    def _start(self, name: str) -> Daemon:
        config = self._configs[name == "notify-hub"]
        run = 1 + sum(daemon.name == name for daemon in self.daemons)
        daemon = Daemon(self._reactor, self._changes, name, config, run)
        self.daemons.append(daemon)
        return daemon

    async def _print(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._screen.printed(self._panel.print(text))
            await self._changes.pause(PACE_S)

    async def _settle(self) -> None:
        """Waits until all that could be read has reached its client; what has not is for the account to tell."""
        await self._changes.settles(self._all_delivered, SETTLE_S)

    def _all_delivered(self) -> bool:
        readable = {printed.line for printed in self._panel.printed if printed.cable}
        return readable <= {delivery.event.line for delivery in self._deliveries()}

    def _all_subscribed(self) -> bool:
        return all(client.subscribed for client in self._clients)

    def _connections(self, times: int) -> bool:
        return self._agent.said("Connected to the hub", times)

    def _told(self, what: str) -> bool:
        return any(delivery.event.type == f"notifyd.source.{what}" for delivery in self._deliveries())

    def _deliveries(self) -> Iterable[Delivery]:
        return (delivery for client in self._clients for delivery in client.deliveries)

    def _lines_since_restart(self) -> Iterable[int]:
        for client in self._clients:
            for connection, lines in client.lines_by_connection.items():
                if connection > self._connections_before[client.stream]:
                    yield lines

    def _lost(self) -> None:
        if self._hub_is_up:
            self._screen.change("a client has lost its connection, and tries again", "bold red")
