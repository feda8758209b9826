"""Storms: the whole, with crashes, against a model."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from notifyd.event import format_time
from notifyd.hub import suppress
from notifyd.hub.windows import Summary, WindowRow
from tests.storms import DOORS, ZONES, configured, draft, suppressor

MOST = 5
SETTINGS = {
    "as it was": DOORS + ZONES,
    "swapped": ZONES.replace("[[suppress]]", '[[suppress]]\ntype = "x"') + DOORS + ZONES,
    "longer": DOORS.replace("60s", "90s") + ZONES,
    "gone": "",
}
RANK = ["normal", "important", "critical", "error"]


@dataclass
class Expected:
    """What the model knows of a window."""

    of: int
    opened: float
    length: float
    level: int
    times: tuple[str, ...] = ()


@dataclass
class Stored:
    """What the database holds."""

    log: list[tuple[int, bool]]
    rows: dict[int, WindowRow]
    summaries: list[Summary]
    model: dict[tuple[str, ...], Expected]


class StormMachine(RuleBasedStateMachine):
    """A hub that stores batches, and crashes, with a clock that jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1e9
        self.offset = 0
        self.stored = Stored([], {}, [], {})
        self.settings = "as it was"

    @initialize()
    def start(self) -> None:
        """Starts the hub, by what the database holds."""
        text = SETTINGS[self.settings]
        self.suppressor = suppressor(text, list(self.stored.rows.values()), max_windows=MOST)
        self.model = copy.deepcopy(self.stored.model)
        self.batch: list[tuple[int, bool]] = []
        self.told: list[Summary] = []

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 9.75, 30.0, 59.75, 60.0, 1e6, -0.25, -5.0, -1e5]))
    def clock_moves(self, seconds: float) -> None:
        """On, ahead, or back."""
        self.now += seconds

    @rule(most=st.sampled_from([1, 2, None]))
    def summaries_are_asked_for(self, most: int | None) -> None:
        """By the timer, or before a parcel."""
        expected = {kind: window for kind, window in self.model.items() if not self.in_force(window)}
        of: dict[str, Summary] = {}
        for _ in range(2 * MOST):
            for summary in self.suppressor.due(self.now, most):
                assert summary.data["of"] not in of
                of[str(summary.data["of"])] = summary
        assert (self.suppressor.next_due_s() or math.inf) > self.now
        assert of.keys() == {str(window.of) for window in expected.values() if window.times}
        for kind, window in expected.items():
            del self.model[kind]
            if window.times:
                data = of[str(window.of)].data
                assert (data["repeated"], data["first"], data["last"]) == (
                    len(window.times), window.times[0], window.times[-1],
                )  # fmt: skip
                assert RANK.index(of[str(window.of)].priority) == window.level
        self.told += of.values()

    @rule(
        events=st.lists(
            st.tuples(st.sampled_from("12"), st.sampled_from(["door", "x"]), st.sampled_from(["/a", "/b"]),
                      st.sampled_from(RANK)), min_size=1, max_size=6,
        ),
    )  # fmt: skip
    def parcel_comes(self, events: list[tuple[str, str, str, str]]) -> None:
        """Some events are received at once."""
        self.summaries_are_asked_for(None)
        for zone, type_, source, priority in events:
            self.offset += 1
            sent = draft(zone, type=type_, source=source, time=format_time(1e9 + self.offset))
            got = self.suppressor.judge(sent, priority=priority, offset=self.offset, received_s=self.now)
            assert got == self.expect(zone, type_, source, priority)
            self.batch.append((self.offset, got))

    def expect(self, zone: str, type_: str, source: str, priority: str) -> bool:
        """Says what the model makes of an event."""
        found = configured(SETTINGS[self.settings])
        setting = next((setting for setting in found if setting.type in (None, type_)), None)
        if setting is None:
            return False
        values = {"source": source, "type": type_, "fields.zone": zone}
        error = "error" if priority == "error" else ""
        kind = (suppress.fingerprint(setting), error, *(values[entry] for entry in setting.by))
        window = self.model.get(kind)
        level = RANK.index(priority)
        if window is None:
            if len(self.model) < MOST:
                self.model[kind] = Expected(self.offset, self.now, setting.window, level)
            return False
        if level > window.level:
            self.model[kind] = replace(window, level=level)
            return False
        self.model[kind] = replace(window, times=(*window.times, format_time(1e9 + self.offset)))
        return True

    def in_force(self, window: Expected) -> bool:
        """Tells whether a window's time has not come."""
        configured_now = {suppress.fingerprint(setting) for setting in configured(SETTINGS[self.settings])}
        kind = next(kind for kind, other in self.model.items() if other is window)
        return kind[0] in configured_now and window.opened <= self.now < window.opened + window.length

    @rule()
    def batch_is_stored(self) -> None:
        """Events, summaries and rows in one commit."""
        upserts, deletions = self.suppressor.take_changes()
        assert not {row.offset for row in upserts} & set(deletions)
        self.stored.log += self.batch
        self.stored.summaries += self.told
        self.stored.rows |= {row.offset: row for row in upserts}
        for offset in deletions:
            del self.stored.rows[offset]
        self.stored.model = copy.deepcopy(self.model)
        self.batch, self.told = [], []

    @rule(taken=st.booleans(), configured=st.sampled_from(sorted(SETTINGS)))
    def hub_crashes(self, taken: bool, configured: str) -> None:
        """Before the commit, perhaps with the batch put together; it is started again, perhaps with other settings."""
        if taken:
            self.suppressor.take_changes()
        self.settings = configured
        self.start()

    @invariant()
    def counts_are_exact(self) -> None:
        """At any moment the database says of each suppressed event once that it was suppressed."""
        suppressed = sum(is_suppressed for _, is_suppressed in self.stored.log)
        told = sum(summary.data["repeated"] for summary in self.stored.summaries)
        assert told + sum(row.repeated for row in self.stored.rows.values()) == suppressed
        assert len(self.stored.rows) <= MOST
        of = [summary.data["of"] for summary in self.stored.summaries]
        assert len(of) == len(set(of)), "told twice"

    def teardown(self) -> None:
        """In the end everything is told."""
        if not hasattr(self, "suppressor"):
            return
        self.now = 1e15
        self.summaries_are_asked_for(None)
        self.batch_is_stored()
        assert not self.stored.rows
        self.counts_are_exact()


StormMachine.TestCase.settings = hypothesis_settings(max_examples=100, stateful_step_count=50, deadline=None)
TestStormsAgainstModel = StormMachine.TestCase
