"""Enrichment: what lookups add to the events of a batch, and for how long they may wait for it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import Clock

from notifyd import event as events
from notifyd.config import ConfigurationError
from notifyd.config_hub import Lookup as Settings
from notifyd.config_hub import parse_hub
from notifyd.database import StateError
from notifyd.event import decode
from notifyd.hub.draft import Draft
from notifyd.hub.enrich import GRACE_S, Enricher, make_lookup
from notifyd.hub.lookup import Lookup
from tests.conftest import Logged
from tests.lookups import BY_ZONE, ZONES, FakeQuery, make_zones
from tests.postgres import Cluster
from tests.spooling import bounded

T0 = 1_700_000_000.0
KITCHEN = {"location": "Kitchen"}
NURSE = {"name": "Nurse 3"}


class Bench:
    """An enricher with lookups that are called as their parameters, and answer when the test says so."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.clock = Clock()
        self.wall_s = T0
        self.told: list[str] = []
        self.queries = {name: FakeQuery() for name in names}
        self.lookups = [
            Lookup(
                name, [name], query, reactor=self.clock, tell=lambda kind, *_: self.told.append(kind),
                **{"cache_s": 60.0, "cache_entries": 100, "timeout_s": 2.0, **settings},
            )
            for name, query in self.queries.items()
        ]  # fmt: skip
        self.enricher = Enricher(self.clock, self.lookups, lambda: self.wall_s)

    def enrich(self, *drafts: Draft, age_s: float = 0.0) -> Any:
        """Enriches a batch; gives a list that is filled when it is done."""
        waiting = self.enricher.enrich([at(draft, self.wall_s - age_s) for draft in drafts])
        done: list[None] = []
        if waiting is None:
            return None
        waiting.addCallback(done.append)
        return done

    def advance(self, seconds: float) -> None:
        """Lets time go by, on both clocks."""
        self.wall_s += seconds
        self.clock.advance(seconds)


def draft(data: Any = None, **fields: Any) -> Draft:
    """Gives an event with fields."""
    line = {"id": "1", "source": "/s", "type": "t", "data": data if data is not None else {"fields": fields}}
    return Draft(decode(json.dumps(line).encode()))


def at(draft: Draft, received_s: float) -> Draft:
    """Has a draft received at a time."""
    draft.received_s = received_s
    return draft


def written(draft: Draft) -> dict[str, Any]:
    """Gives an event's data as it goes on."""
    draft.write_data()
    data: dict[str, Any] = {} if draft.event.data is events.UNSET else json.loads(bytes(draft.event.data))
    assert data == {} or draft.data.get("context") == data.get("context")
    return {name: value for name, value in data.items() if name in ("context", "unavailable")}


# --- what is added


def test_an_event_has_one_key_per_lookup_that_ran() -> None:
    """Those whose parameters it lacks have none."""
    bench = Bench("zone", "nurse", "door")
    event = draft(zone="7", nurse="3")
    done = bench.enrich(event)
    bench.queries["zone"].answer(KITCHEN)
    assert done == []
    bench.queries["nurse"].answer(None)
    assert done == [None]
    assert written(event) == {"context": {"zone": KITCHEN, "nurse": None}}
    assert bench.queries["door"].asked == []
    assert bench.clock.getDelayedCalls() == []


def test_what_is_cached_is_there_at_once() -> None:
    """Without a Deferred, also where nothing is to be looked up."""
    bench = Bench("zone")
    assert bench.enrich() is None
    assert bench.enrich(draft()) is None
    done = bench.enrich(draft(zone="7"))
    bench.queries["zone"].answer(KITCHEN)
    assert done == [None]
    event = draft(zone="7")
    assert bench.enrich(event) is None
    assert written(event) == {"context": {"zone": KITCHEN}}


def test_a_batch_is_asked_for_together() -> None:
    """Each key once, all lookups side by side, and every event gets its answer."""
    bench = Bench("zone", "nurse")
    batch = [draft(zone=str(n % 3), nurse=str(n % 2)) for n in range(12)]
    done = bench.enrich(*batch)
    assert bench.queries["zone"].asked == [[("0",), ("1",), ("2",)]]
    assert bench.queries["nurse"].asked == [[("0",), ("1",)]]
    bench.queries["nurse"].answer(NURSE, None)
    bench.queries["zone"].answer(KITCHEN, None, {"location": "Hall"})
    assert done == [None]
    for n, event in enumerate(batch):
        zone = [KITCHEN, None, {"location": "Hall"}][n % 3]
        assert written(event) == {"context": {"zone": zone, "nurse": [NURSE, None][n % 2]}}


@pytest.mark.parametrize("names", [(), ("zone",)])
def test_what_a_producer_says_about_context_is_taken_out(names: tuple[str, ...]) -> None:
    """It is the hub's to say, whether a lookup runs or not; what else is in the data stays."""
    bench = Bench(*names)
    forged = {
        "context": {"zone": {"priority": "critical"}},
        "unavailable": ["x"],
        "line": "x",
        "fields": {"context": 1},
    }
    event = draft(forged)
    assert bench.enrich(event) is None
    event.write_data()
    assert json.loads(bytes(event.event.data)) == {"line": "x", "fields": {"context": 1}}  # type: ignore[arg-type]
    forged_escaped = Draft(decode(b'{"id":"1","source":"s","type":"t","data":{"\\u0063ontext":{"zone":1},"a":1}}'))
    bench.enrich(forged_escaped)
    assert written(forged_escaped) == {}


