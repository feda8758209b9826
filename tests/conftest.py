"""What every test has: nothing may be logged as a failure, or be left scheduled, that the test did not expect."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import strategies
from twisted.logger import formatEvent, globalLogPublisher

from notifyd import database
from notifyd.agent.spool import Spool
from notifyd.event import go_deep
from tests.cables import cable  # noqa: F401 - a fixture
from tests.ctllog import kept, sqlite_log  # noqa: F401 - fixtures
from tests.hubkit import Hub
from tests.logs import Logs
from tests.postgres import postgres, postgres_server, postgres_url  # noqa: F401 - fixtures
from tests.spooling import Log, bounded, make_spool, scheduled

go_deep()  # as the hub does when it starts: no test changes the limit then, which hypothesis would not like


class Logged:
    """What was logged while a test ran."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Gives the events that carry a failure."""
        return [event for event in self.events if event.get("log_failure") is not None or event.get("isError")]

    def expect_failure(self, *kinds: type[BaseException]) -> list[BaseException]:
        """Takes out, and gives, the logged failures of these kinds: the test has expected them."""
        mine = [each for each in self.failures if each["log_failure"].check(*kinds)]
        self.events = [event for event in self.events if all(event is not each for each in mine)]
        return [each["log_failure"].value for each in mine]

    def text(self, level: str | None = None) -> list[str]:
        """Gives the sentences that were logged, of one level or of all."""
        return [
            formatEvent(event)
            for event in self.events
            if level is None or getattr(event["log_level"], "name", "") == level
        ]


def pytest_configure(config: pytest.Config) -> None:
    """Has Ctrl-C mean something to the processes that tests start, also where a shell runs the tests in background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # which they would inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keeps what is imported out of the collections that follow each test: they would take seconds in all."""
    if any(hasattr(getattr(item, "obj", None), "hypothesis") for item in session.items):
        # In a fresh checkout hypothesis makes its tables of characters now: a test would be told that it is too slow.
        strategies.text().validate()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[Any]:
    """Undoes what pytest-twisted does to a test of hypothesis, which it would do again for the next parameter."""
    handle = getattr(pyfuncitem.obj, "hypothesis", None)
    inner = getattr(handle, "inner_test", None)
    try:
        return (yield)  # type: ignore[no-any-return]
    finally:
        if handle is not None:
            handle.inner_test = inner


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    """Fails a test that logs a failure, loses a Deferred's error, or leaves a delayed call behind."""
    from twisted.internet import reactor

    seen = Logged()
    before = set(reactor.getDelayedCalls())  # type: ignore[attr-defined]
    globalLogPublisher.addObserver(seen)
    yield seen
    gc.collect()
    globalLogPublisher.removeObserver(seen)
    left = [call for call in reactor.getDelayedCalls() if call not in before]  # type: ignore[attr-defined]
    for call in left:
        call.cancel()
    problems = [f"logged: {each['log_failure'].getTraceback()}" for each in seen.failures if each.get("log_failure")]
    problems += [f"left scheduled: {call}" for call in left]
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def logs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """Logs of each kind."""
    server = None if request.param == "sqlite" else request.getfixturevalue("postgres_server")
    return Logs(tmp_path_factory, server)


@pytest.fixture
def make_hub(logs: Logs) -> Iterator[Callable[..., Hub]]:
    """Makes hubs on one database, one after the other, and closes them."""
    make_one = logs.fresh()
    made: list[Hub] = []

    def make(**settings: Any) -> Hub:
        if made:
            made[-1].close()
        made.append(make_one(**settings))
        return made[-1]

    yield make
    if made:
        made[-1].close()


@pytest.fixture
def hub(make_hub: Callable[..., Hub]) -> Hub:
    """A hub with the default settings."""
    return make_hub()


@pytest.fixture
def log() -> Iterator[Log]:
    """Gives what was logged."""
    log = Log()
    yield log
    log.close()


@pytest_twisted.async_yield_fixture
async def make(tmp_path: Path) -> Any:
    """Gives ``make(...)``, which opens a spool in the test's folder; it is closed after the test."""
    made: list[Spool] = []

    async def make(name: str = "spool.db", **options: Any) -> Spool:
        spool = make_spool(tmp_path / name, **options)
        made.append(spool)
        await bounded(spool.open())
        return spool

    yield make
    for spool in made:
        await spool.close()
    assert scheduled() == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a locked file count as away at once."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
