"""``notifyctl explain``: the life of an event, on both databases."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from notifyd.ctl import eventlog
from notifyd.ctl.explain import MAX_OTHERS, describe_life, find
from notifyd.ctl.explain_page import write_page
from notifyd.ctl.past import revive
from tests.ctllog import Kept
from tests.hubkit import T0, hello, line, spooled, subscribe
from tests.lookups import BY_ZONE, make_zones
from tests.test_ctl_history import HOSTILE

RULES = """
[[rule]]
name = "doors"
type = "door.*"
priority = "important"
[[rule]]
name = "zone 9"
where = { "fields.zone" = 9 }
priority = "critical"
[[rule]]
name = "by zone"
priority_from = "context.zone.priority"
"""


def life(kept: Kept, *arguments: str, config: str | None = None) -> dict[str, Any]:
    """Gives what ``explain --json`` prints."""
    found: dict[str, Any] = json.loads(kept.output("explain", *arguments, "--json", config=config))
    return found


def test_an_events_way_is_told(kept: Kept) -> None:
    """Who read it and when, when it was received, where it is, until when it is kept."""
    peer = kept.hub.producer(
        hello("s", "ward3"), spooled(7, "critical", time="2026-11-22T09:59:58Z", data={"line": "x"})
    )
    assert peer.lines()[-1] == b"ACK 1"
    offset = kept.offset("s-7")
    told = life(kept, "s-7")
    assert told == life(kept, offset) | {"others": []}
    expected = {
        "id": "s-7", "offset": offset, "kind": "event", "source": "/ward3/panel", "type": "panel.alarm", "text": "x",
        "time": "2026-11-22T09:59:58Z", "agent": "ward3", "spool": "s", "sequence": f"{7:020}",
        "received": "2026-11-22T10:00:00.000000Z", "delay_s": 2.0, "stream": "critical", "suppressed": False,
        "hint": "critical", "priority": "critical", "rule": "hint", "reason": None,
        "expires": "2026-12-22T10:00:00.000000Z",
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert told["event"]["offset"] == offset
    page = kept.output("explain", "s-7")
    for text in (
        "2026-11-22T09:59:58Z by agent ward3, spool s, sequence 7\n",
        "2026-11-22T10:00:00.000000Z, 2 s later\n",
        f"at offset {offset}\n",
        "on stream critical\n",
        "2026-12-22T10:00:00.000000Z",
        "critical by the producer's hint\n",
    ):
        assert text in page


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ("2026-01-01T00:00:00Z", "28116000 s later\n"), ("2026-11-22T10:00:00.000001Z", "0.000001 s earlier by"),
        ("2026-11-22T10:00:00Z", "0 s later\n"), ("2026-11-22T09:59:20Z", "40 s later\n"),
    ],
)  # fmt: skip
def test_how_long_it_took_is_told_in_plain_seconds(sqlite_log: Kept, time: str, words: str) -> None:
    """Also where the device's clock stands, or the agent's is ahead of the hub's."""
    sqlite_log.hub.producer(hello("s", "ward3"), spooled(7, time=time))
    assert f", {words}" in sqlite_log.output("explain", "s-7")


def test_clients_of_its_stream_and_of_all_are_told(kept: Kept) -> None:
    """Each with its position, and whether that is past the event."""
    for stream, name in (("normal", "early"), ("critical", "other"), ("all", "archive")):
        kept.hub.client(stream, subscribe(name=name))
    kept.hub.put("1")
    offset = kept.offset("1")
    late = kept.hub.client("normal", subscribe(name="late", after="first"))
    late.send(b"ACK " + offset.encode())
    kept.hub.clock.advance(1)
    told = {each["name"]: each for each in life(kept, "1")["clients"]}
    assert {name: (each["stream"], each["past"]) for name, each in told.items()} == {
        "archive": ("all", False), "early": ("normal", False), "late": ("normal", True),
    }  # fmt: skip
    assert told["late"]["acked"] == offset
    assert told["late"]["seen"].startswith("2026-11-22T10:00:0")
    page = kept.output("explain", "1")
    assert "late        past it (at " in page
    assert "archive     not past it (at " in page


