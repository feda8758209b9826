"""What can happen to a lookup's database while events flow, and what the clients saw of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.integration.rig import LAUNCHER, Client, Collector, Hub, Process
from tests.postgres import Cluster

LANES = ("critical", "normal")
TICK_S = 0.02
"""Between two pairs of events, a critical and a normal one."""

SQL = "SELECT location FROM seen WHERE zone = substr(CAST(:zone AS text), 1, 1)"
"""Every key has a row, so that events with keys that are ever new have one too."""

_TABLES = """
    CREATE TABLE zone (zone TEXT PRIMARY KEY, location TEXT);
    INSERT INTO zone VALUES ('0', 'Hall'), ('1', 'Kitchen'), ('2', 'Ward 2'), ('3', 'Ward 3'), ('4', 'Ward 4');
"""
_VIEW = "CREATE VIEW seen AS SELECT zone, location FROM zone"


class Flow(threading.Thread):
    """A spool that sends a critical and a normal event at each tick; every other key is one that nobody has asked for.

    Args:
        port: of the hub's ingest.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.sent: dict[str, float] = {}  # by id, when it was written, by time.monotonic()
        self.cached: set[str] = set()  # ids of events with keys that come again and again
        self._port = port
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        """Sends until it is told to finish, and reads until everything is acknowledged."""
        with Client(self._port) as client:
            client.hello(spool="flow")
            number = acked = 0
            next_s = time.monotonic()
            while not self._done.is_set():
                number += 1
                client.send(*(self._line(lane, number) for lane in LANES))
                next_s += TICK_S
                while (left_s := next_s - time.monotonic()) > 0:
                    with contextlib.suppress(TimeoutError):
                        acked = _acked(client.line(left_s))
            while acked < len(self.sent):
                acked = _acked(client.line())

    def _line(self, lane: str, number: int) -> str:
        key = f"{lane}-{number}"
        if number % 2:
            self.cached.add(key)
        fields = {"zone": f"{number % 5}" if number % 2 else f"{number % 5}-{key}"}
        event = {
            "id": key, "source": "/ward3/panel", "type": "panel.alarm", "priority": lane, "sequence": str(number),
            "data": {"fields": fields},
        }  # fmt: skip
        self.sent[key] = time.monotonic()
        return json.dumps(event)

    def finish(self) -> None:
        """Sends no more; returns when everything is acknowledged."""
        self._done.set()
        self.join(60)
        assert not self.is_alive()


def _acked(line: str) -> int:
    assert line.startswith("ACK "), line
    return int(line[4:])


@dataclass(frozen=True)
class Seen:
    """One event, as its client has seen it.

    Attributes:
        sent_s: when it was written.
        read_s: when it was read.
        event: what came.
        cached: whether its key is one that had been asked for long before.
    """

    sent_s: float
    read_s: float
    event: dict[str, Any]
    cached: bool

    @property
    def latency_s(self) -> float:
        """From the producer's write to the client's read."""
        return self.read_s - self.sent_s

    @property
    def unavailable(self) -> bool:
        """Whether it says that the database could not be asked."""
        return "unavailable" in self.event["data"]


class Ward:
    """A hub with one lookup, a producer and a registered client on each port.

    Args:
        folder: for the hub.
        url: of the lookup's database.
        timeout_s: of the lookup.
        powerless: whether the hub's root may do no more to files than their mode allows.
    """

    def __init__(self, folder: Path, url: str, timeout_s: float, *, powerless: bool = False) -> None:
        self.hub = Hub(
            folder,
            f'[[lookup]]\nname = "zone"\nsql = "{SQL}"\ndatabase = "{url}"\ntimeout = "{timeout_s:g}s"\ncache = "1h"\n'
            "cache_entries = 1_000\n",
        )
        self.process = self.hub.process = Process(
            [*(_POWERLESS if powerless else []), sys.executable, str(LAUNCHER), "notify-hub", "--config",
             str(self.hub.config)], folder,
        )  # fmt: skip
        self.process.wait_for("notify-hub is ready")
        self.clients = {lane: Collector(self.hub.ports[lane], f"client-{lane}") for lane in LANES}
        self.flow = Flow(self.hub.ports["ingest"])

    def finish(self) -> dict[str, list[Seen]]:
        """Ends the flow and gives what each client has read, in its order."""
        self.flow.finish()
        seen = {}
        for lane, client in self.clients.items():
            want = [key for key in self.flow.sent if key.startswith(lane)]
            client.wait(partial(_has, len(want)))
            seen[lane] = [
                Seen(self.flow.sent[event["id"]], read_s, event, event["id"] in self.flow.cached)
                for event, read_s in zip(client.events, client.times, strict=True)
            ]
        return seen

    def close(self) -> None:
        """Ends everything."""
        self.flow._done.set()
        for client in self.clients.values():
            client.close()
        self.process.kill()


def _has(count: int, events: list[dict[str, Any]]) -> bool:
    return len(events) >= count


_POWERLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def can_be_powerless() -> bool:
    """Tells whether a folder can be closed to a hub that this user starts."""
    if os.geteuid():
        return True
    if shutil.which("setpriv") is None:
        return False
    return subprocess.run([*_POWERLESS, "true"], check=False, capture_output=True).returncode == 0


