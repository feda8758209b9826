"""An open port, as its supervisor sees it, whatever kind it is; and what is wrong with one that is not."""

from __future__ import annotations

import errno
import os
import termios
from typing import Any
from typing import Protocol as Interface

from twisted.internet import abstract
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from notifyd.agent.linecounters import LineCounters

READ_LIMIT = 64 * 1024
"""Bytes read from a port at once: other ports have their turn after that."""

MAX_UNSENT = 4096
"""Bytes that wait for a device to take them, which is 4 s at 9600 Bd: what is older is of no use to it."""


class PortError(Exception):
    """Why a port cannot be opened, or was lost, as a sentence for the operator.

    Args:
        reason: the sentence.
        is_final: whether trying again is of no use.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class OpenPort(Interface):
    """An open port, as its supervisor sees it.

    Attributes:
        where: what was opened.
        proof_s: for how long it must have been open before what it delivers proves that it works.
        can_wait: whether what is not read stays where it is.
    """

    where: str
    proof_s: float
    can_wait: bool

    def send(self, data: bytes) -> bool:
        """Sends all of ``data`` or nothing; tells whether there was room for it. It does not block."""
        ...

    @property
    def unsent(self) -> int:
        """How many bytes wait for the device to take them."""
        ...

    def pause(self) -> None:
        """Reads no more until ``resume``."""
        ...

    def resume(self) -> None:
        """Goes on reading."""
        ...

    def drain(self) -> None:
        """Hands on what the kernel holds."""
        ...

    def close(self) -> None:
        """Closes the port at once; its protocol loses the connection."""
        ...

    def line_counters(self) -> LineCounters | None:
        """Gives what the driver counted, where it counts."""
        ...


class DescriptorPort(abstract.FileDescriptor):
    """A port that is a file descriptor, read until the kernel has no more.

    Args:
        protocol: gets what is read.
        descriptor: does not block.
        where: what was opened.
        reactor: tells when there is something to read.
    """

    proof_s = 0.0
    can_wait = False

    def __init__(self, protocol: Protocol, descriptor: int, where: str, reactor: Any) -> None:
        abstract.FileDescriptor.__init__(self, reactor)
        self.where = where
        self.protocol = protocol
        self.connected = 1
        self._descriptor = descriptor
        self._outgoing = bytearray()
        protocol.makeConnection(self)
        self.startReading()

    def fileno(self) -> int:
        """Gives the descriptor, or -1 where the port is closed."""
        return self._descriptor

    def doRead(self) -> BaseException | None:
        """Hands all that has come to the protocol at once; a tty gives at most 4 KiB per system call."""
        chunks: list[bytes] = []
        room = READ_LIMIT
        loss: BaseException | None = None
        while room > 0:
            try:
                chunk = os.read(self._descriptor, room)
            except BlockingIOError:
                break
            except OSError as error:
                loss = error
                break
            if not chunk:
                loss = self._end()
                break
            chunks.append(chunk)
            room -= len(chunk)
        if chunks:
            self.protocol.dataReceived(b"".join(chunks))
        return loss

    def _end(self) -> BaseException:
        """Gives what it means that there is no more to read."""
        return CONNECTION_DONE

    def send(self, data: bytes) -> bool:
        """Sends all of ``data`` or nothing; tells whether there was room for it."""
        if not self.connected or len(self._outgoing) + len(data) > MAX_UNSENT:
            return False
        self._outgoing += data
        self.startWriting()
        return True

    def doWrite(self) -> BaseException | None:
        """Writes what the device takes."""
        try:
            del self._outgoing[: os.write(self._descriptor, self._outgoing)]
        except BlockingIOError:
            return None
        except OSError as error:
            return error
        if not self._outgoing:
            self.stopWriting()
        return None

    @property
    def unsent(self) -> int:
        """How many bytes wait for the device to take them."""
        return len(self._outgoing)

    def pause(self) -> None:
        """Reads no more until ``resume``."""
        self.stopReading()

    def resume(self) -> None:
        """Goes on reading."""
        if self.connected:
            self.startReading()

    def drain(self) -> None:
        """Hands on what the kernel holds."""
        if self.connected:
            self.doRead()

    def close(self) -> None:
        """Closes the port at once: ``loseConnection`` would wait until flow control lets it write."""
        if self.connected:
            self._lost(Failure(ConnectionDone()))

    def connectionLost(self, reason: Failure) -> None:
        """Is called when there is no more to read, or an error."""
        if reason.check(ConnectionDone, ConnectionLost):  # the reactor saw the hang-up first
            reason = Failure(self._end())
        self._lost(reason)

    def _lost(self, reason: Failure) -> None:
        abstract.FileDescriptor.connectionLost(self, reason)
        self._outgoing.clear()
        self._close_descriptor()
        self._descriptor = -1
        self.protocol.connectionLost(reason)

    def _close_descriptor(self) -> None:
        os.close(self._descriptor)

    def line_counters(self) -> LineCounters | None:
        """Gives nothing: it has no line."""
        return None


NO_DEVICE = "there is no such device"
UNPLUGGED = "it was unplugged, or hung up"
TAKEN = "another process has it open"
_NOT_A_PORT = "it is no serial port"
_REASONS = {
    errno.ENOENT: NO_DEVICE,
    errno.ENXIO: NO_DEVICE,
    errno.ENODEV: NO_DEVICE,
    errno.EACCES: "permission denied (is the agent's user in the group that owns the device, often dialout?)",
    errno.EPERM: "permission denied",
    errno.EAGAIN: TAKEN,
    errno.EBUSY: TAKEN,
    errno.ENOTTY: _NOT_A_PORT,
    errno.EISDIR: _NOT_A_PORT,
    errno.EIO: "the device does not answer (input/output error)",
}


def error_number(error: BaseException) -> int | None:
    """Gives the number that the system gave an error."""
    # pyserial puts what termios raised into a text: the number is in what it was handling.
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, OSError | termios.error):
            number = cause.errno if isinstance(cause, OSError) else cause.args[0]
            if isinstance(number, int):
                return number
    return None


def explain(error: BaseException | None) -> str:
    """Says for the operator why a port cannot be opened, or was lost."""
    if error is None or isinstance(error, ConnectionDone):
        return UNPLUGGED
    if isinstance(error, PortError):
        return str(error)
    if isinstance(error, ValueError):
        return f"it does not take the settings: {error}"
    number = error_number(error)
    if number is not None:
        return _REASONS.get(number, os.strerror(number))
    return f"{type(error).__name__}: {error}"
