"""One serial port while it is open: exclusive, raw, read in bulk; and why it cannot be opened.

Sources: termios(3) for the line settings, ioctl_tty(2) for ``TIOCEXCL``, ``serial_icounter_struct`` in
Linux ``include/uapi/linux/serial.h`` for what the driver counts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from typing import Any, NamedTuple
from typing import Protocol as Interface

import serial
from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol
from twisted.internet.serialport import SerialPort
from twisted.python.failure import Failure

from notifyd import config_agent

READ_LIMIT = 64 * 1024
"""Bytes read from a port at once: other ports have their turn after that."""

_TIOCGICOUNT = 0x545D
_COUNTERS = struct.Struct("20i")  # cts dsr rng dcd rx tx frame overrun parity brk buf_overrun, 9 reserved


class LineErrors(NamedTuple):
    """What a port's driver counted."""

    lost: int  # characters that the hardware or the kernel had no room for
    damaged: int  # characters with a framing or parity error


class OpenPort(Interface):
    """An open port, as its supervisor sees it."""

    def drain(self) -> None:
        """Hands on what the kernel holds."""
        ...

    def close(self) -> None:
        """Closes the port at once; its protocol loses the connection."""
        ...

    def line_errors(self) -> LineErrors | None:
        """Gives the driver's counters, where it has some."""
        ...


def open_port(protocol: Protocol, settings: config_agent.Source, reactor: Any) -> OpenPort:
    """Opens a port and connects ``protocol`` to it.

    Raises:
        Exception: it cannot be opened; :func:`explain` says why.
    """
    return Port(
        protocol,
        settings.port,
        reactor,
        baudrate=settings.baudrate,
        bytesize=settings.bytesize,
        parity=settings.parity,
        stopbits=settings.stopbits,
        xonxoff=settings.xonxoff,
        rtscts=settings.rtscts,
    )


class Port(SerialPort):
    """Twisted's serial port, made exclusive, and read until the kernel has no more."""

    @staticmethod
    def _serialFactory(device: str, **settings: Any) -> serial.Serial:  # type: ignore[override]  # is a class there
        return _open_exclusively(device, **settings)

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._serial: Any = None
        try:
            SerialPort.__init__(self, *args, **settings)
        except BaseException:
            if self._serial is not None:
                self._serial.close()  # it would stay locked until the garbage collector comes
            raise

    def fileno(self) -> int:
        """Gives the descriptor, or -1 where the port is closed."""
        descriptor: int | None = self._serial.fd
        return -1 if descriptor is None else descriptor

    def doRead(self) -> BaseException | None:
        """Hands all that has come to the protocol at once; a tty gives at most 4 KiB per system call."""
        chunks: list[bytes] = []
        room = READ_LIMIT
        loss: BaseException | None = None
        while room > 0:
            try:
                chunk = os.read(self._serial.fd, room)
            except BlockingIOError:
                break
            except OSError as error:
                loss = error
                break
            if not chunk:
                loss = CONNECTION_DONE
                break
            chunks.append(chunk)
            room -= len(chunk)
        if chunks:
            self.protocol.dataReceived(b"".join(chunks))
        return loss

    def drain(self) -> None:
        """Hands on what the kernel holds."""
        self.doRead()

    def close(self) -> None:
        """Closes the port at once: ``loseConnection`` would wait until flow control lets it write."""
        if self.connected:
            SerialPort.connectionLost(self, Failure(ConnectionDone()))

    def line_errors(self) -> LineErrors | None:
        """Gives the driver's counters, where it has some."""
        if not self.connected:
            return None
        try:
            answer = fcntl.ioctl(self._serial.fd, _TIOCGICOUNT, bytes(_COUNTERS.size))
        except OSError:
            return None
        counters = _COUNTERS.unpack(answer)
        return LineErrors(lost=counters[7] + counters[10], damaged=counters[6] + counters[8])


def _open_exclusively(device: str, **settings: Any) -> serial.Serial:
    port = serial.Serial(device, exclusive=True, **settings)
    try:
        _claim(port.fd)
    except BaseException:
        port.close()
        raise
    return port


def _claim(descriptor: Any) -> None:
    """Makes an open port exclusive, and sees that no byte is changed or taken for a hang-up."""
    fcntl.ioctl(descriptor, termios.TIOCEXCL)  # the lock that pyserial takes only keeps out who asks for it
    attributes = termios.tcgetattr(descriptor)
    # What pyserial leaves as it finds it: BRKINT throws away what has come when the line breaks, IGNPAR
    # bytes that look damaged; IMAXBEL answers the device with BEL.
    attributes[0] &= ~(termios.BRKINT | termios.IGNPAR | termios.IMAXBEL)
    # With VMIN = 0 a read that finds nothing looks like a hang-up.
    attributes[6][termios.VMIN] = 1
    attributes[6][termios.VTIME] = 0
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


_NOT_A_PORT = "it is no serial port"
_TAKEN = "another process has it open"
_REASONS = {
    errno.ENOENT: "there is no such device",
    errno.ENXIO: "there is no such device",
    errno.ENODEV: "there is no such device",
    errno.EACCES: "permission denied (is the agent's user in the group that owns the device, often dialout?)",
    errno.EPERM: "permission denied",
    errno.EAGAIN: _TAKEN,
    errno.EBUSY: _TAKEN,
    errno.ENOTTY: _NOT_A_PORT,
    errno.EISDIR: _NOT_A_PORT,
    errno.EIO: "the device does not answer (input/output error)",
}


def explain(error: BaseException | None) -> str:
    """Says for the operator why a port cannot be opened, or was lost."""
    if error is None or isinstance(error, ConnectionDone):
        return "it was unplugged, or hung up"
    if isinstance(error, ValueError):
        return f"it does not take the settings: {error}"
    # pyserial puts what termios raised into a text: the number is in what it was handling.
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, OSError | termios.error):
            number = cause.errno if isinstance(cause, OSError) else cause.args[0]
            if isinstance(number, int):
                return _REASONS.get(number, os.strerror(number))
    return f"{type(error).__name__}: {error}"
