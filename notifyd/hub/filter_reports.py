"""What the daemon's log says of a filter that fails: once for each mistake, then as a count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os.path import basename

from twisted.logger import Logger
from twisted.python.failure import Failure

from notifyd.hub.filter_calls import BadAnswerError, Raised, place_of

WINDOW_S = 60.0
"""For so long after a mistake was told, the same one is counted: it may come with every event."""

MAX_MISTAKES = 50
"""Mistakes that are told apart within a window, more than a program has; what is beyond is counted together."""

_MORE = ("", "", 0)


@dataclass(slots=True)
class _Told:
    what: str
    since_s: float
    more: int = 0


class Reports:
    """Tells of failures.

    Args:
        logger: is told.
        clock: gives seconds, of any origin.
    """

    def __init__(self, logger: Logger, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._clock = clock
        self._told: dict[tuple[str, str, int], _Told] = {}

    def raised(self, raised: Raised) -> None:
        """Tells of an exception with its traceback, of a bad answer in a sentence; then lets the traceback go."""
        try:
            self._raised(raised)
        except BaseException:  # noqa: BLE001 - the exception's own code may have raised
            self.late("filter: an exception that cannot be shown", 1)
        # One object that is raised again and again would gather an ever longer traceback.
        BaseException.with_traceback(raised.error, None)

    def _raised(self, raised: Raised) -> None:
        error = raised.error
        bad = isinstance(error, BadAnswerError)
        file, line = ("", 0) if bad else place_of(error) or ("", 0)
        kind = raised.method if bad else type(error).__qualname__
        told = self._told.get((kind, file, line))
        if told is not None:
            told.more += 1
        elif bad:
            if self._begin((kind, file, line), f"an answer of {kind} that cannot be used"):
                self._logger.warn("{reason}; the event has become an error.", reason=raised.reason)
        elif self._begin((kind, file, line), f"{kind} in {basename(file)}, line {line}"):
            self._logger.failure(
                "The filter's {method} has raised {kind}; the event has become an error.",
                Failure(error, type(error), error.__traceback__),
                method=raised.method,
                kind=kind,
            )

    def late(self, reason: str, count: int) -> None:
        """Tells that events have become errors for a reason that is the same for each."""
        told = self._told.get(("", reason, 0))
        if told is not None:
            told.more += count
        elif self._begin(("", reason, 0), reason):
            self._logger.warn("{reason}; {count} events have become errors.", reason=reason, count=count)

    def flush(self, *, all_of_them: bool = False) -> None:
        """Tells how often what was told a minute ago has come again since; then it counts as new.

        Args:
            all_of_them: whether or not a minute has passed: at the end.
        """
        if not self._told:
            return
        now = self._clock()
        for key, told in list(self._told.items()):
            if all_of_them or now - told.since_s >= WINDOW_S:
                del self._told[key]
                if told.more:
                    self._logger.warn(
                        "The filter, {count} times more within {seconds:.0f} s: {what}.",
                        count=told.more,
                        seconds=now - told.since_s,
                        what=told.what,
                    )

    def _begin(self, key: tuple[str, str, int], what: str) -> bool:
        """Begins to count; gives whether there is still room to tell this mistake apart."""
        if len(self._told) < MAX_MISTAKES:
            self._told[key] = _Told(what, self._clock())
            return True
        if _MORE not in self._told:
            self._told[_MORE] = _Told("other mistakes", self._clock())
        self._told[_MORE].more += 1
        return False
