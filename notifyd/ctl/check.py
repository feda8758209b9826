"""``notifyctl check``: whether a daemon would take a configuration file."""

from __future__ import annotations

import click

from notifyd.config import ConfigurationError, looks_like_agent
from notifyd.config_agent import AgentConfig, parse_agent
from notifyd.config_hub import HubConfig, parse_hub
from notifyd.ctl.say import CommandError, printable
from notifyd.daemon import read_configuration
from notifyd.endpoints import check_client, check_server
from notifyd.hub.filtering import load_filter
from notifyd.hub.stages import check_stages


@click.command()
@click.argument("file")
def check(file: str) -> None:
    """Check FILE, an agent.toml or a hub.toml, and say what it sets up.

    A filter is loaded as the hub would load it, with PYTHONPATH as it is here; no database is asked.
    """
    try:
        summary = read_configuration(file, _summary)
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    click.echo(printable(f"{file}: {summary}"))


def _summary(text: str, path: str) -> str:
    if looks_like_agent(text):
        return _agent(parse_agent(text, path), path)
    return _hub(parse_hub(text, path), path)


def _agent(settings: AgentConfig, path: str) -> str:
    try:
        check_client(settings.hub)
    except ValueError as error:
        raise ConfigurationError(path, "hub", str(error)) from None
    sources = ", ".join(f"{source.name} on {source.port}" for source in settings.source)
    rules = sum(len(source.rule) for source in settings.source)
    return (
        f"configures notify-agent: {_count(len(settings.source), 'source')} ({sources}), "
        f"{_count(rules, 'rule')}, to the hub at {settings.hub}"
    )


def _hub(settings: HubConfig, path: str) -> str:
    listeners = {"ingest": settings.listen.ingest, **settings.listen.streams()}
    for name, text in listeners.items():
        if text.startswith("systemd:"):
            continue  # refers to sockets that only the daemon is handed
        try:
            check_server(text)
        except ValueError as error:
            raise ConfigurationError(path, f"listen.{name}", str(error)) from None
    check_stages(settings, path)
    if settings.filter is not None:
        load_filter(settings.filter, path)
    ports = ", ".join(f"{name} {text}" for name, text in listeners.items())
    stages = [_count(len(settings.rule), "rule")]
    if settings.lookup:
        stages.append(_count(len(settings.lookup), "lookup"))
    if settings.filter is not None:
        stages.append(f"filter {settings.filter.factory}")
    if settings.suppress:
        stages.append(_count(len(settings.suppress), "suppression"))
    return (
        f"configures notify-hub: {_count(len(listeners), 'port')} ({ports}), "
        f"{', '.join(stages)}, events kept for {settings.database.retention / 86_400:g} days"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