def test_each_rule_before_the_one_that_decides_says_what_it_missed(tmp_path: Path) -> None:
    """Then, and with the configuration of now; a change since is told."""
    kept = Kept(tmp_path, toml=RULES)
    kept.hub.producer(line("1", data={"fields": {"zone": "9"}}))
    told = life(kept, "1")
    assert (told["rule"], told["priority"]) == ("zone 9", "critical")
    assert told["rules"] == {
        "missed": [{"rule": "doors", "condition": 'type is "panel.alarm", not like "door.*"'}],
        "priority": "critical", "rule": "zone 9", "reason": None, "drop": False,
    }  # fmt: skip
    assert "the configuration has changed" not in kept.output("explain", "1")
    changed = kept.write("new.toml", RULES.replace("= 9 }", "= 8 }"))
    told = life(kept, "1", config=changed)
    assert [each["rule"] for each in told["rules"]["missed"]] == ["doors", "zone 9", "by zone"]
    assert told["rules"]["missed"][1]["condition"] == 'fields.zone is "9", not "8"'
    assert (told["rules"]["priority"], told["rules"]["rule"]) == ("error", "default")
    page = kept.output("explain", "1", config=changed)
    assert "the configuration has changed since" in page
    assert "critical by rule 'zone 9'" in page
    kept.hub.close()


def test_lookups_tell_what_they_gave_then_and_give_now(tmp_path: Path, sqlite_log: Kept) -> None:
    """A row, no row, none for this event, no parameter, and one that fails."""
    url = make_zones(tmp_path)
    sql = BY_ZONE.replace("location", "location, priority")
    lookups = "".join(
        f'[[lookup]]\nname = "{name}"\nsql = "{text}"\ndatabase = "{where}"\n{more}'
        for name, text, where, more in (
            ("zone", sql, url, ""),
            ("nothing", BY_ZONE.replace(":zone", "'none' AND :zone"), url, ""),
            ("doors", sql, url, 'type = "door.*"\n'),
            ("bed", BY_ZONE.replace(":zone", ":bed"), url, ""),
            ("broken", sql, f"sqlite:///{tmp_path}/none.db", ""),
        )
    )
    sqlite_log.hub.put("1", data={"fields": {"zone": "7"}})
    context = {"zone": {"location": "Cellar", "priority": "normal"}, "nothing": None, "old": {"a": 1}}
    sqlite_log.change("1", context=context, unavailable=["broken"])
    config = sqlite_log.write("new.toml", lookups + RULES)
    told = {each["name"]: each for each in life(sqlite_log, "1", config=config)["lookups"]}
    assert told["zone"]["then"] == {"state": "found", "row": {"location": "Cellar", "priority": "normal"}}
    assert told["zone"]["now"] == {"state": "found", "row": {"location": "Kitchen", "priority": "critical"}}
    assert told["nothing"]["then"] == told["nothing"]["now"] == {"state": "no row"}
    assert told["doors"]["why_not"] == 'type is "panel.alarm", not like "door.*"'
    assert told["bed"]["why_not"] == "the event has no bed, which the statement needs"
    assert told["broken"]["then"] == {"state": "unavailable"}
    assert told["broken"]["now"]["state"] == "unavailable"
    assert "unable to open database file" in told["broken"]["now"]["reason"]
    assert told["old"]["why_not"] == "no lookup has this name now"
    answer = life(sqlite_log, "1", config=config)
    assert (answer["rules"]["rule"], answer["rules"]["priority"]) == ("by zone", "normal")
    assert (answer["now"]["rule"], answer["now"]["priority"]) == ("by zone", "critical")
    page = sqlite_log.output("explain", "1", config=config)
    for text in (
        "then: location=Cellar priority=normal",
        "now:  location=Kitchen priority=critical",
        "now:  the same",
        "critical by rule 'by zone', with what lookups give now",
        "now:  not asked: the event has no bed",
    ):
        assert text in page


