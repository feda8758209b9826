"""``blocking = true``: the operator's code in a thread that may hang, and that nothing waits for for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.logger import globalLogPublisher

from notifyd.event import Priority
from notifyd.hub.filter_thread import Job
from notifyd.hub.filtering import Failed
from tests.conftest import Logged
from tests.filtering import Rig, answer, draft
from tests.spooling import bounded

ROOT = Path(__file__).parent.parent
LATE = Failed("filter: no answer within 2 s")
NOT_ASKED = Failed("filter: not asked, since an earlier call has not returned")
MAIN = threading.main_thread()


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    """Gives ``rig(preprocess=…, characterise=…)``; its thread is ended after the test."""
    made: list[Rig] = []

    def make(**methods: Any) -> Rig:
        made.append(Rig("blocking = true", **methods))
        return made[-1]

    yield make
    for each in made:
        each.runner.stop()
        thread = each.runner._thread
        if thread is not None and thread._thread is not None:
            thread._thread.join(10)
            assert not thread._thread.is_alive()


class Gate:
    """A method that tells the test when it is called, and returns when the test says so."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.calls: list[Any] = []
        self._entered: list[Deferred[None]] = [Deferred()]

    def __call__(self, event: Any) -> Any:
        self.calls.append(event)
        reactor.callFromThread(self._tell)  # type: ignore[attr-defined]
        assert self.opened.wait(10)
        return "critical"

    def _tell(self) -> None:
        self._entered[-1].callback(None)
        self._entered.append(Deferred())

    async def entered(self) -> None:
        """Waits until the method is being called."""
        await bounded(self._entered[-1])


async def thread_idle(rig: Rig) -> None:
    """Waits until what the thread has told the reactor has arrived, by a batch that it does after everything else."""
    thread = rig.runner._thread
    assert thread is not None
    job = Job([], [])
    thread.work_on(job)
    await bounded(job.finished)


@pytest_twisted.ensureDeferred
async def test_the_methods_are_called_in_another_thread(rig: Callable[..., Rig]) -> None:
    """Always in the same one, one event after the other; the outcomes are as of plain methods."""
    threads: list[threading.Thread] = []

    def preprocess(event: Any) -> Any:
        threads.append(threading.current_thread())
        return {"mine": event.type, "found": 2}

    def characterise(event: Any) -> Any:
        threads.append(threading.current_thread())
        assert event.data == {"line": "x", "context": {"found": 2, "kept": [3], "mine": event.type}}
        return event.type if event.type == "critical" else None

    made = rig(preprocess=preprocess, characterise=characterise)
    for _ in range(2):
        drafts = [draft(type=kind, data={"line": "x"}) for kind in ("critical", "a", "critical")]
        for each in drafts:
            each.add_context("found", 1, b"1")
            each.add_context("kept", [3], b"[3]")
        assert await bounded(made.begin(*drafts)) == [Priority.CRITICAL, None, Priority.CRITICAL]
        drafts[1].write_data()
        assert b'"context":{"found":2,"kept":[3],"mine":"a"}' in bytes(drafts[1].event.data)  # type: ignore[arg-type]
    assert len(threads) == 12
    assert len(set(threads)) == 1
    assert MAIN not in threads
    assert made.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_the_thread_sees_a_copy_of_the_draft(rig: Callable[..., Rig]) -> None:
    """What the hub does to an event that it has given up does not show, and nothing is added to it."""
    gate = Gate()
    seen: list[Any] = []

    def preprocess(event: Any) -> Any:
        gate(event)
        seen.extend([event.data == {"a": 1, "context": {"b": 2}}, event.priority, event.extensions])
        return {"c": 3}

    made = rig(preprocess=preprocess)
    event = draft(data={"a": 1}, priority="normal", x=[1])
    event.add_context("b", 2, b"2")
    running = made.begin(event)
    await gate.entered()
    made.clock.advance(2)
    assert answer(running) == [LATE]
    event.event.priority = "error"
    event.add_context("late", 4, b"4")
    gate.opened.set()
    await thread_idle(made)
    assert seen == [True, Priority.NORMAL, {"x": [1]}]
    assert event.data == {"a": 1, "context": {"b": 2, "late": 4}}


