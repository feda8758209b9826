"""FIFOs, files and standard input in place of a port."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from notifyd.agent.pipe import open_path
from notifyd.agent.port import explain
from notifyd.agent.serialport import AHEAD_BYTES, SerialSource
from tests.cables import is_open, reading
from tests.serialtools import Sink, settings

END = "this is its end; it is not read again"


def source(port: str, sink: Sink, **options: Any) -> SerialSource:
    """A source that reads a pipe."""
    return SerialSource(reactor, settings(port), "ward3", "important", sink, random=lambda: 0.0, **options)


@pytest_twisted.inlineCallbacks
def test_a_file_is_read_once_to_its_end(tmp_path: Path) -> Iterator[Any]:
    """Then the source is lost for good; a last line without an end is marked."""
    path = tmp_path / "panel.txt"
    path.write_text("one\ntwo\nthr")
    sink = Sink()
    with reading(source(f"file:{path}", sink)) as panel:
        yield sink.until(lambda: sink.own == ["lost"])
        assert sink.lines == ["one", "two", "thr"]
        assert sink.fields("lost")["reason"] == END
        assert sink.fields("lost")["bytes"] == 11
        assert not panel._timers._calls


@pytest_twisted.inlineCallbacks
def test_a_fifo_is_read_by_whoever_writes_into_it(tmp_path: Path) -> Iterator[Any]:
    """It is open before anybody writes; when all who did have gone it is told, and read again."""
    path = tmp_path / "panel"
    os.mkfifo(path)
    sink = Sink()
    with reading(source(f"file:{path}", sink)) as panel:
        yield is_open(panel)
        yield deferToThread(path.write_bytes, b"one\n")
        yield sink.until(lambda: sink.own == ["lost"])
        assert sink.fields("lost")["reason"] == "who wrote into it has closed it"
        yield deferToThread(path.write_bytes, b"two\n")  # waits until it is read again
        yield sink.until(lambda: sink.lines == ["one", "two"])
        assert sink.own[:2] == ["lost", "restored"]


@pytest_twisted.inlineCallbacks
def test_a_large_file_is_read_no_faster_than_it_can_be_stored(tmp_path: Path) -> Iterator[Any]:
    """A file can wait, memory cannot hold it."""
    path = tmp_path / "panel.txt"
    path.write_bytes((b"x" * 99 + b"\n") * (3 * AHEAD_BYTES // 100))
    sink, flushes = Sink(), [Deferred[None]() for _ in range(9)]
    waiting = iter(flushes)
    with reading(source(f"file:{path}", sink, flush=lambda: next(waiting))) as panel:
        yield sink.until(lambda: panel.counters.bytes >= AHEAD_BYTES)
        yield deferLater(reactor, 0)
        assert panel.counters.bytes < 2 * AHEAD_BYTES
        for flush in flushes:
            flush.callback(None)
        yield sink.until(lambda: sink.events[-1].type == "notifyd.source.lost")
        assert panel.counters.bytes == path.stat().st_size


@contextlib.contextmanager
def stdin(descriptor: int) -> Iterator[None]:
    """Has another file as standard input."""
    kept = os.dup(0)
    os.dup2(descriptor, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.mark.parametrize("kind", ["pipe", "file", "socket", "null"])
@pytest_twisted.inlineCallbacks
def test_standard_input_is_read_whatever_it_is(tmp_path: Path, kind: str) -> Iterator[Any]:
    """Piped from a program, from a file, or nothing at all; it is not made non-blocking for others."""
    sink = Sink()
    (tmp_path / "panel.txt").write_bytes(b"one\ntwo\n")
    first, second = os.pipe() if kind != "socket" else (each.detach() for each in socket.socketpair())
    if kind in ("file", "null"):
        os.close(first)
        first = os.open(tmp_path / "panel.txt" if kind == "file" else "/dev/null", os.O_RDONLY)
    with stdin(first), reading(source("file:-", sink)):
        if kind in ("pipe", "socket"):
            os.write(second, b"one\ntwo\n")
        os.close(second)
        yield sink.until(lambda: sink.own == ["lost"])
        assert kind == "socket" or os.get_blocking(0)
    assert sink.lines == ([] if kind == "null" else ["one", "two"])
    assert sink.fields("lost")["reason"] == END
    os.close(first)


@pytest.mark.parametrize("path", ["/dev/null", "/", "/nowhere"])
def test_what_is_no_file_is_refused(path: str) -> None:
    """A device is named without file:, since it needs its line set."""
    with pytest.raises(Exception) as failed:  # noqa: PT011
        open_path(path)
    assert explain(failed.value) in (
        "it is no file and no FIFO; a serial device is named without file:",
        "there is no such device",
    )
