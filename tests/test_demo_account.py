"""The demo's account: it balances when every event is where it must be, and says so when one is not."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from notifyd.ctl.demo_account import Account, Delivery, Printed, Seen, read_event
from notifyd.ctl.demo_verdict import table, verdict
from notifyd.event import Priority

PORTS = {"ingest": 1500, "normal": 1600, "important": 1601, "critical": 1602}
LINES = {
    "001 TEMP 4 21.5": Priority.NORMAL,
    "002 ALARM 7 smoke": Priority.CRITICAL,
    "003 TEMP 4 22.0": Priority.NORMAL,  # from here on the hub is down ...
    "004 DOOR 3 open": Priority.IMPORTANT,
    "005 ALARM 4 heat": Priority.CRITICAL,  # ... to here
}
OUTAGE = tuple(LINES)[2:]
AS_STORED = ("001", "002", "005", "004", "003")
CABLE_OUT = Printed("006 TEMP 4 23.0", Priority.NORMAL, cable=False)


def panel_event(number: str, offset: int) -> Seen:
    """Gives the event that one of ``LINES`` became."""
    line = next(line for line in LINES if line.startswith(number))
    return Seen(str(offset), "/ward3/panel", f"spool-{number}", "panel.x", LINES[line].value, line, {})


def own_event(what: str, offset: int) -> Seen:
    """Gives an event of the agent's own."""
    return Seen(str(offset), "/ward3/panel", f"spool-{what}", f"notifyd.source.{what}", "important", what, {})


def balanced() -> Account:
    """An account as it is when all is well: two events before the hub's death, one delivered again after it."""
    stored = [panel_event(number, 100 + place) for place, number in enumerate(AS_STORED)]
    stored += [own_event("lost", 110), own_event("restored", 111)]
    deliveries = {
        stream: [
            Delivery(stream, 1 if int(event.offset) < 102 else 2, event) for event in stored if event.priority == stream
        ]
        for stream in ("critical", "important", "normal")
    }
    deliveries["critical"].insert(1, Delivery("critical", 2, stored[1]))
    return Account(
        printed=[*(Printed(line, priority, cable=True) for line, priority in LINES.items()), CABLE_OUT],
        agent={"read": 5, "stored": 7, "sent": 8, "acknowledged": 7, "dropped": 0, "rejected": 0},
        waiting={"critical": 1, "important": 1, "normal": 1},
        hub={"received": 6, "repeats": 1, "rejected": 0, "stored": 5, "delivered": 6},
        stored_before=2,
        stored=stored,
        deliveries=deliveries,
        lines_since_restart=6,
        outage=OUTAGE,
    )


def test_an_account_of_a_demo_that_went_well_balances() -> None:
    """An event that came twice with the same id, and lines that nobody could read, do not speak against it."""
    account = balanced()
    assert account.problems() == []
    assert account.printed_by(cable=True) == {"critical": 2, "important": 1, "normal": 2, "own": 0}
    assert account.printed_by(cable=False) == {"critical": 0, "important": 0, "normal": 1, "own": 0}
    assert account.stored_by() == account.delivered_by() == {"critical": 2, "important": 1, "normal": 2, "own": 2}
    assert account.repeated_by() == {"critical": 1, "important": 0, "normal": 0, "own": 0}
    assert set(account.lost_by().values()) == {0}
    assert account.sent_again == 1


def without(stream: str, index: int) -> Callable[[Account], dict[str, Any]]:
    """Has a client miss an event."""

    def change(account: Account) -> dict[str, Any]:
        deliveries = {key: list(value) for key, value in account.deliveries.items()}
        del deliveries[stream][index]
        return {"deliveries": deliveries}

    return change


def also(stream: str, delivery: Delivery) -> Callable[[Account], dict[str, Any]]:
    """Has a client be sent one thing more."""
    return lambda account: {"deliveries": {**account.deliveries, stream: [*account.deliveries[stream], delivery]}}


def counter(daemon: str, **figures: int) -> Callable[[Account], dict[str, Any]]:
    """Has a daemon count something else."""
    return lambda account: {daemon: {**getattr(account, daemon), **figures}}


def stored(change: Callable[[list[Seen]], list[Seen]]) -> Callable[[Account], dict[str, Any]]:
    """Has the hub store something else."""
    return lambda account: {"stored": change(list(account.stored))}


