"""A few threads that take work in the order in which it comes: what adbapi needs of a thread pool.

Twisted's ThreadPool makes threads as they are needed, and balances work among them; that costs 40 us each time
(measured), half of what the hub's own code has with an event that comes alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.enterprise import adbapi
from twisted.python.failure import Failure


class FewThreads:
    """What :class:`twisted.python.threadpool.ThreadPool` is to adbapi.

    Args:
        name: of the threads, for whoever looks at them from outside.
        count: how many; one keeps work in order.
        background: they interrupt no other thread when they wake, where the system can be told so.
    """

    def __init__(self, name: str, count: int, *, background: bool = False) -> None:
        self._name = name
        self._count = count
        self._background = background
        self._work: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begins with what has come before, too."""
        self._threads = [threading.Thread(target=self._run, name=self._name) for _ in range(self._count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Waits for what has come before; what comes later is never done."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._work.put(None)
        for thread in threads:
            thread.join()

    def callInThreadWithCallback(
        self, on_result: Callable[[bool, Any], object], work: Callable[..., Any], *arguments: Any, **named: Any
    ) -> None:
        """Has work done.

        Args:
            on_result: is called in the thread, with whether it was done, and its result or a Failure.
            work: is called in the thread.
            arguments: for it.
            named: for it.
        """
        self._work.put((on_result, work, arguments, named))

    def _run(self) -> None:
        if self._background:
            _step_back()
        while (item := self._work.get()) is not None:
            on_result, work, arguments, named = item
            try:
                result, done = work(*arguments, **named), True
            except BaseException:  # noqa: BLE001 - it is told to whoever asked for the work
                result, done = Failure(), False
            on_result(done, result)
            del item, on_result, work, arguments, named, result  # memory is not held until the next one


def _step_back() -> None:
    """Has the thread interrupt no other one when it wakes; its share of the processors stays the same."""
    # A sandbox may forbid it, and not every system has it: the work is done all the same.
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_BATCH, os.sched_param(0))


class FewConnections(adbapi.ConnectionPool):
    """A pool of so many connections, each with its thread.

    Args:
        arguments: as ConnectionPool takes them.
        threads: how many.
        background: of the threads.
        settings: as ConnectionPool takes them, save ``cp_min`` and ``cp_max``.
    """

    def __init__(self, *arguments: Any, threads: int, background: bool, **settings: Any) -> None:
        self._count = threads
        self._background = background
        super().__init__(*arguments, cp_min=threads, cp_max=threads, **settings)  # type: ignore[no-untyped-call]  # as all of adbapi
        self._use_few_threads()

    def start(self) -> None:
        """Begins to work; where the reactor runs, it is called while the pool is made."""
        self._use_few_threads()
        super().start()  # type: ignore[no-untyped-call]

    def _use_few_threads(self) -> None:
        if not isinstance(self.threadpool, FewThreads):  # the one that adbapi has made was not started, nor given work
            self.threadpool: Any = FewThreads("database", self._count, background=self._background)
