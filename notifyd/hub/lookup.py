"""One lookup: its cache, one question for those who want the same, and the breaker before a database that is ill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from notifyd import event as events
from notifyd.event import Event
from notifyd.hub.breaker import Breaker, Tell
from notifyd.hub.draft import Draft
from notifyd.hub.lookup_cache import Cache, Entry, Key, Plain
from notifyd.hub.lookup_query import TOO_SLOW, Answer, Outcome, Query, Refused

REFUSALS_S = 60.0
"""Values that cannot be looked up are told so far apart: whoever sends them must not fill the log."""

Answered = Callable[[Key, "Entry | None"], None]
"""Takes a key's answer, None where there is none to be had now."""

_decode = msgspec.json.Decoder().decode
_ATTRIBUTES = ("type", "source", "id", "time", "priority", "sequence", "specversion")


class Lookup:
    """What one ``[[lookup]]`` says about events.

    Args:
        name: its key in ``data.context``.
        names: of its parameters, in the order of the query's keys.
        query: asks the database.
        reactor: its clock and timers are used.
        tell: for the events about the database's state.
        cache_s: how long an answer is kept, from when it was asked for.
        cache_entries: how many are.
        timeout_s: how long a question may take.
        matches: tells which events it is for; None: for every one.
    """

    logger = Logger("notifyd.hub.lookup")

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        query: Query,
        *,
        reactor: Any,
        tell: Tell,
        cache_s: float,
        cache_entries: int,
        timeout_s: float,
        matches: Callable[[Draft], bool] | None = None,
    ) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.matches = matches
        self._names = tuple(names)
        self._only = names[0] if len(names) == 1 else None
        self._query = query
        self._clock = reactor
        self._cache = Cache(cache_s, cache_entries)
        self._pending: dict[Key, list[Answered]] = {}
        self._next: list[Key] = []  # of the pending ones, which are not asked for yet
        self._running: _Question | None = None
        self._breaker = Breaker(name, reactor, tell, self._try)
        self._missed: Key | None = None  # the last one: what the database is tried with
        self._refused = 0
        self._told_refusal_s: float | None = None
        self._stopped = False

    def fill(self, draft: Draft, now_s: float) -> Key | None:
        """Adds to a draft what is known without asking; gives the key that has to be asked for, if one has to be.

        Args:
            draft: an event; one that the lookup is not for, or that lacks a parameter, stays as it is.
            now_s: the reactor's time.
        """
        if self.matches is not None and not self.matches(draft):
            return None
        fields = draft.data.get("fields")
        only = self._only
        # An event of a device, with one parameter that is text, is nearly every event.
        if only is not None and fields.__class__ is dict and (value := fields.get(only)).__class__ is str:
            key: Key = (value,)
        elif (found := self._key(draft.event, fields)) is not None:
            key = found
        else:
            return None
        entry = self._cache.get(key, now_s)
        if entry is None:
            return key
        self.give(draft, entry)
        return None

    def give(self, draft: Draft, entry: Entry | None) -> None:
        """Adds an answer to a draft, or that there is none."""
        if entry is None or (encoded := entry[2]) is None:
            draft.lack(self.name)
            return
        # All events share the row: rules only read it, and the operator's code cannot write into what it is given.
        draft.add_context(self.name, entry[1], encoded)

    def ask(self, keys: Iterable[Key], answered: Answered) -> None:
        """Has keys asked for, with those that others want; each is answered once, maybe before this returns."""
        for key in keys:
            waiting = self._pending.get(key)
            if waiting is not None and not self._is_overdue():
                waiting.append(answered)
                continue
            self._missed = key
            if waiting is not None or self._stopped or self._breaker.is_open or self._is_overdue():
                answered(key, None)
                continue
            self._pending[key] = [answered]
            self._next.append(key)
        self._start()

    def overdue(self) -> None:
        """Is called when an event could not wait any longer: nobody waits for what is running then."""
        if self._running is not None:
            self._running.overdue = True
        self._fail_next()

    def lacks(self, draft: Draft) -> str | None:
        """Gives the first parameter that an event lacks; None where it has all of them."""
        fields = draft.data.get("fields")
        return next((name for name in self._names if self._value(draft.event, fields, name) is None), None)

    def inquire(self, draft: Draft) -> Deferred[Outcome]:
        """Asks about one event that lacks nothing, past cache and breaker: for whoever wants to know what is wrong."""
        key = self._key(draft.event, draft.data.get("fields"))
        return succeed(Outcome((None,))) if key is None else self._query.ask([key])

    def stop(self) -> Deferred[None]:
        """Ends it in bounded time; whoever waits goes without."""
        self._stopped = True
        self._breaker.stop()
        for key in list(self._pending):
            self._answer(key, None)
        self._next.clear()
        if self._running is not None:
            self._running.end()
        return self._query.close()

    # --- keys

    def _key(self, event: Event, fields: Any) -> Key | None:
        """Gives the values of the parameters, None where the event lacks one."""
        key: list[Plain] = []
        for name in self._names:
            value = self._value(event, fields, name)
            if value is None:
                return None
            key.append(value)
        return tuple(key)

    def _value(self, event: Event, fields: Any, name: str) -> Plain | None:
        value = fields.get(name) if isinstance(fields, dict) else None
        if value.__class__ is str:
            return value
        value = self._plain(value)
        return self._plain(_attribute(event, name)) if value is None else value

    def _plain(self, value: Any) -> Plain | None:
        if isinstance(value, str):
            return value
        return self._query.plain(value) if isinstance(value, bool | int | float) else None

    # --- questions

    def _is_overdue(self) -> bool:
        return self._running is not None and self._running.overdue

    def _start(self) -> None:
        if self._running is None and self._next and not self._stopped:
            keys, self._next = self._next, []
            self._put(keys)

    def _try(self) -> None:
        """Asks for what was missed last, to see whether the database is well again; nobody waits for it."""
        if self._running is None and self._missed is not None and not self._stopped:
            self._put([self._missed])

    def _put(self, keys: list[Key]) -> None:
        question = self._running = _Question(keys, self._clock.seconds())
        question.timer = self._clock.callLater(self.timeout_s, self._out_of_time, question)
        self._query.ask(keys).addCallback(self._ended, question).addErrback(self._broken, question)

    def _out_of_time(self, question: _Question) -> None:
        question.overdue = question.counted = True
        self._breaker.failed(TOO_SLOW)
        for key in question.keys:
            self._answer(key, None)
        self._fail_next()

    def _ended(self, outcome: Outcome, question: _Question) -> None:
        self._running = None
        question.end()
        if self._stopped:
            return
        known = zip(question.keys, outcome.answers, strict=False)  # fewer answers where something went wrong
        entries = {key: self._keep(key, answer, question.asked_s) for key, answer in known}
        if question.counted:  # as failed: what comes too late is kept, and is no success
            self._breaker.over()
        elif outcome.fault is not None:
            self._breaker.failed(outcome.fault)
            self._breaker.over()
        else:
            self._breaker.succeeded()
        for key in question.keys:  # only now, as whoever is answered may ask the next question at once
            self._answer(key, entries.get(key))
        if self._breaker.is_open:
            self._fail_next()
        self._start()

    def _broken(self, failure: Any, question: _Question) -> None:
        self.logger.failure("Lookup {lookup} is broken.", failure, lookup=self.name)
        if self._running is question:
            self._ended(Outcome((), "a mistake in notifyd; please report it"), question)

    def _fail_next(self) -> None:
        keys, self._next = self._next, []
        for key in keys:
            self._answer(key, None)

    def _answer(self, key: Key, entry: Entry | None) -> None:
        for answered in self._pending.pop(key, ()):
            answered(key, entry)

    def _keep(self, key: Key, answer: Answer, asked_s: float) -> Entry:
        if isinstance(answer, Refused):
            self._log_refusal(answer.reason)
            return self._cache.put(key, asked_s, None, None)
        if answer is None:
            return self._cache.put(key, asked_s, None, b"null")
        return self._cache.put(key, asked_s, answer.value, answer.encoded)

    def _log_refusal(self, reason: str) -> None:
        now_s = self._clock.seconds()
        if self._told_refusal_s is not None and now_s < self._told_refusal_s + REFUSALS_S:
            self._refused += 1
            return
        more, self._refused, self._told_refusal_s = self._refused, 0, now_s
        self.logger.warn(
            "Lookup {lookup}: an event goes on without it, its value or its row cannot be used: {reason} "
            "({more} more since this was said last)",
            lookup=self.name, reason=reason[:300], more=more,
        )  # fmt: skip


def _attribute(event: Event, name: str) -> Any:
    """Gives an attribute that the producer set, None where there is none."""
    if name in _ATTRIBUTES:
        value = getattr(event, name)
        if value is not UNSET:
            return value
    if name == "subject" and event.subject is not UNSET:
        return _decode(event.subject)
    return events.extension(event, name)


class _Question:
    """What is being asked for.

    Attributes:
        overdue: somebody could not wait for it, so that nobody does from now on.
        counted: its time was over, and it counts as failed whatever comes of it.
    """

    def __init__(self, keys: list[Key], asked_s: float) -> None:
        self.keys = keys
        self.asked_s = asked_s
        self.overdue = False
        self.counted = False
        self.timer: Any = None

    def end(self) -> None:
        if self.timer.active():
            self.timer.cancel()
