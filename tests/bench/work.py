"""What every subject of the benchmark is given: options, folders, and a server that was just started."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.bench.event import BLOCK
from tests.bench.load import Load
from tests.bench.peers.base import Peer
from tests.integration.rig import release_ports


@dataclass(frozen=True)
class Options:
    """What can be chosen on the command line, with the defaults of a whole run."""

    seconds: float = 4.0
    warm: float = 2.0
    settle: float = 20.0
    subscribers: tuple[int, ...] = (1, 10, 100, 1000)
    drains: int = 1
    lead: int | None = None
    idle: int = 5000
    files: int = 1024
    behind: int = 1_000_000
    spool: int = 500_000
    sizes: tuple[int, ...] = (10_000, 1_000_000)
    start: int = 100_000


@dataclass
class Bench:
    """One run of the benchmark.

    Args:
        root: a temporary folder on the disk that is measured.
        options: what was chosen.
    """

    root: Path
    options: Options
    _numbers: Iterator[int] = field(default_factory=count)

    def folder(self) -> Path:
        """Gives a folder that nobody has used."""
        folder = self.root / f"{next(self._numbers):04d}"
        folder.mkdir(parents=True)
        return folder

    @contextlib.contextmanager
    def running(self, peer: Peer) -> Iterator[Path]:
        """Starts a server with nothing in its log; gives a folder for other things."""
        folder = self.folder()
        try:
            peer.start(folder / "server")
            yield folder
        finally:
            peer.stop()
            release_ports()
            shutil.rmtree(folder, ignore_errors=True)

    def lead(self, peer: Peer) -> int:
        """Gives how far the producer may be ahead of the subscribers."""
        return peer.lead if self.options.lead is None else self.options.lead


def fill(peer: Peer, folder: Path, events: int, first: int = 1) -> tuple[float, int]:
    """Has a producer store events.

    Returns:
        how many seconds it took, and the block at which the next producer of that spool may begin.
    """
    with Load(peer, folder / f"fill-{first}") as load:
        start = time.monotonic()
        load.produce(1, events=events, first=first)
        load.wait_done(60 + events / 2000)
        return time.monotonic() - start, first + events // BLOCK + 1
