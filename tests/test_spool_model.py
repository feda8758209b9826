"""The spool against a plain model of what an agent and a hub may do: nothing lost, nothing reordered."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from notifyd.agent import spool_store
from notifyd.agent.spool import Spool
from notifyd.agent.spool_file import SpoolFile
from notifyd.agent.spool_store import Batch, Opened
from notifyd.event import LANES
from tests.spooling import Sent, device_event, parse_lines

T = TypeVar("T")
PRIORITIES = st.sampled_from([lane.value for lane in LANES])
MAX_EVENTS = 6
MAX_WAITING = 5_000


class DirectFile(SpoolFile):
    """A real file without a thread, which can be made to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(None, path, lambda: 0.0)
        self.connection: sqlite3.Connection | None = None
        self.is_full = False

    @property
    def is_open(self) -> bool:
        return self.connection is not None

    async def open(self) -> tuple[Opened, bool]:
        self.connection = sqlite3.connect(self.path)
        self.connection.execute("PRAGMA synchronous=OFF")
        self.connection.execute("PRAGMA journal_mode=MEMORY")
        opened = spool_store.open_store(self.connection.cursor(), self.path)
        self.connection.commit()
        return opened, True

    async def run(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        assert self.connection is not None
        try:
            result = work(self.connection.cursor())
            if self.is_full and self.connection.in_transaction:
                raise sqlite3.OperationalError("database or disk is full")
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()
        return result

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class SpoolMachine(RuleBasedStateMachine):
    """Puts, sends, acknowledges, loses connections, crashes, fills the disk, and restores the hub."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool.db"
        self.count = 0
        self.printed: dict[str, list[str]] = {lane.value: [] for lane in LANES}
        self.crashed: set[str] = set()  # waited in memory when the agent was killed
        # The hub: what it has stored, in order; what of it the agent was told.
        self.received: dict[str, list[Sent]] = {lane.value: [] for lane in LANES}
        self.held: dict[str, int] = dict.fromkeys(self.printed, 0)
        self.ids: dict[str, dict[str, Any]] = {}
        self.in_flight: list[tuple[Batch, int]] = []
        self.is_connected = False
        self.dropped = 0
        self.start()

    def start(self) -> None:
        self.clock = Clock()
        self.file = DirectFile(self.path)
        self.spool = Spool(
            None,
            self.path,
            agent="a",
            max_events=MAX_EVENTS,
            own_priority="normal",
            clock=self.clock,
            now=lambda: 1.0,
            file=self.file,
            max_waiting=MAX_WAITING,
        )
        self.spool.open()
        self.clock.advance(0)

    @rule(priority=PRIORITIES, size=st.integers(0, 600))
    def put(self, priority: str, size: int) -> None:
        """The device prints."""
        self.count += 1
        text = f"{self.count}:{'x' * size}"
        self.printed[priority].append(text)
        self.spool.put(device_event(text, priority))

    @rule(seconds=st.sampled_from([0.0, 0.05, 6.0]))
    def pass_time(self, seconds: float) -> None:
        """Commits and retries happen."""
        self.clock.advance(seconds)

    @rule()
    def fill_disk(self) -> None:
        """Nothing can be written any more."""
        self.file.is_full = True

    @rule()
    def free_disk(self) -> None:
        """It can again."""
        self.file.is_full = False
        self.clock.advance(6)

    @precondition(lambda self: not self.is_connected)
    @rule()
    def connect(self) -> None:
        """The hub says what it holds."""
        self.spool.resume(dict(self.held))
        self.clock.advance(0)
        self.is_connected = True

    @precondition(lambda self: self.is_connected)
    @rule(room=st.integers(300, 5_000))
    def send(self, room: int) -> None:
        """Events go on their way."""
        sent: list[Batch | None] = []
        Deferred.fromCoroutine(self.spool.next(room)).addCallback(sent.append)
        (batch,) = sent
        if batch is not None:
            assert len(batch.lines) <= room
            self.in_flight.append((batch, 0))

    @precondition(lambda self: self.in_flight)
    @rule(is_told=st.booleans(), part=st.integers(1, 4))
    def arrive(self, is_told: bool, part: int) -> None:
        """The hub stores some of what is in flight; its ACK arrives, or is on its way for ever."""
        batch, done = self.in_flight[0]
        until = min(batch.count, done + part)
        lane = batch.lane.value
        for sent in parse_lines(batch.lines)[done:until]:
            assert sent.event["priority"] == lane
            known = self.ids.setdefault(sent.event["id"], sent.event)
            assert known == sent.event, "two different events under one id"
            if sent.sequence > self.held[lane]:
                self.held[lane] = sent.sequence
                self.received[lane].append(sent)
        if is_told:
            self.spool.acknowledge(batch.lane, batch.locate(until - 1)[0])
        self.in_flight[0] = (batch, until)
        if until == batch.count:
            self.in_flight.pop(0)

    @precondition(lambda self: self.is_connected)
    @rule()
    def disconnect(self) -> None:
        """What was in flight and has not arrived never does."""
        self.spool.release()
        self.in_flight.clear()
        self.is_connected = False

    @rule()
    def crash(self) -> None:
        """SIGKILL: what waited in memory is gone, and only that."""
        waiting = self.spool._pending
        for rows in waiting._lanes.values():
            self.crashed |= {sent.text for sent in parse_lines(b"\n".join(line for _, line in rows))}
        self.dropped += sum(dropped.count for dropped in waiting._lost.values())
        self.file.close()
        self.in_flight.clear()
        self.is_connected = False
        self.start()

    @invariant()
    def memory_is_bounded(self) -> None:
        """However long the disk is away."""
        assert self.spool._pending._bytes <= MAX_WAITING

    @invariant()
    def spool_is_bounded(self) -> None:
        """Only what is in flight can be over the limit."""
        flying = sum(batch.count for batch, _ in self.in_flight)
        assert sum(self.spool._at.counts.values()) <= MAX_EVENTS + flying

    def teardown(self) -> None:
        """In the end everything is drained, and each printed event is accounted for."""
        self.free_disk()
        if self.is_connected:
            self.disconnect()
        self.connect()
        while True:
            before = len(self.in_flight)
            self.send(1_000_000)
            if len(self.in_flight) == before:
                break
            self.arrive(is_told=True, part=1_000_000)
        self.clock.advance(1)
        told = self.dropped
        for lane, received in self.received.items():
            got = [sent.text for sent in received if not sent.is_notice and ":" in sent.text]
            assert got == [text for text in self.printed[lane] if text in set(got)], "reordered, or twice"
            assert [sent.sequence for sent in received] == sorted({sent.sequence for sent in received})
            lost = [text for text in self.printed[lane] if text not in set(got) and text not in self.crashed]
            notices = [sent for sent in received if sent.is_notice]
            told += sum(sent.fields["count"] for sent in notices) - len(lost)
        assert told >= 0, "lost in silence"
        assert self.spool._at.next_lane() is None
        assert sum(self.spool._at.counts.values()) == 0
        Deferred.fromCoroutine(self.spool.close())
        self.folder.cleanup()


SpoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestSpoolAgainstModel = SpoolMachine.TestCase