@pytest_twisted.ensureDeferred
async def test_a_context_that_is_no_object_is_replaced(rig: Callable[..., Rig]) -> None:
    """Whatever a producer has written there."""
    seen: list[Any] = []
    made = rig(
        preprocess=lambda event: {"a": 1},
        characterise=lambda event: seen.append(event.data["context"] == {"a": 1}),
    )
    event = draft(data={"context": "x"})
    assert await bounded(made.begin(event)) == [None]
    assert seen == [True]
    assert event.data == {"context": {"a": 1}}


@pytest_twisted.ensureDeferred
async def test_failures_in_the_thread_are_failures_of_their_events(logged: Logged, rig: Callable[..., Rig]) -> None:
    """Whatever is raised; the traceback is logged by the reactor's thread, once."""
    threads: list[threading.Thread] = []
    raises = {"a": SystemExit(3), "b": KeyboardInterrupt(), "c": ValueError("x"), "d": GeneratorExit()}

    def characterise(event: Any) -> Any:
        if event.type in raises:
            raise raises[event.type]
        return {"e": "urgent", "f": 5, "g": "normal"}[event.type]

    def observe(event: Any) -> None:
        threads.append(threading.current_thread())

    globalLogPublisher.addObserver(observe)
    outcomes = await bounded(rig(characterise=characterise).begin(*(draft(type=kind) for kind in "abcdefg")))
    globalLogPublisher.removeObserver(observe)
    assert [outcome.reason.split(": ")[1] for outcome in outcomes[:4]] == [
        "characterise raised SystemExit", "characterise raised KeyboardInterrupt",
        "characterise raised ValueError", "characterise raised GeneratorExit",
    ]  # fmt: skip
    assert '"urgent"' in outcomes[4].reason
    assert "type int" in outcomes[5].reason
    assert outcomes[6] is Priority.NORMAL
    assert set(threads) == {MAIN}
    assert len(logged.failures) == 4
    logged.events.clear()


@pytest.mark.parametrize("method", ["preprocess", "characterise"])
@pytest_twisted.ensureDeferred
async def test_what_has_to_be_waited_for_is_a_failure(rig: Callable[..., Rig], method: str) -> None:
    """A method that hides it until it is called; no coroutine is left without having been awaited."""

    async def coroutine() -> None:
        pass

    def hidden(event: Any) -> Any:
        return coroutine() if event.type == "a" else succeed("normal")

    outcomes = await bounded(rig(**{method: hidden}).begin(*(draft(type=kind) for kind in "ab")))
    expected = f"filter: {method} has to be waited for, which does not go with blocking = true"
    assert outcomes == [Failed(expected)] * 2


@pytest_twisted.ensureDeferred
async def test_an_awaitable_that_fails_to_close_is_a_failure(logged: Logged, rig: Callable[..., Rig]) -> None:
    """The thread goes on."""

    class Unclosable:
        def __await__(self) -> Iterator[None]:
            yield

        def close(self) -> None:
            raise SystemExit

    made = rig(characterise=lambda event: Unclosable() if event.type == "bad" else "normal")
    failed, outcome = await bounded(made.begin(draft(type="bad"), draft()))
    assert failed == Failed("filter: characterise raised SystemExit")
    assert outcome is Priority.NORMAL
    logged.events.clear()


# --- hanging -------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_call_that_hangs_fails_its_batch_and_the_next_at_once(logged: Logged, rig: Callable[..., Rig]) -> None:
    """What was answered before it counts; no second thread is begun; one line when it hangs, one when it returns."""
    gate = Gate()
    made = rig(characterise=lambda event: gate(event) if event.type == "slow" else "normal")
    running = made.begin(draft(), draft(type="slow"), draft())
    await gate.entered()
    made.clock.advance(1.9)
    assert not running.called
    made.clock.advance(0.1)
    assert answer(running) == [Priority.NORMAL, LATE, LATE]
    threads = threading.active_count()
    for _ in range(3):
        assert made.run(draft(), draft()) == [NOT_ASKED, NOT_ASKED]
    assert threading.active_count() == threads
    (line,) = logged.text("warn")
    assert line == "The filter has not returned from a call for 2.0 s: until it does, events become errors."
    made.clock.advance(60)
    gate.opened.set()
    await thread_idle(made)
    (line,) = logged.text("info")
    assert line == "The filter has returned after 62.0 s, and is asked again; it has missed 6 events."
    assert len(gate.calls) == 1
    assert await bounded(made.begin(draft(type="slow"))) == [Priority.CRITICAL]
    made.runner.stop()
    assert len(logged.text("warn")) == 1


