"""Real ptys as serial ports, and sources that read them."""

from __future__ import annotations

import contextlib
import gc
import os
import pty
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from notifyd.agent.serialport import SerialSource
from notifyd.event import Event
from tests.serialtools import HANG_S, settings


def open_descriptors() -> set[str]:
    """The descriptors of this process, each with what it is open on."""
    gc.collect()
    return {f"{entry.name} {os.readlink(entry)}" for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No test leaves a port open or a call scheduled."""
    before = open_descriptors()
    yield
    for thread in threading.enumerate():
        if thread.name == "opens a port":
            thread.join(HANG_S)
            assert not thread.is_alive()
    left = {entry for entry in open_descriptors() - before if "/dev/" in entry}  # the reactor has pipes
    assert not left
    assert not [call for call in reactor.getDelayedCalls() if call.active()]


class Cable:
    """A pty behind a name that stays: what is plugged into it can change."""

    def __init__(self, folder: Path) -> None:
        self.port = folder / "ttyPANEL"
        self.device = -1
        self._slave = -1

    def plug_in(self) -> None:
        self.device, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        self.port.unlink()
        os.close(self._slave)
        os.close(self.device)
        self.device = -1

    def prints(self, data: bytes) -> None:
        assert os.write(self.device, data) == len(data)


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    """A cable with a device at its end."""
    cable = Cable(tmp_path)
    cable.plug_in()
    yield cable
    if cable.device >= 0:
        cable.unplug()


def is_open(source: SerialSource) -> Deferred[None]:
    """Gives a Deferred that fires when the first try is over."""
    waiting: Deferred[None] = Deferred()
    source.first_try.chainDeferred(waiting)
    return waiting.addTimeout(HANG_S, reactor)


@contextlib.contextmanager
def reading(source: SerialSource) -> Iterator[SerialSource]:
    """Runs a source for a while."""
    source.startService()
    try:
        yield source
    finally:
        source.stopService()


def real(port: str | Path, put: Callable[[Event], None], **keys: Any) -> SerialSource:
    """A source on a real port."""
    return SerialSource(reactor, settings(port, **keys), "ward3", "important", put, random=lambda: 0.0)
