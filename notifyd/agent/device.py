"""A serial device of this machine while it is open: exclusive, raw, and asked what its driver counts.

Sources: termios(3) for the line settings, ioctl_tty(2) for ``TIOCEXCL``, ``serial_icounter_struct`` in
Linux ``include/uapi/linux/serial.h`` for what the driver counts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import struct
import termios
from typing import Any

import serial
from twisted.internet.protocol import Protocol

from notifyd import config_agent
from notifyd.agent.linecounters import LineCounters
from notifyd.agent.port import TAKEN, DescriptorPort, PortError, error_number
from notifyd.holders import find_holder

_TIOCGICOUNT = 0x545D
_COUNTERS = struct.Struct("20I")  # cts dsr rng dcd rx tx frame overrun parity brk buf_overrun, 9 reserved


def open_device(path: str, settings: config_agent.Source) -> Any:
    """Opens a serial device for this process alone. It may block for as long as the driver likes.

    Raises:
        Exception: it cannot be opened; :func:`notifyd.agent.port.explain` says why.
    """
    try:
        device = serial.Serial(
            path,
            exclusive=True,
            timeout=0,
            **settings.line_settings(),
        )
    except (OSError, ValueError) as error:  # a SerialException is an OSError
        if error_number(error) in (errno.EAGAIN, errno.EBUSY) and (holder := find_holder(path)) is not None:
            raise PortError(f"{TAKEN} ({holder})") from error
        raise
    try:
        _claim(device.fd)
    except BaseException:
        device.close()
        raise
    return device


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


def close_device(device: Any) -> None:
    """Closes a serial device without waiting for what it has not taken: the kernel would, for up to 30 s."""
    with contextlib.suppress(OSError, termios.error, TypeError):  # it is unplugged, or closed already
        termios.tcflush(device.fd, termios.TCOFLUSH)
    device.close()


class Port(DescriptorPort):
    """A serial device that is open.

    Args:
        protocol: gets what is read.
        device: was opened by :func:`open_device`.
        reactor: tells when there is something to read.
    """

    def __init__(self, protocol: Protocol, device: Any, reactor: Any) -> None:
        self._serial: Any = device
        try:
            DescriptorPort.__init__(self, protocol, device.fd, str(device.port), reactor)
        except BaseException:
            close_device(device)  # it would stay locked until the garbage collector comes
            raise

    def _close_descriptor(self) -> None:
        close_device(self._serial)

    @property
    def unsent(self) -> int:
        """How many bytes wait, here and in the kernel."""
        if not self.connected:
            return 0
        try:
            answer = fcntl.ioctl(self._serial.fd, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return len(self._outgoing) + int(struct.unpack("i", answer)[0])

    def line_counters(self) -> LineCounters | None:
        """Gives what the driver counted, where it counts."""
        if not self.connected:
            return None
        try:
            answer = fcntl.ioctl(self._serial.fd, _TIOCGICOUNT, bytes(_COUNTERS.size))
        except OSError:
            return None
        counted = _COUNTERS.unpack(answer)
        return LineCounters(
            overrun=counted[7], frame=counted[6], parity=counted[8], buffer_overrun=counted[10], breaks=counted[9]
        )
