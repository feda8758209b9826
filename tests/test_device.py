"""Serial ports as the kernel has them: sources on real ptys, opened, read, unplugged, locked and broken."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from notifyd.agent.device import Port
from notifyd.agent.port import MAX_UNSENT
from notifyd.event import data_object
from tests.cables import (
    Cable,
    _nothing_is_left,  # noqa: F401 - a fixture of every test here
    is_open,
    reading,
    real,
)
from tests.serialtools import HANG_S, Sink


@pytest_twisted.inlineCallbacks
def test_what_a_device_prints_becomes_events_in_order(cable: Cable) -> Iterator[Any]:
    """Lines on the port come out as events, with nothing about the port itself."""
    sink = Sink()
    with reading(real(cable.port, sink)) as source:
        yield is_open(source)
        cable.prints(b"one\r\ntwo\rthree\n")
        yield sink.until(lambda: len(sink.lines) == 3)
    assert sink.lines == ["one", "two", "three"]
    assert sink.own == []
    assert sink.events[0].source == "/ward3/panel"


@pytest_twisted.inlineCallbacks
def test_every_byte_value_survives_the_port(cable: Cable) -> Iterator[Any]:
    """No byte is taken for flow control, an interrupt, or the end of a file."""
    content = bytes(byte for byte in range(256) if byte not in b"\r\n")
    sink = Sink()
    with reading(real(cable.port, sink)) as source:
        yield is_open(source)
        cable.prints(content + b"\n")
        yield sink.until(lambda: len(sink.events) == 1)
    assert base64.b64decode(data_object(sink.events[0])["raw"]) == content


@pytest_twisted.inlineCallbacks
def test_many_lines_at_full_speed_arrive_complete(cable: Cable) -> Iterator[Any]:
    """20,000 lines as fast as the kernel takes them: each one, once, in order."""
    printed = [f"line {number}" for number in range(20_000)]
    sink = Sink()

    def write() -> None:
        data = memoryview("".join(line + "\r\n" for line in printed).encode())
        while data:
            data = data[os.write(cable.device, data) :]

    with reading(real(cable.port, sink)) as source:
        yield is_open(source)
        yield deferToThread(write)
        yield sink.until(lambda: len(sink.events) == len(printed))
        assert source.frames == len(printed)
    assert sink.lines == printed


@pytest_twisted.inlineCallbacks
def test_an_unplugged_port_is_told_and_reopened_when_it_is_back(cable: Cable) -> Iterator[Any]:
    """The half line is kept, the loss and the return are told, and reading goes on."""
    sink = Sink()
    with reading(real(cable.port, sink)) as source:
        yield is_open(source)
        cable.prints(b"whole\nhal")
        yield sink.until(lambda: len(sink.lines) == 1)
        cable.unplug()
        yield sink.until(lambda: sink.own == ["lost"])
        assert data_object(sink.events[1]) == {"line": "hal", "fields": {}, "truncated": True}
        fields = sink.fields("lost")
        assert 0 <= fields.pop("seconds") < HANG_S
        assert fields == {"port": str(cable.port), "reason": "it was unplugged, or hung up", "bytes": 9}
        cable.plug_in()
        yield sink.until(lambda: sink.own == ["lost", "restored"])
        cable.prints(b"again\n")
        yield sink.until(lambda: sink.lines[-1] == "again")
    assert sink.fields("restored")["reason"] == "it was unplugged, or hung up"
    assert 0 < sink.fields("restored")["seconds"] < HANG_S
    assert [event.priority for event in sink.events if ".source." in event.type] == ["important", "important"]


@pytest_twisted.inlineCallbacks
def test_a_port_that_is_not_there_at_the_start_is_told_once_and_read_when_it_comes(cable: Cable) -> Iterator[Any]:
    """The agent starts before the device is plugged in."""
    cable.unplug()
    sink = Sink()
    with reading(real(cable.port, sink)):
        yield sink.until(lambda: sink.own == ["lost"])
        assert sink.fields("lost")["reason"] == "there is no such device"
        cable.plug_in()
        yield sink.until(lambda: sink.own == ["lost", "restored"])


@pytest_twisted.inlineCallbacks
def test_a_port_that_another_source_reads_is_left_alone(cable: Cable) -> Iterator[Any]:
    """Two readers would each get half of the lines: the second one is told why it does not get the port."""
    first, second = Sink(), Sink()
    with reading(real(cable.port, first)) as one:
        yield is_open(one)  # they open in threads: begun together, either could be the first
        with reading(real(cable.port, second)):
            yield second.until(lambda: second.own == ["lost"])
        assert first.own == []
        assert second.fields("lost")["reason"] == "another process has it open (another source of this agent)"


@pytest_twisted.inlineCallbacks
def test_a_port_that_another_process_reads_is_told_with_its_name(cable: Cable) -> Iterator[Any]:
    """The second reader is told who the first one is."""
    code = "import serial, sys; port = serial.Serial(sys.argv[1], exclusive=True); print('ok', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(cable.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ok\n"
        sink = Sink()
        with reading(real(cable.port, sink)):
            yield sink.until(lambda: sink.own == ["lost"])
        name = Path(f"/proc/{other.pid}/comm").read_text().strip()
        other.communicate(b"\n")
    assert sink.fields("lost")["reason"] == f"another process has it open ({name}, process {other.pid})"


@pytest_twisted.inlineCallbacks
def test_a_device_that_takes_nothing_is_read_all_the_same_and_fills_no_memory(cable: Cable) -> Iterator[Any]:
    """It hangs, or flow control stops it: what is sent to it is bounded, and a stop does not wait for it."""
    sink = Sink()
    with reading(real(cable.port, sink)) as source:
        yield is_open(source)
        port = source._port
        assert isinstance(port, Port)
        for _ in range(100):  # until neither the kernel nor the agent takes more
            while port.send(b"x" * 64):
                pass
            cable.prints(b"one\n")
            yield deferLater(reactor, 0)
        assert len(port._outgoing) <= MAX_UNSENT
        assert port.unsent >= MAX_UNSENT - 64
        yield sink.until(lambda: len(sink.lines) == 100)
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert sink.own == []


@pytest_twisted.inlineCallbacks
def test_what_is_sent_arrives_whole_and_in_order_when_the_device_takes_it(cable: Cable) -> Iterator[Any]:
    """Bytes wait, and are neither changed nor lost nor sent twice."""
    with reading(real(cable.port, Sink(), on_open="hello\r\n")) as source:
        yield is_open(source)
        port = source._port
        assert isinstance(port, Port)
        sent = got = b"hello\r\n"
        got = b""
        for number in range(3000):
            word = b"word %d;" % number
            if port.send(word):
                sent += word
            if number % 50 == 0:
                yield deferLater(reactor, 0)
        os.set_blocking(cable.device, False)
        while len(got) < len(sent):
            with contextlib.suppress(BlockingIOError):
                got += os.read(cable.device, 4096)
            yield deferLater(reactor, 0)
        assert got == sent
        assert port.unsent == 0


@pytest_twisted.inlineCallbacks
def test_a_source_that_fails_does_not_disturb_another(cable: Cable, tmp_path: Path) -> Iterator[Any]:
    """One unplugged cable costs one source."""
    good, bad = Sink(), Sink()
    with reading(real(tmp_path / "missing", bad)), reading(real(cable.port, good)) as source:
        yield is_open(source)
        cable.prints(b"one\n")
        yield good.until(lambda: good.lines == ["one"])
    assert bad.own == ["lost"]


@pytest.mark.parametrize("kind", ["file", "folder", "null"])
@pytest_twisted.inlineCallbacks
def test_what_is_no_serial_port_is_called_so(tmp_path: Path, kind: str) -> Iterator[Any]:
    """A wrong path in the configuration is told in words, and leaks nothing with each try."""
    port = {"file": tmp_path / "file", "folder": tmp_path, "null": Path("/dev/null")}[kind]
    (tmp_path / "file").write_bytes(b"x")
    sink = Sink()
    with reading(real(port, sink)):
        yield sink.until(lambda: sink.own == ["lost"])
        assert sink.fields("lost")["reason"] == "it is no serial port"
