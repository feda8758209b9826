"""The checksums of the framings."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable


def xor(data: bytes) -> int:
    """Gives the XOR of all bytes: ISO 1155, and NMEA 0183."""
    return functools.reduce(operator.xor, data, 0)


def sum8(data: bytes) -> int:
    """Gives the sum of all bytes, modulo 256."""
    return sum(data) & 0xFF


def _crc16_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC16 = _crc16_table()


def crc16(data: bytes) -> int:
    """Gives CRC-16/ARC: x^16 + x^15 + x^2 + 1, bits reflected, beginning with 0: DSMR P1, and SIA DC-09."""
    value = 0
    table = _CRC16
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value


def contact_id_sum(digits: bytes) -> int:
    """Gives the sum of the figures of a Contact ID message; with its checksum it is a multiple of 15.

    Args:
        digits: ``0`` to ``9`` and ``A`` to ``F``; ``0`` counts as 10, as SIA DC-05 says.
    """
    return sum(int(chr(digit), 16) or 10 for digit in digits)


OF_NAME: dict[str, Callable[[bytes], int]] = {"xor": xor, "sum8": sum8}
