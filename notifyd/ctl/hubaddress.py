"""Where a hub's ports are: by its host, or by its configuration file."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from twisted.internet import endpoints

from notifyd.config import ConfigurationError
from notifyd.config_hub import parse_hub
from notifyd.ctl.say import CommandError
from notifyd.daemon import read_configuration
from notifyd.endpoints import check_server

PORTS = {"ingest": 1500, "normal": 1600, "important": 1601, "critical": 1602, "error": 1603, "all": 1604}
STREAMS = ("normal", "important", "critical", "error", "all")
CONNECT_TIMEOUT_S = 10.0
LOCALHOST = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a listener on every interface is reached from its own machine."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class TcpAddress:
    """A port of a host, which is a name or an address of either family."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def endpoint(self, reactor: Any) -> Any:
        """Gives the client endpoint."""
        return endpoints.HostnameEndpoint(reactor, self.host, self.port, timeout=CONNECT_TIMEOUT_S)


@dataclass(frozen=True)
class UnixAddress:
    """A UNIX socket."""

    path: str

    def __str__(self) -> str:
        return self.path

    def endpoint(self, reactor: Any) -> Any:
        """Gives the client endpoint."""
        return endpoints.UNIXClientEndpoint(reactor, self.path, timeout=CONNECT_TIMEOUT_S)


Address = TcpAddress | UnixAddress


def hub_options(command: F) -> F:
    """Adds ``--hub HOST`` and ``--config FILE`` to a command."""
    command = click.option("--config", "config", metavar="FILE", help="Find the hub's ports in its hub.toml.")(command)
    return click.option("--hub", metavar="HOST", help="The hub's host; default 127.0.0.1.")(command)


def find(ports: Iterable[str], hub: str | None, config_path: str | None) -> dict[str, Address]:
    """Gives the address of each of ``ports`` (``ingest``, or a stream's name).

    Args:
        ports: names of ports.
        hub: the host, for the ports that a hub has by custom; None for this machine.
        config_path: the hub's configuration file, which names its endpoints.

    Raises:
        click.UsageError: both are given, or ``hub`` is no host.
        CommandError: the file cannot be used, or names no such port.
    """
    if config_path is None:
        host = _host("127.0.0.1" if hub is None else hub)
        return {port: TcpAddress(host, PORTS[port]) for port in ports}
    if hub is not None:
        raise click.UsageError("--hub and --config exclude each other", click.get_current_context(silent=True))
    try:
        listen = read_configuration(config_path, parse_hub).listen
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    return {port: _from_listener(config_path, port, getattr(listen, port)) for port in ports}


def why_not(error: BaseException | None) -> str:
    """Says in a few words why a connection could not be made."""
    number = getattr(error, "osError", None)
    if isinstance(number, int):
        return os.strerror(number)
    return str(error).rstrip(".") or type(error).__name__


def _host(text: str) -> str:
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in host:
        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            reason = f"{text!r} is no host; give it without a port, or the ports with --config"
            raise click.BadParameter(reason, param_hint="--hub") from None
    elif not host.isprintable() or not host.split() or host.split() != [host]:
        raise click.BadParameter(f"{text!r} is no host", param_hint="--hub")
    return host


def _from_listener(path: str, port: str, text: str | None) -> Address:
    """Gives the address at which the listener of an endpoint string is reached from this machine."""
    key = f"listen.{port}"
    if text is None:
        raise CommandError(f"{path}: {key}: is not set, so the hub does not serve {port}")
    if text.startswith("systemd:"):
        raise CommandError(f"{path}: {key}: systemd opens {text!r}, so the file does not say where; use --hub")
    try:
        check_server(text)
    except ValueError as error:
        raise CommandError(f"{path}: {key}: {error}") from None
    listener: Any = endpoints.serverFromString(object(), text)
    if isinstance(listener, endpoints.UNIXServerEndpoint):
        return UnixAddress(_text(listener._address))
    if isinstance(listener, endpoints.TCP4ServerEndpoint | endpoints.TCP6ServerEndpoint):
        if listener._port == 0:
            raise CommandError(f"{path}: {key}: {text!r} is another port at each start of the hub")
        interface = _text(listener._interface)
        return TcpAddress(LOCALHOST.get(interface, interface), listener._port)
    raise CommandError(f"{path}: {key}: notifyctl cannot connect to {text!r}")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
