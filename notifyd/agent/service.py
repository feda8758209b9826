"""``twistd notify-agent``: puts the agent together."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from notifyd import config
from notifyd.agent.recorder import Recorder, WriterThread
from notifyd.agent.serialport import SerialSource
from notifyd.agent.spool import Spool
from notifyd.agent.uplink import Uplink
from notifyd.config import ConfigurationError
from notifyd.config_agent import AgentConfig, parse_agent
from notifyd.daemon import Daemon, DaemonOptions, share_interpreter, use_monotonic_clock
from notifyd.database import FolderLock, prepare_folder
from notifyd.endpoints import check_client

FIRST_TRY_S = 2.0
"""How long the agent waits for its ports before it counts as ready: one that hangs must not keep it from the others."""

FLUSH_S = 3.0
"""How long a stop waits for what was read to be stored; a disk that does not answer must not hold it up."""


def parse_config(text: str, path: str) -> AgentConfig:
    """Reads ``agent.toml`` and checks its endpoint too; raises ConfigurationError."""
    settings = parse_agent(text, path)
    try:
        check_client(settings.hub)
    except ValueError as error:
        raise ConfigurationError(path, "hub", str(error)) from None
    return settings


def agent_name(setting: str | None, host: str) -> str:
    """Gives the agent's name: the setting, else the host's name without what a name cannot have."""
    if setting is not None:
        return setting
    return re.sub(r"[^\w.-]+", "-", host).strip("-")[:255] or "agent"


class Options(DaemonOptions):
    """Command line of ``twistd notify-agent``."""

    longdesc = (
        "Reads serial devices, recognises events in what they print, keeps each on the disk, and pushes it to the "
        "hub; what the hub cannot take yet waits on the disk until it can."
    )

    def parse_config(self, text: str, path: str) -> AgentConfig:
        """Gives the checked configuration."""
        return parse_config(text, path)


class AgentDaemon(Daemon):
    """The agent: serial ports → spool → uplink.

    Args:
        reactor: runs it.
        settings: the configuration.
        folder: where its state is.
        host: the name of the machine.
    """

    def __init__(self, reactor: Any, settings: AgentConfig, folder: Path, host: str) -> None:
        super().__init__(reactor, "notify-agent")
        name, priority = agent_name(settings.name, host), settings.own_events.priority
        self.folder = folder
        self.lock = FolderLock(folder / "lock")
        self.spool = Spool(
            reactor,
            folder / "spool.db",
            agent=name,
            max_events=settings.spool.max_events,
            own_priority=priority,
            on_fatal=self.fail,
        )
        self.uplink = Uplink(reactor, settings.hub, agent=name, spool=self.spool)
        self.recordings = WriterThread(reactor)
        self.recorders = {
            source.name: Recorder(reactor, source, settings.record, folder / "recordings", self.recordings)
            for source in settings.source
            if source.record
        }
        self.sources = [
            SerialSource(
                reactor,
                source,
                name,
                priority,
                self.spool.put,
                self.spool.flush,
                settings.limits.max_rate,
                recorder=self.recorders.get(source.name),
            )
            for source in settings.source
        ]

    async def come_up(self) -> None:
        """Takes the state folder, opens the spool, and begins to send and to read."""
        prepare_folder(self.folder)
        self.lock.acquire()
        share_interpreter()
        await self.spool.open()
        self.uplink.startService()
        for source in self.sources:
            source.startService()
        tried = DeferredList([source.first_try for source in self.sources])
        await tried.addTimeout(FIRST_TRY_S, self.reactor).addErrback(lambda failure: None)

    async def go_down(self) -> None:
        """Stores what was read, sends what it can at once, and closes the spool."""
        await DeferredList([source.stopService() for source in self.sources if source.running])
        recorded = [recorder.stop() for recorder in self.recorders.values()]
        await self._flush()
        for each in recorded:
            await each
        self.recordings.stop()
        if self.uplink.running:
            await self.uplink.stopService()
        await self.spool.close()
        self.lock.release()
        self._log_counters()

    async def _flush(self) -> None:
        stored: Deferred[None] = self.spool.flush().addTimeout(FLUSH_S, self.reactor)
        await stored.addErrback(lambda failure: None)  # the spool says what is lost when it is closed

    def _log_counters(self) -> None:
        counters = self.spool.counters
        self.log.info(
            "Agent counters: read={read} stored={stored} sent={sent} acknowledged={acknowledged}"
            " dropped={dropped} rejected={rejected}",
            read=sum(source.frames for source in self.sources),
            stored=counters.stored,
            sent=counters.sent,
            acknowledged=counters.acknowledged,
            dropped=counters.dropped,
            rejected=counters.rejected,
        )


def makeService(options: Options) -> AgentDaemon:
    """Builds the agent; nothing is opened before it starts."""
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    settings: AgentConfig = options["configuration"]
    folder = config.state_folder(settings.state, os.environ, "notify-agent")
    return AgentDaemon(reactor, settings, folder, socket.gethostname())
