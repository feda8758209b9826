"""The events that every system is given: 256 bytes each, made in blocks so that sending them costs next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.peers.base import Peer

SIZE = 256
"""Bytes of an event with its LF, as the issue's figures have it."""

MARK = b"~"
"""Stands once in each event and nowhere else on any wire: subscribers count it. The time stamp follows it."""

DIGITS = 20
"""Of a sequence (as the agent writes it) and of a time stamp in nanoseconds."""

BLOCK = 10_000
"""Events in a block: a power of ten, so that only the figures in front of the last four differ between blocks."""

_SEQUENCE = b"#" * DIGITS


def _template(spool: bytes) -> bytes:
    """Gives an event with its stamp at zero and ``#`` where the figures of its sequence go."""
    head = (
        b'{"specversion":"1.0","id":"%s-%s","source":"/bench/load","type":"bench.event",'
        b'"time":"2026-11-22T10:00:00.000000Z","priority":"normal","sequence":"%s","data":{"line":"%s%s'
        % (spool, _SEQUENCE, _SEQUENCE, MARK, b"0" * DIGITS)
    )
    tail = b'","fields":{"zone":"1"}}}\n'
    return head + b"." * (SIZE - len(head) - len(tail)) + tail


def spool_name(producer: int) -> str:
    """Gives the name of a producer's spool."""
    return f"b{producer:03d}"


class Block:
    """Some events in the encoding of a peer, one frame each, all of the same size; renewed in place.

    Args:
        peer: encodes them.
        producer: whose they are: each producer has a spool of its own.
        first: the number of the first block, at least 1; its sequences begin at ``first * BLOCK``.
        events: how many it has.
    """

    def __init__(self, peer: Peer, producer: int = 0, first: int = 1, events: int = BLOCK) -> None:
        event = _template(spool_name(producer).encode())
        assert len(event) == SIZE
        head = peer.head(producer, 0)
        self.frame = len(head) + SIZE + len(peer.tail)
        self._places = [len(head) + at for at in _find(event, _SEQUENCE)]
        self._stamp = len(head) + event.index(MARK) + 1
        last = [b"%04d" % index for index in range(events)]
        upper = b"#" * (DIGITS - 4)
        parts = event.split(_SEQUENCE)
        self.data = bytearray(
            b"".join(
                peer.head(producer, index) + (upper + figures).join(parts) + peer.tail
                for index, figures in enumerate(last)
            )
        )
        self._upper = upper
        self.turn(first)

    def turn(self, number: int) -> None:
        """Makes it the block of that number; costs a few strided copies."""
        upper = b"%0*d" % (DIGITS - 4, number)
        count = len(self.data) // self.frame
        for at, (old, new) in enumerate(zip(self._upper, upper, strict=True)):
            if old != new:
                column = bytes([new]) * count
                for place in self._places:
                    self.data[place + at :: self.frame] = column
        self._upper = upper

    def stamp(self, index: int, time_ns: int) -> None:
        """Writes the time into one event."""
        place = index * self.frame + self._stamp
        self.data[place : place + DIGITS] = b"%0*d" % (DIGITS, time_ns)


def _find(data: bytes, part: bytes) -> list[int]:
    places, at = [], data.find(part)
    while at >= 0:
        places.append(at)
        at = data.find(part, at + len(part))
    return places
