"""The demo's daemons: child processes, what they log, and their configuration; and the ports they get."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import sqlite3
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from notifyd.ctl.demo_panel import RULES
from notifyd.ctl.demo_wait import Changes, DemoError
from notifyd.ctl.hubaddress import PORTS
from notifyd.event import LANES

START_S = 10.0
"""How long a daemon may take to be ready."""

STOP_S = 8.0
"""How long a daemon may take to stop."""

KILL_S = 3.0
"""How long the kernel may take to clear a killed process away."""

KEPT_LINES = 500
"""Lines of a daemon's log that are kept; a demo that goes well has some twenty."""

OTHER_PORTS = range(31_000, 32_700)
"""Instead of ports that are taken; below those that the kernel gives to clients, which would meet themselves there."""

DEMO_PORTS = ("ingest", "normal", "important", "critical")


class Daemon(ProcessProtocol):
    """One run of ``notify-agent`` or ``notify-hub``.

    Args:
        reactor: runs the process.
        changes: is told of each line, and of an end that nobody asked for.
        name: ``notify-agent`` or ``notify-hub``.
        config: its configuration file, in the demo's folder.
        run: how often it has been started, this time included.
    """

    def __init__(self, reactor: Any, changes: Changes, name: str, config: Path, run: int = 1) -> None:
        self.name, self.run = name, run
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.alive = True
        self.ended: Deferred[None] = Deferred()
        self._reactor, self._changes = reactor, changes
        self._rest = b""
        self._end_is_wanted = False
        arguments = [sys.executable, "-m", "notifyd.ctl.demo_child", str(os.getpid()), name, "--config", str(config)]
        environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        self._process: Any = reactor.spawnProcess(
            self, sys.executable, arguments, env=environment, path=str(config.parent)
        )

    def outReceived(self, data: bytes) -> None:
        """Takes what it logs."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.lines.extend(line.decode("utf-8", "replace") for line in lines)
        self._changes.happened()

    def errReceived(self, data: bytes) -> None:
        """Takes what it complains of."""
        self.outReceived(data)

    def processEnded(self, reason: Failure) -> None:
        """Is called when it has ended and all that it said has been read."""
        self.alive = False
        if not self._end_is_wanted:
            self._changes.fail(DemoError(f"{self.name} has ended by itself: {reason.getErrorMessage()}"))
        self._changes.happened()
        self.ended.callback(None)

    def said(self, text: str, times: int = 1) -> bool:
        """Tells whether ``text`` stands in so many of its lines."""
        return sum(text in line for line in self.lines) >= times

    async def ready(self) -> None:
        """Waits until it is ready."""
        await self._changes.until(f"{self.name} to be ready", lambda: self.said(f"{self.name} is ready"), START_S)

    async def stop(self) -> None:
        """Sends SIGTERM and waits until it has ended."""
        self._signal("TERM")
        await self._changes.until(f"{self.name} to stop", lambda: not self.alive, STOP_S)

    async def kill(self) -> None:
        """Sends SIGKILL, which ends it at once, as a crash would, and waits until the kernel has cleared it away."""
        self._signal("KILL")
        if self.alive:
            await self.ended.addTimeout(KILL_S, self._reactor)

    def _signal(self, name: str) -> None:
        self._end_is_wanted = True
        with contextlib.suppress(ProcessExitedAlready):
            self._process.signalProcess(name)

    def counters(self) -> dict[str, int]:
        """Gives the counters that it logged when it stopped.

        Raises:
            DemoError: it logged none.
        """
        for line in reversed(self.lines):
            if match := re.search(r" counters: ((?:\w+=\d+ ?)+)", line):
                return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", match[1])}
        raise DemoError(f"{self.name} has logged no counters at its stop")


def write_configuration(folder: Path, ports: dict[str, int], port: Path) -> tuple[Path, Path]:
    """Writes the agent's and the hub's files, with their state in the demo's folder, and gives their paths."""
    agent, hub = folder / "agent.toml", folder / "hub.toml"
    agent.write_text(
        f'name = "ward3"\nhub = "tcp:127.0.0.1:{ports["ingest"]}"\nstate = "{folder}/notify-agent"\n\n'
        f'[[source]]\nname = "panel"\nport = "{port}"\n{RULES}'
    )
    listen = "".join(f'{name} = "tcp:{ports[name]}:interface=127.0.0.1"\n' for name in DEMO_PORTS)
    hub.write_text(f'state = "{folder}/notify-hub"\n\n[listen]\n{listen}')
    return agent, hub


# --- what stands in their databases ----------------------------------------------------------------------


def read_table(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Asks a database of a daemon's, without writing to it.

    Raises:
        DemoError: it gives no answer.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2.0)) as connection:
            return connection.execute(sql).fetchall()
    except sqlite3.Error as error:
        raise DemoError(f"the database {path.name} cannot be read: {error}") from None


def count_waiting(folder: Path) -> dict[str, int]:
    """Counts what waits in the agent's spool, by lane."""
    lanes = " UNION ALL ".join(f"SELECT '{lane}', count(*) FROM {lane}" for lane in LANES)  # noqa: S608 - constants
    return dict(read_table(folder / "notify-agent/spool.db", lanes))


def read_events(folder: Path) -> list[bytes]:
    """Gives the events that the hub has stored, in the order of its log."""
    rows = read_table(folder / "notify-hub/hub.db", 'SELECT body FROM event ORDER BY "offset"')
    return [body if isinstance(body, bytes) else str(body).encode() for (body,) in rows]


# --- ports -------------------------------------------------------------------------------------------------


class Ports:
    """Gives each port of the hub its number: the one it has by custom where that is free, else another.

    Two demos do not get the same port, though their hubs do not listen all the time.
    """

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []

    def choose(self, wanted: Iterable[str] = DEMO_PORTS) -> dict[str, int]:
        """Gives the number of each port.

        Raises:
            DemoError: there are none.
        """
        others = iter(random.sample(OTHER_PORTS, len(OTHER_PORTS)))
        chosen = {}
        for name in wanted:
            number: int | None = PORTS[name]
            while number is not None and not (is_free(number) and self._claim(number)):
                number = next(others, None)
            if number is None:
                raise DemoError("there is no free port on 127.0.0.1")
            chosen[name] = number
        return chosen

    def release(self) -> None:
        """Lets other demos have the ports."""
        while self._claims:
            self._claims.pop().close()

    def _claim(self, number: int) -> bool:
        """Keeps a port from other demos by a name that the kernel forgets with this process (unix(7), abstract)."""
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0notifyd-demo-{number}")
        except OSError:
            claim.close()
            return False
        self._claims.append(claim)
        return True


def is_free(number: int) -> bool:
    """Tells whether nobody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True
