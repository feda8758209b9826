"""The stages in the pipeline: what lookups, own code, rules and storms make of an event, in the log and at clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from notifyd import wire
from notifyd.filters import Event
from tests.hubkit import Hub, line, spooled, subscribe
from tests.hubparts import LOCKED
from tests.lookups import FakeQuery

DROP = '[[rule]]\nname = "noise"\ntype = "noise"\ndrop = true\n'
SUPPRESS = '[[suppress]]\nname = "doors"\nby = ["source", "type", "fields.zone"]\nwindow = "60s"\n'


def body(hub: Hub, id: str) -> dict[str, Any]:  # noqa: A002 - the attribute's name
    """Gives the event as it is stored."""
    ((text,),) = hub.execute("SELECT body FROM event WHERE id = ?", id).fetchall()
    return json.loads(text)  # type: ignore[no-any-return]


# --- rules -------------------------------------------------------------------------------------------------


def test_what_a_rule_discards_is_not_stored_but_counted_and_never_comes_again(make_hub: Callable[..., Hub]) -> None:
    """Its sequence is as durable as that of an event that is stored, or the agent would miss it after a restart."""
    hub = make_hub(toml=DROP)
    agent = hub.agent()
    agent.send(spooled(1), spooled(2, type="noise"))
    assert agent.lines() == [b"ACK 2"]
    agent.send(spooled(3, type="noise"))
    assert agent.lines() == [b"ACK 1".replace(b"1", b"3")]
    assert hub.rows("id") == ["s-1"]
    assert hub.counters.dropped == {"noise": 2}
    assert hub.execute("SELECT sequence FROM spool").fetchall() == [(3,)]
    hub = make_hub(toml=DROP)
    again = hub.agent()
    again.send(spooled(3), spooled(4))
    assert hub.rows("id") == ["s-1", "s-4"]


def test_a_rule_adds_attributes(make_hub: Callable[..., Hub]) -> None:
    """In the log and at the client; what the producer gave that name is replaced."""
    hub = make_hub(toml='[[rule]]\ntype = "*"\npriority = "critical"\nset = { ward = "3", floor = 2, night = true }')
    client = hub.client("critical")
    hub.put("a", data={"line": "x"})
    hub.put("b", ward="old", subject="s")
    first, second = (json.loads(each) for each in client.lines())
    assert (first["ward"], first["floor"], first["night"], first["data"]) == ("3", 2, True, {"line": "x"})
    assert (second["ward"], second["subject"]) == ("3", "s")
    assert [body(hub, id) for id in "ab"] == [first, second]  # noqa: A001


def test_the_producers_hint_is_kept_beside_what_was_decided(make_hub: Callable[..., Hub]) -> None:
    """So that other rules can be tried later on what is stored."""
    hub = make_hub(toml='[[rule]]\ntype = "x"\npriority = "critical"')
    hub.put("a", type="x", priority="normal")
    hub.put("b", type="x", priority="urgent")
    assert hub.rows("hint, priority") == [("normal", "critical"), (None, "critical")]


def test_what_nothing_classifies_is_told_in_the_log_once_for_its_type(hub: Hub, logged: Any) -> None:
    """With the reason, and the count of what follows."""
    for number in range(5):
        hub.producer(line(f"a{number}", type="odd"))
    hub.clock.advance(61)
    warnings = [text for text in logged.text("warn") if "odd" in text]
    assert len(warnings) == 2
    assert "4" in warnings[1]


# --- lookups -------------------------------------------------------------------------------------------------


LOOKUP = '[[lookup]]\nname = "{0}"\nsql = "SELECT * FROM zone WHERE zone = :{0}"\n'
RULES = '[[rule]]\nname = "by zone"\npriority_from = "context.zone.priority"\n'


@pytest.fixture
def query(monkeypatch: pytest.MonkeyPatch) -> FakeQuery:
    """What every lookup asks in place of its database."""
    query = FakeQuery()
    monkeypatch.setattr("notifyd.hub.enrich.PoolQuery", lambda *_: query)
    return query


def test_an_event_is_looked_up_and_the_answer_decides(make_hub: Callable[..., Hub], query: FakeQuery) -> None:
    """The row stands in the event, a missing row as null; without the parameter nothing is asked."""
    hub = make_hub(toml=LOOKUP.format("zone") + RULES)
    client = hub.client("critical")
    spoof = {"fields": {}, "context": {"zone": {"priority": "critical"}}, "unavailable": ["x"]}
    producer = hub.producer(
        line("a", data={"fields": {"zone": 7}}, priority="normal"),
        line("b", data={"fields": {"zone": "9"}}, priority="normal"),
        line("c", data=spoof, priority="normal"),
    )
    assert producer.lines() == []
    row = {"zone": "7", "location": "Küche", "priority": "critical"}
    query.answer(row, None)
    assert producer.lines() == [b"ACK 3"]
    assert body(hub, "a")["data"] == {"fields": {"zone": 7}, "context": {"zone": row}}
    assert body(hub, "b")["data"] == {"fields": {"zone": "9"}, "context": {"zone": None}}
    assert body(hub, "c")["data"] == {"fields": {}}, "a producer does not say what the hub's lookups found"
    assert hub.rows("priority, rule") == [("critical", "by zone"), ("normal", "hint"), ("normal", "hint")]
    assert client.ids() == ["a"]


def test_an_event_does_not_wait_for_a_database_longer_than_the_timeout(
    make_hub: Callable[..., Hub], query: FakeQuery
) -> None:
    """It goes on, marked; when the database is lost that is told as an event, and nobody waits any more."""
    hub = make_hub(toml=LOOKUP.format("zone"))
    for number in range(3):
        hub.producer(line(f"a{number}", data={"fields": {"zone": str(number)}}, priority="critical"))
        hub.clock.advance(2)
        assert body(hub, f"a{number}")["data"]["unavailable"] == ["zone"]
        query.answer(fault="the connection was cut")
    hub.producer(line("b", data={"fields": {"zone": "x"}}, priority="critical"))
    assert body(hub, "b")["data"]["unavailable"] == ["zone"]
    assert "notifyd.lookup.lost" in hub.rows("type")


def test_a_line_that_would_be_too_long_goes_without_its_context(make_hub: Callable[..., Hub], query: FakeQuery) -> None:
    """It is marked, and at most as long as the protocol says; the rules had the context all the same."""
    names = [f"z{number}" for number in range(4)]
    rule = '[[rule]]\npriority_from = "context.z0.priority"'
    hub = make_hub(toml="".join(map(LOOKUP.format, names)) + rule)
    hub.producer(line("a", data={"line": "x" * 40_000, "fields": dict.fromkeys(names, "7")}))
    for _ in names:
        query.answer({"text": "ü" * 14_000, "priority": "critical"})
    event = body(hub, "a")
    assert event["priority"] == "critical"
    assert event["data"]["truncated"] is True
    assert "context" not in event["data"]
    assert len(hub.rows("body")[0].encode()) <= wire.MAX_HUB_LINE


# --- own code ------------------------------------------------------------------------------------------------


class Ward:
    """A filter of an operator's."""

    def preprocess(self, event: Event) -> Mapping[str, object]:
        return {"ward": event.source.split("/")[1]}

    def characterise(self, event: Event) -> str | None:
        if event.type == "bad":
            raise ZeroDivisionError("by the operator")
        return "critical" if event.data.get("line") == "fire" else None


