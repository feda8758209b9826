"""The files of one source's recordings: their names, when the next is begun, and which are deleted. Blocks."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from notifyd import __version__, config_agent
from notifyd.agent import recording
from notifyd.agent.recording import Entry, Kind
from notifyd.event import format_time

MAX_STEM = 120
"""Characters of a file's name that the source may take; a file system allows 255 bytes in all."""

PIECE = 16 * recording.CUT
"""Bytes of a read that are written at once: below 16 KiB of lines, so that a file exceeds its size by none of them."""

_TIME = r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z"


class RecordingFiles:
    """Writes what happened to one file after the other.

    Args:
        folder: where they are; it is made when it is needed.
        source: the source.
        max_size: bytes of one file at most.
        max_files: how many there are at most; the oldest goes.
        now: the wall clock, in seconds since 1970.
    """

    def __init__(
        self, folder: Path, source: config_agent.Source, max_size: int, max_files: int, now: Callable[[], float]
    ) -> None:
        self._folder, self._source, self._stem = folder, source, stem(source.name)
        self._max_size, self._max_files, self._now = max_size, max_files, now
        self._descriptor: int | None = None
        self._size = 0
        self._began_s = 0.0
        self._is_open = False  # the port, at the end of what was written

    def write(self, entries: Iterable[Entry]) -> None:
        """Writes what happened, in order; its times are those of one clock that does not go back.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        waiting: list[bytes] = []
        waiting_bytes = 0
        for entry in _pieces(entries):
            if self._descriptor is None:
                self._begin(entry.at_s)
            line = _encode(entry, self._began_s)
            if self._size + waiting_bytes + len(line) > self._max_size:
                self._write(b"".join(waiting))
                waiting, waiting_bytes = [], 0
                self._begin(entry.at_s)
                line = _encode(entry, self._began_s)
            waiting.append(line)
            waiting_bytes += len(line)
            if entry.kind is Kind.OPEN or entry.kind is Kind.CLOSE:
                self._is_open = entry.kind is Kind.OPEN
        self._write(b"".join(waiting))

    def close(self) -> None:
        """Closes the file; what is written after that begins another."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._descriptor is not None:
            written = os.write(self._descriptor, view)
            self._size += written
            view = view[written:]

    def _begin(self, at_s: float) -> None:
        """Begins the next file: with the port as it is, so that each can be read alone."""
        self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = self._now()
        while self._descriptor is None:
            path = self._folder / f"{self._stem}-{dt.datetime.fromtimestamp(now, dt.UTC):%Y%m%dT%H%M%S.%fZ}.rec"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(path, flags, 0o600)
            except FileExistsError:
                now += 1e-6  # the clock was set back
        self._size, self._began_s = 0, at_s
        begin = recording.encode_header(self._source, format_time(now), __version__)
        self._write(begin + recording.encode_open(0.0) if self._is_open else begin)
        self._delete_oldest(path)

    def _delete_oldest(self, current: Path) -> None:
        others = [path for path in recordings(self._folder, self._stem) if path != current]
        for path in others[: max(0, len(others) + 1 - self._max_files)]:
            with contextlib.suppress(FileNotFoundError):  # somebody has taken it away
                path.unlink()


def _pieces(entries: Iterable[Entry]) -> Iterator[Entry]:
    for entry in entries:
        if len(entry.data) <= PIECE:
            yield entry
        else:
            for cut in range(0, len(entry.data), PIECE):
                yield msgspec.structs.replace(entry, data=entry.data[cut : cut + PIECE])


def _encode(entry: Entry, began_s: float) -> bytes:
    return recording.encode(msgspec.structs.replace(entry, at_s=max(0.0, entry.at_s - began_s)))


def stem(source: str) -> str:
    """Gives how the names of a source's files begin; no two sources share it."""
    quoted = quote(source, safe=" ").replace("%", "=")
    if len(quoted) <= MAX_STEM:
        return quoted
    return f"{quoted[:MAX_STEM]}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def recordings(folder: Path, stem: str) -> list[Path]:
    """Gives the recordings of a source, the one that was written longest ago first."""
    pattern = re.compile(re.escape(stem) + "-" + _TIME + r"\.rec")
    found: list[tuple[int, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    return [folder / name for _, name in sorted(found)]
