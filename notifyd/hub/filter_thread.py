"""The thread in which a filter with ``blocking = true`` may take its time, and which the hub's end does not wait for.

The reactor's own threads will not do: at the end of the process they are waited for, and one that hangs in the
operator's code would keep the hub from ending. This thread is a daemon thread, which Python does not wait for.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred

from notifyd.filters import EventView
from notifyd.hub.draft import Draft
from notifyd.hub.filter_calls import Answer, BadAnswerError, Calls, Unfinished, raised
from notifyd.hub.json_value import Member

OPEN = object()
"""Stands for the answer to an event that the thread has not answered."""


class Copy:
    """A draft's data for the thread: it sees and changes nothing of the draft itself.

    Args:
        draft: is copied, in the reactor's thread; what its data hold further down is changed by nobody.
    """

    __slots__ = ("added", "data")

    def __init__(self, draft: Draft) -> None:
        self.data = dict(draft.data)
        self.added: list[Member] = []
        context = self.data.get("context")
        if isinstance(context, dict):
            self.data["context"] = dict(context)

    def add_context(self, name: str, value: Any, encoded: bytes) -> None:
        """Adds a member that the draft is given later."""
        context = self.data.get("context")
        if not isinstance(context, dict):
            context = self.data["context"] = {}
        context[name] = value
        self.added.append((name, value, encoded))


class Job:
    """A batch for the thread; made in the reactor's.

    Args:
        drafts: the events.
        received: of each, RFC 3339.
    """

    def __init__(self, drafts: Sequence[Draft], received: Sequence[str]) -> None:
        self.copies = [Copy(draft) for draft in drafts]
        self.events: list[EventView] = []
        for draft, mine, when in zip(drafts, self.copies, received, strict=True):
            event = EventView(copy.copy(draft.event), mine, when)
            event.extensions  # noqa: B018 - parsing may change the recursion limit, which is for the reactor's thread
            self.events.append(event)
        self.answers: list[Any] = [OPEN] * len(drafts)  # each an Answer, once the thread has put it there
        self.given_up = False  # nobody waits for it any more
        self.finished: Deferred[None] = Deferred()

    def give_up(self) -> None:
        """Has the thread leave out what it has not begun."""
        self.given_up = True
        if not self.finished.called:
            self.finished.callback(None)


class FilterThread:
    """Works on one job after the other; it begins with the first.

    Args:
        reactor: is told of each job that is done; its clock is used.
        calls: the operator's methods.
        returned: is called with each job that the thread is done with, in the reactor's thread.
    """

    def __init__(self, reactor: Any, calls: Calls, returned: Any) -> None:
        self._reactor = reactor
        self._calls = calls
        self._returned = returned
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.current: tuple[Job, float] | None = None
        """The job in which a method is being called, and since when, by the reactor's clock."""

    def work_on(self, job: Job) -> None:
        """Hands a job to the thread.

        Raises:
            RuntimeError: the system has no more threads.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="notifyd filter", daemon=True)
            thread.start()
            self._thread = thread
        self._jobs.put(job)

    def stop(self) -> None:
        """Has the thread end; it is not waited for, and what it is still at is of no interest to anyone."""
        self._stopped = True
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._answer(job)
            if self._stopped:
                return  # the reactor may be gone
            self._reactor.callFromThread(self._returned, job)

    def _answer(self, job: Job) -> None:
        for number, event in enumerate(job.events):
            if job.given_up:
                break
            self.current = (job, self._reactor.seconds())
            job.answers[number] = self._ask(job.copies[number], event)
        self.current = None

    def _ask(self, mine: Copy, event: EventView) -> Answer:
        answer = self._calls.ask(mine, event)
        if not isinstance(answer, Unfinished):
            return answer
        close = getattr(answer.promise, "close", None)  # a coroutine that is dropped would be warned of
        try:
            if close is not None:
                close()
        except BaseException as error:  # noqa: BLE001 - SystemExit in the operator's code must not end the thread
            return raised(answer.method, error)
        return raised(answer.method, BadAnswerError("has to be waited for, which does not go with blocking = true"))
