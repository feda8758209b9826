"""``twistd notify-hub``: puts the hub together."""

from __future__ import annotations

import os
import time
from typing import Any

from twisted.internet import defer, endpoints
from twisted.internet.task import deferLater

from notifyd import config, config_hub
from notifyd.config import ConfigurationError
from notifyd.config_hub import HubConfig
from notifyd.daemon import (
    Daemon,
    DaemonOptions,
    keep_memory,
    share_interpreter,
    spare_collector,
    use_monotonic_clock,
)
from notifyd.database import FolderLock, prepare_folder
from notifyd.endpoints import check_server, is_exposed
from notifyd.event import NotAcceptableError, format_time, go_deep, read_columns
from notifyd.hub.agents import AgentWatch
from notifyd.hub.backend import open_backend
from notifyd.hub.backplane import Backplane
from notifyd.hub.clients import Clients
from notifyd.hub.entries import Entry
from notifyd.hub.filtering import load_filter
from notifyd.hub.ingest import IngestFactory
from notifyd.hub.intake import Counters, Intake, rejected_entry
from notifyd.hub.log import EventLog
from notifyd.hub.pace import Pace
from notifyd.hub.pipeline import Pipeline
from notifyd.hub.readback import Reader
from notifyd.hub.retention import Retention
from notifyd.hub.settle import Settler
from notifyd.hub.spools import Spools
from notifyd.hub.stages import Stages, check_stages, make_stages
from notifyd.hub.subscribers import Crowd, SubscriberFactory

FAREWELL_S = 1.0
"""How long connections may take to close at a stop."""


def parse_config(text: str, path: str) -> HubConfig:
    """Reads ``hub.toml`` and checks its endpoints too; raises ConfigurationError."""
    settings = config_hub.parse_hub(text, path)
    for name, endpoint in {"ingest": settings.listen.ingest, **settings.listen.streams()}.items():
        try:
            check_server(endpoint)
        except ValueError as error:
            raise ConfigurationError(path, f"listen.{name}", str(error)) from None
    check_stages(settings, path)
    return settings


class Options(DaemonOptions):
    """Command line of ``twistd notify-hub``."""

    longdesc = (
        "Takes events from agents and other producers, decides how important each is, stores it, and sends it to "
        "every client that is connected to the port of its priority. Without --config every setting has its default."
    )
    config_required = False

    def parse_config(self, text: str, path: str) -> HubConfig:
        """Gives the checked configuration."""
        return parse_config(text, path)