def test_events_with_hostile_data_are_enriched() -> None:
    """Surrogates, numbers without end, nesting: whatever was accepted."""
    bench = Bench("zone")
    lines = [
        b'{"id":"1","source":"s","type":"t","data":{"x":"\\ud800","fields":{"zone":"\\ud800"}}}',
        b'{"id":"1","source":"s","type":"t","data":{"fields":{"zone":%s}}}' % (b"9" * 5000),
        b'{"id":"1","source":"s","type":"t","data":{"fields":{"zone":"7","d":%s}}}' % (b"[" * 990 + b"]" * 990),
        b'{"id":"1","source":"s","type":"t","data":{ }}',
        b'{"id":"1","source":"s","type":"t"}',
    ]
    batch = [Draft(decode(line)) for line in lines]
    done = bench.enrich(*batch)
    bench.queries["zone"].answer(None, None, KITCHEN)
    assert done == [None]
    for event in batch:
        event.write_data()
    assert b'"context":{"zone":null}' in bytes(batch[0].event.data)  # type: ignore[arg-type]
    assert b'"context":{"zone":{"location":"Kitchen"}}' in bytes(batch[2].event.data)  # type: ignore[arg-type]


def test_a_condition_that_breaks_costs_one_events_context(logged: Logged) -> None:
    """And not the batch."""

    def matches(draft: Draft) -> bool:
        return bool(1 / len(draft.data["fields"]))

    bench = Bench("zone", matches=matches)
    bad, good = draft(), draft(zone="7")
    done = bench.enrich(bad, good)
    bench.queries["zone"].answer(KITCHEN)
    assert done == [None]
    assert written(good) == {"context": {"zone": KITCHEN}}
    assert len(logged.expect_failure(ZeroDivisionError)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["context", '"context"']),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["context", "unavailable", "fields", "a"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["context", "unavailable", "fields", "a", ""]), JSON, max_size=4),
    st.booleans(),
    st.integers(0, 2),
)
def test_everything_else_in_the_data_stays(data: dict[str, Any], failed: bool, found: int) -> None:
    """Whatever the producer wrote, wherever words of ours stand in it."""
    event = draft(data)
    event.disown_context()
    assert not event.data.keys() & {"context", "unavailable"}  # which rules and the operator's code would believe
    for number in range(found):
        event.add_context(f"l{number}", {"n": number}, b'{"n": %d}' % number)
    if failed:
        event.lack("l9")
    event.write_data()
    expected = {name: value for name, value in data.items() if name not in ("context", "unavailable")}
    if found:
        expected["context"] = {f"l{number}": {"n": number} for number in range(found)}
    if failed:
        expected["unavailable"] = ["l9"]
    assert json.loads(bytes(event.event.data)) == expected  # type: ignore[arg-type]


# --- for how long


def test_an_event_waits_no_longer_than_the_timeout_from_when_it_was_received() -> None:
    """Then it goes on, marked; the answer is there for the next."""
    bench = Bench("zone", "nurse")
    event = draft(zone="7", nurse="3")
    done = bench.enrich(event, age_s=0.5)
    bench.queries["nurse"].answer(NURSE)
    bench.advance(1.49)
    assert done == []
    bench.advance(0.01)
    assert done == [None]
    bench.queries["zone"].answer(KITCHEN)
    assert written(event) == {"context": {"nurse": NURSE}, "unavailable": ["zone"]}
    late = draft(zone="7")
    assert bench.enrich(late) is None
    assert written(late) == {"context": {"zone": KITCHEN}}


def test_the_oldest_event_that_waits_counts() -> None:
    """One that is older and has its answer does not."""
    bench = Bench("zone")
    bench.enrich(draft(zone="7"))
    bench.queries["zone"].answer(KITCHEN)
    batch = [at(draft(zone="7"), T0 - 1.9), at(draft(zone="8"), T0 - 1.0), at(draft(zone="9"), T0 - 1.5)]
    waiting = bench.enricher.enrich(batch)
    assert waiting is not None
    bench.advance(0.49)
    assert not waiting.called
    bench.advance(0.01)
    assert waiting.called


def test_events_that_have_waited_for_the_log_are_enriched_all_the_same() -> None:
    """The database is given a moment, whatever their age is."""
    bench = Bench("zone")
    quick, slow = draft(zone="7"), draft(zone="8")
    done = bench.enrich(quick, age_s=3600)
    bench.queries["zone"].answer(KITCHEN)
    assert done == [None]
    assert written(quick) == {"context": {"zone": KITCHEN}}
    done = bench.enrich(slow, age_s=3600)
    bench.advance(GRACE_S - 0.001)
    assert done == []
    bench.advance(0.001)
    assert done == [None]
    assert written(slow) == {"unavailable": ["zone"]}


