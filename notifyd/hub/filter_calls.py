"""One event and the operator's own code: its methods called, and what they give or raise judged."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from notifyd.event import Priority
from notifyd.filters import EventView
from notifyd.hub.json_value import NotJsonError, json_members

MAX_SHOWN = 300
"""Characters of what an exception says that are kept: an event's reason is for a person, and stands in a line."""

METHODS = ("preprocess", "characterise")

_TRACEBACK: Any = BaseException.__dict__["__traceback__"]  # whatever a class of the operator's says

_PRIORITIES = {priority.value: priority for priority in Priority}


@dataclass(frozen=True, slots=True)
class Failed:
    """The filter has failed at an event.

    Args:
        reason: for the event's attribute ``reason``; printable.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Raised:
    """A failure that the daemon's log has still to tell of.

    Args:
        method: which of the two.
        error: what it raised; a :class:`BadAnswerError` where it is its answer that cannot be used.
        reason: as of :class:`Failed`.
    """

    method: str
    error: BaseException
    reason: str


Answer = Priority | Raised | None
"""What the filter says to one event: a priority, nothing, or that it has failed."""


class BadAnswerError(Exception):
    """What a method gave cannot be used; the text goes on behind the method's name."""


class Target(Protocol):
    """Where what preprocess gives is added: a draft, or what stands for it."""

    def add_context(self, name: str, value: Any, encoded: bytes) -> None:
        """Adds one member to ``data.context``."""


class Unfinished:
    """The filter's answer to one event, which has to be waited for.

    Args:
        calls: goes on with the event.
        target: as of :meth:`Calls.ask`.
        event: as of :meth:`Calls.ask`.
        method: which of the two has given ``promise``.
        promise: what it gave.
    """

    __slots__ = ("calls", "event", "method", "promise", "target", "wanted")

    def __init__(self, calls: Calls, target: Target, event: EventView, method: str, promise: Awaitable[Any]) -> None:
        self.calls = calls
        self.target = target
        self.event = event
        self.method = method
        self.promise = promise
        self.wanted = True  # false: it came too late, and must change nothing

    async def finish(self) -> Answer:
        """Waits for the answer; raises nothing, whatever the operator's code raises."""
        try:
            answer = await self.promise
            if not self.wanted:
                return None
            if self.method == "preprocess":
                self.calls.add(self.target, answer)
                self.method = "characterise"
                answer = None if self.calls.characterise is None else self.calls.characterise(self.event)
                if answer is not None and inspect.isawaitable(answer):
                    answer = await answer
            return named(answer)
        except BaseException as error:  # noqa: BLE001 - SystemExit in the operator's code must not end the hub
            return raised(self.method, error)


class Calls:
    """The methods of the operator's object.

    Args:
        made: what the factory made.
    """

    def __init__(self, made: object) -> None:
        self.preprocess: Callable[[EventView], Any] | None = getattr(made, "preprocess", None)
        self.characterise: Callable[[EventView], Any] | None = getattr(made, "characterise", None)

    def ask(self, target: Target, event: EventView) -> Answer | Unfinished:
        """Has the filter see one event; raises nothing, whatever the operator's code raises.

        Args:
            target: is added to, with what preprocess gives.
            event: as the operator's code sees it; what was added to ``target`` must show in it.
        """
        method = "preprocess"
        try:
            if self.preprocess is not None:
                answer = self.preprocess(event)
                if answer is not None:
                    if type(answer) is not dict and inspect.isawaitable(answer):
                        return Unfinished(self, target, event, method, answer)
                    self.add(target, answer)
            if self.characterise is None:
                return None
            method = "characterise"
            answer = self.characterise(event)
            if answer is None or type(answer) is str:
                return named(answer)
            if inspect.isawaitable(answer):
                return Unfinished(self, target, event, method, answer)
            return named(answer)
        except BaseException as error:  # noqa: BLE001 - SystemExit in the operator's code must not end the hub
            return raised(method, error)

    @staticmethod
    def add(target: Target, answer: object) -> None:
        """Adds what preprocess gave: all of it or, with an exception, nothing."""
        if answer is None:
            return
        if not isinstance(answer, Mapping):
            raise BadAnswerError(f"gave an answer of type {type(answer).__name__}, which is no mapping")
        try:
            members = json_members(answer)
        except NotJsonError as error:
            raise BadAnswerError(f"gave what an event cannot hold: {error}") from None
        for member in members:
            target.add_context(*member)


def named(answer: object) -> Priority | None:
    """Gives the priority that characterise named, None for none; raises BadAnswerError."""
    if answer is None:
        return None
    if not isinstance(answer, str):
        raise BadAnswerError(f"gave an answer of type {type(answer).__name__}, which is no priority's name")
    word = answer if type(answer) is str else str.__str__(answer)
    priority = _PRIORITIES.get(word)
    if priority is None:
        raise BadAnswerError(f'named "{shown(word, 100)}", which is none of {", ".join(_PRIORITIES)}')
    return priority


def raised(method: str, error: BaseException) -> Raised:
    """Gives a failure with the reason for the event."""
    if isinstance(error, BadAnswerError):
        return Raised(method, error, f"filter: {method} {shown(str(error))}")
    return Raised(method, error, f"filter: {method} raised {describe(error)}")


def describe(error: BaseException) -> str:
    """Gives an exception's type and text, shortened and printable; the text is the operator's code to make."""
    try:
        name, text = type(error).__name__, shown(str(error))
    except BaseException:  # noqa: BLE001 - it is asked while the failure is being handled
        return "an exception that cannot be shown"
    return f"{name}: {text}" if text else name


def shown(text: str, limit: int = MAX_SHOWN) -> str:
    """Gives a text in one line, shortened, with what cannot be printed written out."""
    line = " ".join(text[: limit + 1].split())
    if not line.isprintable():
        line = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
    return line if len(line) <= limit else line[:limit] + "…"


def place_of(error: BaseException) -> tuple[str, int] | None:
    """Gives the file and the line in which an exception was raised, None where that is not known."""
    traceback: Any = _TRACEBACK.__get__(error)
    place = None
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith("<frozen"):  # parts of Python that come without their source
            place = (file, traceback.tb_lineno)
        traceback = traceback.tb_next
    return place