FILTER = '[filter]\nfactory = "tests.test_stages:Ward"\n'


def test_own_code_adds_context_and_names_the_priority(make_hub: Callable[..., Hub], logged: Any) -> None:
    """Where it names none the rules decide; where it fails the event is an error, and the hub goes on."""
    hub = make_hub(toml=FILTER + '[[rule]]\nname = "r"\npriority = "important"', filter_object=Ward())
    spoof = {"line": "fire", "context": {"zone": "x"}}
    hub.producer(line("a", data=spoof), b"no event", line("b", type="bad"), line("c"))
    assert hub.rows("priority, rule") == [
        ("critical", "filter"), ("error", "default"), ("error", "filter"), ("important", "r"),
    ]  # fmt: skip
    assert body(hub, "a")["data"] == {"line": "fire", "context": {"ward": "ward3"}}
    assert "ZeroDivisionError" in body(hub, "b")["reason"]
    assert logged.expect_failure(ZeroDivisionError)


def test_the_hubs_own_events_are_not_for_own_code(make_hub: Callable[..., Hub]) -> None:
    """But for the rules they are."""
    rule = '[[rule]]\nname = "r"\ntype = "notifyd.*"\npriority = "critical"'
    hub = make_hub(toml=FILTER + rule, filter_object=Ward())
    hub.pipeline.own_event("notifyd.agent.lost", "/hub/agents/x", "fire", {})
    assert hub.rows("priority, rule") == [("critical", "r")]


# --- storms --------------------------------------------------------------------------------------------------


def door(id: str, zone: str = "7", **attributes: Any) -> bytes:  # noqa: A002 - the attribute's name
    """Gives an event of a door."""
    return line(id, **{"type": "door", "priority": "normal", "data": {"fields": {"zone": zone}}, **attributes})