def test_the_filter_is_called_only_where_that_is_asked_for(sqlite_log: Kept) -> None:
    """It is the operator's own code, which may act."""
    called = sqlite_log.folder / "called"
    (sqlite_log.folder / "ownfilter.py").write_text(
        "class F:\n    def characterise(self, event):\n"
        f"        open({str(called)!r}, 'w').close()\n        return 'critical'\n"
    )
    config = sqlite_log.write("new.toml", '[filter]\nfactory = "ownfilter:F"\n')
    sqlite_log.hub.put("1")
    path = str(sqlite_log.folder)
    status, out, err = sqlite_log.run("explain", "1", config=config, PYTHONPATH=path)
    assert (status, err) == (0, "")
    assert "ownfilter:F was not called: --filter does that" in out
    assert not called.exists()
    status, out, err = sqlite_log.run("explain", "1", "--filter", config=config, PYTHONPATH=path)
    assert (status, err) == (0, "")
    assert "ownfilter:F says now: critical by the filter" in out
    assert "today       critical by the filter\n" in out
    assert called.exists()


def test_events_that_no_rule_is_asked_about_say_so(tmp_path: Path) -> None:
    """A refused line, and the summary of a storm; the hub's other events are for rules, and not for lookups."""
    kept = Kept(tmp_path, toml='[[suppress]]\nwindow = "60s"\n')
    kept.hub.producer(b"garbage")
    (rejected,) = kept.hub.rows("id")
    told = life(kept, rejected)
    assert (told["kind"], told["rules"], told["reason"]) == ("rejected", None, "no JSON object")
    assert "rules are not asked about such an event" in kept.output("explain", rejected)
    kept.hub.put("a", "b")
    assert life(kept, "b")["suppressed"] is True
    assert "to nobody: it repeats an event of its kind" in kept.output("explain", "b")
    kept.hub.clock.advance(61)
    kept.hub.put("c")
    (summary,) = kept.hub.rows("id", "rule = 'suppress 1'")
    assert life(kept, summary)["kind"] == "summary"
    kept.hub.pipeline.own_event("notifyd.agent.lost", "/hub/agents/x", "Agent x is lost.", {})
    (own,) = kept.hub.rows("id", "type = 'notifyd.agent.lost'")
    told = life(kept, own, config=kept.write("new.toml", '[[lookup]]\nname = "zone"\nsql = "SELECT 1"\n' + RULES))
    assert (told["kind"], told["lookups"], told["rules"]["rule"]) == ("own", [], "hint")
    assert "made by the hub itself" in kept.output("explain", own)
    kept.hub.close()


