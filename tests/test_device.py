"""Serial ports as the kernel has them: sources on real ptys, opened, read, unplugged, locked and broken."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import gc
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from serial import SerialException
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs

from notifyd.agent.device import Port, open_device
from notifyd.agent.linecounters import LineCounters
from notifyd.agent.port import MAX_UNSENT, explain
from notifyd.agent.serialport import SerialSource
from notifyd.event import Event, data_object
from tests.conftest import Logged
from tests.serialtools import HANG_S, Sink, settings


def open_descriptors() -> set[str]:
    """The descriptors of this process, each with what it is open on."""
    gc.collect()
    return {f"{entry.name} {os.readlink(entry)}" for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No test leaves a port open or a call scheduled."""
    before = open_descriptors()
    yield
    for thread in threading.enumerate():
        if thread.name == "opens a port":
            thread.join(HANG_S)
            assert not thread.is_alive()
    left = {entry for entry in open_descriptors() - before if "/dev/" in entry}  # the reactor has pipes
    assert not left
    assert not [call for call in reactor.getDelayedCalls() if call.active()]


class Cable:
    """A pty behind a name that stays: what is plugged into it can change."""

    def __init__(self, folder: Path) -> None:
        self.port = folder / "ttyPANEL"
        self.device = -1
        self._slave = -1

    def plug_in(self) -> None:
        self.device, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        self.port.unlink()
        os.close(self._slave)
        os.close(self.device)
        self.device = -1

    def prints(self, data: bytes) -> None:
        assert os.write(self.device, data) == len(data)


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    """A cable with a device at its end."""
    cable = Cable(tmp_path)
    cable.plug_in()
    yield cable
    if cable.device >= 0:
        cable.unplug()


def is_open(source: SerialSource) -> Deferred[None]:
    """Gives a Deferred that fires when the first try is over."""
    waiting: Deferred[None] = Deferred()
    source.first_try.chainDeferred(waiting)
    return waiting.addTimeout(HANG_S, reactor)


@contextlib.contextmanager
def reading(source: SerialSource) -> Iterator[SerialSource]:
    """Runs a source for a while."""
    source.startService()
    try:
        yield source
    finally:
        source.stopService()


def real(port: str | Path, put: Callable[[Event], None], **keys: Any) -> SerialSource:
    """A source on a real port."""
    return SerialSource(reactor, settings(port, **keys), "ward3", "important", put, random=lambda: 0.0)


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


@pytest_twisted.inlineCallbacks
def test_all_line_settings_reach_the_port(cable: Cable) -> Iterator[Any]:
    """What stands in the configuration is what the driver is told."""
    keys = {"baudrate": 19200, "bytesize": 7, "parity": "E", "stopbits": 2.0, "xonxoff": True, "rtscts": True}
    with reading(real(cable.port, Sink(), **keys)) as source:
        yield is_open(source)
        assert isinstance(source._port, Port)
        given = source._port._serial
        assert {key: getattr(given, key) for key in keys} == keys
        iflag, _, cflag, _, speed, _, characters = termios.tcgetattr(given.fd)
    assert speed == termios.B19200
    assert iflag & termios.IXON
    assert cflag & termios.CSTOPB
    assert cflag & termios.CRTSCTS
    assert (characters[termios.VMIN], characters[termios.VTIME]) == (1, 0)


@pytest_twisted.inlineCallbacks
def test_the_port_is_exclusive_and_set_to_lose_nothing_by_itself(cable: Cable) -> Iterator[Any]:
    """Nobody else can open it, and a break on the line does not empty the kernel's buffer."""
    attributes = termios.tcgetattr(cable._slave)
    attributes[0] |= termios.BRKINT | termios.IGNPAR | termios.IMAXBEL
    termios.tcsetattr(cable._slave, termios.TCSANOW, attributes)
    with reading(real(cable.port, Sink())) as source:
        yield is_open(source)
        TIOCGEXCL = 0x80045440  # noqa: N806 - the kernel's name
        answer = fcntl.ioctl(cable._slave, TIOCGEXCL, bytes(4))
        assert struct.unpack("i", answer) == (1,)
        iflag = termios.tcgetattr(cable._slave)[0]
    assert not iflag & (termios.BRKINT | termios.IGNPAR | termios.IMAXBEL)


@pytest_twisted.inlineCallbacks
def test_a_second_reader_does_not_knock_the_port_off(cable: Cable) -> Iterator[Any]:
    """Root can read past every lock; a read that then finds nothing is no hang-up."""
    sink = Sink()
    with reading(real(cable.port, sink)) as source:
        yield is_open(source)
        assert isinstance(source._port, Port)
        assert source._port.doRead() is None
        cable.prints(b"one\n")
        yield sink.until(lambda: sink.lines == ["one"])
    assert sink.own == []


@pytest_twisted.inlineCallbacks
def test_a_stop_takes_what_the_kernel_still_holds_and_what_has_no_line_end(cable: Cable) -> Iterator[Any]:
    """SIGTERM right behind a line does not cost the line."""
    sink = Sink()
    source = real(cable.port, sink)
    source.startService()
    yield is_open(source)
    assert isinstance(source._port, Port)
    cable.prints(b"last\nhal")
    select.select([source._port.fileno()], [], [], HANG_S)  # the kernel hands it over in its own time
    source.stopService()
    assert sink.lines == ["last", "hal"]
    assert data_object(sink.events[-1])["truncated"] is True


