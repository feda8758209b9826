"""The event log: what it stores, what it knows at the next start, and what goes from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd import event as events
from notifyd.database import NewerSchemaError, StateError
from notifyd.event import Event
from notifyd.hub.entries import Entries, Entry, Kind, Position
from notifyd.hub.log import RETRY_FIRST_S, RETRY_MOST_S
from notifyd.hub.records import Batch, ClientRow, highest
from notifyd.hub.windows import WindowRow
from tests.hubkit import T0, Hub, hello, line, payload, spooled, subscribe
from tests.hubparts import CORRUPT, LOCKED, REFUSED, pending, result
from tests.logs import Logs


def entry(offset: int, priority: str = "normal", received: float = T0, position: Position | None = None) -> Entry:
    """Gives an entry of the log."""
    event = Event(
        id=str(offset),
        source="/a",
        type="t",
        time="2020-01-01T00:00:00Z",
        priority=priority,
        received=events.format_time(received),
        rule="hint",
    )
    return Entry(offset, events.encode(event), Kind(priority), position)


def fill(hub: Hub, *rows: tuple[str, float]) -> list[int]:
    """Stores events of these priorities and times; gives their offsets."""
    base = hub.memory.last + 1
    batch = Batch(Entries.of([entry(base + n, priority, T0 + at) for n, (priority, at) in enumerate(rows)]))
    result(hub.log.append(batch))
    return [each.offset for each in batch.entries]


def expire(hub: Hub, at: float, most: int = 1000) -> dict[str, int]:
    """Expires what is older than so many seconds after the start."""
    return result(hub.log.expire(events.format_time(T0 + at), most))  # type: ignore[no-any-return]


# --- counters and what is known at the start -----------------------------------------------------------------


def test_offsets_begin_at_the_clock_and_go_on_from_the_newest_row(make_hub: Callable[..., Hub]) -> None:
    """Also when the clock was set back while the hub was down."""
    hub = make_hub()
    hub.put("a")
    hub = make_hub(start=T0 + 100)
    hub.put("b")
    hub = make_hub(start=T0 - 1_000_000)
    hub.put("c")
    first, second, third = hub.rows('"offset"')
    assert (first, second, third) == (T0 * 1_000_000, (T0 + 100) * 1_000_000, (T0 + 100) * 1_000_000 + 1)


def test_an_offset_is_never_given_twice_though_rows_are_gone(make_hub: Callable[..., Hub]) -> None:
    """A client's position and what has expired count, even where a person has deleted the newest row."""
    hub = make_hub()
    client = hub.client("normal", subscribe(name="n"))
    hub.put("a", "b")
    (newest,) = hub.rows('"offset"', "id = 'b'")
    client.send(b"ACK %d" % newest)
    hub.clock.advance(1)
    hub.execute(f"DELETE FROM {hub.backend.table}")
    hub.connection.commit()
    hub = make_hub(start=T0 - 100)
    hub.put("c")
    assert hub.rows('"offset"') == [newest + 1]


def test_the_hub_remembers_its_clients_and_agents(make_hub: Callable[..., Hub]) -> None:
    """Positions, and which agents were lost."""
    hub = make_hub()
    hub.agent(agent="ward3").send(spooled(1))
    hub.agent("t", agent="ward4").send(spooled(1))
    result(hub.log.append(Batch(Entries(), [ClientRow("n", "normal", 5, "x")], {"ward4": True})))
    hub = make_hub()
    assert hub.memory.agents == {"ward3": False, "ward4": True}
    assert hub.memory.clients[0] == ClientRow("n", "normal", 5, "x")


def test_a_spool_position_is_that_of_the_last_event_of_the_batch(hub: Hub) -> None:
    """One row a lane, whoever sent it last."""
    positions = [
        Position("s", "normal", "old", 1),
        Position("s", "critical", "old", 9),
        Position("s", "normal", "new", 2),
    ]
    base = hub.memory.last
    result(
        hub.log.append(
            Batch(
                Entries.of([entry(base + n, position=each) for n, each in enumerate(positions, 1)]),
                positions=highest(positions),
            )
        )
    )
    stored = hub.execute("SELECT lane, agent, sequence FROM spool ORDER BY lane").fetchall()
    assert stored == [("critical", "old", 9), ("normal", "new", 2)]
    assert result(hub.log.positions("s")) == {"critical": 9, "normal": 2}
    assert result(hub.log.positions("other")) == {}


@pytest.mark.parametrize("count", [1, 31, 32, 33, 255, 256, 257, 600])
def test_batches_of_any_size_are_stored_whole_and_in_order(hub: Hub, count: int) -> None:
    """However they are cut into statements."""
    offsets = fill(hub, *[("normal", 0.0)] * count)
    assert hub.rows('"offset"') == offsets
    assert [json.loads(body)["id"] for body in hub.rows("body")] == [str(each) for each in offsets]


