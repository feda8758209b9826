"""One thread that takes work in the order in which it comes: what adbapi needs of a pool that has one connection.

Twisted's ThreadPool balances work among many threads; for one that costs 40 us each time (measured), half of what the
hub's own code has with an event that comes alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.enterprise import adbapi
from twisted.python.failure import Failure


class OneThread:
    """What :class:`twisted.python.threadpool.ThreadPool` is to adbapi.

    Args:
        name: of the thread, for whoever looks at it from outside.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins with what has come before, too."""
        self._thread = threading.Thread(target=self._run, name=self._name)
        self._thread.start()

    def stop(self) -> None:
        """Waits for what has come before; what comes later is never done."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._work.put(None)
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
        while (item := self._work.get()) is not None:
            on_result, work, arguments, named = item
            try:
                result, done = work(*arguments, **named), True
            except BaseException:  # noqa: BLE001 - it is told to whoever asked for the work
                result, done = Failure(), False
            on_result(done, result)
            del item, on_result, work, arguments, named, result  # memory is not held until the next one


class OneConnection(adbapi.ConnectionPool):
    """A pool of one connection, with one thread. Takes what ConnectionPool does, save ``cp_min`` and ``cp_max``."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, cp_min=1, cp_max=1, **settings)  # type: ignore[no-untyped-call]  # as all of adbapi
        self._use_one_thread()

    def start(self) -> None:
        """Begins to work; where the reactor runs, it is called while the pool is made."""
        self._use_one_thread()
        super().start()  # type: ignore[no-untyped-call]

    def _use_one_thread(self) -> None:
        if not isinstance(self.threadpool, OneThread):  # the one that adbapi has made was not started, nor given work
            self.threadpool: Any = OneThread("database")
