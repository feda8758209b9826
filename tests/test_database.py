"""The database layer: migrations, pools, the lock of a folder, and what an error means."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from notifyd import database
from notifyd.database import Fault, FolderLock, NewerSchemaError, StateError, judge, migrate
from notifyd.fewthreads import FewThreads

FIRST = "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1)"
SECOND = "ALTER TABLE a ADD COLUMN y INTEGER"
BROKEN = "ALTER TABLE a ADD COLUMN z INTEGER; INSERT INTO nowhere VALUES (1)"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An empty database."""
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as opened:
        yield opened


def version(connection: sqlite3.Connection) -> int:
    """Gives the schema's version."""
    return int(connection.execute("SELECT version FROM schema_version").fetchone()[0])


def test_migrations_run_once_each_and_in_order(connection: sqlite3.Connection) -> None:
    """From nothing, or from where the database is."""
    migrate(connection.cursor(), [FIRST])
    assert version(connection) == 1
    migrate(connection.cursor(), [FIRST, SECOND])
    migrate(connection.cursor(), [FIRST, SECOND])
    assert version(connection) == 2
    assert connection.execute("SELECT x, y FROM a").fetchall() == [(1, None)]


def test_a_database_of_a_newer_version_is_refused_and_left_alone(connection: sqlite3.Connection) -> None:
    """The sentence says what to do."""
    migrate(connection.cursor(), [FIRST, SECOND])
    with pytest.raises(NewerSchemaError, match=r"version 2.*knows 1.*install a newer"):
        migrate(connection.cursor(), [FIRST])
    assert version(connection) == 2
    assert not connection.in_transaction


def test_a_migration_that_fails_changes_nothing(connection: sqlite3.Connection) -> None:
    """It is one transaction, and can be tried again."""
    migrate(connection.cursor(), [FIRST])
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection.cursor(), [FIRST, BROKEN])
    connection.rollback()
    assert version(connection) == 1
    migrate(connection.cursor(), [FIRST, SECOND])
    assert connection.execute("SELECT * FROM a").fetchall() == [(1, None)]


def error_of(work: Callable[[], object]) -> BaseException:
    """Gives what a call raises."""
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - whatever the driver raises
        work()
    return raised.value


def test_errors_are_judged_by_whose_fault_they_are(tmp_path: Path, connection: sqlite3.Connection) -> None:
    """As the driver really raises them."""
    connection.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT NOT NULL CHECK (y <> 'no'))")
    connection.execute("INSERT INTO t VALUES (1, 'a')")
    connection.commit()
    for bad in [(1, "b"), (2, None), (3, "no"), ("x", "y"), (4, "\ud800"), (2**70, "a"), (5, object())]:
        assert judge(error_of(lambda bad=bad: connection.execute("INSERT INTO t VALUES (?, ?)", bad))) is Fault.REFUSED
    connection.rollback()
    connection.execute("BEGIN IMMEDIATE")
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db", timeout=0)) as other:
        assert judge(error_of(lambda: other.execute("INSERT INTO t VALUES (9, 'a')"))) is Fault.AWAY
    connection.rollback()
    assert judge(error_of(lambda: sqlite3.connect(tmp_path / "nowhere" / "x.db"))) is Fault.AWAY
    connection.execute("PRAGMA query_only=ON")
    assert judge(error_of(lambda: connection.execute("DELETE FROM t"))) is Fault.AWAY
    connection.execute("PRAGMA query_only=OFF")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    full = error_of(lambda: connection.execute("INSERT INTO t VALUES (7, ?)", ("x" * 100_000,)))
    assert "full" in str(full)
    assert judge(full) is Fault.AWAY