def test_the_tables_are_those_that_people_query(hub: Hub) -> None:
    """Their columns are part of the contract."""

    def columns(table: str) -> list[str]:
        return [column[0] for column in hub.execute(f"SELECT * FROM {table}").description]

    assert columns("event") == [
        "offset",
        "id",
        "source",
        "type",
        "priority",
        "time",
        "received",
        "agent",
        "rule",
        "body",
        "hint",
        "suppressed",
    ]
    assert columns("spool") == ["spool", "lane", "agent", "sequence"]
    assert columns("subscriber") == ["name", "stream", "acked", "seen"]
    assert columns("agent") == ["agent", "lost"]
    assert columns("expired") == ["stream", "offset", "received"]
    assert columns("schema_version") == ["version"]


def test_what_a_rule_did_to_an_event_is_stored(hub: Hub) -> None:
    """What its producer asked for, and whether it is sent; an event without either is sent."""
    base = hub.memory.last
    kept, quiet = entry(base + 1), entry(base + 2)
    quiet.kind = Kind("normal", hint="critical", suppressed=True)
    result(hub.log.append(Batch(Entries.of([kept, quiet]))))
    assert [(hint, bool(suppressed)) for hint, suppressed in hub.rows("hint, suppressed")] == [
        (None, False),
        ("critical", True),
    ]
    page = result(hub.reader.page("normal", 0, base + 2))
    assert (page.data, page.last) == (kept.line + b"\n", base + 2)


def test_positions_of_what_was_dropped_are_stored_with_the_rest(hub: Hub) -> None:
    """They are dealt with: they must not come again; also in a batch that stores nothing else."""
    base = hub.memory.last
    result(
        hub.log.append(
            Batch(
                Entries.of([entry(base + 1, position=Position("s", "normal", "a", 4))]),
                positions=[Position("s", "normal", "a", 5), Position("s", "critical", "a", 2)],
            )
        )
    )
    assert result(hub.log.positions("s")) == {"normal": 5, "critical": 2}
    result(hub.log.append(Batch(positions=[Position("s", "critical", "a", 3)])))
    assert result(hub.log.positions("s")) == {"normal": 5, "critical": 3}


def test_body_is_the_event_as_it_was_sent(hub: Hub) -> None:
    """Byte for byte."""
    client = hub.client("all")
    hub.put("a", data={"line": "ü\0"})
    assert [each.decode() for each in client.lines()] == hub.rows("body")


# --- opening -------------------------------------------------------------------------------------------------


def test_a_database_of_a_newer_version_is_refused(make_hub: Callable[..., Hub]) -> None:
    """With a sentence that says what to install; nothing is changed."""
    hub = make_hub()
    hub.execute("UPDATE schema_version SET version = 99")
    hub.connection.commit()
    with pytest.raises(NewerSchemaError, match=r"99.*newer notifyd"):
        make_hub()


def test_tables_of_another_program_are_refused_with_a_clear_line(make_hub: Callable[..., Hub]) -> None:
    """They are left alone."""
    hub = make_hub()
    hub.execute("DROP TABLE schema_version")
    if hub.backend.table != "event":
        hub.execute("DROP VIEW event")
    hub.execute(f"DROP TABLE {hub.backend.table}")
    hub.execute("CREATE TABLE event (what TEXT)")
    hub.connection.commit()
    with pytest.raises(StateError, match="is not notifyd's, or was changed"):
        make_hub()


def test_a_locked_database_is_waited_for_with_growing_pauses(hub: Hub) -> None:
    """A tenth of a second first, five seconds at most."""
    hub.writes.faults = [LOCKED] * 8
    waiting = pending(hub.log.positions("s"))
    pauses = []
    while not waiting:
        (call,) = hub.clock.getDelayedCalls()
        pauses.append(round(call.getTime() - hub.clock.seconds(), 3))
        hub.clock.advance(call.getTime() - hub.clock.seconds())
    assert waiting == [{}]
    assert pauses[0] == RETRY_FIRST_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRY_MOST_S


def test_a_stranger_who_writes_the_log_is_noticed(hub: Hub) -> None:
    """Rather than mistaken for an earlier attempt: two writers would give an offset twice."""
    base = hub.memory.last
    hub.writes.faults = [LOCKED]
    waiting = pending(hub.log.append(Batch(Entries.of([entry(base + 1), entry(base + 2)]))))
    hub.backend.write(hub.connection.cursor(), Batch(Entries.of([entry(base + 5)])))
    hub.connection.commit()
    hub.clock.advance(RETRY_FIRST_S)
    assert waiting[0].check(StateError)
    assert "another hub has written to the event log" in str(waiting[0].value)
    assert hub.rows('"offset"') == [base + 5]


def test_a_corrupt_database_is_not_tried_again(hub: Hub) -> None:
    """Reading positions says so too."""
    hub.writes.faults = [CORRUPT]
    with pytest.raises(StateError, match="corrupt"):
        result(hub.log.positions("s"))


def test_a_closed_log_takes_nothing(hub: Hub) -> None:
    """Rather than waiting for ever."""
    hub.log.close()
    with pytest.raises(StateError, match="closed"):
        result(hub.log.append(Batch(Entries.of([entry(1)]))))


