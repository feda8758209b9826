"""Standard output of ``notifyctl tail``: what is written has left the process when the call returns."""

from __future__ import annotations

import fcntl
import os
import re
import select
import stat
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import main
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from notifyd.ctl.say import printable


class Output(Protocol):
    """Where the event lines go."""

    def write(self, lines: list[bytes]) -> None:
        """Writes event lines; raises OSError where they cannot all be written."""


def write_all(fd: int, data: bytes) -> None:
    """Writes ``data`` to a file descriptor, waiting for its reader where that takes a while.

    Raises:
        BrokenPipeError: nobody reads any more.
        OSError: it cannot be written.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # another process that shares the descriptor has made it so
            select.select([], [fd], [])


class Pipe:
    """Writes event lines for programs: exactly as the hub sent them.

    Args:
        fd: the file descriptor to write to.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, lines: list[bytes]) -> None:
        """Writes the lines."""
        write_all(self._fd, b"\n".join(lines) + b"\n")


class EscapedPipe(Pipe):
    """Writes event lines as JSON to a terminal: what a terminal would obey is written as JSON escapes."""

    def write(self, lines: list[bytes]) -> None:
        """Writes the lines."""
        super().write([escape_json(line) for line in lines])


def escape_json(line: bytes) -> bytes:
    """Gives JSON of the same meaning in which every character can be printed."""
    text = line.decode("utf-8", "replace")
    if text.isprintable():
        return line
    # Such a character stands inside a string, where JSON lets every character be written as an escape.
    return re.sub(r"[^\x20-\x7e]", lambda match: _json_escape(match[0]), text).encode()


def _json_escape(char: str) -> str:
    if printable(char) == char:
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2))


@implementer(IReadDescriptor)
class ReaderWatch:
    """Tells when the reader of a pipe has gone, also while there is nothing to write to it.

    Args:
        fd: the pipe's file descriptor.
        gone: called when the reader has gone.
    """

    def __init__(self, fd: int, gone: Callable[[], object]) -> None:
        self._fd = fd
        self._gone = gone

    def fileno(self) -> int:
        """Gives the file descriptor, for the reactor."""
        return self._fd

    def logPrefix(self) -> str:
        """Names this in the log."""
        return "standard output"

    def doRead(self) -> Any:
        """A pipe's writing end never has anything to read but its end."""
        return main.CONNECTION_LOST

    def connectionLost(self, reason: Failure) -> None:
        """The kernel has said that nobody reads any more."""
        self._gone()


def watch_reader(reactor: Any, fd: int, gone: Callable[[], object]) -> None:
    """Calls ``gone`` when nobody reads from ``fd`` any more, where ``fd`` is a pipe's writing end."""
    only_writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    if stat.S_ISFIFO(os.fstat(fd).st_mode) and only_writes:
        reactor.addReader(ReaderWatch(fd, gone))
