"""Recording a source: what is read is on the disk soon, in files that are bounded, and the disk never holds it up."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from notifyd import config_agent
from notifyd.agent import recorder, recording_files
from notifyd.agent.recorder import Done, Job, Recorder, WriterThread
from notifyd.agent.recording import Entry, Kind, Playback
from notifyd.config import Size
from tests.conftest import Logged
from tests.replaying import replay
from tests.serialtools import settings

WALL = 1_795_384_923.5


class HandWorker:
    """A disk that works when the test says so."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.jobs: list[tuple[Job, Done]] = []
        self.fault: Exception | None = None

    def run(self, job: Job, done: Done) -> None:
        self.jobs.append((job, done))
        if self.at_once:
            self.work()

    def work(self) -> None:
        while self.jobs:
            job, done = self.jobs.pop(0)
            raised: Exception | None = None
            try:
                if self.fault is not None:
                    raise self.fault
                job()
            except Exception as error:  # noqa: BLE001 - as the thread does
                raised = error
            done(raised)


class Rig:
    """A recorder whose clock and disk the test moves."""

    def __init__(self, folder: Path, name: str = "panel", *, at_once: bool = True, **record: Any) -> None:
        self.clock = Clock()
        self.folder = folder
        self.worker = HandWorker(at_once=at_once)
        self.recorder = Recorder(
            self.clock, settings(name=name), config_agent.RecordSettings(**record), folder, self.worker,
            now=lambda: WALL + self.clock.seconds(),
        )  # fmt: skip

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.rec"))

    def entries(self, path: Path | None = None) -> list[Entry]:
        playback = Playback([(path or self.files[-1]).read_bytes()])
        assert playback.header is not None
        return list(playback)


def test_what_is_read_is_on_the_disk_within_a_second(tmp_path: Path) -> None:
    """Opening, reads and the loss, each with its time by a clock that does not go back; others may not read it."""
    rig = Rig(tmp_path / "deep" / "recordings")
    rig.clock.advance(100)
    rig.recorder.opened()
    rig.clock.advance(0.25)
    rig.recorder.data(b"ALARM 7\r\n")
    assert rig.files == []
    rig.clock.advance(recorder.FLUSH_S)
    assert recorder.FLUSH_S <= 1
    assert rig.entries() == [Entry(0.0, Kind.OPEN), Entry(0.25, Kind.DATA, b"ALARM 7\r\n")]
    rig.recorder.closed("it was unplugged, or hung up")
    assert rig.recorder.stop().called
    assert rig.entries()[-1] == Entry(0.75, Kind.CLOSE, text="it was unplugged, or hung up")
    (path,) = rig.files
    assert path.name == "panel-20261122T220343.500000Z.rec".replace("220343.500000", path.name[15:28])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert rig.clock.getDelayedCalls() == []
    rig.recorder.data(b"late")
    assert rig.clock.getDelayedCalls() == []


def test_files_are_bounded_in_size_and_number_and_the_oldest_goes(tmp_path: Path) -> None:
    """Each can be played alone, and together the last ones have all that was read, in order."""
    (tmp_path / "panel-2-20261122T100000.000000Z.rec").write_text("another source's")
    (tmp_path / "panel.rec").write_text("somebody's own")
    rig = Rig(tmp_path, max_size=Size(64 * 1024), max_files=3)
    rig.recorder.opened()
    written = b""
    for number in range(12):
        data = bytes([number]) * 10_000
        written += data
        rig.recorder.data(data)
        rig.clock.advance(1)
        if number == 0:
            os.utime(rig.files[1], ns=(0, 0))
    rig.recorder.stop()
    mine = [path for path in rig.files if path.name.startswith("panel-2026")]
    assert len(mine) == 3
    assert len(rig.files) == 5
    assert all(path.stat().st_size <= 64 * 1024 for path in mine)
    played = b"".join(entry.data for path in mine for entry in rig.entries(path))
    assert written.endswith(played)
    assert len(played) > 10_000
    assert all(rig.entries(path)[0] == Entry(0.0, Kind.OPEN) for path in mine)


def test_one_read_that_is_larger_than_a_file_goes_into_several(tmp_path: Path) -> None:
    """64 KiB of bytes that are written as four characters each."""
    rig = Rig(tmp_path, max_size=Size(64 * 1024), max_files=100)
    data = os.urandom(64 * 1024)
    rig.recorder.data(data)
    rig.recorder.stop()
    assert len(rig.files) >= 3
    assert all(path.stat().st_size <= 64 * 1024 for path in rig.files)
    assert b"".join(entry.data for path in rig.files for entry in rig.entries(path)) == data


def test_a_clock_that_is_set_back_overwrites_no_recording(tmp_path: Path) -> None:
    """The next file has a name of its own."""
    for _ in range(3):
        rig = Rig(tmp_path)
        rig.recorder.opened()
        rig.recorder.stop()
    assert len(rig.files) == 3