def test_a_clock_that_was_set_back_does_not_make_events_wait_longer() -> None:
    """They seem to have been received in the future."""
    bench = Bench("zone")
    done = bench.enrich(draft(zone="7"), age_s=-86_400)
    bench.advance(2.0)
    assert done == [None]


def test_a_database_that_hangs_holds_no_event_for_longer_than_the_timeout() -> None:
    """Batch after batch, each begun when the last is done: from received to done it is the timeout and a moment."""
    bench = Bench("zone")
    longest = 0.0
    arrivals = [round(0.01 * n, 2) for n in range(1500)]  # an event every 10 ms, each with a zone of its own
    query = bench.queries["zone"]
    asked_s = 0.0
    while arrivals:
        now_s = round(bench.wall_s - T0, 6)
        mine = [at for at in arrivals if at <= now_s]
        arrivals = [at for at in arrivals if at > now_s]
        known = len(query.asked)
        waiting = bench.enricher.enrich([at(draft(zone=f"z{after}"), T0 + after) for after in mine]) if mine else None
        if len(query.asked) > known:
            asked_s = bench.wall_s
        while True:
            if query.waiting and bench.wall_s >= asked_s + 2.5:  # it is cut
                query.answer(fault="cut")
            if waiting is None or waiting.called:
                break
            bench.advance(0.01)
        longest = max([longest, *(bench.wall_s - T0 - at for at in mine)])
        bench.advance(0.01)
    assert 1.9 < longest <= 2.0 + 0.1
    assert bench.told == ["notifyd.lookup.lost"]
    bench.enricher._lookups[0].stop()


def test_with_an_open_breaker_no_event_waits_at_all() -> None:
    """What is cached is there, and what is not is marked."""
    bench = Bench("zone", "nurse")
    bench.enrich(draft(zone="7"))
    bench.queries["zone"].answer(KITCHEN)
    for number in range(3):
        bench.enrich(draft(zone=f"x{number}"))
        bench.queries["zone"].answer(fault="connection refused")
    known, unknown = draft(zone="7"), draft(zone="8")
    assert bench.enrich(known, unknown) is None
    assert written(known) == {"context": {"zone": KITCHEN}}
    assert written(unknown) == {"unavailable": ["zone"]}


@pytest_twisted.ensureDeferred
async def test_stopping_lets_the_events_that_wait_go_on() -> None:
    """Without what they waited for, and nothing is left behind."""
    bench = Bench("zone", "nurse")
    event = draft(zone="7", nurse="3")
    done = bench.enrich(event)
    await bench.enricher.stop()
    assert done == [None]
    assert sorted(written(event)["unavailable"]) == ["nurse", "zone"]
    assert bench.clock.getDelayedCalls() == []
    assert bench.enrich(draft(zone="8")) is None


# --- put together from hub.toml


def settings(**values: Any) -> Settings:
    """Gives a lookup as it stands in hub.toml."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"name": "zone", "sql": BY_ZONE, **values}.items()]
    return parse_hub("\n".join(["[[lookup]]", *lines]), "hub.toml").lookup[0]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("own", [True, False])
async def test_a_lookup_asks_the_database_that_it_names_else_the_hubs_own(
    kind: str, own: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With its statement and its parameters."""
    if kind == "sqlite":
        url = make_zones(tmp_path)
    else:
        url = request.getfixturevalue("postgres_url")
        cluster: Cluster = request.getfixturevalue("postgres")
        cluster.execute(ZONES, url)
    lookup = make_lookup(
        settings(timeout="20s") if own else settings(timeout="20s", database=url),
        url if own else "sqlite:////nowhere/hub.db", reactor=reactor, tell=print,
    )  # fmt: skip
    enricher = Enricher(reactor, [lookup])
    event = draft(zone="7")
    waiting = enricher.enrich([at(event, T0 + 10**9)])
    assert waiting is not None
    await bounded(waiting, 30)
    assert written(event) == {"context": {"zone": KITCHEN}}
    await enricher.stop()


def test_a_lookup_that_cannot_work_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that is none, for the database that it is for; a URL that is none; PostgreSQL without its driver."""
    own = f"sqlite:///{tmp_path / 'hub.db'}"
    with pytest.raises(ConfigurationError, match=r"hub.toml: lookup\[0\].sql: is no SELECT statement"):
        settings(sql="DROP TABLE zone")
    dollars = "SELECT $$ ? $$ AS x WHERE :zone ? 'a'"
    assert settings(sql=dollars, database="postgresql://h/d").sql == dollars
    with pytest.raises(ConfigurationError, match="no :name"):
        settings(sql=dollars)
    with pytest.raises(StateError, match="URL of a lookup's database"):
        make_lookup(settings(database="postgresql://h/d?nonsense=1"), own, reactor=Clock(), tell=print)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StateError, match="notifyd\\[postgresql\\]"):
        make_lookup(settings(database="postgresql://h/d"), own, reactor=Clock(), tell=print)
    assert os.listdir(tmp_path) == []
