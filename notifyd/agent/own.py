"""Events that the agent sends about itself and its ports, in the same form as a device's."""

from __future__ import annotations

from collections.abc import Mapping

from notifyd.event import Event, format_time, raw_data

AGENT = "agent"
"""Stands for the source's name in events that concern the agent itself."""


def own_event(
    *,
    agent: str,
    source: str,
    type: str,  # noqa: A002 - the attribute's name
    priority: str,
    line: str,
    fields: Mapping[str, object],
    now: float,
) -> Event:
    """Makes an event of the agent's own; the spool fills in ``id`` and ``sequence``.

    Args:
        agent: the agent's name.
        source: the name of the source that it concerns, or ``AGENT``.
        type: as in ``notifyd.source.lost``.
        priority: the lane that it goes into.
        line: a sentence for whoever reads the event.
        fields: the same for programs.
        now: seconds since 1970.
    """
    return Event(
        specversion="1.0",
        id="",
        source=f"/{agent}/{source}",
        type=type,
        time=format_time(now),
        priority=priority,
        data=raw_data({"line": line, "fields": fields}),
    )
