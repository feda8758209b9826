"""Which device a USB identity stands for at the moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from serial.tools import list_ports

from notifyd.agent.port import NO_DEVICE, PortError
from notifyd.portname import Usb

MOST_NAMED = 5
"""Devices that are named where several match."""


def find_usb(wanted: Usb, comports: Callable[[], Iterable[Any]] = list_ports.comports) -> str:
    """Gives the path of the one device that has an identity.

    Args:
        wanted: the identity.
        comports: gives the serial devices of the machine.

    Raises:
        PortError: there is none, or there are several.
    """
    try:
        found = [each for each in comports() if _matches(each, wanted)]
    except (OSError, TypeError, ValueError):  # pyserial looks at a device that goes away at the same time
        found = []
    if not found:
        raise PortError(NO_DEVICE)
    if len(found) > 1:
        found.sort(key=lambda each: str(each.device))
        names = [f"{each.device} (serial number {each.serial_number or 'none'})" for each in found[:MOST_NAMED]]
        names += ["…"] if len(found) > MOST_NAMED else []
        raise PortError(
            f"several devices match: {', '.join(names)}; add the serial number, or name one under /dev/serial/by-path"
        )
    return str(found[0].device)


def _matches(device: Any, wanted: Usb) -> bool:
    is_product = (device.vid, device.pid) == (wanted.vendor, wanted.product)
    return is_product and wanted.serial in (None, device.serial_number)