@pytest.mark.parametrize("name", ["..", "a b", "Süd ☎" * 40, "x" * 255, "a%2"])
def test_a_source_with_any_name_is_recorded(tmp_path: Path, name: str) -> None:
    """In the folder and nowhere else; and it is found again, so that the oldest can go."""
    for _ in range(3):
        rig = Rig(tmp_path / "in", name, max_files=2)
        rig.recorder.opened()
        rig.recorder.stop()
    assert len(rig.files) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_sources_with_names_alike_do_not_share_files() -> None:
    """Not even where a name is too long for a file's."""
    names = ["a b", "a_b", "a%20b", "a=20b", "x" * 200, "x" * 201, "panel", "Panel", "ü", "u"]
    assert len({recording_files.stem(name) for name in names}) == len(names)


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only")])
def test_a_full_disk_ends_the_recording_with_one_line(tmp_path: Path, logged: Logged, number: int, reason: str) -> None:
    """Nothing is raised where bytes are read, and nothing waits any more."""
    rig = Rig(tmp_path)
    rig.worker.fault = OSError(number, "no")
    for _ in range(10):
        rig.recorder.data(b"x" * 100_000)
        rig.clock.advance(1)
    (line,) = logged.text("error")
    assert "panel is not recorded any more" in line
    assert reason in line
    assert rig.recorder.is_stopped
    assert rig.recorder.stop().called
    assert rig.clock.getDelayedCalls() == []


def test_a_folder_that_cannot_be_made_ends_the_recording(tmp_path: Path, logged: Logged) -> None:
    """Its name is that of a file."""
    (tmp_path / "file").write_text("")
    rig = Rig(tmp_path / "file" / "recordings")
    rig.recorder.opened()
    rig.clock.advance(1)
    assert len(logged.text("error")) == 1


def test_a_slow_disk_fills_no_memory_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    """Beyond 4 MiB bytes are counted; the recording says where and how many."""
    rig = Rig(tmp_path, at_once=False)
    chunk = b"y" * 65_536
    for _ in range(200):
        rig.recorder.data(chunk)
    assert rig.recorder._waiting_bytes <= recorder.MAX_WAITING
    for _ in range(100_000):  # a port that comes and goes
        rig.recorder.closed("")
    assert rig.recorder._waiting_bytes <= recorder.MAX_WAITING + 2 * recorder.ENTRY_COST
    rig.worker.at_once = True
    rig.worker.work()
    rig.recorder.data(b"after")
    rig.recorder.stop()
    entries = [entry for path in rig.files for entry in rig.entries(path)]
    (lost,) = [entry.lost for entry in entries if entry.kind is Kind.LOST]
    assert lost + sum(len(entry.data) for entry in entries) == 200 * 65_536 + 5
    assert entries[-1].data == b"after"


def test_a_stop_writes_what_waits_behind_a_write_that_is_under_way(tmp_path: Path) -> None:
    """In order, and it is over when the file is closed."""
    rig = Rig(tmp_path, at_once=False)
    rig.recorder.data(b"first")
    rig.clock.advance(1)
    rig.recorder.data(b"second")
    stopped = rig.recorder.stop()
    assert not stopped.called
    rig.worker.work()
    assert stopped.called
    assert [entry.data for entry in rig.entries()] == [b"first", b"second"]
    assert rig.recorder._files._descriptor is None
    assert rig.clock.getDelayedCalls() == []


def test_a_disk_that_hangs_holds_a_stop_up_for_two_seconds(tmp_path: Path) -> None:
    """No longer: what was read is stored as events, whatever becomes of the recording."""
    rig = Rig(tmp_path, at_once=False)
    rig.recorder.data(b"first")
    stopped = rig.recorder.stop()
    rig.clock.advance(recorder.STOP_S)
    assert stopped.called
    rig.worker.work()
    assert rig.clock.getDelayedCalls() == []


@pytest_twisted.inlineCallbacks
def test_the_thread_runs_one_job_after_the_other_and_tells_faults() -> Any:
    """In the reactor's thread; after a stop it can be used again."""
    worker = WriterThread(reactor)
    seen: list[Any] = []
    for _ in range(2):
        done: Deferred[Exception | None] = Deferred()
        worker.run(lambda: seen.append("job"), seen.append)
        worker.run(lambda: [][0], done.callback)
        error = yield done.addTimeout(20, reactor)
        assert isinstance(error, IndexError)
        worker.stop()
    worker.stop()
    assert seen == ["job", None, "job", None]


def test_a_recording_that_is_replayed_gives_the_same_events(tmp_path: Path) -> None:
    """With the loss of the port in it, and a line that was torn by it."""
    source = settings(silence="3s")
    happened = [
        Entry(0.0, Kind.OPEN),
        Entry(1.0, Kind.DATA, b"one\r\ntw"),
        Entry(1.5, Kind.DATA, b"o\r\ntor"),
        Entry(2.5, Kind.CLOSE, text="it was unplugged, or hung up"),
        Entry(4.5, Kind.OPEN),
        Entry(9.5, Kind.DATA, b"\xffthree\r\n"),
    ]
    rig = Rig(tmp_path)
    rig.clock.advance(1000)
    first = replay(happened, source, rig.clock, recorder=rig.recorder)
    rig.recorder.stop()
    assert replay(rig.entries(), source) == first
    kinds = [event.type for event in first]
    assert kinds.count("notifyd.line") == 4
    assert {"notifyd.source.lost", "notifyd.source.restored", "notifyd.source.silent"} <= set(kinds)