class HubDaemon(Daemon):
    """The hub: ingest, pipeline, log, backplane, subscribers.

    Args:
        reactor: runs it.
        settings: of ``hub.toml``.
        path: of that file, for what is told.
    """

    def __init__(self, reactor: Any, settings: HubConfig, path: str = "hub.toml") -> None:
        super().__init__(reactor, "notify-hub")
        self._path = path
        self.settings = settings
        self.state = config.state_folder(settings.state, os.environ, "notify-hub")
        self._ports: list[Any] = []
        self._lock = FolderLock(self.state / "lock")
        self._subscribers: list[SubscriberFactory] = []
        self._pipeline: Pipeline | None = None

    async def come_up(self) -> None:
        """Opens the log, then the ports."""
        filter_object = None if self.settings.filter is None else load_filter(self.settings.filter, self._path)
        prepare_folder(self.state)
        self._lock.acquire()
        share_interpreter()
        keep_memory()
        go_deep()
        settings, reactor = self.settings, self.reactor

        backend = open_backend(settings.database.url, self.state)
        self._log = EventLog(backend, reactor, _refused)
        memory = await self._log.open()
        backplane = Backplane(tuple(settings.listen.streams()), memory.last, settings.limits.stream_memory)
        spools = Spools(self._log.positions)
        self._stages = make_stages(
            settings,
            self.state,
            reactor=reactor,
            tell=self._tell,
            filter_object=filter_object,
            windows=memory.windows,
        )
        pipeline = self._pipeline = self._make_pipeline(self._stages, memory.last, backplane, spools)
        pipeline.clients = Clients(memory.clients, pipeline.wake)
        self._reader = Reader(backend, reactor, Pace(reactor, pipeline.is_pressed, settings.database.retention))
        self._agents = AgentWatch(
            reactor,
            settings.own_events.agent_lost_after,
            memory.agents,
            pipeline.own_event,
            pipeline.agent_state,
        )
        self._ingest = IngestFactory(
            reactor,
            pipeline=pipeline,
            spools=spools,
            agents=self._agents,
            max_producers=settings.limits.max_producers,
        )
        self._crowd = Crowd(
            pipeline.clients,
            self._reader,
            settings.limits.max_subscribers,
            float(settings.limits.stall_timeout),
        )
        self._subscribers = [SubscriberFactory(reactor, stream, self._crowd) for stream in backplane.streams.values()]
        self._retention = Retention(reactor, self._log, settings.database.retention)

        for factory in self._subscribers:
            await self._listen(factory.stream.name, getattr(settings.listen, factory.stream.name), factory)
            factory.start()
        await self._listen("ingest", settings.listen.ingest, self._ingest)
        self._ingest.start()
        pipeline.start()
        self._agents.start()
        self._retention.start()
        spare_collector()

    def _make_pipeline(self, stages: Stages, last: int, backplane: Backplane, spools: Spools) -> Pipeline:
        self._counters = Counters()
        return Pipeline(
            self.reactor,
            log=self._log,
            intake=Intake(self._counters),
            enricher=stages.enricher,
            own_code=stages.own_code,
            settler=Settler(
                classifier=stages.classifier,
                suppressor=stages.suppressor,
                unclassified=stages.unclassified,
                counters=self._counters,
                last=last,
            ),
            suppressor=stages.suppressor,
            backplane=backplane,
            spools=spools,
            own_priority=self.settings.own_events.priority,
            fail=self.fail,
        )

    def _tell(self, kind: str, source: str, line: str, fields: dict[str, object]) -> None:
        """Queues an event of the hub's own."""
        if self._pipeline is not None:
            self._pipeline.own_event(kind, source, line, fields)

    async def _listen(self, name: str, endpoint: str, factory: Any) -> None:
        port = await endpoints.serverFromString(self.reactor, endpoint).listen(factory)
        self._ports.append(port)
        self.log.info("Listening for {what} on {address}.", what=name, address=_shown(port.getHost()))
        if is_exposed(endpoint):
            self.log.warn("Other machines can reach {what}, and nothing asks who they are.", what=name)

    async def go_down(self) -> None:
        """Stores what was read, tells everyone, and closes."""
        for port in self._ports:
            await defer.maybeDeferred(port.stopListening)
        if self._pipeline is not None:
            await self._finish(self._pipeline)
        if hasattr(self, "_log"):
            self._log.close()
        self._lock.release()

    async def _finish(self, pipeline: Pipeline) -> None:
        if hasattr(self, "_retention"):
            await self._retention.stop()
            self._agents.stop()
            self._ingest.stop()
            await pipeline.stop()
            await self._stages.stop()
            self._ingest.close()
            for factory in self._subscribers:
                factory.stop()
            await self._connections_gone()
            self._reader.close()
            self._log_counters(pipeline)

    def _log_counters(self, pipeline: Pipeline) -> None:
        counters = self._counters
        for rule, count in counters.dropped.items():
            self.log.info("Rule {rule!r} has discarded {count} events.", rule=rule, count=count)
        self.log.info(
            "Hub counters: received={received} repeats={repeats} rejected={rejected} stored={stored}"
            " suppressed={suppressed} dropped={dropped} delivered={delivered}",
            received=counters.received,
            repeats=counters.repeats,
            rejected=counters.rejected,
            stored=pipeline.stored,
            suppressed=counters.suppressed,
            dropped=sum(counters.dropped.values()),
            delivered=self._crowd.delivered,
        )

    async def _connections_gone(self) -> None:
        """Waits a moment for the last words to go out."""
        pause = 0.02
        for _ in range(round(FAREWELL_S / pause)):
            if not self._ingest.producers and not any(factory.subscribers for factory in self._subscribers):
                return
            await deferLater(self.reactor, pause)


def _refused(entry: Entry, reason: str) -> Entry:
    try:
        received = read_columns(entry.line).received
    except NotAcceptableError:
        received = format_time(time.time())
    return rejected_entry(entry.offset, entry.line, reason, received, entry.position)


def _shown(address: Any) -> str:
    if hasattr(address, "port"):
        return f"{address.host}:{address.port}"
    return str(getattr(address, "name", address))


def makeService(options: Options) -> HubDaemon:
    """Gives the hub as a service; nothing is opened before it is started."""
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    return HubDaemon(reactor, options["configuration"], options["config"] or "defaults")
