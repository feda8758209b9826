"""What both daemons share: reading the configuration, telling systemd, and ending with a status that says why."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as NotInTime
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from notifyd.config import ConfigurationError

T = TypeVar("T")

STOP_TIMEOUT_S = 10.0
"""How long a stop may take before the process ends all the same; systemd's own limit is longer."""


def read_configuration(path: str, parse: Callable[[str, str], T]) -> T:
    """Reads and parses a configuration file.

    Raises:
        ConfigurationError: it cannot be read or used.
    """
    try:
        text = Path(path).read_bytes().decode()
    except OSError as error:
        raise ConfigurationError(path, "", error.strerror or str(error)) from None
    except (UnicodeDecodeError, ValueError):
        raise ConfigurationError(path, "", "no UTF-8 text") from None
    return parse(text, path)


class DaemonOptions(usage.Options):
    """``--config FILE``; a subclass says how it is parsed."""

    optParameters = [["config", "c", None, "the TOML file to read"]]  # noqa: RUF012 - Twisted's way
    config_required = True

    def parse_config(self, text: str, path: str) -> object:
        """Gives the checked configuration; raises ConfigurationError."""
        raise AssertionError("a subclass says how")

    def postOptions(self) -> None:
        """Reads the file, so that a mistake in it is told before anything is opened."""
        path = self["config"]
        if path is None and self.config_required:
            raise usage.UsageError("--config FILE is missing")
        try:
            if path is None:
                self["configuration"] = self.parse_config("", "defaults")
            else:
                self["configuration"] = read_configuration(path, self.parse_config)
        except ConfigurationError as error:
            # UsageError makes twistd print its whole help before the line that matters.
            print(error, file=sys.stderr)
            raise SystemExit(1) from None


def notify_systemd(message: str, environ: Any = os.environ) -> None:
    """Sends a state such as ``READY=1`` to systemd, where it runs the process (sd_notify(3))."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message.encode(), address)
        except OSError as error:
            Logger("notifyd").warn("systemd cannot be told {message}: {error}", message=message, error=error)


GARBAGE_THRESHOLD = 10_000
"""Objects that may be made before the youngest are looked through: a batch's data are some thousand."""


def share_interpreter() -> None:
    """Has the reactor's thread let the database's in soon, which then only waits for the disk.

    With Python's own 5 ms a port that prints without a pause fills the agent's spool with 28,000 lines a second, with
    0.5 ms it is 97,000. With 0.1 ms a hub delivers a tenth more to ten subscribers than with 0.5 ms (measured).
    """
    sys.setswitchinterval(0.0001)


KEPT_BYTES = 32 * 2**20
"""Memory that is kept for what comes next: pages of the log and batches are some 0.5 MiB each."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library


def keep_memory() -> None:
    """Has the C library keep what is freed, up to :data:`KEPT_BYTES`, where it can be told so.

    Else it gives the memory of each page of the log back to the kernel, and is given it anew, zeroed, for the next one:
    a third of the time that reading back takes (measured).
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):  # another C library, or a Python without ctypes
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES // 4)


def spare_collector() -> None:
    """Has Python look for cycles of objects seldom: events make none, and what is there at the start stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


def use_monotonic_clock(reactor: Any) -> None:
    """Has every timer of the process go by a clock that nobody sets.

    Twisted's reactor goes by the wall clock: set back by an hour, it would not reconnect, reopen or write for an hour.
    A reactor that runs is left as it is: its timers are set already.
    """
    if not reactor.running:
        reactor.seconds = time.monotonic


def raise_file_limit() -> int:
    """Raises the limit of open files to what the system allows, and gives it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Daemon(service.MultiService):
    """The service of a whole daemon; a subclass says how it comes up and goes down.

    Args:
        reactor: runs the daemon; it is stopped when the daemon cannot go on.
        name: for systemd and messages, as in ``notify-hub``.
    """

    log = Logger("notifyd")

    def __init__(self, reactor: Any, name: str) -> None:
        super().__init__()
        self.reactor = reactor
        self.setName(name)
        self._coming_up: Deferred[None] | None = None
        self._failed = False

    async def come_up(self) -> None:
        """Opens everything; an exception ends the process with status 1."""
        raise AssertionError("a subclass says how")

    async def go_down(self) -> None:
        """Finishes and closes everything."""
        raise AssertionError("a subclass says how")

    def startService(self) -> None:
        """Begins to come up."""
        super().startService()
        raise_file_limit()
        self._coming_up = Deferred.fromCoroutine(self._come_up())

    async def _come_up(self) -> None:
        try:
            await self.come_up()
        except Exception as error:  # noqa: BLE001 - whatever it is, a daemon that is half up must end
            if self.running:
                self.fail(error)
            return
        if self.running and not self._failed:
            self.log.info("{name} is ready.", name=self.name)
            notify_systemd("READY=1")

    def fail(self, error: BaseException | str) -> None:
        """Ends the process with status 1 after one clear line."""
        if self._failed:
            return
        self._failed = True
        line = f"{self.name}: {error}"
        self.log.critical("{line}", line=line)
        if isinstance(error, Exception) and not _is_for_operators(error):
            self.log.failure("This is a mistake in notifyd; please report it.", Failure(error))
        print(line, file=sys.__stderr__, flush=True)
        # twistd ends with 0 after reactor.stop(), whatever the reason: this hook has the last word.
        atexit.register(os._exit, 1)
        if self.reactor.running:
            self.reactor.stop()
        else:
            self.reactor.callWhenRunning(self.reactor.stop)

    def stopService(self) -> Deferred[None]:
        """Goes down, within a bounded time."""
        notify_systemd("STOPPING=1")
        self.running = 0
        if self._coming_up is not None:
            self._coming_up.cancel()
        down = _bounded(self.go_down(), self.reactor)
        return down.addCallback(lambda _: service.MultiService.stopService(self))


def _is_for_operators(error: Exception) -> bool:
    """Whether an exception's text was written for the operator, so that a traceback adds nothing."""
    from twisted.internet.error import CannotListenError

    from notifyd.database import StateError

    return isinstance(error, ConfigurationError | StateError | CannotListenError | OSError)


def _bounded(work: Coroutine[Any, Any, None], reactor: Any) -> Deferred[None]:
    log = Logger("notifyd")
    down = Deferred.fromCoroutine(work).addTimeout(STOP_TIMEOUT_S, reactor)
    down.addErrback(_not_clean, log)
    return down


def _not_clean(failure: Failure, log: Logger) -> None:
    if failure.check(NotInTime):
        log.warn("The stop is not finished after {seconds} s, and is given up.", seconds=STOP_TIMEOUT_S)
    else:
        log.failure("The stop was not clean: {why}", failure, why=failure.value)
