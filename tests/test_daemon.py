"""What both daemons share: bad configuration, telling systemd, and every way to end."""

from __future__ import annotations

import atexit
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.python import usage

from notifyd import daemon
from notifyd.config import ConfigurationError
from notifyd.config_hub import parse_hub
from notifyd.daemon import STOP_TIMEOUT_S, Daemon, DaemonOptions, notify_systemd, read_configuration
from notifyd.database import StateError


class Options(DaemonOptions):
    def parse_config(self, text: str, path: str) -> object:
        return parse_hub(text, path)


class Reactor(Clock):
    """A clock that can be stopped, as a reactor is."""

    def __init__(self, running: bool = True) -> None:
        super().__init__()
        self.running = running
        self.stopped = 0
        self.when_running: list[Callable[[], None]] = []

    def stop(self) -> None:
        self.stopped += 1

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        self.when_running.append(call)


class Example(Daemon):
    """A daemon whose ways up and down obey the test."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, "notify-example")
        self.up: Deferred[None] = Deferred()
        self.down: Deferred[None] = Deferred()

    async def come_up(self) -> None:
        await self.up

    async def go_down(self) -> None:
        await self.down


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was registered to run at the process's end."""
    registered: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda *call: registered.append(call))
    monkeypatch.setattr(daemon, "raise_file_limit", lambda: 0)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    return registered


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Gives what was printed on the process's own standard error."""
    file = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", file)
    return file.getvalue


# --- configuration -------------------------------------------------------------------------------------------


def test_a_good_file_is_read_and_parsed(tmp_path: Path) -> None:
    """Also one with CRLF; --config is as good as -c."""
    path = tmp_path / "hub.toml"
    path.write_bytes(b'state = "/x"\r\n')
    for option in ("--config", "-c"):
        options = Options()
        options.parseOptions([option, str(path)])
        assert options["configuration"].state == "/x"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"\xff", "no UTF-8 text"), (b"x = 1", "x: unknown key"), (b"[", "no valid TOML"),
    ("folder", "directory")],
)  # fmt: skip
def test_a_bad_file_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | str | None, reason: str
) -> None:
    """File, key, reason on standard error; nothing else."""
    path = tmp_path / "hub.toml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        Options().parseOptions(["--config", str(path)])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"{path}: ")
    assert reason in err


def test_a_file_is_asked_for_unless_there_are_defaults() -> None:
    """The hub runs without one, the agent does not."""
    with pytest.raises(usage.UsageError, match="--config FILE is missing"):
        Options().parseOptions([])
    options = Options()
    options.config_required = False
    options.parseOptions([])
    assert options["configuration"].limits.max_producers == 1000


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's reason."""

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigurationError, match=r"x.toml: Permission denied"):
        read_configuration("x.toml", parse_hub)


# --- systemd -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_over_its_socket(tmp_path: Path, abstract: bool) -> None:
    """By path or by abstract name."""
    name = f"@notifyd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name.replace("@", "\0") if abstract else name)
        server.settimeout(10)
        notify_systemd("READY=1", {"NOTIFY_SOCKET": name})
        assert server.recv(100) == b"READY=1"


