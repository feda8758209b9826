"""A throwaway PostgreSQL server: one for each process that runs tests, begun when the first test wants it."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

START_S = 60
"""For how long the server may take to begin or to end: it recovers after a kill, on a machine that others use too."""

SETTINGS = {
    "fsync": "off",  # what a power loss would do to it does not matter; a kill -9 does no harm without it
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "log_min_messages": "warning",
}


def require_postgres() -> Path:
    """Gives the folder of the server's programs; without one the test is skipped, but fails where CI has to have it."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    reason = "no PostgreSQL server is installed (apt install postgresql)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Cluster:
    """A server with a data folder of its own, which trusts whoever reaches it; the superuser is ``notifyd``.

    Args:
        programs: the folder of ``initdb`` and ``postgres``.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        # /tmp, as a folder below that of the tests may be closed to the server's user, and too long for a socket's name
        self.folder = Path(tempfile.mkdtemp(prefix="notifyd-postgres-", dir="/tmp"))
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # initdb and postgres refuse to run as root
            user = _unprivileged()
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.data = self.folder / "data"
        self.port = _free_port()
        self._run("initdb", "--no-sync", "--auth=trust", "--username=notifyd", "--encoding=UTF8", "--locale=C")

    @property
    def running(self) -> bool:
        """Tells whether the server's first process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def url(self, schema: str | None = None, *, unix: bool = False) -> str:
        """Gives a connection URL.

        Args:
            schema: where unqualified names are looked for; it need not be there yet.
            unix: by the Unix socket instead of TCP.
        """
        host = quote(str(self.folder), safe="") if unix else "127.0.0.1"
        url = f"postgresql://notifyd@{host}:{self.port}/postgres"
        return url if schema is None else f"{url}?options=-csearch_path%3D{quote(schema, safe='')}"

    def fresh_url(self) -> str:
        """Makes an empty schema and gives the URL that leads into it; the server is started where it is not running."""
        self.start()
        schema = f"test_{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {schema}")
        return self.url(schema)

    def execute(self, sql: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Runs a statement in a connection of its own and gives the rows that it has."""
        import psycopg

        with psycopg.connect(url or self.url(), autocommit=True, connect_timeout=START_S) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description is not None else []

    def start(self) -> None:
        """Starts the server where it is not running, thaws it where it is frozen, and waits until it takes clients."""
        self.thaw()
        if self.running:
            return
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [self._programs / "postgres", "-D", self.data, "-k", self.folder, "-p", str(self.port), *settings]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=_environment(),
                start_new_session=True, **self._as_user,
            )  # fmt: skip
        for _ in _until(START_S, "the server is not ready"):
            if self._process.poll() is not None:
                raise AssertionError(f"the server has ended: {self.log()}")
            if self._is_ready():
                return

    def stop(self, mode: str = "fast") -> None:
        """Stops the server and waits until it has ended.

        Args:
            mode: ``smart`` waits for the clients, ``fast`` sends them away, ``immediate`` cuts them off.
        """
        self.thaw()
        self._end({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])

    def kill(self) -> None:
        """Ends all of the server's processes with SIGKILL, frozen ones too."""
        children = self._children()
        if self.running:
            self._end(signal.SIGKILL, children)
        self._frozen = []

    def freeze(self) -> None:
        """Stops all of the server's processes by SIGSTOP: connections stay open, and nothing is answered any more."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)  # first, so that it makes no further ones
        self._frozen = [self._process.pid, *self._children()]
        for pid in self._frozen[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen server go on; one that is not frozen is left alone."""
        frozen, self._frozen = self._frozen, []
        for pid in reversed(frozen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def restart(self, mode: str = "fast") -> None:
        """Stops the server, where it is running, and starts it."""
        if self.running:
            self.stop(mode)
        self.start()

    def log(self) -> str:
        """Gives the end of what the server has logged."""
        path = self.folder / "log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def remove(self) -> None:
        """Ends the server and removes its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, "-D", self.data, *arguments]
        done = subprocess.run(
            command, capture_output=True, check=False, cwd=self.folder, env=_environment(), timeout=START_S,
            **self._as_user,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def _is_ready(self) -> bool:
        """Reads what pg_ctl waits for, too: the process and the state in postmaster.pid."""
        assert self._process is not None
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return lines[0] == str(self._process.pid) and len(lines) > 7 and lines[7].strip() == "ready"

    def _children(self) -> list[int]:
        """Gives the processes that the server's first one has made."""
        if self._process is None:
            return []
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        try:
            return [int(pid) for pid in path.read_text().split()]
        except OSError:
            return []

    def _end(self, how: signal.Signals, also: list[int] | None = None) -> None:
        process = self._process
        if process is None:
            return
        for pid in [process.pid, *(also or [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server does not end: {self.log()}") from None
        self._process = None
        # A process of the old server that is still there would keep the next one from starting.
        for pid in also or []:
            for _ in _until(START_S, f"process {pid} does not end"):
                if _has_ended(pid):
                    break


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def _until(seconds: float, reason: str) -> Iterator[None]:
    """Gives turns, a little apart, until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.02)
    raise AssertionError(reason)


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Cluster]:
    """The server of this process; tests take ``postgres``."""
    cluster = Cluster(require_postgres())
    atexit.register(cluster.remove)  # should the session end without its fixtures
    try:
        yield cluster
    finally:
        cluster.remove()
        atexit.unregister(cluster.remove)


@pytest.fixture
def postgres(postgres_server: Cluster) -> Iterator[Cluster]:
    """A running server, whatever the last test did to it."""
    postgres_server.start()
    yield postgres_server
    postgres_server.thaw()


@pytest.fixture
def postgres_url(postgres: Cluster) -> str:
    """Gives the URL of a schema that is empty."""
    return postgres.fresh_url()
