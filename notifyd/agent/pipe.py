"""A FIFO, a file or standard input in place of a port: for tests, and for what other programs print."""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from notifyd.agent.port import READ_LIMIT, DescriptorPort, PortError

STDIN = 0


class Opened(NamedTuple):
    """What was opened."""

    descriptor: int
    is_file: bool  # the reactor cannot wait for it: it never makes one wait
    is_fifo: bool


def open_path(path: str | None) -> Opened:
    """Opens a FIFO or a file to read, without waiting for who writes into it; None stands for standard input.

    Raises:
        Exception: it cannot be opened; :func:`notifyd.agent.port.explain` says why.
    """
    if path is None:
        return _open_stdin()
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        os.close(descriptor)
        raise PortError("it is no file and no FIFO; a serial device is named without file:")
    return Opened(descriptor, stat.S_ISREG(mode), stat.S_ISFIFO(mode))


def _open_stdin() -> Opened:
    mode = os.fstat(STDIN).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(STDIN):
        # Opened anew, since not to block is a matter of what is open: whoever else has it should not be changed.
        descriptor = os.open("/proc/self/fd/0", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        return Opened(descriptor, is_file=False, is_fifo=False)
    descriptor = os.dup(STDIN)
    if stat.S_ISSOCK(mode):
        os.set_blocking(descriptor, False)
    return Opened(descriptor, not stat.S_ISSOCK(mode), is_fifo=False)


class PipePort(DescriptorPort):
    """A FIFO, or standard input.

    Args:
        protocol: gets what is read.
        opened: what was opened.
        where: its name.
        reactor: tells when there is something to read.
    """

    can_wait = True

    def __init__(self, protocol: Protocol, opened: Opened, where: str, reactor: Any) -> None:
        self._is_fifo = opened.is_fifo
        DescriptorPort.__init__(self, protocol, opened.descriptor, where, reactor)

    def _end(self) -> BaseException:
        if self._is_fifo:
            return PortError("who wrote into it has closed it")
        return PortError("this is its end; it is not read again", is_final=True)

    def send(self, data: bytes) -> bool:
        """Takes the answers of a framing, which nobody waits for here."""
        return True


class FilePort(PipePort):
    """A file, of which a part is read at each turn of the reactor."""

    def __init__(self, protocol: Protocol, opened: Opened, where: str, reactor: Any) -> None:
        self._next: Any = None
        PipePort.__init__(self, protocol, opened, where, reactor)

    def startReading(self) -> None:
        """Reads a part at the reactor's next turn."""
        if self._next is None and self.connected:
            self._next = self.reactor.callLater(0, self._read)

    def stopReading(self) -> None:
        """Reads no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _read(self) -> None:
        self._next = None
        if (loss := self.doRead()) is not None:
            self.connectionLost(Failure(loss))
        elif not self._is_paused:
            self.startReading()

    _is_paused = False

    def pause(self) -> None:
        """Reads no more until ``resume``."""
        self._is_paused = True
        self.stopReading()

    def resume(self) -> None:
        """Goes on reading."""
        self._is_paused = False
        self.startReading()

    def doRead(self) -> BaseException | None:
        """Reads one part."""
        try:
            data = os.read(self._descriptor, READ_LIMIT)
        except OSError as error:
            return error
        if not data:
            return self._end()
        self.protocol.dataReceived(data)
        return None
