"""The pipeline: one order, one batch at a time, nothing acknowledged that is not stored."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from notifyd.hub import pipeline as pipeline_module
from notifyd.hub.express import Express
from notifyd.hub.intake import Parcel
from notifyd.hub.records import Batch
from tests.hubkit import T0, Hub, hello, line, payload, spooled


def body(hub: Hub, id: str) -> Any:  # noqa: A002 - the attribute's name
    """Gives an event as it was stored."""
    return json.loads(hub.execute("SELECT body FROM event WHERE id = ?", id).fetchone()[0])


# --- order and acknowledgement -----------------------------------------------------------------------------


def test_events_are_stored_published_and_acknowledged_in_their_order(hub: Hub) -> None:
    """What one producer sends in one read arrives at the client and in the log in that order."""
    client = hub.client("all")
    producer = hub.producer(*(line(str(n), priority="normal") for n in range(50)))
    assert producer.lines() == [b"ACK 50"]
    assert client.ids() == hub.rows() == [str(n) for n in range(50)]
    offsets = hub.rows('"offset"')
    assert offsets == sorted(set(offsets))
    assert offsets[0] == T0 * 1_000_000


def test_an_ack_covers_all_lines_up_to_its_number(hub: Hub) -> None:
    """ACK is cumulative over the connection, over several reads."""
    producer = hub.producer(line("a"), line("b"))
    producer.send(line("c"))
    assert producer.lines() == [b"ACK 2", b"ACK 3"]


def test_a_refused_line_is_named_before_the_ack_that_covers_it(hub: Hub) -> None:
    """The producer learns which line and why; the others are stored; the refused one is kept as an error event."""
    errors = hub.client("error")
    producer = hub.producer(line("a", priority="normal"), b"junk", line("b", priority="normal"), b'{"id":""}')
    assert producer.lines() == [b"REJECT 2 no JSON object", b"REJECT 4 attribute source is missing", b"ACK 4"]
    first, second = (json.loads(each) for each in errors.lines())
    assert first["type"] == "notifyd.rejected"
    assert first["source"] == "/hub/ingest"
    assert first["id"] == first["offset"]
    assert first["priority"] == "error"
    assert first["reason"] == "no JSON object"
    assert first["data"] == {"line": "junk"}
    assert second["data"] == {"line": '{"id":""}'}
    assert hub.rows("type") == ["panel.alarm", "notifyd.rejected", "panel.alarm", "notifyd.rejected"]
    assert hub.counters.rejected == 2


def test_a_refused_line_of_any_bytes_is_kept(hub: Hub) -> None:
    """A line that is no UTF-8 is kept in base64, cut at 8 KiB."""
    hub.producer(b"\xff" * 9000)
    (kept,) = (json.loads(each) for each in hub.rows("body"))
    assert base64.b64decode(kept["data"]["raw"]) == b"\xff" * 8192
    assert kept["data"]["truncated"] is True


def test_nothing_is_told_before_it_is_stored(hub: Hub) -> None:
    """As long as the commit is under way there is no ACK, and no client gets the event."""
    client = hub.client("normal")
    hub.writes.held = True
    producer = hub.producer(line("a", priority="normal"), b"junk")
    assert (producer.lines(), client.lines()) == ([], [])
    hub.writes.release()
    assert [each.split()[0] for each in producer.lines()] == [b"REJECT", b"ACK"]
    assert client.ids() == ["a"]


def test_one_batch_is_stored_at_a_time_and_the_next_gathers(hub: Hub) -> None:
    """What comes during a commit waits and goes into one commit, whoever sent it."""
    hub.writes.held = True
    first = hub.producer(line("a"))
    second = hub.producer(line("b"))
    first.send(line("c"))
    assert len(hub.writes.waiting) == 1
    hub.writes.step()
    assert len(hub.writes.waiting) == 1
    assert (first.lines(), second.lines()) == ([b"ACK 1"], [])
    hub.writes.step()
    assert not hub.writes.waiting
    assert (first.lines(), second.lines()) == ([b"ACK 2"], [b"ACK 1"])
    assert hub.rows() == ["a", "b", "c"]


def test_a_flood_is_cut_into_batches(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit takes about as many events as one batch may have, not all that wait."""
    monkeypatch.setattr(pipeline_module, "BATCH_EVENTS", 5)
    hub.writes.held = True
    producer = hub.producer()
    for n in range(21):
        producer.send(line(str(n)))
    commits = 0
    while hub.writes.waiting:
        hub.writes.step()
        commits += 1
    assert commits == 1 + 4
    assert hub.rows() == [str(n) for n in range(21)]


