"""The event log: what it stores, what it knows at the next start, and what goes from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor

from notifyd import event as events
from notifyd.database import NewerSchemaError, StateError
from notifyd.hub.log import RETRY_FIRST_S, RETRY_MOST_S, Batch, ClientRow, Entry, EventLog, Position
from notifyd.hub.service import _refused
from tests.hubkit import CORRUPT, LOCKED, T0, Hub, hello, line, payload, pending, result, spooled, subscribe


def entry(offset: int, priority: str = "normal", received: float = T0, position: Position | None = None) -> Entry:
    """Gives an entry of the log."""
    return Entry(
        offset, str(offset), "/a", "t", priority, "2020-01-01T00:00:00Z", events.format_time(received), None, "hint",
        b'{"id":"%d"}' % offset, position,
    )  # fmt: skip


def fill(hub: Hub, *rows: tuple[str, float]) -> list[int]:
    """Stores events of these priorities and times; gives their offsets."""
    base = hub.memory.last + 1
    batch = Batch([entry(base + n, priority, T0 + at) for n, (priority, at) in enumerate(rows)])
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
    hub.connection.execute("DELETE FROM event")
    hub.connection.commit()
    hub = make_hub(start=T0 - 100)
    hub.put("c")
    assert hub.rows('"offset"') == [newest + 1]


def test_the_hub_remembers_its_clients_and_agents(make_hub: Callable[..., Hub]) -> None:
    """Positions, and which agents were lost."""
    hub = make_hub()
    hub.agent(agent="ward3").send(spooled(1))
    hub.agent("t", agent="ward4").send(spooled(1))
    result(hub.log.append(Batch([], [ClientRow("n", "normal", 5, "x")], {"ward4": True})))
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
    result(hub.log.append(Batch([entry(base + n, position=each) for n, each in enumerate(positions, 1)])))
    stored = hub.connection.execute("SELECT lane, agent, sequence FROM spool ORDER BY lane").fetchall()
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
        return [row[1] for row in hub.connection.execute(f"PRAGMA table_info({table})")]

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
    ]
    assert columns("spool") == ["spool", "lane", "agent", "sequence"]
    assert columns("subscriber") == ["name", "stream", "acked", "seen"]
    assert columns("schema_version") == ["version"]


def test_body_is_the_event_as_it_was_sent(hub: Hub) -> None:
    """Byte for byte."""
    client = hub.client("all")
    hub.put("a", data={"line": "ü\0"})
    assert [each.decode() for each in client.lines()] == hub.rows("body")


# --- opening -------------------------------------------------------------------------------------------------


def test_a_database_of_a_newer_version_is_refused(make_hub: Callable[..., Hub]) -> None:
    """With a sentence that says what to install; nothing is changed."""
    hub = make_hub()
    hub.connection.execute("UPDATE schema_version SET version = 99")
    hub.connection.commit()
    with pytest.raises(NewerSchemaError, match=r"99.*newer notifyd"):
        make_hub()


@pytest_twisted.ensureDeferred
async def test_a_second_hub_on_the_same_database_is_refused(tmp_path: Path) -> None:
    """One process writes a database; the other is told which one has it."""
    first = EventLog(tmp_path / "hub.db", reactor, _refused)
    await first.open()
    second = EventLog(tmp_path / "hub.db", reactor, _refused)
    with pytest.raises(StateError, match="another process"):
        await second.open()
    first.close()
    await second.open()
    second.close()
    second.close()


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_no_database_is_refused_with_a_clear_line(tmp_path: Path) -> None:
    """It is not overwritten."""
    path = tmp_path / "hub.db"
    path.write_bytes(b"This is a letter to my aunt. " * 100)
    log = EventLog(path, reactor, _refused)
    with pytest.raises(StateError, match=r"corrupt.*restore it or move it aside"):
        await log.open()
    log.close()
    assert path.read_bytes().startswith(b"This is a letter")


@pytest_twisted.ensureDeferred
async def test_what_is_stored_is_synced_and_there_at_the_next_start(tmp_path: Path) -> None:
    """With a real pool: write-ahead log, synchronous=FULL."""
    log = EventLog(tmp_path / "hub.db", reactor, _refused, lambda: T0)
    memory = await log.open()
    assert await log._interact(lambda cursor: cursor.execute("PRAGMA synchronous").fetchone()[0]) == 2
    assert await log._interact(lambda cursor: cursor.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
    await log.append(Batch([entry(memory.last + 1)]))
    with sqlite3.connect(tmp_path / "hub.db") as other:
        assert other.execute("SELECT count(*) FROM event").fetchone() == (1,)
    other.close()
    log.close()
    again = EventLog(tmp_path / "hub.db", reactor, _refused, lambda: T0)
    assert (await again.open()).last == memory.last + 1
    again.close()


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


def test_a_corrupt_database_is_not_tried_again(hub: Hub) -> None:
    """Reading positions says so too."""
    hub.writes.faults = [CORRUPT]
    with pytest.raises(StateError, match="corrupt"):
        result(hub.log.positions("s"))


def test_a_closed_log_takes_nothing(hub: Hub) -> None:
    """Rather than waiting for ever."""
    hub.log.close()
    with pytest.raises(StateError, match="closed"):
        result(hub.log.append(Batch([entry(1)])))


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
    with pytest.raises(sqlite3.OperationalError):
        expire(hub, 100)
    assert len(hub.rows()) == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["normal", "critical", "error"]), st.integers(0, 50)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), max_size=10),
)
def test_expiry_notes_how_far_each_stream_is_gone(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float]], sweeps: list[tuple[int, int]]
) -> None:
    """Against a plain model: a prefix of what is older, never the last, and the last one gone of each stream."""
    hub = Hub(tmp_path_factory.mktemp("hub"))
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
        noted = dict(hub.connection.execute('SELECT stream, "offset" FROM expired').fetchall())
        expected = {priority: offset for offset, (priority, _) in gone}
        assert noted == expected | ({"all": gone[-1][0]} if gone else {})
    finally:
        hub.close()


def test_repeats_are_dropped_though_the_log_was_emptied(make_hub: Callable[..., Hub]) -> None:
    """Positions outlive the events."""
    hub = make_hub()
    hub.agent().send(spooled(1), spooled(2))
    hub.connection.execute("DELETE FROM event")
    hub.connection.commit()
    hub = make_hub()
    answers = hub.producer(hello(), spooled(1), spooled(2)).lines()
    assert payload(answers[0])["acked"]["normal"] == 2
    assert answers[1:] == [b"ACK 2"]
    assert hub.rows() == []
    assert hub.producer(line("x")).lines() == [b"ACK 1"]