@pytest_twisted.ensureDeferred
async def test_a_filter_that_is_slow_but_does_not_hang_is_asked_again(logged: Logged, rig: Callable[..., Rig]) -> None:
    """Its batch was too long for the time; the next one waits for the call that is left."""
    gate = Gate()
    made: Rig

    def characterise(event: Any) -> Any:
        if event.type == "slow":
            return gate(event)
        made.clock.rightNow += 1.5
        return "normal"

    made = rig(characterise=characterise)
    running = made.begin(draft(), draft(type="slow"), draft())
    await gate.entered()
    made.clock.advance(0.5)
    assert answer(running) == [Priority.NORMAL, LATE, LATE]
    (line,) = logged.text("warn")
    assert "no answer within 2 s; 2 events have become errors" in line
    second = made.begin(draft(type="slow"))
    assert not second.called
    gate.opened.set()
    assert await bounded(second) == [Priority.CRITICAL]
    assert logged.text("info") == []


@pytest_twisted.ensureDeferred
async def test_a_batch_behind_a_call_that_turns_out_to_hang_fails_in_its_time(
    logged: Logged, rig: Callable[..., Rig]
) -> None:
    """It is not asked about when the thread returns."""
    gate = Gate()
    made: Rig

    def characterise(event: Any) -> Any:
        made.clock.rightNow += 0 if event.type == "slow" else 1.5
        return gate(event) if event.type == "slow" else None

    made = rig(characterise=characterise)
    first = made.begin(draft(), draft(type="slow"))
    await gate.entered()
    made.clock.advance(0.5)
    assert answer(first) == [None, LATE]
    second = made.begin(draft(type="slow"))
    made.clock.advance(2)
    assert answer(second) == [LATE]
    assert made.run(draft()) == [NOT_ASKED]
    assert "not returned from a call for 2.5 s" in logged.text("warn")[-1]
    gate.opened.set()
    await thread_idle(made)
    assert len(gate.calls) == 1
    assert len(logged.text("info")) == 1


@pytest_twisted.ensureDeferred
async def test_a_batch_that_is_given_up_is_not_worked_on(rig: Callable[..., Rig]) -> None:
    """The hub ends."""
    gate = Gate()
    made = rig(characterise=gate)
    running = made.begin(draft(), draft())
    await gate.entered()
    running.addErrback(lambda _: None)
    running.cancel()
    assert made.clock.getDelayedCalls() == []
    gate.opened.set()
    await thread_idle(made)
    assert len(gate.calls) == 1


def test_a_system_without_threads_stops_nothing(
    logged: Logged, rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events fail, with the reason."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    made = rig(characterise=lambda event: "normal")
    assert made.run(draft()) == [Failed("filter: its thread cannot be started: can't start new thread")]
    assert len(logged.text("warn")) == 1


PROCESS = """
import sys, threading
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from notifyd.config import Duration
from notifyd.config_hub import Filter
from notifyd.hub.filtering import FilterRunner
from tests.filtering import RECEIVED, draft

class Hanging:
    def characterise(self, event):
        threading.Event().wait()

runner = FilterRunner(reactor, Filter(factory="a:b", blocking=True, timeout=Duration(0.05)), Hanging())

async def work():
    print(await runner.run([draft()], [RECEIVED]))
    print(await runner.run([draft()], [RECEIVED]))
    runner.stop()
    print("stopped", flush=True)
    reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()))
reactor.run()
print(threading.active_count(), "threads", flush=True)
"""


def test_a_process_ends_although_the_filter_hangs() -> None:
    """In full, with what Python does at its end, and with status 0."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESS], cwd=ROOT, check=False, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "[Failed(reason='filter: no answer within 0.05 s')]", f"[{NOT_ASKED!r}]", "stopped", "2 threads",
    ], done.stderr  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
