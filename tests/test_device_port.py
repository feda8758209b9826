"""A serial device: its settings, its locks, and how it is closed."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from serial import SerialException
from twisted.internet import reactor
from twisted.logger import capturedLogs

from notifyd.agent.device import Port, open_device
from notifyd.agent.linecounters import LineCounters
from notifyd.agent.port import explain
from notifyd.event import Event, data_object
from tests.cables import (
    Cable,
    _nothing_is_left,  # noqa: F401 - a fixture of every test here
    is_open,
    reading,
    real,
)
from tests.conftest import Logged
from tests.serialtools import HANG_S, Sink, settings


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