def test_repeats_are_stored_and_counted_but_sent_to_nobody(make_hub: Callable[..., Hub]) -> None:
    """Neither live, nor from the log, nor with every event; when the window ends their count is told."""
    hub = make_hub(toml=SUPPRESS)
    live, everything = hub.client("normal"), hub.client("all")
    hub.producer(door("a"), door("b"), door("c", "8"), door("d"), door("e", priority="critical"))
    assert live.ids() == ["a", "c"]
    assert everything.ids() == ["a", "c", "e"]
    assert hub.rows("id", "suppressed") == ["b", "d"]
    assert hub.counters.suppressed == 2
    for stream, sent in (("normal", ["a", "c"]), ("all", ["a", "c", "e"])):
        late = hub.client(stream, subscribe(after="first"))
        assert [json.loads(each)["id"] for each in late.lines()[1:]] == sent
    hub.clock.advance(61)
    (told,) = (json.loads(each) for each in hub.client("critical", subscribe(after="first")).lines()[2:])
    assert (told["type"], told["source"], told["rule"]) == ("door", "/ward3/panel", "doors")
    assert {key: told["data"][key] for key in ("repeated", "fields")} == {"repeated": 2, "fields": {"zone": "7"}}
    assert told["id"] == told["offset"]


def test_windows_that_were_open_at_a_crash_go_on(make_hub: Callable[..., Hub]) -> None:
    """What was counted before is told after; what comes within the window is a repeat still."""
    hub = make_hub(toml=SUPPRESS)
    hub.producer(door("a"), door("b"))
    hub = make_hub(toml=SUPPRESS, start=hub.now() + 30)
    client = hub.client("normal")
    hub.producer(door("c"))
    assert client.lines() == []
    hub.clock.advance(31)
    (told,) = (json.loads(each) for each in client.lines())
    assert told["data"]["repeated"] == 2
    hub.producer(door("d"))
    assert client.ids() == ["d"]
    assert hub.execute("SELECT count(*) FROM suppression").fetchone() == (1,)


def test_a_window_that_ended_while_the_hub_was_away_is_told_at_its_start(make_hub: Callable[..., Hub]) -> None:
    """Also where the configuration no longer suppresses anything."""
    hub = make_hub(toml=SUPPRESS)
    hub.producer(door("a"), door("b"))
    hub = make_hub(start=hub.now() + 3600)
    hub.clock.advance(1)
    assert [json.loads(each)["data"]["repeated"] for each in hub.rows("body", "rule = 'doors'")] == [1]
    assert hub.execute("SELECT count(*) FROM suppression").fetchone() == (0,)


def test_the_count_of_repeats_survives_a_lost_answer(make_hub: Callable[..., Hub]) -> None:
    """The batch is tried again as it is: nothing is counted or told twice."""
    hub = make_hub(toml=SUPPRESS)
    hub.writes.faults[:] = [LOCKED, ("answer", LOCKED)]
    hub.producer(door("a"), door("b"), door("c"))
    hub.clock.pump([0.2] * 10)
    hub.clock.advance(61)
    assert [json.loads(each)["data"]["repeated"] for each in hub.rows("body", "rule = 'doors'")] == [2]
    assert hub.rows("id", "suppressed") == ["b", "c"]


def test_a_window_ends_in_time_whatever_else_comes(make_hub: Callable[..., Hub]) -> None:
    """A flood of events that a rule discards, or that are none, does not hold back what is to be told."""
    hub = make_hub(toml=DROP + SUPPRESS)
    hub.producer(door("a"), door("b"))
    hub.clock.advance(59.9)
    for _ in range(5):
        hub.writes.faults[:] = [LOCKED]  # so that something waits whenever a batch is done
        for noise in (line("x", type="noise"), b"no event", line("y", type="noise")):
            hub.producer(noise)
        hub.clock.advance(0.11)
    assert [json.loads(each)["data"]["repeated"] for each in hub.rows("body", "rule = 'doors'")] == [1]


def test_a_repeat_that_had_to_wait_for_the_database_is_of_the_window_in_which_it_was_received(
    make_hub: Callable[..., Hub],
) -> None:
    """The window's end is told behind it, although it has come meanwhile, and though only old lines came before it."""
    hub = make_hub(toml=SUPPRESS)
    agent = hub.agent()
    agent.send(spooled(1, type="t"))
    hub.producer(door("a"), door("b"))
    hub.clock.advance(59)
    hub.writes.faults[:] = [LOCKED] * 5
    hub.producer(line("holds everything up"))
    for _ in range(4):
        agent.send(*[spooled(1)] * 500)  # a batch of its own, of which nothing is stored
    hub.producer(door("c"))
    hub.clock.pump([0.5] * 20)
    assert hub.rows("id", "suppressed") == ["b", "c"]
    assert [json.loads(each)["data"]["repeated"] for each in hub.rows("body", "rule = 'doors'")] == [2]
    received = hub.rows("received")
    assert received == sorted(received)


def test_clients_positions_do_not_wait_for_own_code(make_hub: Callable[..., Hub]) -> None:
    """A filter that hangs in its thread is not asked about nothing: what a client has acknowledged is written."""
    asked: list[int] = []

    class Counting:
        def characterise(self, event: Event) -> None:
            asked.append(1)

    hub = make_hub(toml=FILTER + "blocking = true", filter_object=Counting())
    client = hub.client("normal", subscribe(name="pager"))
    hub.clock.advance(1)
    assert client.lines()[0].startswith(b"OK ")
    assert not asked