# --- what the hub adds ---------------------------------------------------------------------------------------


def test_the_hub_fills_in_what_is_missing(hub: Hub) -> None:
    """Specversion and time where they are missing; offset, received, rule and the final priority always."""
    hub.clock.advance(1.5)
    hub.producer(b'{"id":"1","source":"/a","type":"t","priority":"critical","offset":"5","reason":"x","rule":7}')
    event = body(hub, "1")
    assert event["specversion"] == "1.0"
    assert event["time"] == event["received"] == "2026-11-22T10:00:01.500000Z"
    assert (event["priority"], event["rule"]) == ("critical", "hint")
    assert event["offset"] == str(hub.rows('"offset"')[0])
    assert "reason" not in event


def test_what_the_producer_says_stays(hub: Hub) -> None:
    """Its time, its specversion, its own attributes and its data, and the table's columns say the same."""
    hub.producer(line("1", specversion="0.3", time="2020-01-01T00:00:00+01:00", ward=3, data=[1], priority="normal"))
    event = body(hub, "1")
    assert (event["specversion"], event["time"], event["ward"]) == ("0.3", "2020-01-01T00:00:00+01:00", 3)
    assert event["data"] == {"value": [1]}
    columns = "id, source, type, priority, time, received, agent, rule"
    assert hub.rows(columns) == [
        ("1", "/ward3/panel", "panel.alarm", "normal", event["time"], event["received"], None, "hint")
    ]


def test_an_event_without_a_valid_priority_is_an_error_that_names_it(hub: Hub) -> None:
    """By default; it is stored under its own id, and the producer is not told off."""
    producer = hub.producer(line("1", priority="urgent"), line("2"), line("3", priority=5))
    assert producer.lines() == [b"ACK 3"]
    assert hub.rows("priority") == ["error"] * 3
    assert '"urgent"' in body(hub, "1")["reason"]
    assert "no priority" in body(hub, "2")["reason"]
    assert "5" in body(hub, "3")["reason"]


def test_a_deeply_nested_priority_costs_only_its_event(hub: Hub) -> None:
    """Nothing that a producer writes as its priority is a mistake of the hub."""
    deep = b"[" * 990 + b"]" * 990
    producer = hub.producer(b'{"id":"1","source":"/a","type":"t","priority":' + deep + b"}")
    assert producer.lines() == [b"ACK 1"]
    assert hub.rows("id, priority") == [("1", "error")]


def test_rules_decide_before_the_hint(make_hub: Callable[..., Hub]) -> None:
    """Also for an event of a spool, whose lane stays what the agent gave."""
    hub = make_hub(toml='[[rule]]\nname = "loud"\ntype = "panel.*"\npriority = "critical"')
    agent = hub.agent()
    agent.send(spooled(7))
    assert hub.rows("priority, rule, agent") == [("critical", "loud", "ward3")]
    assert hub.connection.execute("SELECT * FROM spool").fetchall() == [("s", "normal", "ward3", 7)]