@pytest_twisted.inlineCallbacks
def test_a_frame_that_cannot_be_handled_costs_neither_the_port_nor_the_next_frame(
    cable: Cable, logged: Logged
) -> Iterator[Any]:
    """A mistake in the agent is logged once per read, and reading goes on."""
    sink = Sink()

    def put(event: Event) -> None:
        if b"bad" in bytes(event.data):
            raise RuntimeError("a mistake")
        sink(event)

    with capturedLogs() as logs, reading(real(cable.port, put)) as source:
        yield is_open(source)
        cable.prints(b"bad\nbad\ngood\n")
        yield sink.until(lambda: sink.lines == ["good"])
    assert sink.own == []
    assert [str(entry["log_failure"].value) for entry in logs if "log_failure" in entry] == ["a mistake"]
    assert len(logged.expect_failure(RuntimeError)) == 1


def test_a_port_that_cannot_be_set_up_is_closed_again(cable: Cable) -> None:
    """A protocol that fails while it is connected does not leave the port locked."""

    class Broken:
        def makeConnection(self, transport: object) -> None:
            raise RuntimeError("broken")

    for _ in range(2):  # were it not closed, the second one would find it locked
        with pytest.raises(RuntimeError, match="broken"):
            Port(Broken(), open_device(str(cable.port), settings()), reactor)


@pytest_twisted.inlineCallbacks
def test_a_port_whose_set_up_fails_halfway_is_closed_again(
    cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A driver that refuses a setting is told with its reason, and tried again without a leak."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "x")

    monkeypatch.setattr(termios, "tcgetattr", lambda _: refuse())
    sink, other = Sink(), Sink()
    with reading(real(cable.port, sink)):
        yield sink.until(lambda: sink.own == ["lost"])
        assert sink.fields("lost")["reason"] == "No space left on device"
    monkeypatch.undo()
    ioctl = fcntl.ioctl
    not_exclusive = lambda fd, op, *rest: refuse() if op == termios.TIOCEXCL else ioctl(fd, op, *rest)  # noqa: E731
    monkeypatch.setattr(fcntl, "ioctl", not_exclusive)
    with reading(real(cable.port, other)):
        yield other.until(lambda: other.own == ["lost"])
        assert other.fields("lost")["reason"] == "No space left on device"


@pytest_twisted.inlineCallbacks
def test_a_read_error_is_a_loss_with_its_reason(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What was read before the error is kept, and the operator is told the error, not just a loss."""
    answers: list[bytes | OSError] = [b"one\n", OSError(errno.EIO, "Input/output error")]
    sink = Sink()
    with reading(real(cable.port, sink)) as source:
        yield is_open(source)
        descriptor = source._port.fileno()
        read = os.read

        def fail(from_: int, size: int) -> bytes:
            if from_ != descriptor:
                return read(from_, size)
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                monkeypatch.undo()
                raise answer
            return answer

        monkeypatch.setattr(os, "read", fail)
        cable.prints(b"x")
        yield sink.until(lambda: "lost" in sink.own)
    assert sink.lines == ["one"]
    assert sink.fields("lost")["reason"] == "the device does not answer (input/output error)"


@pytest_twisted.inlineCallbacks
def test_a_drivers_counters_are_read_where_it_has_some(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A pty counts nothing; a UART counts overruns of its own and of the kernel, framing and parity errors."""
    with reading(real(cable.port, Sink())) as source:
        yield is_open(source)
        port = source._port
        assert port.line_counters() is None
        counters = struct.pack("20I", 0, 0, 0, 0, 99, 0, 1, 20, 300, 5, 4000, *[0] * 9)
        monkeypatch.setattr(fcntl, "ioctl", lambda *_: counters)
        assert port.line_counters() == LineCounters(overrun=20, frame=1, parity=300, buffer_overrun=4000, breaks=5)
        monkeypatch.undo()
    assert port.line_counters() is None
    assert port.fileno() == -1
    port.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SerialException(errno.EAGAIN, "Could not exclusively lock port"), "another process has it open"),
        (SerialException(errno.EBUSY, "could not open port"), "another process has it open"),
        (SerialException(errno.EACCES, "could not open port"), "permission denied (is the agent's user in"),
        (OSError(errno.ENOSPC, "x"), "No space left on device"),
        (termios.error(errno.EIO, "Input/output error"), "the device does not answer (input/output error)"),
        (ValueError("Invalid baud rate"), "it does not take the settings: Invalid baud rate"),
        (SerialException("strange"), "SerialException: strange"),
        (RuntimeError("strange"), "RuntimeError: strange"),
        (None, "it was unplugged, or hung up"),
    ],
)
def test_each_reason_is_told_in_words(error: Exception | None, reason: str) -> None:
    """The operator reads what to do, not a number."""
    assert explain(error).startswith(reason)
