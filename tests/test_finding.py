"""Which device a USB identity is, who has a device open, and how opening never holds up the agent."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from notifyd.agent.opening import in_thread
from notifyd.agent.port import PortError
from notifyd.agent.usb import MOST_NAMED, find_usb
from notifyd.holders import find_holder
from notifyd.portname import Usb
from tests.serialtools import HANG_S


def adapter(device: str, vid: int | None = 0x0403, pid: int | None = 0x6001, serial_number: str | None = "A1") -> Any:
    """A serial device as pyserial lists it."""
    return SimpleNamespace(device=device, vid=vid, pid=pid, serial_number=serial_number)


FTDI = Usb(0x0403, 0x6001)


def test_the_one_adapter_with_an_identity_is_found() -> None:
    """Wherever it is plugged in, and whatever else is."""
    others = [adapter("/dev/ttyS0", None, None, None), adapter("/dev/ttyACM0", 0x2341, 0x0043)]
    assert find_usb(FTDI, lambda: [*others, adapter("/dev/ttyUSB3")]) == "/dev/ttyUSB3"
    two = [adapter("/dev/ttyUSB0", serial_number="A1"), adapter("/dev/ttyUSB1", serial_number="B2")]
    assert find_usb(Usb(0x0403, 0x6001, "B2"), lambda: two) == "/dev/ttyUSB1"


def test_an_adapter_that_is_not_there_is_told_as_any_device() -> None:
    """Also one with another serial number, and one that goes away while it is looked at."""

    def vanishes() -> list[Any]:
        raise TypeError("int() can't convert non-string with explicit base")

    for comports in (list, lambda: [adapter("/dev/ttyUSB0")], vanishes):
        with pytest.raises(PortError, match="there is no such device"):
            find_usb(Usb(0x0403, 0x6001, "C3"), comports)


def test_several_adapters_with_an_identity_are_named() -> None:
    """The operator sees what to add; the agent does not guess which one is meant."""
    two = [adapter("/dev/ttyUSB1", serial_number=None), adapter("/dev/ttyUSB0")]
    with pytest.raises(PortError) as refused:
        find_usb(FTDI, lambda: two)
    assert str(refused.value) == (
        "several devices match: /dev/ttyUSB0 (serial number A1), /dev/ttyUSB1 (serial number none);"
        " add the serial number, or name one under /dev/serial/by-path"
    )
    with pytest.raises(PortError) as refused:
        find_usb(FTDI, lambda: [adapter(f"/dev/ttyUSB{number}") for number in range(99)])
    assert str(refused.value).count("/dev/ttyUSB") == MOST_NAMED


@pytest.fixture
def device() -> Iterator[str]:
    """A device that this process has open."""
    master, slave = pty.openpty()
    yield os.ttyname(slave)
    os.close(slave)
    os.close(master)


def test_this_agents_own_source_is_named_as_such(device: str) -> None:
    """Two sources for one device, by two names."""
    assert find_holder(device) == "another source of this agent"


def test_another_process_is_named(device: str, tmp_path: Path) -> None:
    """By its program and its number, as /proc has them."""
    folder = tmp_path / "4711" / "fd"
    folder.mkdir(parents=True)
    (folder / "0").symlink_to("/dev/null")
    (folder / "3").symlink_to(device)
    (folder / "4").symlink_to("/nowhere")
    (tmp_path / "4711" / "comm").write_text("minicom\n")
    (tmp_path / "99").mkdir()
    assert find_holder(device, tmp_path) == "minicom, process 4711"


def test_a_process_of_another_user_is_known_by_its_lock(device: str, tmp_path: Path) -> None:
    """Its name is hidden then."""
    status = os.stat(device)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    (tmp_path / "locks").write_text(
        f"1: POSIX  ADVISORY  READ 1 00:01:1 0 EOF\n2: FLOCK ADVISORY WRITE 4711 {place} 0 EOF\n"
    )
    assert find_holder(device, tmp_path) == "process 4711"


def test_a_holder_that_cannot_be_seen_is_no_error(device: str, tmp_path: Path) -> None:
    """Then the reason is told without it."""
    (tmp_path / "locks").write_text("")
    assert find_holder(device, tmp_path) is None
    assert find_holder(device, tmp_path / "nothing") is None
    assert find_holder("/nowhere") is None


@pytest_twisted.inlineCallbacks
def test_what_blocks_is_done_beside_the_reactor() -> Iterator[Any]:
    """Its result and its exception come back to the reactor's thread."""
    mine = threading.current_thread()
    thread = yield in_thread(reactor, threading.current_thread, lambda _: None)
    assert thread is not mine
    thread.join(HANG_S)
    with pytest.raises(ZeroDivisionError):
        yield in_thread(reactor, lambda: 1 // 0, lambda _: None)


@pytest_twisted.inlineCallbacks
def test_what_nobody_waits_for_any_more_is_closed_again() -> Iterator[Any]:
    """A driver that comes back after the agent has given up does not leave its device open."""
    hangs, discarded = threading.Event(), Deferred[str]()

    def job() -> str:
        hangs.wait(HANG_S)
        return "a device"

    waiting = in_thread(reactor, job, discarded.callback)
    waiting.cancel()
    with pytest.raises(CancelledError):
        yield waiting
    hangs.set()
    assert (yield discarded.addTimeout(HANG_S, reactor)) == "a device"