def test_windows_of_repeats_are_stored_with_the_half_that_opened_them(hub: Hub) -> None:
    """Between the halves of a refused batch the hub may be killed: repeats in the first one have to be told."""
    base = hub.memory.last
    rows = [
        WindowRow(base + n, "s", f'["{n}"]', 1.5, "r", "/a", "t", "normal", "{}", 0, 1, None, None)
        for n in (1, 2, 3, 4)
    ]
    hub.writes.held = True
    hub.writes.faults = [REFUSED]
    batch = Batch(Entries.of(entry(base + n) for n in (1, 2, 3, 4)), windows=(rows, [base]))
    waiting = pending(hub.log.append(batch))
    stored = []
    while hub.writes.waiting:
        hub.writes.step()
        stored.append((hub.rows('"offset"'), [row[0] for row in hub.execute('SELECT "offset" FROM suppression')]))
    assert waiting == [None]
    assert stored == [([], []), *(([base + n for n in range(1, last + 1)],) * 2 for last in (2, 4))]


def test_a_refused_line_that_nobody_can_read_is_kept_all_the_same(hub: Hub) -> None:
    """One that is broken here, by a mistake of the hub's, must not hold up the others."""
    base = hub.memory.last
    broken = Entry(base + 2, b"\n", Kind("normal"))
    hub.writes.faults = [REFUSED, None, REFUSED]
    batch = Batch(Entries.of([entry(base + 1), broken]))
    result(hub.log.append(batch))
    kept = list(batch.entries)
    assert [each.offset for each in kept] == [base + 1, base + 2]
    assert (kept[1].kind.priority, json.loads(kept[1].line)["type"]) == ("error", "notifyd.rejected")
    assert hub.rows('"offset"') == [base + 1, base + 2]


# --- retention -----------------------------------------------------------------------------------------------


def test_only_a_prefix_expires(hub: Hub) -> None:
    """An event that is young keeps all behind it, though the clock was set back while they came."""
    fill(hub, ("normal", 0), ("normal", 50), ("normal", 10), ("normal", 60))
    assert expire(hub, 40) == {"normal": 1}
    assert len(hub.rows()) == 3
    assert expire(hub, 40) == {}


def test_the_newest_row_never_expires(hub: Hub) -> None:
    """So that offsets never go back; an empty log has nothing to lose."""
    assert expire(hub, 1e6) == {}
    offsets = fill(hub, ("normal", 0), ("critical", 1), ("error", 2))
    assert expire(hub, 1e6) == {"normal": 1, "critical": 1}
    assert expire(hub, 1e6) == {}
    assert hub.rows('"offset"') == offsets[-1:]


def test_an_event_expires_after_its_time_not_at_it(hub: Hub) -> None:
    """What is exactly as old as the cutoff stays."""
    fill(hub, ("normal", 10), ("normal", 20))
    assert expire(hub, 10) == {}
    assert expire(hub, 10.000001) == {"normal": 1}


def test_few_events_expire_at_once(hub: Hub) -> None:
    """So that no batch waits for long; the next call goes on."""
    fill(hub, *[("normal", 0.0)] * 10)
    assert [expire(hub, 100, 4) for _ in range(4)] == [{"normal": 4}, {"normal": 4}, {"normal": 1}, {}]


def test_a_failure_expires_nothing(hub: Hub) -> None:
    """Deleting and noting what was deleted are one commit."""
    fill(hub, ("normal", 0), ("normal", 1))
    hub.writes.faults = [LOCKED]
    with pytest.raises(Exception, match=r"locked|lost"):
        expire(hub, 100)
    assert len(hub.rows()) == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["normal", "critical", "error"]), st.integers(0, 50)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), max_size=10),
)
def test_expiry_notes_how_far_each_stream_is_gone(
    logs: Logs, rows: list[tuple[str, float]], sweeps: list[tuple[int, int]]
) -> None:
    """Against a plain model: a prefix of what is older, never the last, and the last one gone of each stream."""
    hub = logs.emptied()()
    try:
        held = list(zip(fill(hub, *rows), rows, strict=True))
        gone: list[Any] = []
        for cutoff, most in sweeps:
            expire(hub, cutoff, most)
            count = 0
            while len(held) > 1 and count < most and held[0][1][1] < cutoff:
                gone.append(held.pop(0))
                count += 1
        assert hub.rows('"offset"') == [offset for offset, _ in held]
        noted = dict(hub.execute('SELECT stream, "offset" FROM expired').fetchall())
        expected = {priority: offset for offset, (priority, _) in gone}
        assert noted == expected | ({"all": gone[-1][0]} if gone else {})
    finally:
        hub.close()


def test_repeats_are_dropped_though_the_log_was_emptied(make_hub: Callable[..., Hub]) -> None:
    """Positions outlive the events."""
    hub = make_hub()
    hub.agent().send(spooled(1), spooled(2))
    hub.execute(f"DELETE FROM {hub.backend.table}")
    hub.connection.commit()
    hub = make_hub()
    answers = hub.producer(hello(), spooled(1), spooled(2)).lines()
    assert payload(answers[0])["acked"]["normal"] == 2
    assert answers[1:] == [b"ACK 2"]
    assert hub.rows() == []
    assert hub.producer(line("x")).lines() == [b"ACK 1"]
