"""The pipeline on a database that is away, refuses or is corrupt, and at the hub's stop."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.database import StateError
from notifyd.event import LANES
from notifyd.hub.log import RETRY_MOST_S
from tests.hubkit import Hub, hello, line, spooled
from tests.hubparts import CORRUPT, LOCKED, REFUSED, pending
from tests.logs import Logs

# --- failures ------------------------------------------------------------------------------------------------


def test_a_database_that_is_away_delays_the_ack_only(hub: Hub, logged: Any) -> None:
    """The batch is tried again with growing pauses, told once, and stored once."""
    hub.writes.faults = [LOCKED] * 6
    producer = hub.producer(line("a", priority="normal"))
    for _ in range(6):
        assert producer.lines() == []
        hub.clock.advance(RETRY_MOST_S)
    assert producer.lines() == [b"ACK 1"]
    assert hub.rows() == ["a"]
    assert len([text for text in logged.text() if "cannot be used" in text]) == 1
    assert len([text for text in logged.text() if "can be used again" in text]) == 1


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_commit_whose_answer_was_lost_is_not_repeated(hub: Hub, count: int) -> None:
    """Looked up by its offset, so nothing is stored twice and nothing is missing."""
    client = hub.client("normal")
    agent = hub.agent()
    hub.writes.faults = [LOCKED, ("answer", LOCKED), LOCKED]
    agent.send(*(spooled(n) for n in range(1, count + 1)))
    for _ in range(4):
        hub.clock.advance(RETRY_MOST_S)
    assert agent.lines() == [b"ACK %d" % count]
    assert client.ids() == hub.rows() == [f"s-{n}" for n in range(1, count + 1)]
    assert hub.execute("SELECT sequence FROM spool").fetchall() == [(count,)]


def refuse_ids(hub: Hub, *ids: str) -> None:
    """Has the database refuse events of these ids, as a trigger or a constraint does."""
    quoted = ",".join(f"'{each}'" for each in ids)
    if isinstance(hub.connection, sqlite3.Connection):
        condition = f"json_extract(NEW.body, '$.id') IN ({quoted})"
        hub.execute(
            f"CREATE TRIGGER no BEFORE INSERT ON entry WHEN {condition} BEGIN SELECT raise(ABORT, 'not this'); END"
        )
    else:
        condition = f"NEW.id IN ({quoted})"
        hub.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this'; END $$")
        hub.execute(f"CREATE TRIGGER no BEFORE INSERT ON event FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION no()")
    hub.connection.commit()


@pytest.mark.parametrize("count", [1, 2, 9, 300])
@pytest.mark.parametrize("where", ["first", "middle", "last", "several"])
def test_an_event_that_the_database_refuses_becomes_an_error_event(hub: Hub, count: int, where: str) -> None:
    """The batch is split until the offender is found; all others are stored, in order, and positions go on."""
    bad = {"first": [0], "middle": [count // 2], "last": [count - 1], "several": [0, count // 3, count - 1]}[where]
    refuse_ids(hub, *(f"s-{n + 1}" for n in bad))
    client = hub.client("all")
    agent = hub.agent()
    agent.send(*(spooled(n + 1) for n in range(count)))
    assert agent.lines()[-1] == b"ACK %d" % count
    kinds = hub.rows("type")
    assert [n for n, kind in enumerate(kinds) if kind == "notifyd.rejected"] == sorted(set(bad))
    assert len(kinds) == count
    assert [json.loads(each)["type"] for each in client.lines()] == kinds
    rejected = json.loads(hub.rows("body", "type = 'notifyd.rejected'")[0])
    assert "not this" in rejected["reason"]
    assert json.loads(rejected["data"]["line"])["id"] == f"s-{bad[0] + 1}"
    assert hub.execute("SELECT sequence FROM spool").fetchall() == [(count,)]
    assert not hub.failed


def test_a_refusal_amid_outages_neither_loses_nor_repeats(hub: Hub) -> None:
    """The halves are retried like any batch, also when the answer to one was lost."""
    refuse_ids(hub, "2")
    producer = hub.producer()
    hub.writes.faults = [LOCKED, None, ("answer", LOCKED), LOCKED, None, None, ("answer", LOCKED)]
    producer.send(*(line(str(n)) for n in range(5)))
    for _ in range(12):
        hub.clock.advance(RETRY_MOST_S)
    assert producer.lines() == [b"ACK 5"]
    assert hub.rows("id", "type <> 'notifyd.rejected'") == ["0", "1", "3", "4"]
    assert len(hub.rows()) == 5


@pytest.mark.parametrize("error", [CORRUPT, sqlite3.DatabaseError("file is not a database")])
def test_a_corrupt_database_ends_the_hub_with_a_clear_line(hub: Hub, error: sqlite3.Error) -> None:
    """No retry helps: nothing is acknowledged, the operator is told what to do, and a stop does not hang."""
    error.sqlite_errorcode = error.sqlite_errorcode if error is CORRUPT else sqlite3.SQLITE_NOTADB
    hub.writes.faults = [error]
    producer = hub.producer(line("a"))
    assert producer.lines() == []
    (reason,) = hub.failed
    assert isinstance(reason, StateError)
    assert "corrupt" in str(reason)
    assert hub.backend.name in str(reason)
    assert pending(hub.pipeline.stop())
    producer.send(line("b"))
    assert producer.lines() == []


def test_a_database_that_refuses_everything_ends_the_hub(hub: Hub) -> None:
    """It does not go round in circles."""
    hub.writes.faults = [REFUSED] * 10
    hub.producer(line("a"))
    assert "refuses what every database takes" in str(hub.failed[0])


def test_tables_that_are_dropped_under_the_hub_end_it(hub: Hub) -> None:
    """It does not begin a log anew by itself, and says what is wrong."""
    hub.execute(f"DROP TABLE {hub.backend.table}")
    hub.connection.commit()
    producer = hub.producer(line("a"))
    assert producer.lines() == []
    assert f"{hub.backend.name} is not notifyd's, or was changed" in str(hub.failed[0])


# --- own events, positions, stopping -------------------------------------------------------------------------


def test_the_hubs_own_events_are_ordinary_events(hub: Hub) -> None:
    """Their id is their offset, so it is unique; their priority is the configured one."""
    client = hub.client("important")
    hub.pipeline.own_event("notifyd.agent.lost", "/hub/agents/ward3", "Agent ward3 …", {"agent": "ward3"})
    event = json.loads(client.lines()[0])
    assert event["id"] == event["offset"]
    assert event["data"] == {"line": "Agent ward3 …", "fields": {"agent": "ward3"}}
    assert (event["type"], event["rule"]) == ("notifyd.agent.lost", "hint")


def test_stopping_stores_what_was_read(hub: Hub) -> None:
    """A stop waits for the batch in hand and the ones behind it."""
    hub.writes.held = True
    producer = hub.producer(line("a"))
    producer.send(line("b"))
    stopped = pending(hub.pipeline.stop())
    assert not stopped
    hub.writes.release()
    assert stopped
    assert producer.lines() == [b"ACK 1", b"ACK 2"]
    producer.send(line("c"))
    assert hub.rows() == ["a", "b"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([lane.value for lane in LANES]), st.integers(1, 3), st.booleans()), max_size=25),
    st.lists(st.sampled_from([None, LOCKED, ("answer", LOCKED)]), max_size=12),
)
def test_whatever_is_resent_and_whatever_fails_each_event_is_stored_once_and_in_order(
    logs: Logs, steps: list[tuple[str, int, bool]], faults: list[Any]
) -> None:
    """An agent that reconnects at any moment and resends, on a database that fails at any moment."""
    hub = logs.emptied()()
    try:
        agent = hub.agent()
        hub.writes.faults = faults
        client = hub.client("all")
        sent: dict[str, list[bytes]] = {lane.value: [] for lane in LANES}
        for lane, count, reconnect in steps:
            new = [spooled(len(sent[lane]) + 1 + n, lane) for n in range(count)]
            new = [each.replace(b'"s-', b'"%s-' % lane.encode()) for each in new]
            sent[lane] += new
            if reconnect:
                agent.lose()
                agent = hub.producer(hello())
                for kept in sent.values():
                    agent.send(*kept)
            else:
                agent.send(*new)
        for _ in range(len(faults) + 2):
            hub.clock.advance(RETRY_MOST_S)
        stored = hub.rows()
        assert client.ids() == stored
        for lane_name, lines in sent.items():
            mine = [id for id in stored if id.startswith(lane_name)]  # noqa: A001
            assert mine == [f"{lane_name}-{n + 1}" for n in range(len(lines))]
        assert not hub.failed
    finally:
        hub.close()
