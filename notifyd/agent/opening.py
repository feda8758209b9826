"""Opens a port of any kind, without ever holding up the reactor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from notifyd import config_agent
from notifyd.agent.device import Port, close_device, open_device
from notifyd.agent.netport import open_network
from notifyd.agent.pipe import FilePort, Opened, PipePort, open_path
from notifyd.agent.port import OpenPort
from notifyd.agent.usb import find_usb
from notifyd.portname import File, Network, Usb, parse_port

T = TypeVar("T")


def open_port(receiver: Protocol, settings: config_agent.Source, reactor: Any) -> Deferred[OpenPort]:
    """Opens a port and connects ``receiver`` to it.

    Args:
        receiver: gets what is read.
        settings: of the source.
        reactor: reads.

    Raises:
        Exception: (in the Deferred) it cannot be opened; :func:`notifyd.agent.port.explain` says why.
    """
    name = parse_port(settings.port)
    if isinstance(name, Network):
        return open_network(receiver, name, settings, reactor)
    if isinstance(name, File):
        path = name.path

        def connect(opened: Opened) -> OpenPort:
            kind = FilePort if opened.is_file else PipePort
            return kind(receiver, opened, settings.port, reactor)

        return in_thread(reactor, lambda: open_path(path), lambda opened: os.close(opened.descriptor)).addCallback(
            connect
        )

    def find_and_open() -> Any:
        return open_device(find_usb(name) if isinstance(name, Usb) else name.path, settings)

    return in_thread(reactor, find_and_open, close_device).addCallback(lambda device: Port(receiver, device, reactor))


def in_thread(reactor: Any, job: Callable[[], T], discard: Callable[[T], None]) -> Deferred[T]:
    """Does what may block for long in a thread of its own.

    The reactor's own threads will not do: a driver that hangs would keep one for good, and the process from ending.

    Args:
        reactor: gets the result.
        job: gives it.
        discard: takes a result that nobody waits for any more, since the Deferred was cancelled.
    """
    done: Deferred[T] = Deferred()

    def settle(result: T | Failure) -> None:
        if not done.called:
            done.callback(result)
        elif not isinstance(result, Failure):
            discard(result)

    def run() -> None:
        result: T | Failure
        try:
            result = job()
        except BaseException as error:  # noqa: BLE001 - it is the Deferred's
            result = Failure(error)
        reactor.callFromThread(settle, result)

    threading.Thread(target=run, name="opens a port", daemon=True).start()
    return done
