"""Looks at what a port delivers: finds its rate, and shows frames as they come."""

from __future__ import annotations

import datetime as dt
import fcntl
import struct
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec
import serial

from notifyd.agent import guess
from notifyd.agent.recording import Entry, Kind, escape
from notifyd.agent.trial import Judged, Trial
from notifyd.config import Duration
from notifyd.config_agent import Source
from notifyd.ctl.say import printable
from notifyd.event import data_object

READ = 4096
"""Bytes that are read at once."""

LISTEN_S = 2.5
"""How long one rate is listened to: a device that reports each second has said something."""

GATHER_S = 3.0
"""How long is gathered before the framing is guessed, at most."""

GATHER_BYTES = 512
"""Bytes that are enough to guess it."""

MAX_READS = 10_000
"""Reads whose times are kept for the guess."""

MAX_SHOWN = 2_000
"""Characters of a frame that are shown."""

TICK_S = 0.05
"""How long a read waits: frames that end with a pause are shown that late."""

_TIOCGICOUNT = 0x545D  # ioctl_tty(2); the structure is serial_icounter_struct
_COUNTERS = struct.Struct("20i")


class Line(Protocol):
    """A port that is open."""

    def read(self) -> bytes:
        """Gives what has come within ``TICK_S``."""
        ...

    def set_rate(self, baudrate: int) -> bool:
        """Changes the rate, and throws away what came at the one before; tells whether the port can."""
        ...

    def damaged(self) -> int:
        """Gives how many characters the driver has called damaged; 0 where it does not count."""
        ...


class SerialLine:
    """A port of pyserial's.

    Args:
        source: its settings.

    Raises:
        Exception: it cannot be opened; ``notifyd.agent.port.explain`` says why.
    """

    def __init__(self, source: Source) -> None:
        # Through a URL the lock is another's business.
        lock: dict[str, Any] = {} if "://" in source.port else {"exclusive": True}
        self._port: Any = serial.serial_for_url(
            source.port,
            timeout=TICK_S,
            **source.line_settings(),
            **lock,
        )
        descriptor = getattr(self._port, "fd", None)
        self._descriptor = descriptor if isinstance(descriptor, int) and lock else None
        if self._descriptor is not None:
            fcntl.ioctl(self._descriptor, termios.TIOCEXCL)

    def read(self) -> bytes:
        """Gives what has come within ``TICK_S``."""
        first: bytes = self._port.read(1)
        if not first:
            return b""
        rest: bytes = self._port.read(min(READ, self._port.in_waiting))
        return first + rest

    def set_rate(self, baudrate: int) -> bool:
        """Changes the rate, and throws away what came at the one before; tells whether the port can."""
        try:
            self._port.baudrate = baudrate
            self._port.reset_input_buffer()
        except (ValueError, OSError, termios.error):
            return False
        return True

    def damaged(self) -> int:
        """Gives how many characters the driver has called damaged; 0 where it does not count."""
        if self._descriptor is None:
            return 0
        try:
            counters = _COUNTERS.unpack(fcntl.ioctl(self._descriptor, _TIOCGICOUNT, bytes(_COUNTERS.size)))
        except OSError:
            return 0
        return int(counters[6] + counters[8])

    def close(self) -> None:
        """Closes it."""
        self._port.close()


def find_rate(
    line: Line,
    told: Callable[[int, guess.Score], None],
    *,
    rates: tuple[int, ...] = guess.RATES,
    listen_s: float = LISTEN_S,
    now: Callable[[], float] = time.monotonic,
) -> tuple[int | None, bytes]:
    """Tries rates until one is believed.

    Args:
        line: the port.
        told: is told each try.
        rates: in the order in which they are tried.
        listen_s: how long each is listened to, at most.
        now: a clock that does not go back.

    Returns:
        The rate, and what was read at it; None where none is to be believed.
    """
    scores: dict[int, guess.Score] = {}
    samples: dict[int, bytes] = {}
    for rate in rates:
        if not line.set_rate(rate):
            continue
        before, data, end = line.damaged(), b"", now() + listen_s
        while now() < end and len(data) < 2 * GATHER_BYTES:
            data += line.read()
        samples[rate] = data
        scores[rate] = guess.score(data, line.damaged() - before)
        told(rate, scores[rate])
        if scores[rate].value >= guess.SURE:
            break
    rate_found = guess.best(scores)
    if rate_found is None:
        return None, b""
    line.set_rate(rate_found)
    return rate_found, samples[rate_found]