def swapped(account: Account) -> dict[str, Any]:
    """Has a client get its events in another order."""
    return {"deliveries": {**account.deliveries, "normal": list(account.deliveries["normal"])[::-1]}}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("normal", 0), "not delivered to the client of normal: '/ward3/panel spool-001'"),
        (without("important", 1), "not delivered to the client of important: '/ward3/panel spool-lost'"),
        (swapped, "delivered to the client of normal in the wrong order"),
        (
            also("normal", Delivery("normal", 2, panel_event("002", 101))),
            "delivered to the client of normal, but not expected: '/ward3/panel spool-002'",
        ),
        (
            also("normal", Delivery("normal", 2, panel_event("003", 104))),
            "delivered twice to the client of normal without a reason: '003 TEMP 4 22.0'",
        ),
        (
            also("normal", Delivery("normal", 3, panel_event("003", 105))),
            "delivered twice to the client of normal without a reason: '003 TEMP 4 22.0'",
        ),
        (counter("agent", read=4), "the panel printed with the cable in 5, but the agent read 4"),
        (counter("agent", stored=6), "the agent stored 6, but it read, and told of itself 7"),
        (counter("agent", acknowledged=6), "the agent stored 7, but the hub acknowledged 6"),
        (counter("agent", dropped=1), "the agent dropped 1, but it should have dropped 0"),
        (counter("agent", rejected=1), "the hub rejected of the agent's 1, but it should have rejected 0"),
        (counter("agent", sent=6), "the agent counts fewer events sent than stored"),
        (counter("hub", rejected=1), "the hub rejected 1, but it should have rejected 0"),
        (counter("hub", stored=4), "the hub's counter has stored since its restart 4, but its database has 5"),
        (counter("hub", received=9), "the hub received 8 new events since its restart, but stored 5"),
        (counter("hub", delivered=9), "the hub has sent since its restart 9, but the clients read 6"),
        (lambda _: {"hub": {}}, "the hub rejected no figure, but it should have rejected 0"),
        (lambda _: {"gaps": ["{}"]}, "the hub told a client of a gap: {}"),
        (stored(lambda events: events[1:]), "not stored by the hub as normal: '001 TEMP 4 21.5'"),
        (stored(lambda events: [*events, events[0]]), "stored twice by the hub: '/ward3/panel spool-001'"),
        (
            stored(lambda events: [events[4], *events[1:4], events[0], *events[5:]]),
            "stored by the hub as normal in the wrong order",
        ),
        (stored(lambda events: events[:-1]), "nobody was told notifyd.source.restored"),
        (
            stored(lambda events: [*events, dataclasses.replace(events[0], line=CABLE_OUT.line, id="x")]),
            "the hub stored as normal what it should not: '006 TEMP 4 23.0'",
        ),
        (
            stored(lambda events: [dataclasses.replace(events[0], priority="error"), *events[1:]]),
            "the hub stored as error what it should not: '001 TEMP 4 21.5'",
        ),
        (
            stored(lambda events: [*events[:2], events[4], *events[2:4], *events[5:]]),
            "what waited for the hub did not come critical first",
        ),
    ],
)
def test_an_account_does_not_balance_when(change: Callable[[Account], dict[str, Any]], complaint: str) -> None:
    """Whatever is missing, too much, out of order or counted otherwise is named."""
    account = balanced()
    assert complaint in dataclasses.replace(account, **change(account)).problems()


def test_many_missing_events_are_named_in_short() -> None:
    """A demo in which nothing arrives does not fill the screen."""
    account = balanced()
    silent = dataclasses.replace(account, stored=[], deliveries=dict.fromkeys(account.deliveries, ()))
    assert "not stored by the hub as normal: '001 TEMP 4 21.5', '003 TEMP 4 22.0'" in silent.problems()
    assert max(map(len, silent.problems())) < 200
    assert silent.lost_by() == {"critical": 2, "important": 1, "normal": 2, "own": 0}


def test_what_the_hub_stored_is_read_with_what_the_account_needs() -> None:
    """Events of other producers, without data of the agent's form, are read too."""
    line = b'{"offset":"7","source":"s","id":"1","type":"t","priority":"error","data":{"raw":"AA=="},"reason":"r"}'
    assert read_event(line) == Seen("7", "s", "1", "t", "error", "", {})
    assert read_event(b'{"offset":"7","source":"s","id":"1","type":"t","priority":"error"}').line == ""


# --- how it is shown -------------------------------------------------------------------------------------


def shown(account: Account, *, wide: bool = True) -> dict[str, list[str]]:
    """Gives the table's rows as they stand on a screen, by what they count."""
    console = Console(file=io.StringIO(), width=100 if wide else 80, color_system=None)
    with console.capture() as capture:
        console.print(table(account, PORTS, wide=wide))
    rows = [line.strip("│").split("│") for line in capture.get().splitlines() if line.startswith("│")]
    assert max(map(len, capture.get().splitlines())) <= (100 if wide else 80)
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_the_table_has_a_row_for_each_place_that_an_event_passes() -> None:
    """The figures are under the port that they concern; where nobody counts by priority there is no figure."""
    rows = shown(balanced())
    assert rows["printed by the panel"] == ["2", "1", "2", "·", "5", "the panel"]
    assert rows["read by the agent"] == ["·", "·", "·", "·", "5", "agent's counter"]
    assert rows["stored by the agent"][4] == "7"
    assert rows["waited for the hub"] == ["1", "1", "1", "·", "3", "agent's database"]
    assert rows["sent to the hub"][4] == "8"
    assert rows["sent again"][4] == "1"
    assert rows["acknowledged by the hub"][4] == "7"
    assert rows["stored by the hub"] == ["2", "1", "2", "2", "7", "hub's database"]
    assert rows["delivered to its client"] == ["2", "1", "2", "2", "7", "clients' sockets"]
    assert rows["delivered again"] == ["1", "0", "0", "0", "1", "clients' sockets"]
    assert rows["lost"] == ["0", "0", "0", "0", "0", ""]
    assert rows["printed, cable out"] == ["0", "0", "1", "·", "1", "outside the promise"]


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    """It leaves out who counted then, and no figure."""
    assert shown(balanced(), wide=False)["stored by the hub"] == ["2", "1", "2", "2", "7"]


def test_a_figure_that_no_daemon_gave_is_not_made_up() -> None:
    """A question mark stands for it."""
    assert shown(dataclasses.replace(balanced(), agent={}))["read by the agent"][4] == "?"


def test_the_verdict_tells_what_was_delivered_again_and_what_nobody_could_read() -> None:
    """Both are explained to a person who has seen them in the table."""
    first, *rest = [line.plain for line in verdict(balanced(), [], 14.2)]
    assert "It balances: 7 events" in first
    assert "none lost" in first
    assert any("1 event came twice" in line for line in rest)
    assert any("1 line was printed with the cable out" in line for line in rest)


def test_the_verdict_names_what_does_not_balance() -> None:
    """One line for each complaint."""
    lines = [line.plain for line in verdict(balanced(), ["this", "that"], 14.2)]
    assert "does not balance" in lines[0]
    assert lines[1:] == ["  this", "  that"]