def test_a_mistake_of_the_hub_costs_one_event_its_priority(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    """An exception that should not be is logged; the line is kept as an error event, and the rest goes on."""
    classify = hub.stages.classifier.classify

    def broken(draft: Any) -> Any:
        if draft.event.id == "bad":
            raise ZeroDivisionError
        return classify(draft)

    monkeypatch.setattr(hub.stages.classifier, "classify", broken)
    monkeypatch.setattr(hub.stages.classifier, "classify_all", lambda drafts: list(map(broken, drafts)))
    producer = hub.producer(line("a"), line("bad", data={"line": "fire"}), line("b"))
    assert producer.lines() == [b"ACK 3"]
    assert hub.rows("type") == ["panel.alarm", "notifyd.rejected", "panel.alarm"]
    (kept,) = hub.rows("body", "priority = 'error' AND type = 'notifyd.rejected'")
    assert json.loads(json.loads(kept)["data"]["line"])["data"] == {"line": "fire"}
    assert logged.expect_failure(ZeroDivisionError)


# --- repeats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"sequence": ...}, "sequence"),
        ({"sequence": "-1"}, "sequence"),
        ({"sequence": "1.0"}, "sequence"),
        ({"sequence": ""}, "sequence"),
        ({"sequence": "٣"}, "sequence"),
        ({"sequence": 7}, "sequence"),
        ({"sequence": "9" * 20}, "sequence"),
        ({"sequence": "1" * 5000}, "sequence"),
        ({"priority": ...}, "priority"),
        ({"priority": "error"}, "priority"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": 1}, "priority"),
    ],
)
def test_an_event_of_a_spool_needs_a_sequence_and_a_lane(hub: Hub, bad: dict[str, Any], reason: str) -> None:
    """Without them repeats could not be told: it is refused, and what follows it is taken."""
    members = {"id": "x", "sequence": "7", "priority": "normal", **bad}
    agent = hub.agent()
    agent.send(line(**{key: value for key, value in members.items() if value is not ...}), spooled(8))
    reject, ack = agent.lines()
    assert reject.startswith(b"REJECT 1 ")
    assert reason.encode() in reject
    assert ack == b"ACK 2"
    assert hub.rows("id", "type <> 'notifyd.rejected'") == ["s-8"]


def test_repeats_are_dropped_and_acknowledged(hub: Hub) -> None:
    """What a reconnecting agent sends again is acknowledged but neither stored nor delivered again."""
    client = hub.client("normal")
    agent = hub.agent()
    agent.send(spooled(1), spooled(2))
    agent.lose()
    agent = hub.agent()
    agent.send(spooled(1), spooled(2), spooled(3))
    assert agent.lines() == [b"ACK 3"]
    assert client.ids() == hub.rows() == ["s-1", "s-2", "s-3"]
    assert hub.counters.repeats == 2


def test_repeats_are_told_lane_by_lane(hub: Hub) -> None:
    """A critical event that overtook lower numbers makes no repeat of them."""
    agent = hub.agent()
    agent.send(spooled(9, "critical"), spooled(3, "normal"), spooled(5, "important"), spooled(3, "normal"))
    assert hub.rows() == ["s-9", "s-3", "s-5"]
    agent.lose()
    answer = payload(hub.producer(hello()).lines()[0])
    assert answer["acked"] == {"critical": 9, "important": 5, "normal": 3}


def test_a_repeat_of_what_is_in_hand_is_dropped(hub: Hub) -> None:
    """The commit need not have happened: what is on its way counts, also within one read and over a takeover."""
    first = hub.agent()
    hub.writes.held = True
    first.send(spooled(1), spooled(1), spooled(2))
    second = hub.producer(hello(), spooled(1), spooled(2), spooled(3))
    hub.writes.release()
    assert hub.rows() == ["s-1", "s-2", "s-3"]
    assert second.lines()[-1] == b"ACK 3"


def test_repeats_are_known_after_a_restart(make_hub: Callable[..., Hub]) -> None:
    """Positions are stored with their events."""
    agent = make_hub().agent()
    agent.send(spooled(5), spooled(6, "critical"))
    hub = make_hub()
    agent = hub.producer(hello(), spooled(5), spooled(6), spooled(6, "critical"))
    assert payload(agent.lines()[0])["acked"] == {"critical": 6, "important": 0, "normal": 5}
    assert hub.rows() == ["s-5", "s-6", "s-6"]


def test_events_without_a_hello_are_never_repeats(hub: Hub) -> None:
    """Nobody vouches for the sequence of a stranger."""
    hub.producer(spooled(1), spooled(1))
    assert hub.rows() == ["s-1", "s-1"]


def test_a_parcel_that_comes_alone_is_offered_to_the_express_way_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken or not it is stored once, and nothing is behind it that would have to wait for the reactor."""
    offered: list[bool] = []
    take = Express.take

    def offer(express: Express, parcel: Parcel, batch: Batch) -> bool:
        offered.append(take(express, parcel, batch))
        return offered[-1]

    monkeypatch.setattr(Express, "take", offer)
    time = "2026-11-22T10:00:00.000000Z"
    agent = hub.agent()
    agent.send(spooled(1, time=time, data={}))
    agent.send(spooled(2, time=time))
    agent.send(b"{")
    assert offered == [True, False, False]
    assert hub.rows("id")[:2] == ["s-1", "s-2"]
    assert hub.rows("type")[2:] == ["notifyd.rejected"]
