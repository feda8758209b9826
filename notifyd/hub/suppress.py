"""Storms: of events of one kind the first goes through, repeats within a window are only counted, and then told.

Windows are kept in memory, and as rows of table ``suppression``, so that a crash loses none. A batch is put together
in this order:

1. for each parcel :meth:`Suppressor.due` with the time at which it was received, so that windows that ended before
   are told before the parcel's events; then, for each of its events, :meth:`Suppressor.judge`, as the last step that
   could still fail before its entry in the batch;
2. :meth:`Suppressor.take_changes`, once everything in the batch has been judged;
3. events (with ``suppressed``), summaries, and the changes of the table are stored in one commit.

Before that commit nothing of it has happened: the events are not stored, not counted and not told; they have not been
acknowledged, so their producers send them again, and they are judged again by the rows that the last commit left.
After it all of it has happened: a suppressed event is in the log and counted in its window's row, or its summary is in
the log and the row is gone. So at any moment the suppressed events in the log are as many as the summaries in the log
and the rows of the table say, and no count is told twice. This needs batches to be committed in the order in which
they were taken, each as a whole and none left out; one that could not be stored is tried again as it is.

A window is in force from the time at which its first event was received for the setting's length, by the clock that
is given, and at no other time: where that clock shows a time before the window was opened, it was set back, and the
window is over. So no jump of the clock keeps one open.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from notifyd import event as events
from notifyd.config_hub import Suppress
from notifyd.hub.draft import Draft
from notifyd.hub.kinds import Key, Kinds
from notifyd.hub.windows import LEVELS, Summary, Window, WindowRow, read

MAX_WINDOWS = 100_000
"""Windows that are open or not told yet, of all settings: some 100 MB, and a second or two to read them all."""

MAX_CHARACTERS = 32 * 2**20
"""Characters that all windows hold together: some 300 for each of the most windows, three times what devices need."""

MAX_NAME = 1_000
"""Characters of a type or source that a summary repeats; an event with a longer one opens no window."""

ROOM_AGAIN = 0.9
"""Part of the limits below which there is room again: so that the log does not tell of every window."""

_FORMAT = 1  # of keys: a version that makes other keys counts this up, which ends the windows of the one before


@dataclass(slots=True)
class Counters:
    """What became of the events that a setting was for, since the start."""

    suppressed: int = 0
    summaries: int = 0
    refused: int = 0  # events that went through because there was no room for their window
    unfit: int = 0  # events that went through because they cannot be compared, or named in a summary
    damaged: int = 0  # rows of the table that made no sense


class _Setting:
    """A setting, and its open windows in the order in which they were opened, which is that in which they end."""

    __slots__ = ("fingerprint", "kinds", "length_s", "matches", "rule", "source", "windows")

    def __init__(self, number: int, setting: Suppress, matches: Callable[[Draft], bool]) -> None:
        self.fingerprint = fingerprint(setting)
        self.kinds = Kinds(setting.by)
        self.length_s = float(setting.window)
        self.matches = matches
        self.rule = setting.name or f"suppress {number}"
        self.source = None if self.kinds.share_source else f"/hub/suppress/{setting.name or number}"
        self.windows: OrderedDict[Key, Window] = OrderedDict()


class Suppressor:
    """Judges which events are repeats, counts them, and gives summaries of them; see the module for the order.

    Args:
        settings: the first that is for an event counts.
        matchers: for each setting, what tells whether it is for an event.
        rows: what the table holds. A window whose setting is there no longer, or was changed, ends at once.
        max_windows: windows that are held at most.
        max_characters: characters that they hold at most.

    Attributes:
        counters: for the metrics.
        is_full: whether an event was let through for lack of room, and there has not been much room since.
    """

    def __init__(
        self,
        settings: Sequence[Suppress],
        matchers: Sequence[Callable[[Draft], bool]],
        rows: Iterable[WindowRow] = (),
        *,
        max_windows: int = MAX_WINDOWS,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        self.counters = Counters()
        self.is_full = False
        numbered = enumerate(zip(settings, matchers, strict=True), 1)
        self._settings = [_Setting(number, setting, matches) for number, (setting, matches) in numbered]
        self._max_windows = max_windows
        self._max_characters = max_characters
        self._held = 0  # windows, open or ended
        self._characters = 0  # that they hold
        self._ended: deque[Window] = deque()
        self._changed: list[Window] = []
        self._deletions: list[int] = []
        self._newest_s = -math.inf  # no open window was opened later,
        self._next_s = math.inf  # and none ends earlier: between them nothing is due
        self._adopt(rows)

    def judge(self, draft: Draft, *, priority: str, offset: int, received_s: float) -> bool:
        """Tells whether an event is a repeat, which is stored with ``suppressed`` and sent to nobody; counts it.

        Args:
            draft: the event; its ``time``, where it has none yet, is when it was received.
            priority: what it was given.
            offset: its place in the log.
            received_s: when it was received, in seconds since 1970.
        """
        for setting in self._settings:
            if setting.matches(draft):
                break
        else:
            return False
        key = setting.kinds.key(draft, priority)
        if key is None:
            self.counters.unfit += 1
            return False
        window = setting.windows.get(key)
        if window is not None:
            if window.opened_s <= received_s < window.ends_s:
                return self._count(window, draft, priority, received_s)
            self._end(setting, window)
        self._open(setting, key, draft, priority, offset, received_s)
        return False

    def due(self, now_s: float, most: int | None = None) -> list[Summary]:
        """Ends the windows whose time has come, and gives the summaries of those that had repeats.

        Args:
            now_s: of a parcel, before its events are judged, when it was received; while none waits, the time.
            most: ends so many windows at most, for a batch of bounded size; the rest is due at once.
        """
        if not self._ended and self._newest_s <= now_s < self._next_s:
            return []
        self._turn(now_s)
        summaries: list[Summary] = []
        count = len(self._ended)
        for _ in range(count if most is None else min(count, most)):
            window = self._ended.popleft()
            self._forget(window)
            if window.repeated:
                summaries.append(window.summary())
        self.counters.summaries += len(summaries)
        if self.is_full:
            windows, characters = ROOM_AGAIN * self._max_windows, ROOM_AGAIN * self._max_characters
            self.is_full = self._held >= windows or self._characters >= characters
        return summaries

    def next_due_s(self) -> float | None:
        """Gives when the next window ends, in seconds since 1970: 0 where one has ended already, None without any.

        While there is one, ask :meth:`due` every minute or so all the same: the clock may be set back.
        """
        if self._ended:
            return 0.0
        ends = [next(iter(setting.windows.values())).ends_s for setting in self._settings if setting.windows]
        return min(ends, default=None)

    def take_changes(self) -> tuple[list[WindowRow], list[int]]:
        """Gives the rows to be written since the last call, each new or in place of the one of its offset.

        Returns:
            The rows, and the offsets of those to be deleted, which are others.
        """
        changed, self._changed = self._changed, []
        deletions, self._deletions = self._deletions, []
        upserts: list[WindowRow] = []
        for window in changed:
            window.is_changed = False
            if not window.is_told:
                window.is_stored = True
                upserts.append(window.row())
        return upserts, deletions

    def _count(self, window: Window, draft: Draft, priority: str, received_s: float) -> bool:
        """Counts an event of an open window, unless it is above all that was sent."""
        if not window.is_changed:
            window.is_changed = True
            self._changed.append(window)
        if LEVELS[priority] > LEVELS[window.priority]:
            window.priority = priority
            return False
        time = draft.event.time
        window.count(events.format_time(received_s) if time is UNSET else time)
        self.counters.suppressed += 1
        return True

    def _open(self, setting: _Setting, key: Key, draft: Draft, priority: str, offset: int, received_s: float) -> None:
        """Opens the window of an event that goes through, where there is room for it."""
        event = draft.event
        source = event.source if setting.source is None else setting.source
        if len(event.type) > MAX_NAME or (setting.source is None and len(source) > MAX_NAME):
            self.counters.unfit += 1
            return
        fields, truncated = setting.kinds.fields(draft)
        window = Window(
            offset, setting.fingerprint, key, received_s, received_s + setting.length_s, setting.rule, source,
            event.type, priority, json.dumps(fields), truncated,
        )  # fmt: skip
        if self._held >= self._max_windows or self._characters + window.characters() > self._max_characters:
            self.counters.refused += 1
            self.is_full = True
            return
        if received_s < self._newest_s:
            self._turn(received_s)  # the clock was set back; what was opened later must not stand before this one
        self._hold(window)
        self._keep_open(setting, window)
        window.is_changed = True
        self._changed.append(window)

    def _hold(self, window: Window) -> None:
        self._held += 1
        self._characters += window.characters()

    def _keep_open(self, setting: _Setting, window: Window) -> None:
        setting.windows[window.key] = window
        self._newest_s = max(self._newest_s, window.opened_s)
        self._next_s = min(self._next_s, window.ends_s)

    def _end(self, setting: _Setting, window: Window) -> None:
        del setting.windows[window.key]
        self._ended.append(window)

    def _forget(self, window: Window) -> None:
        """Deletes a window that is told, or has nothing to tell."""
        window.is_told = True
        self._held -= 1
        self._characters -= window.characters()
        if window.is_stored:
            self._deletions.append(window.offset)

    def _turn(self, now_s: float) -> None:
        """Ends each window that is not in force at a time."""
        self._newest_s, self._next_s = -math.inf, math.inf
        for setting in self._settings:
            windows = setting.windows
            while windows and (oldest := next(iter(windows.values()))).ends_s <= now_s:
                self._end(setting, oldest)
            while windows and (newest := next(reversed(windows.values()))).opened_s > now_s:
                self._end(setting, newest)
            if windows:
                self._newest_s = max(self._newest_s, newest.opened_s)
                self._next_s = min(self._next_s, oldest.ends_s)

    def _adopt(self, rows: Iterable[WindowRow]) -> None:
        """Takes over the windows that the hub had when it ended."""
        settings: dict[str, _Setting] = {}
        for setting in self._settings:
            settings.setdefault(setting.fingerprint, setting)
        adopted: list[Window] = []
        for row in rows:
            try:
                adopted.append(read(row))
            except (ValueError, RecursionError):  # msgspec's and json's errors are ValueErrors
                self.counters.damaged += 1
                if isinstance(row[0], int):
                    self._deletions.append(row[0])
        for window in sorted(adopted, key=lambda window: (window.opened_s, window.offset)):
            self._hold(window)
            found = settings.get(window.setting)
            if found is None or self._held > self._max_windows:
                self._ended.append(window)
                continue
            window.ends_s = window.opened_s + found.length_s
            if older := found.windows.get(window.key):
                self._end(found, older)
            self._keep_open(found, window)


def fingerprint(setting: Suppress) -> str:
    """Gives what tells a setting from others: the same for settings that suppress the same; a name makes none."""
    where: Any = msgspec.to_builtins(setting.where)
    parts = [_FORMAT, setting.type, setting.source, where, setting.by, float(setting.window)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