# --- databases -----------------------------------------------------------------------------------------------


def make_postgresql(server: Cluster) -> str:
    """Makes the tables in a schema of their own and gives its URL."""
    url = server.fresh_url()
    server.execute(_TABLES, url)
    server.execute(_VIEW, url)
    return url


def make_sqlite(folder: Path) -> str:
    """Makes the tables in a file in a folder of its own and gives its URL."""
    path = folder / "zones" / "zones.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{_TABLES}; {_VIEW}")
    return f"sqlite:///{path}"


# --- faults of a PostgreSQL server ---------------------------------------------------------------------------

Inject = Callable[[Cluster, str], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def stopped(server: Cluster, url: str) -> Iterator[None]:
    """The server is stopped, and started again."""
    server.stop()
    yield
    server.start()


@contextlib.contextmanager
def killed(server: Cluster, url: str) -> Iterator[None]:
    """All of the server's processes die at once."""
    server.kill()
    yield
    server.start()


@contextlib.contextmanager
def frozen(server: Cluster, url: str) -> Iterator[None]:
    """The server's processes stand still: connections stay open, and nothing is answered."""
    server.freeze()
    yield
    server.thaw()


@contextlib.contextmanager
def locked(server: Cluster, url: str) -> Iterator[None]:
    """Somebody holds the table's ACCESS EXCLUSIVE lock."""
    import psycopg

    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE zone IN ACCESS EXCLUSIVE MODE")
        yield
        holder.rollback()


def _view(server: Cluster, url: str, more: str = "") -> None:
    server.execute(f"CREATE OR REPLACE VIEW seen AS SELECT zone, location FROM zone {more}", url)


@contextlib.contextmanager
def slow(server: Cluster, url: str) -> Iterator[None]:
    """Each question takes half a minute."""
    _view(server, url, ", (SELECT pg_sleep(30)) AS pause")
    yield
    _view(server, url)


SPILL = (
    ", (SELECT count(*) FROM (SELECT DISTINCT n FROM generate_series(1, 200000) AS n ORDER BY n) AS sorted) AS all_n"
)
"""More than fits into ``work_mem``: the server needs files for it."""


@contextlib.contextmanager
def disk_full(server: Cluster, url: str) -> Iterator[None]:
    """What the server needs files for finds the disk full; where none may be mounted, its limit for such files."""
    folder = server.folder / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k,mode=0777", "tmpfs", str(folder)], check=False, capture_output=True
    )
    shutil.chown(folder, server.folder.owner(), server.folder.group())
    try:
        server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        server.execute("ALTER ROLE notifyd SET work_mem = '64kB'")
        server.execute("ALTER ROLE notifyd SET temp_tablespaces = 'small'")
        if mounted.returncode:
            server.execute("ALTER ROLE notifyd SET temp_file_limit = '100kB'")
        _view(server, url, SPILL)
        _terminate(server)  # a role's settings are for new sessions
        yield
        _view(server, url)
    finally:
        server.execute("ALTER ROLE notifyd RESET ALL")
        _terminate(server)
        for _ in range(100):
            with contextlib.suppress(Exception):  # a session may still use it
                server.execute("DROP TABLESPACE small")
                break
            time.sleep(0.05)
        # A server that is killed later replays its log from here: it must not look for the folder.
        server.execute("CHECKPOINT")
        if not mounted.returncode:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _terminate(server: Cluster, state: str = "") -> int:
    """Ends the sessions of lookups; gives how many."""
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'notifyd lookup'"
    return len(server.execute(sql + state))


@contextlib.contextmanager
def terminated(server: Cluster, url: str) -> Iterator[None]:
    """Sessions are ended in the midst of a question, some times."""
    _view(server, url, ", (SELECT pg_sleep(0.05)) AS pause")
    cut = 0
    for _ in range(2_000):
        cut += _terminate(server, " AND state = 'active'")
        if cut >= 5:
            break
    assert cut >= 5
    _view(server, url)
    yield


OUTAGES: dict[str, Inject] = {
    "stopped": stopped, "killed": killed, "frozen": frozen, "locked": locked, "slow": slow, "disk full": disk_full,
}  # fmt: skip


# --- faults of a SQLite file -----------------------------------------------------------------------------------


@contextlib.contextmanager
def vanished(path: Path) -> Iterator[None]:
    """The file is gone for a while."""
    path.rename(path.with_suffix(".away"))
    yield
    path.with_suffix(".away").rename(path)


@contextlib.contextmanager
def garbage(path: Path) -> Iterator[None]:
    """Another file is put in its place, which is no database."""
    kept = path.with_suffix(".kept")
    kept.hardlink_to(path)
    other = path.with_suffix(".other")
    other.write_bytes(os.urandom(50_000))
    other.rename(path)
    yield
    kept.rename(path)


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Another program has locked the file for itself."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield
        holder.execute("ROLLBACK")


@contextlib.contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """The folder is closed to the hub, and its file is another one since: an open file would go on being read."""
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.rename(path)
    path.parent.chmod(0)
    yield
    path.parent.chmod(0o755)


FILE_OUTAGES: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {
    "file vanished": vanished, "file garbage": garbage, "file locked": locked_file, "folder forbidden": forbidden,
}  # fmt: skip