class Sample:
    """Keeps the beginning of what has come, for guesses."""

    def __init__(self) -> None:
        self.data = b""
        self.reads: list[tuple[float, int]] = []

    def add(self, at_s: float, data: bytes) -> None:
        """Takes what was read."""
        if len(self.data) < guess.MAX_SAMPLE and len(self.reads) < MAX_READS:
            self.data += data
            self.reads.append((at_s, len(data)))

    @property
    def framing(self) -> guess.FramingGuess:
        """How frames seem to be told apart."""
        return guess.guess_framing(self.data, self.reads)


class Sniffer:
    """Turns what a port delivers into what is shown.

    Args:
        source: the settings; None where the framing is to be guessed.
        base: the settings of everything else.
        has_rules: whether events are shown too.
        wall: the wall clock, in seconds since 1970.
    """

    def __init__(self, source: Source | None, base: Source, *, has_rules: bool, wall: float) -> None:
        self.sample = Sample()
        self.guessed: guess.FramingGuess | None = None
        self._base, self._has_rules, self._wall = base, has_rules, wall
        self._trial = None if source is None else Trial(source, "agent", wall)
        self._held: list[Entry] = []

    def take(self, at_s: float, data: bytes) -> Iterator[str]:
        """Gives the lines to be shown after a read, which may have brought nothing.

        Args:
            at_s: seconds since the beginning.
            data: what was read.
        """
        if data:
            self.sample.add(at_s, data)
        if self._trial is None:
            if data:
                self._held.append(Entry(at_s, Kind.DATA, data))
            is_enough = len(self.sample.data) >= GATHER_BYTES or at_s >= GATHER_S
            if not self._held or not is_enough:
                return
            yield from self._settle()
            return
        judged = self._trial.take(Entry(at_s, Kind.DATA, data)) if data else self._trial.tick(at_s)
        for each in judged:
            yield from self._lines(each)

    def end(self, at_s: float) -> Iterator[str]:
        """Gives the lines to be shown at the end."""
        if self._trial is None:
            yield from self._settle()
        if self._trial is not None:
            for each in self._trial.end(at_s):
                yield from self._lines(each)

    def _settle(self) -> Iterator[str]:
        self.guessed = self.sample.framing
        yield f"framing {self.guessed.framing}: {self.guessed.why}"
        self._trial = Trial(guessed_source(self._base, self.guessed), "agent", self._wall)
        held, self._held = self._held, []
        for entry in held:
            for each in self._trial.take(entry):
                yield from self._lines(each)

    def _lines(self, judged: Judged) -> Iterator[str]:
        data = judged.frame.data
        when = dt.datetime.fromtimestamp(self._wall + judged.at_s)
        raw = escape(data).decode()
        marks = " (cut)" if judged.frame.truncated else ""
        marks += "" if judged.frame.damaged is None else f" ({printable(judged.frame.damaged)})"
        yield f"{when:%H:%M:%S}.{when.microsecond // 1000:03}  {raw[:MAX_SHOWN]}{marks}"
        text = printable(decoded(data, self._base.encoding))
        if text != raw:
            yield f"{'':12}  {text[:MAX_SHOWN]}"
        if self._has_rules:
            yield f"{'':12}  {self._outcome(judged)[:MAX_SHOWN]}"

    def _outcome(self, judged: Judged) -> str:
        if judged.event is None:
            return "→ dropped: no rule matches" if judged.frame.damaged is None else "→ dropped: damaged"
        rule = "no rule" if judged.rule is None else self._base.rule[judged.rule].name or f"rule {judged.rule + 1}"
        fields = data_object(judged.event).get("fields") or {}
        told = "".join(f" {name}={value}" for name, value in fields.items())
        return printable(f"→ {judged.event.type} {judged.event.priority} ({rule}){told}")


def guessed_source(base: Source, guessed: guess.FramingGuess) -> Source:
    """Gives the settings with the framing that was guessed."""
    settings: dict[str, Any] = dict(guessed.settings)
    if "gap" in settings:
        settings["gap"] = Duration.parse(settings["gap"])
    return msgspec.structs.replace(base, framing=guessed.framing, **settings)


def decoded(data: bytes, encoding: str) -> str:
    """Gives bytes as text, whatever they are."""
    try:
        return data.decode(encoding, "replace")
    except Exception:  # noqa: BLE001 - a decoder without error handling
        return data.decode("ascii", "replace")
