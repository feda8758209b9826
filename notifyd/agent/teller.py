"""What a source tells of itself: its log lines have its name, and its own events its name and port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from notifyd import config_agent
from notifyd.agent.own import own_event
from notifyd.event import Event


class Teller:
    """Speaks for one source.

    Args:
        settings: of the source.
        agent: the agent's name.
        priority: of its own events.
        put: takes them.
        now: gives the seconds since 1970.
    """

    log = Logger("notifyd")

    def __init__(
        self,
        settings: config_agent.Source,
        agent: str,
        priority: str,
        put: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self.source, self.port = settings.name, settings.port
        self._agent, self._priority, self._put, self._now = agent, priority, put, now

    def tell(self, what: str, line: str, fields: Mapping[str, object]) -> None:
        """Sends ``notifyd.source.<what>``, with a sentence and the same for programs."""
        try:
            self._put(
                own_event(
                    agent=self._agent,
                    source=self.source,
                    type=f"notifyd.source.{what}",
                    priority=self._priority,
                    line=line,
                    fields={"port": self.port, **fields},
                    now=self._now(),
                )
            )
        except Exception:  # noqa: BLE001 - the port is supervised, whatever becomes of the event
            self.log.failure("Source {source}: an event of its own was not taken", source=self.source)

    def info(self, sentence: str, **fields: Any) -> None:
        """Logs a change for the better."""
        self.log.info(sentence, source=self.source, port=self.port, **fields)

    def warn(self, sentence: str, **fields: Any) -> None:
        """Logs a change for the worse."""
        self.log.warn(sentence, source=self.source, port=self.port, **fields)
