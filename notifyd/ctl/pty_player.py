"""Plays what a device printed through a pty, as if the device were there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import termios
import time
import tty
from collections.abc import Callable, Iterable
from pathlib import Path

from notifyd.agent.recording import Entry, Kind
from notifyd.holders import holders

LOOK_S = 0.1
"""How often it is looked whether somebody has opened the pty."""

SETTLE_S = 0.3
"""How long a reader has after it has opened the pty: opening a serial port throws away what was there before."""

DRAINED_LOOKS = 3
"""How often in a row nothing must wait in the pty: the kernel moves what it holds on in steps."""


class LinkTakenError(Exception):
    """The name for the pty is that of something else."""


class Pty:
    """A pty and the name that leads to it; a device may be unplugged from it and plugged in again.

    Args:
        link: the name; None for the pty's own.
    """

    def __init__(self, link: Path | None = None) -> None:
        self._link = link
        self._master = self._slave = -1
        self.device = ""

    @property
    def name(self) -> str:
        """What a reader opens."""
        return self.device if self._link is None else str(self._link)

    def plug(self) -> None:
        """Makes the pty.

        Raises:
            LinkTakenError: the link's name is taken by something that is no link.
            OSError: it cannot be made.
        """
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.device = os.ttyname(self._slave)
        if self._link is None:
            return
        try:
            if os.path.lexists(self._link) and not self._link.is_symlink():
                raise LinkTakenError(f"{self._link} is there, and is no link")
            beside = self._link.with_name(f".{self._link.name}.{os.getpid()}")
            beside.symlink_to(self.device)
            os.replace(beside, self._link)  # nobody meets a name that leads nowhere
        except BaseException:
            self.unplug()
            raise

    def unplug(self) -> None:
        """Takes it away; what was not read is lost."""
        if self._master < 0:
            return
        if self._link is not None:
            with contextlib.suppress(OSError):
                if os.readlink(self._link) == self.device:
                    self._link.unlink()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    @property
    def is_plugged(self) -> bool:
        """Whether it is there."""
        return self._master >= 0

    @property
    def waiting(self) -> int:
        """Bytes that were written and not yet read; those in the kernel's first buffer."""
        answer = fcntl.ioctl(self._slave, termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", answer)[0])

    def readers(self) -> list[int]:
        """Gives the processes that have it open, without this one."""
        return [holder.pid for holder in holders(self.device)]

    def wait(self, seconds: float, *, for_room: bool = False) -> None:
        """Waits, and throws away what the reader sends to the device meanwhile.

        Args:
            seconds: how long at most.
            for_room: end as soon as something can be written.
        """
        if not self.is_plugged:
            time.sleep(seconds)
            return
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            writers = [self._master] if for_room else []
            readable, writable, _ = select.select([self._master], writers, [], max(0.0, left))
            if readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._master, 65_536)
            if writable or left <= 0:
                return

    def write(self, data: bytes) -> bytes:
        """Writes what there is room for; gives the rest."""
        try:
            return data[os.write(self._master, data) :]
        except BlockingIOError:
            return data


class Player:
    """Plays entries.

    Args:
        pty: where.
        speed: how many times as fast as they were recorded; None for as fast as they are read.
        reopen: whether the device is unplugged where the recorded one was.
        readers: gives the processes that have the pty open.
        settle_s: how long a reader has after it has opened it.
    """

    def __init__(
        self,
        pty: Pty,
        speed: float | None = 1.0,
        *,
        reopen: bool = False,
        readers: Callable[[], list[int]] | None = None,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._pty, self._speed, self._reopen = pty, speed, reopen
        self._readers = readers or pty.readers
        self._settle_s = settle_s
        self._begin = 0.0
        self.played = 0

    def wait_for_reader(self) -> None:
        """Waits until somebody has opened the pty, and has done what one does then."""
        while not self._readers():
            self._pty.wait(LOOK_S)
        self._pty.wait(self._settle_s)

    def play(self, entries: Iterable[Entry]) -> int:
        """Plays to the end, and until all is read.

        Returns:
            how many bytes were not read, since nobody has the pty open any more.
        """
        if not self._pty.is_plugged:
            self._plug_again()
        self._begin = time.monotonic()
        for entry in entries:
            self._pace(entry.at_s)
            if entry.kind is Kind.DATA and self._pty.is_plugged:
                self._write(entry.data)
            elif entry.kind is Kind.CLOSE and entry.text and self._reopen and self._pty.is_plugged:
                self.drain()
                self._pty.unplug()
            elif entry.kind is Kind.OPEN and not self._pty.is_plugged:
                self._plug_again()
        return self.drain() if self._pty.is_plugged else 0

    def drain(self) -> int:
        """Waits until all is read, or nobody is there to read; gives how many bytes were not."""
        empty = 0
        while empty < DRAINED_LOOKS:
            empty = 0 if self._pty.waiting else empty + 1
            self._pty.wait(0.02)
            if not empty and not self._readers():
                return self._pty.waiting
        return 0

    def _pace(self, at_s: float) -> None:
        if self._speed is not None:
            left = self._begin + at_s / self._speed - time.monotonic()
            if left > 0:
                self._pty.wait(left)

    def _plug_again(self) -> None:
        before = time.monotonic()
        self._pty.plug()
        self.wait_for_reader()
        self._begin += time.monotonic() - before  # the times go on when there is somebody to read

    def _write(self, data: bytes) -> None:
        self.played += len(data)
        while data := self._pty.write(data):
            self._pty.wait(1.0, for_room=True)
