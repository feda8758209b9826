"""``[filter]``: the operator's own code, loaded once, and asked about every event."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from notifyd import config_hub
from notifyd.config import ConfigurationError
from notifyd.event import Priority
from notifyd.filters import EventView
from notifyd.hub.draft import Draft
from notifyd.hub.filter_calls import METHODS, Answer, Calls, Failed, Raised, Unfinished, describe, place_of, raised
from notifyd.hub.filter_reports import Reports
from notifyd.hub.filter_thread import OPEN, FilterThread, Job

__all__ = ["Failed", "FilterRunner", "Outcome", "load_filter", "reason_of"]

MAX_LEFT_BEHIND = 10_000
"""Calls that go on although they were given up: each keeps an event in memory, and they would gather for ever."""

Outcome: TypeAlias = Priority | Failed | None
"""What the filter makes of an event: it has named a priority, it has failed, or it leaves it to the rules."""


def reason_of(outcome: Outcome) -> str | None:
    """Gives the ``reason`` of an event that the filter has made an error event, None for any other."""
    if isinstance(outcome, Failed):
        return outcome.reason
    return "filter: characterise named error" if outcome is Priority.ERROR else None


# --- loading ---------------------------------------------------------------------------------------------


def load_filter(settings: config_hub.Filter, path: str = "") -> object:
    """Imports the operator's module and has its factory make the object.

    Args:
        settings: of ``[filter]``.
        path: of the configuration, for what is told.

    Raises:
        ConfigurationError: there is no such object, whatever the reason; nothing else is raised.
    """
    module_name, _, name = settings.factory.partition(":")
    doing = f"{module_name} cannot be imported"
    try:
        factory: Any = importlib.import_module(module_name)
        doing = f"{module_name} has no {name}"
        for step in name.split("."):
            factory = getattr(factory, step)
        doing = f"{settings.factory} cannot be called"
        made: object = factory()
        doing = f"what {settings.factory} gives cannot be used"
        reason = _unusable(made, settings.blocking)
    except BaseException as error:  # noqa: BLE001 - a module that calls sys.exit must not end us without a word
        reason = f"{doing}: {_described(error)}"
        if type(error) is ModuleNotFoundError:
            reason += "; what it needs has to be installed beside notifyd, or be in a folder of PYTHONPATH"
    else:
        if not reason:
            return made
        reason = f"what {settings.factory} gives {reason}"
    raise ConfigurationError(path, "filter.factory", reason)


def _unusable(made: object, blocking: bool) -> str:
    """Gives what is wrong with an object, nothing where it is a filter."""
    if inspect.iscoroutine(made):
        made.close()
        return "has to be waited for: the factory must not be async"
    methods = {name: method for name in METHODS if (method := getattr(made, name, None)) is not None}
    if not methods:
        return "has neither preprocess nor characterise"
    for name, method in methods.items():
        if not callable(method):
            return f"has a {name} that cannot be called"
        if blocking and inspect.iscoroutinefunction(method):
            return f"has an async {name}, which does not go with blocking = true"
    return ""


def _described(error: BaseException) -> str:
    what, place = describe(error), place_of(error)
    if isinstance(error, SyntaxError) or place is None or place[0] in (__file__, importlib.__file__):
        return what
    return f"{what} ({place[0]}, line {place[1]})"


# --- running ---------------------------------------------------------------------------------------------


class FilterRunner:
    """Asks the operator's object about the events of one batch after the other.

    Args:
        reactor: its clock is used, and told by the thread.
        settings: of ``[filter]``.
        made: what :func:`load_filter` gave.
    """

    log = Logger("notifyd.hub.filter")

    def __init__(self, reactor: Any, settings: config_hub.Filter, made: object) -> None:
        self._reactor = reactor
        self._timeout_s = float(settings.timeout)
        self._late = Failed(f"filter: no answer within {self._timeout_s:g} s")
        self._calls = Calls(made)
        self._reports = Reports(self.log, reactor.seconds)
        self._thread = FilterThread(reactor, self._calls, self._returned) if settings.blocking else None
        self._hung: tuple[Job, float] | None = None
        self._not_asked = 0  # events, since it hangs
        self._left = 0  # calls that are waited for, and those that were given up and still go on

    async def run(self, drafts: Sequence[Draft], received: Sequence[str]) -> list[Outcome]:
        """Asks about events, all side by side where that is possible; adds what preprocess gives to the drafts.

        Args:
            drafts: the events, without ``context`` of their producers'.
            received: when the hub read each of them, RFC 3339.

        Returns:
            What came out, for each draft. Nothing that the operator's code does makes this raise.
        """
        self._reports.flush()
        if self._thread is not None:
            return await self._run_in_thread(self._thread, drafts, received)
        if self._left >= MAX_LEFT_BEHIND:
            return self._refuse("filter: too many calls that were given up still go on", len(drafts))
        ask = self._calls.ask
        outcomes: list[Outcome] = []
        unfinished: dict[int, Unfinished] = {}
        for draft, when in zip(drafts, received, strict=True):
            answer = ask(draft, EventView(draft.event, draft, when))
            if answer is None or type(answer) is Priority:
                outcomes.append(answer)
            elif isinstance(answer, Unfinished):
                unfinished[len(outcomes)] = answer
                outcomes.append(self._late)
            else:
                outcomes.append(self._judge(answer))
        if unfinished:
            await self._finish(unfinished, outcomes)
        return outcomes

    def stop(self) -> None:
        """Ends the thread, unless it hangs, and tells what has not been told; nothing is run after."""
        self._reports.flush(all_of_them=True)
        if self._thread is not None:
            self._thread.stop()

    def _judge(self, answer: Answer) -> Outcome:
        """Gives an answer as an outcome, and tells the log of a failure."""
        if isinstance(answer, Raised):
            self._reports.raised(answer)
            return Failed(answer.reason)
        return answer

    def _refuse(self, reason: str, count: int) -> list[Outcome]:
        self._reports.late(reason, count)
        return [Failed(reason)] * count

    # --- answers that come later

    async def _finish(self, unfinished: dict[int, Unfinished], outcomes: list[Outcome]) -> None:
        """Waits, for no longer than the timeout, and puts the outcomes in their places."""
        done: Deferred[None] = Deferred()
        running: dict[int, Deferred[None]] = {}

        async def settle(index: int, each: Unfinished) -> None:
            self._left += 1
            try:
                answer = await each.finish()
            finally:
                self._left -= 1
            if each.wanted:
                outcomes[index] = self._judge(answer)
                del unfinished[index]
                if not unfinished:
                    done.callback(None)
            elif isinstance(answer, Raised) and not isinstance(answer.error, CancelledError | GeneratorExit):
                self._reports.raised(answer)

        for index, each in list(unfinished.items()):
            running[index] = Deferred.fromCoroutine(settle(index, each))
            running[index].addErrback(self._not_cancelled, each)
        timer = self._reactor.callLater(self._timeout_s, done.cancel)
        try:
            await done
        except CancelledError:
            if timer.active():
                raise  # it is the whole batch that is given up
            self._reports.late(self._late.reason, len(unfinished))
        finally:
            if timer.active():
                timer.cancel()
            self._give_up(unfinished, running)

    def _not_cancelled(self, failure: Failure, each: Unfinished) -> None:
        """Tells of what a canceller of the operator's has raised."""
        self._reports.raised(raised(each.method, failure.value or CancelledError()))

    def _give_up(self, unfinished: dict[int, Unfinished], running: dict[int, Deferred[None]]) -> None:
        for each in unfinished.values():
            each.wanted = False
        for index in unfinished:
            running[index].cancel()

    # --- answers of the thread

    async def _run_in_thread(
        self, thread: FilterThread, drafts: Sequence[Draft], received: Sequence[str]
    ) -> list[Outcome]:
        if self._hung is not None:
            self._not_asked += len(drafts)
            return [Failed("filter: not asked, since an earlier call has not returned")] * len(drafts)
        job = Job(drafts, received)
        try:
            thread.work_on(job)
        except RuntimeError as error:
            return self._refuse(f"filter: its thread cannot be started: {error}", len(drafts))
        timer = self._reactor.callLater(self._timeout_s, self._expire, thread, job)
        try:
            await job.finished
        finally:
            job.given_up = True
            if timer.active():
                timer.cancel()
        outcomes: list[Outcome] = []
        for draft, mine, answer in zip(drafts, job.copies, list(job.answers), strict=True):
            if answer is OPEN:
                outcomes.append(self._late)
                continue
            for member in mine.added:
                draft.add_context(*member)
            outcomes.append(self._judge(answer))
        return outcomes

    def _expire(self, thread: FilterThread, job: Job) -> None:
        """Gives a batch up; a call that has taken most of the time counts as one that hangs, until it returns."""
        current = thread.current
        if current is not None and self._reactor.seconds() - current[1] >= self._timeout_s / 2:
            self._hung = current
            self.log.warn(
                "The filter has not returned from a call for {seconds:.1f} s: until it does, events become errors.",
                seconds=self._reactor.seconds() - current[1],
            )
        else:
            self._reports.late(self._late.reason, job.answers.count(OPEN))
        job.give_up()

    def _returned(self, job: Job) -> None:
        if self._hung is not None and self._hung[0] is job:
            seconds = self._reactor.seconds() - self._hung[1]
            self.log.info(
                "The filter has returned after {seconds:.1f} s, and is asked again; it has missed {count} events.",
                seconds=seconds,
                count=self._not_asked,
            )
            self._hung, self._not_asked = None, 0
        job.give_up()