def test_an_id_is_looked_for_backwards_and_its_others_are_told(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest counts; an id of figures is found too, and an offset goes first."""
    monkeypatch.setattr(eventlog, "SEARCH_STEP", 3)
    for _ in range(MAX_OTHERS + 5):
        kept.hub.put("twice", "x")
    kept.hub.put("42", "y", "z", "once")
    offsets = kept.hub.rows('"offset"', "id = 'twice'")
    kept.hub.connection.commit()
    log = eventlog.open_log(eventlog.find_log(kept.config))
    row, others = find(log, "twice")
    assert row.offset == offsets[-1]
    assert others == offsets[-2 : -2 - MAX_OTHERS : -1]
    assert find(log, "42")[0].id == "42"
    assert find(log, str(offsets[0]))[0].offset == offsets[0]
    assert find(log, "once") == (log.event(int(kept.offset("once"))), [])
    log.close()
    told = life(kept, "twice")
    assert told["others"] == [str(offset) for offset in others]
    assert f"older events at the offsets {offsets[-2]}, " in kept.output("explain", "twice")


@pytest.mark.parametrize("wanted", ["none", "0", "9" * 40, "18446744073709551616", "é", HOSTILE, "'; DROP TABLE event"])
def test_an_event_that_is_not_there_is_told(kept: Kept, wanted: str) -> None:
    """Status 1, in one line, and up to where events have expired."""
    kept.hub.put("1")
    status, out, err = kept.run("explain", wanted)
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "no event in" in err
    assert "\x1b" not in err
    assert "have expired" not in err
    kept.hub.execute("INSERT INTO expired VALUES ('all', 5, '2026-11-01T00:00:00.000000Z')")
    kept.hub.connection.commit()
    assert (
        "those up to offset 5, received until 2026-11-01T00:00:00.000000Z, have expired"
        in kept.run("explain", wanted)[2]
    )


def test_an_empty_log_has_no_event(sqlite_log: Kept) -> None:
    """Which is no fault of the log."""
    assert "no event in" in sqlite_log.run("explain", "x")[2]
    assert sqlite_log.output("history") == ""


def test_nothing_of_an_event_can_command_the_terminal(sqlite_log: Kept) -> None:
    """On the page every text is escaped, whoever wrote it."""
    sqlite_log.hub.put("1", data={"line": HOSTILE, "fields": {"zone": HOSTILE}}, source=HOSTILE, type=HOSTILE)
    sqlite_log.change("1", context={HOSTILE: {HOSTILE: HOSTILE}}, unavailable=[HOSTILE])
    page = sqlite_log.output("explain", "1", config=sqlite_log.write("new.toml", RULES))
    assert page.replace("\n", "").isprintable()
    told = life(sqlite_log, "1")
    told["clients"] = [{"name": HOSTILE, "stream": "all", "acked": "1", "past": True, "seen": HOSTILE}]
    for lookup in told["lookups"]:
        lookup["then"]["row"] = json.dumps(lookup["then"]["row"]).encode()
    assert write_page(told, coloured=False).replace("\n", "").isprintable()
    assert "\x1b[1m" in write_page(told, coloured=True)


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "Missing argument"), (("1", "2"), "unexpected"), (("1", "--frob"), "No such option")]
)
def test_a_wrong_command_line_is_told(sqlite_log: Kept, arguments: tuple[str, ...], said: str) -> None:
    """Status 2."""
    status, out, err = sqlite_log.run("explain", *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert said in err


def test_a_line_that_is_no_event_is_told(sqlite_log: Kept) -> None:
    """Somebody has written to the log."""
    sqlite_log.hub.put("1")
    offset = sqlite_log.offset("1")
    sqlite_log.hub.execute("UPDATE entry SET body = 'x'")
    sqlite_log.hub.connection.commit()
    status, out, err = sqlite_log.run("explain", offset)
    assert (status, out) == (1, "")
    assert "cannot be read: no JSON object" in err


def test_explain_only_reads(sqlite_log: Kept) -> None:
    """Not a byte of the log changes."""
    sqlite_log.hub.put("1")
    before = (sqlite_log.folder / "hub.db").read_bytes()
    life(sqlite_log, "1")
    assert (sqlite_log.folder / "hub.db").read_bytes() == before
    with sqlite3.connect(sqlite_log.folder / "hub.db") as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (1,)
    connection.close()


def test_an_event_beyond_retention_is_told_as_such(sqlite_log: Kept) -> None:
    """It is there until the next sweep."""
    sqlite_log.hub.put("1")
    place = eventlog.find_log(sqlite_log.write("new.toml", '[database]\nretention = "1d"\n'))
    log = eventlog.open_log(place)
    (row,) = log.scan(0, log.newest())
    past = revive(row, T0)
    late = describe_life(log, past, place.settings, T0 + 86_401)
    assert (late["expires"], late["expired"]) == ("2026-11-23T10:00:00.000000Z", True)
    assert describe_life(log, past, place.settings, T0 + 86_399)["expired"] is False
    log.close()
    late |= {"others": [], "config": None, "lookups": [], "filter": None, "rules": None, "now": None}
    assert "kept until  2026-11-23T10:00:00.000000Z, so it will be deleted any moment\n" in write_page(
        late, coloured=False
    )
