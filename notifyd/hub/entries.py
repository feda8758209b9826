"""Events that are about to be stored: their lines, joined, and by columns and runs what else is to say of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import msgspec

from notifyd import event as events

START = 9
"""Figures of where a line begins in a batch; a SQLite blob has 10^9 bytes at most."""

_START = b"%%0%dd" % START


def starts_of(sizes: Sequence[int], first: int) -> bytes:
    """Gives where each line begins, counted in bytes from ``first``: :data:`START` figures each."""
    starts = tuple(accumulate(sizes, initial=first))[:-1]
    return (_START * len(starts)) % starts


class Position(msgspec.Struct, frozen=True, gc=False):
    """How far a spool's lane has come: set when the event that carries it is stored, or dropped by a rule."""

    spool: str
    lane: str
    agent: str
    sequence: int


class LaneRun(NamedTuple):
    """Positions of events of one lane of a spool, which are seldom asked for each: by their sequences' texts."""

    spool: str
    lane: str
    agent: str
    sequences: Sequence[str]


class Kind(NamedTuple):
    """What most events of a batch have in common.

    Attributes:
        priority: as the hub has decided.
        hint: the priority that the producer gave it.
        agent: whose it is.
        suppressed: whether it repeats another and is sent to nobody.
    """

    priority: str
    hint: str | None = None
    agent: str | None = None
    suppressed: bool = False


class Entry(msgspec.Struct, gc=False):
    """An event that is about to be stored.

    Attributes:
        offset: its place in the log.
        line: as it is sent, with ``offset``, ``received``, ``priority`` and ``rule``.
        kind: of it.
        position: what its storing says about its spool.
    """

    offset: int
    line: bytes
    kind: Kind
    position: Position | None = None

    def row(self) -> tuple[object, ...]:
        """Gives the columns of table ``event``."""
        kind, event = self.kind, events.read_columns(self.line)
        return (
            self.offset, event.id, event.source, event.type, kind.priority, event.time, event.received,
            kind.agent, event.rule, self.line.decode(), kind.hint, kind.suppressed,
        )  # fmt: skip


class Entries:
    """Events whose offsets follow each other. They hold little but their lines, since they may wait for long.

    Attributes:
        first: the first one's offset; of no meaning where there is none.
        sizes: bytes of their lines, each with its LF.
        size: of all.
        runs: kinds, and how many events in a row are of each.
    """

    __slots__ = ("_pieces", "_positions", "_starts", "first", "runs", "size", "sizes")

    def __init__(self) -> None:
        self.first = 0
        self.sizes: list[int] = []
        self.size = 0
        self.runs: list[tuple[Kind, int]] = []
        self._positions: list[LaneRun | Sequence[Position | None]] = []
        self._pieces: list[bytes] = []  # joined they are the lines
        self._starts: list[bytes] = []

    @classmethod
    def of(cls, some: Iterable[Entry]) -> Entries:
        """Gives entries together; raises ValueError where their offsets do not follow each other."""
        entries = cls()
        for entry in some:
            entries.append(entry)
        return entries

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Entry]:
        places = pairwise(accumulate(self.sizes, initial=0))
        lines = (self.data[start : end - 1] for start, end in places)
        return map(Entry, self.offsets, lines, self.kinds, self.positions)

    @property
    def offsets(self) -> range:
        """The offsets of all."""
        return range(self.first, self.first + len(self.sizes))

    @property
    def last(self) -> int:
        """The last one's offset."""
        return self.first + len(self.sizes) - 1

    @property
    def data(self) -> bytes:
        """The lines, each with its LF; they are joined once."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    @property
    def starts(self) -> bytes:
        """Where each line begins in :attr:`data`, and where one behind them would, as :func:`starts_of` gives it."""
        return b"".join((*self._starts, b"%0*d" % (START, self.size + 1)))

    @property
    def kinds(self) -> list[Kind]:
        """The kind of each."""
        kinds: list[Kind] = []
        for kind, count in self.runs:
            kinds += [kind] * count
        return kinds

    @property
    def positions(self) -> list[Position | None]:
        """What storing each says about its spool."""
        positions: list[Position | None] = []
        for some in self._positions:
            if isinstance(some, LaneRun):
                positions += [Position(some.spool, some.lane, some.agent, int(text)) for text in some.sequences]
            else:
                positions += some
        return positions

    def append(self, entry: Entry) -> None:
        """Adds one; raises ValueError where its offset does not follow the last one."""
        self.extend(entry.offset, entry.line + b"\n", (len(entry.line) + 1,), (entry.kind,), (entry.position,))

    def extend(
        self,
        first: int,
        data: bytes,
        sizes: Sequence[int],
        kinds: Kind | Iterable[Kind],
        positions: LaneRun | Sequence[Position | None],
    ) -> None:
        """Adds some.

        Args:
            first: the first one's offset; raises ValueError where it does not follow the last one.
            data: their lines, each with its LF.
            sizes: bytes of each.
            kinds: of each, or the one of all.
            positions: what storing each says about its spool.
        """
        if not self.sizes:
            self.first = first
        elif first != self.last + 1:
            raise ValueError(f"offset {first} does not follow {self.last}")
        # While the batch gathers there is time for it; once it is to be written the database waits.
        self._starts.append(starts_of(sizes, self.size + 1))
        self.sizes += sizes
        self.size += len(data)
        self._positions.append(positions)
        self._pieces.append(data)
        runs = [(kinds, len(sizes))] if isinstance(kinds, Kind) else _runs_of(kinds)
        if self.runs and runs and self.runs[-1][0] == runs[0][0]:
            self.runs[-1] = (runs[0][0], self.runs[-1][1] + runs[0][1])
            del runs[0]
        self.runs += runs


def _runs_of(kinds: Iterable[Kind]) -> list[tuple[Kind, int]]:
    return [(kind, sum(1 for _ in run)) for kind, run in groupby(kinds)]