def test_a_file_that_is_damaged_is_corrupt(tmp_path: Path) -> None:
    """Whether it never was a database or is none any more."""
    (tmp_path / "a.db").write_bytes(b"no database at all " * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as opened:
        assert judge(error_of(lambda: opened.execute("SELECT * FROM t"))) is Fault.CORRUPT
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as made:
        made.execute("CREATE TABLE t (x)")
        made.executemany("INSERT INTO t VALUES (?)", [("y" * 500,)] * 100)
        made.commit()
    data = (tmp_path / "b.db").read_bytes()
    (tmp_path / "b.db").write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as opened:
        assert judge(error_of(lambda: opened.execute("SELECT * FROM t").fetchall())) is Fault.CORRUPT


def test_other_errors_are_judged_too() -> None:
    """The system's are worth another try; a mistake of ours is not."""
    assert judge(OSError(28, "No space left on device")) is Fault.AWAY
    assert judge(StateError("x")) is Fault.CORRUPT
    assert judge(ValueError("x")) is Fault.REFUSED
    assert judge(sqlite3.OperationalError("from elsewhere")) is Fault.AWAY
    assert judge(sqlite3.ProgrammingError("from elsewhere")) is Fault.REFUSED


@pytest_twisted.ensureDeferred
async def test_a_pool_writes_durably_and_a_reader_does_not_write(tmp_path: Path) -> None:
    """Whatever characters the path has."""
    path = tmp_path / "a b?c#d%20ü.db"
    pool = database.open_pool(path, reactor=reactor)
    await database.interact(pool, lambda cursor: cursor.execute("CREATE TABLE t (x)") and None)
    assert path.exists()
    assert await database.interact(pool, lambda c: c.execute("PRAGMA synchronous").fetchone()) == (2,)
    reader = database.open_pool(path, reactor=reactor, read_only=True, threads=2)
    assert await database.interact(reader, lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (0,)
    with pytest.raises(sqlite3.OperationalError):
        await database.interact(reader, lambda c: c.execute("INSERT INTO t VALUES (1)"))
    reader.close()
    pool.close()


def test_a_folder_is_locked_by_one_process_and_free_when_it_ends(tmp_path: Path) -> None:
    """The one that comes second is told which process has it."""
    lock, second = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")
    lock.acquire()
    with pytest.raises(StateError, match=f"another process \\({os.getpid()}\\) uses {tmp_path}"):
        second.acquire()
    lock.release()
    lock.release()
    second.acquire()
    second.release()
    code = "import sys; from pathlib import Path; from notifyd.database import FolderLock\n"
    code += "lock = FolderLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    arguments = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match=str(child.pid)):
            lock.acquire()
        child.kill()
        child.wait(timeout=20)
    lock.acquire()
    lock.release()


def test_a_lock_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    """With the path and the system's reason."""
    with pytest.raises(StateError, match=r"nowhere.*No such file"):
        FolderLock(tmp_path / "nowhere" / "lock").acquire()


def test_a_state_folder_is_made_for_its_user_only(tmp_path: Path) -> None:
    """With its parents; one that is there is left as it is."""
    folder = tmp_path / "a" / "b"
    database.prepare_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    database.prepare_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert list(folder.iterdir()) == []


def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """As where a file is in the way."""
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(StateError, match="cannot be written"):
            database.prepare_folder(folder)


def test_one_thread_takes_work_in_order_and_ends() -> None:
    """What raises is told, what came before the start is done, and nothing of what was done is held."""
    thread = FewThreads("under test", 1)
    told: list[tuple[bool, Any]] = []

    def tell(done: bool, result: Any) -> None:
        told.append((done, result))

    def fail() -> None:
        raise SystemExit("no end of the thread")

    class Work:
        """Something that is looked for afterwards."""

    work = Work()
    there = weakref.ref(work)
    thread.callInThreadWithCallback(tell, lambda number, more: number + more, 1, more=2)
    thread.callInThreadWithCallback(tell, fail)
    thread.callInThreadWithCallback(lambda *_: None, lambda held: threading.current_thread().name, work)
    thread.start()
    thread.callInThreadWithCallback(tell, lambda: threading.current_thread().name)
    del work
    thread.stop()
    thread.stop()
    assert (told[0], told[2]) == ((True, 3), (True, "under test"))
    assert told[1][1].check(SystemExit)
    assert not told[1][0]
    assert there() is None
    assert "under test" not in {each.name for each in threading.enumerate()}


def test_several_threads_work_at_once() -> None:
    """Each takes what comes next; all of them end."""
    threads = FewThreads("under test", 3)
    meet = threading.Barrier(3, timeout=10)
    told: list[bool] = []
    for _ in range(3):
        threads.callInThreadWithCallback(lambda done, result: told.append(done), meet.wait)
    threads.start()
    threads.stop()
    assert told == [True] * 3
    assert "under test" not in {each.name for each in threading.enumerate()}


@pytest_twisted.ensureDeferred
async def test_a_pool_can_be_made_before_the_reactor_runs(tmp_path: Path) -> None:
    """It then starts with the reactor; what is asked for before is done."""

    class NotRunning:
        """A reactor that will run."""

        def __init__(self) -> None:
            self.starts: list[Any] = []

        def callWhenRunning(self, start: Any) -> None:
            """Notes what is to be done then."""
            self.starts.append(start)

        def __getattr__(self, name: str) -> Any:
            return getattr(reactor, name)

    later = NotRunning()
    pool = database.open_pool(tmp_path / "x.db", reactor=later)
    answer = database.interact(pool, lambda cursor: cursor.execute("SELECT 7").fetchone()[0])
    assert not answer.called
    (start,) = later.starts
    start()
    assert await answer == 7
    pool.close()  # type: ignore[no-untyped-call]  # as all of adbapi