def test_without_systemd_nobody_is_told(tmp_path: Path, logged: Any) -> None:
    """And a socket that is gone is a warning, no failure."""
    notify_systemd("READY=1", {})
    assert logged.text() == []
    notify_systemd("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert len(logged.text("warn")) == 1


def test_the_limit_of_open_files_is_raised_to_what_the_system_allows() -> None:
    """So that ten thousand clients can come."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        hard = daemon.raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- coming up and going down --------------------------------------------------------------------------------


def test_a_daemon_that_is_up_says_so(exits: list[Any], monkeypatch: pytest.MonkeyPatch, logged: Any) -> None:
    """To systemd and in its log, and not before; and it says when it goes."""
    messages: list[str] = []
    monkeypatch.setattr(daemon, "notify_systemd", messages.append)
    example = Example(Reactor())
    example.startService()
    assert messages == []
    example.up.callback(None)
    assert messages == ["READY=1"]
    assert "notify-example is ready." in logged.text()
    stopped: list[Any] = []
    example.stopService().addBoth(stopped.append)
    assert messages == ["READY=1", "STOPPING=1"]
    assert stopped == []
    example.down.callback(None)
    assert len(stopped) == 1
    assert exits == []


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    "error", [StateError("no room"), OSError(13, "no"), CannotListenError("", 1, OSError("taken"))]
)
def test_a_daemon_that_cannot_come_up_ends_with_status_1_and_one_line(
    exits: list[Any], told: Callable[[], str], running: bool, error: Exception
) -> None:
    """For the operator: without a traceback, also when the reactor does not run yet."""
    reactor = Reactor(running)
    example = Example(reactor)
    example.startService()
    example.up.errback(error)
    assert told() == f"notify-example: {error}\n"
    assert exits == [(os._exit, 1)]
    if not running:
        assert reactor.stopped == 0
        reactor.when_running[0]()
    assert reactor.stopped == 1


def test_a_mistake_of_ours_is_logged_with_its_traceback(exits: list[Any], told: Callable[[], str], logged: Any) -> None:
    """And ends the daemon all the same."""
    example = Example(Reactor())
    example.startService()
    example.up.errback(ZeroDivisionError("oops"))
    assert told() == "notify-example: oops\n"
    assert any("report it" in text for text in logged.text("critical"))
    assert logged.expect_failure(ZeroDivisionError)


def test_a_mistake_that_is_told_later_ends_the_daemon_too(
    exits: list[Any], told: Callable[[], str], logged: Any
) -> None:
    """As the pipeline's, which is told when the exception has been handled already."""
    reactor = Reactor()
    Example(reactor).fail(ZeroDivisionError("oops"))
    assert told() == "notify-example: oops\n"
    assert (reactor.stopped, len(exits)) == (1, 1)
    assert logged.expect_failure(ZeroDivisionError)


def test_only_the_first_failure_counts(exits: list[Any], told: Callable[[], str]) -> None:
    """What follows from it is not told."""
    reactor = Reactor()
    example = Example(reactor)
    example.fail("the first")
    example.fail(StateError("the second"))
    assert told() == "notify-example: the first\n"
    assert (reactor.stopped, len(exits)) == (1, 1)


def test_a_failure_while_coming_up_is_not_followed_by_ready(
    exits: list[Any], told: Callable[[], str], logged: Any
) -> None:
    """As when the log breaks while the ports are opened."""
    example = Example(Reactor())
    example.startService()
    example.fail("broken")
    example.up.callback(None)
    assert not [text for text in logged.text() if "is ready" in text]


def test_a_stop_while_coming_up_is_quiet(exits: list[Any], logged: Any) -> None:
    """As when systemd stops a hub that waits for its database."""
    example = Example(Reactor())
    example.startService()
    example.down.callback(None)
    done: list[Any] = []
    example.stopService().addBoth(done.append)
    assert len(done) == 1
    assert exits == []
    assert not logged.text("critical")


def test_a_stop_that_hangs_ends_after_a_while(exits: list[Any], logged: Any) -> None:
    """And is told."""
    reactor = Reactor()
    example = Example(reactor)
    example.startService()
    example.up.callback(None)
    done: list[Any] = []
    example.stopService().addBoth(done.append)
    reactor.advance(STOP_TIMEOUT_S - 1)
    assert done == []
    reactor.advance(1)
    assert len(done) == 1
    assert any("is given up" in text for text in logged.text("warn"))


def test_timers_do_not_go_by_the_clock_that_people_set() -> None:
    """A reactor that does not run yet gets a clock that never goes back; one that runs keeps its own."""
    import time
    from types import SimpleNamespace

    from notifyd.daemon import use_monotonic_clock

    fresh, running = SimpleNamespace(running=False, seconds=time.time), SimpleNamespace(running=True, seconds=time.time)
    use_monotonic_clock(fresh)
    use_monotonic_clock(running)
    assert fresh.seconds is time.monotonic
    assert running.seconds is time.time


FAULTS = """
import resource, sys
from notifyd.daemon import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
for round in range(51):
    if round == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pages = [bytes(512 * 1024) for _ in range(8)]
    del pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another C library has no mallopt to be told by"
)
def test_memory_is_kept_for_what_comes_next() -> None:
    """The kernel is not asked again and again for pages of the log that were freed just before."""

    def faults(way: str) -> int:
        told = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        return int(told.stdout)

    assert faults("kept") < faults("as usual") / 4
