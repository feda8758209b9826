"""``notifyctl rules test``: a changed configuration against the events that are stored, on both databases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from notifyd.ctl.rules_report import EXAMPLES, Report
from notifyd.event import Priority
from notifyd.hub.classify import Decision
from tests.ctllog import Kept
from tests.fakehub import notifyctl, run
from tests.hubkit import line
from tests.lookups import BY_ZONE, make_zones
from tests.test_ctl_history import HOSTILE, row

RULES = """
[[rule]]
name = "fire"
type = "fire"
priority = "critical"
[[rule]]
name = "noise"
type = "noise"
drop = true
[[rule]]
name = "odd"
type = "odd"
priority = "error"
[[rule]]
name = "same"
type = "same"
priority = "normal"
"""


def account(kept: Kept, toml: str, *arguments: str, **env: str) -> dict[str, Any]:
    """Gives what ``rules test --json`` prints for a changed configuration."""
    status, out, err = kept.run("rules", "test", "--json", *arguments, config=kept.write("new.toml", toml), **env)
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def moves(told: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Gives the counts of the moves, in their order."""
    return {(each["from"], each["to"]): each["count"] for each in told["moved"]}


def test_what_would_move_is_counted_with_examples(kept: Kept) -> None:
    """New errors come first, then what would be thrown away; the rule that decides stands in each example."""
    for kind in ("fire", "noise", "odd", "same", "other"):
        kept.hub.put(*(f"{kind} {number}" for number in range(4)), type=kind, data={"line": f"a {kind}"})
    told = account(kept, RULES)
    assert list(moves(told)) == [("normal", "error"), ("normal", "drop"), ("normal", "critical")]
    assert set(moves(told).values()) == {4}
    assert (told["tested"], told["unchanged"], told["unchanged_by_another_rule"]) == (20, 8, 4)
    fires = told["moved"][2]["examples"]
    assert len(fires) == EXAMPLES
    expected = {
        "offset": kept.offset("fire 0"), "source": "/ward3/panel", "type": "fire", "text": "a fire",
        "rule": "hint", "new_rule": "fire", "new_reason": None,
    }  # fmt: skip
    assert {name: fires[0][name] for name in expected} == expected
    text = kept.output("rules", "test", config=str(kept.folder / "new.toml"))
    assert "20 events of" in text
    assert "8 events would stay as they are (4 of them by another rule)." in text
    assert text.index("normal → error: 4 events") < text.index("normal → drop: 4 events")
    assert 'hint → odd [rule "odd" says so]' in text


def test_only_the_events_that_are_asked_for_are_tested(kept: Kept) -> None:
    """By time and by number."""
    for number in range(5):
        kept.hub.put(str(number), type="fire")
        kept.hub.clock.advance(10)
    assert account(kept, RULES, "--since", "2026-11-22T10:00:10Z")["tested"] == 4
    assert account(kept, RULES, "--until", "2026-11-22T10:00:10Z")["tested"] == 1
    assert account(kept, RULES, "--limit", "3")["tested"] == 3
    assert account(kept, RULES, "--since", "2026-11-23T10:00:00Z")["tested"] == 0


def test_the_producers_hint_counts_and_not_what_the_rules_made_of_it(tmp_path: Path) -> None:
    """Without any rule, every event gets what its producer asked for."""
    kept = Kept(tmp_path, toml='[[rule]]\npriority = "critical"\n')
    kept.hub.put("1", priority="normal")
    kept.hub.put("2", priority="critical")
    kept.hub.producer(line("3", priority="urgent"))
    told = account(kept, "")
    assert moves(told) == {("critical", "error"): 1, ("critical", "normal"): 1}
    assert told["notes"] == {"have no hint in the log: they had none, or are of before it was kept": 1}
    kept.hub.close()


def test_events_of_before_hints_were_kept_are_counted(kept: Kept) -> None:
    """Those for which the hint decided have their priority as hint."""
    kept.hub.put("1", "2", priority="important")
    kept.hub.execute(f"UPDATE {kept.hub.backend.table} SET hint = NULL")
    kept.hub.connection.commit()
    told = account(kept, "")
    assert (told["unchanged"], moves(told)) == (2, {})
    assert told["notes"] == {"are of before hints were kept: their priority is taken for it": 2}


def test_what_a_lookup_gave_then_counts_and_the_rest_is_asked_now(sqlite_log: Kept) -> None:
    """An answer in the event, that there was none, and that it was unavailable, are as they were."""
    lookup = f'[[lookup]]\nname = "zone"\nsql = "{BY_ZONE.replace("location", "priority")}"\n'
    lookup += f'database = "{make_zones(sqlite_log.folder)}"\n'
    rules = lookup + '[[rule]]\nname = "by zone"\npriority_from = "context.zone.priority"\n'
    for number in range(4):
        sqlite_log.hub.put(str(number), data={"fields": {"zone": "7"}})
    sqlite_log.hub.put("no zone")
    sqlite_log.change("0", context={"zone": {"priority": "important"}})
    sqlite_log.change("1", context={"zone": None})
    sqlite_log.change("2", unavailable=["zone"])
    told = account(sqlite_log, rules)
    assert moves(told) == {("normal", "critical"): 1, ("normal", "important"): 1}
    assert told["notes"] == {
        "were looked up now in zone, having no answer of it": 1,
        "go without lookup zone, which could not be asked then": 1,
    }
    told = account(sqlite_log, rules, "--no-lookups")
    assert moves(told) == {("normal", "important"): 1}
    assert told["notes"]["have no answer of lookup zone, which was not asked"] == 1
    without = '[[rule]]\npriority_from = "context.zone.priority"\n'
    assert moves(account(sqlite_log, without)) == {}  # a lookup that is no more gives nothing
    narrow = rules.replace('name = "zone"', 'name = "zone"\ntype = "door.*"')
    assert moves(account(sqlite_log, narrow)) == {}  # nor does one that is not for the event any more


def test_a_lookup_that_cannot_be_asked_is_told(sqlite_log: Kept) -> None:
    """The events go without it, as they would in the hub."""
    sqlite_log.hub.put("1", data={"fields": {"zone": "7"}})
    toml = f'[[lookup]]\nname = "zone"\nsql = "{BY_ZONE}"\ndatabase = "sqlite:////nowhere/none.db"\n'
    told = account(sqlite_log, toml)
    assert (told["tested"], told["notes"]["go without lookup zone, which could not be asked now"]) == (1, 1)


def test_the_filter_is_called_only_where_that_is_asked_for(sqlite_log: Kept) -> None:
    """Else what it decided is left out, and what it added to the context stays."""
    (sqlite_log.folder / "trialfilter.py").write_text(
        "class F:\n    def characterise(self, event):\n"
        "        return 'critical' if event.data.get('line') == 'mine' else None\n"
    )
    sqlite_log.hub.put("1", data={"line": "mine"})
    sqlite_log.hub.put("2", data={"line": "filtered"})
    sqlite_log.hub.put("3")
    body = "json_set(body, '$.rule', 'filter', '$.priority', 'important')"
    sqlite_log.hub.execute(
        f"UPDATE entry SET body = {body}, priority = 'important' WHERE json_extract(body, '$.id') = '2'"
    )
    sqlite_log.change("3", context={"own": {"x": 1}})
    toml = '[filter]\nfactory = "trialfilter:F"\n[[rule]]\nwhere = { "context.own.x" = 1 }\npriority = "error"\n'
    path = str(sqlite_log.folder)
    told = account(sqlite_log, toml, PYTHONPATH=path)
    assert moves(told) == {("normal", "error"): 1}
    assert told["left_out"] == {"are left out, since the filter decided about them: --filter asks it": 1}
    told = account(sqlite_log, toml, "--filter", PYTHONPATH=path)
    assert moves(told) == {("important", "normal"): 1, ("normal", "critical"): 1}
    assert told["moved"][1]["examples"][0]["new_rule"] == "filter"
    assert told["left_out"] == {}
    told = account(sqlite_log, "")
    assert moves(told) == {("important", "normal"): 1}  # without a filter the rules decide about its events too


def test_events_that_rules_are_not_asked_about_are_left_out(tmp_path: Path) -> None:
    """Refused lines and summaries of storms; repeats are tested, and so are the hub's other events."""
    kept = Kept(tmp_path, toml='[[suppress]]\nwindow = "60s"\n')
    kept.hub.producer(b"garbage")
    kept.hub.put("a", "b")
    kept.hub.clock.advance(61)
    kept.hub.put("c")
    kept.hub.pipeline.own_event("notifyd.agent.lost", "/hub/agents/x", "Agent x is lost.", {})
    told = account(kept, '[[rule]]\npriority = "critical"\n[[lookup]]\nname = "x"\nsql = "SELECT 1"\n', "--no-lookups")
    assert told["tested"] == 4
    assert moves(told) == {("important", "critical"): 1, ("normal", "critical"): 3}
    assert told["left_out"] == {"are left out: refused lines and summaries of repeats are not for rules": 2}
    kept.hub.close()


def test_a_line_that_is_no_event_is_left_out(sqlite_log: Kept) -> None:
    """Somebody has written to the log."""
    sqlite_log.hub.put("1", "2")
    sqlite_log.hub.execute("UPDATE entry SET body = 'x' WHERE json_extract(body, '$.id') = '1'")
    sqlite_log.hub.connection.commit()
    assert account(sqlite_log, "")["left_out"] == {"cannot be read, and are left out": 1}


def test_the_log_can_be_another_hubs(sqlite_log: Kept, tmp_path: Path) -> None:
    """A file to be tried need not name the log that it is tried on."""
    sqlite_log.hub.put("1", type="fire")
    (new := tmp_path / "other.toml").write_text(f'state = "/nowhere"\n{RULES}')
    for where in (("--log-config", sqlite_log.config), ("--database", f"sqlite:///{sqlite_log.folder}/hub.db")):
        status, out, err = run("rules", "test", "--config", str(new), *where, "--json")
        assert (status, err, json.loads(out)["tested"]) == (0, "", 1)
    status, out, err = run("rules", "test", "--config", str(new))
    assert (status, out) == (1, "")
    assert "there is no event log /nowhere/hub.db" in err


@pytest.mark.parametrize("lookups", [(), ("--no-lookups",)])
def test_the_log_is_not_touched(kept: Kept, lookups: tuple[str, ...]) -> None:
    """Neither its rows nor, in SQLite, a byte of it."""
    kept.hub.put("1", "2", type="fire")
    before = kept.hub.rows("*")
    kept.hub.connection.commit()
    path = kept.folder / "hub.db"
    content = path.read_bytes() if path.exists() else b""
    assert moves(account(kept, RULES, *lookups)) == {("normal", "critical"): 2}
    assert kept.hub.rows("*") == before
    kept.hub.connection.commit()
    assert (path.read_bytes() if path.exists() else b"") == content


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "--config"),
        (("--config", "{}", "--frob"), 2, "No such option"),
        (("--config", "{}", "--since", "x"), 2, "--since"),
        (("--config", "{}", "--log-config", "a", "--database", "b"), 2, "exclude each other"),
        (("--config", "/nowhere/hub.toml"), 1, "No such file"),
        (("--config", "{bad}"), 1, "bad.toml: rule[0]: needs one of priority"),
        (("--config", "{filter}", "--filter"), 1, "filter.factory: nosuchmodule cannot be imported"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    sqlite_log: Kept, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """Status 2 for the command line, 1 for a file."""
    bad = sqlite_log.folder / "bad.toml"
    bad.write_text("[[rule]]\n")
    own = sqlite_log.write("filter.toml", '[filter]\nfactory = "nosuchmodule:F"\n')
    filled = [each.format(sqlite_log.config, bad=bad, filter=own) for each in arguments]
    found, out, err = run("rules", "test", *filled)
    assert (found, out, len(err.splitlines())) == (status, "", 1)
    assert said in err


def test_rules_without_a_command_says_what_there_is() -> None:
    """One is there."""
    status, out, err = run("rules")
    assert (status, err) == (0, "")
    assert "  test " in out


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_of_an_event_can_command_the_terminal(terminal: bool) -> None:
    """Texts and names are escaped, in whatever column; a narrow terminal folds."""
    report = Report(HOSTILE, HOSTILE)
    body = json.dumps({"type": HOSTILE, "data": {"line": HOSTILE}})
    hostile = row(1, source=HOSTILE, type=HOSTILE, rule=HOSTILE, received=HOSTILE, priority=HOSTILE, body=body)
    report.add(hostile, Decision(Priority.ERROR, HOSTILE, HOSTILE))
    for width in (20, 400):
        text = report.to_text(terminal=terminal, width=width)
        assert "\x1b[2J" not in text
        assert "\x9b" not in text
        assert "\u202e" not in text
        assert terminal or text.replace("\n", "").isprintable()
    assert json.loads(report.to_json())["moved"][0]["count"] == 1


def test_moves_stand_in_the_order_of_their_importance() -> None:
    """New errors, what would be thrown away, then from the most urgent on."""
    report = Report("", "")
    for before, after in (("normal", "critical"), ("critical", "normal"), ("normal", "error"), ("critical", "error")):
        report.add(row(1, priority=before), Decision(Priority(after), "x"))
    report.add(row(1, priority="error"), Decision(Priority.NORMAL, "x", drop=True))
    assert [(move.before, move.after) for move in report.sorted_moves()] == [
        ("critical", "error"), ("normal", "error"), ("error", "drop"), ("critical", "normal"), ("normal", "critical"),
    ]  # fmt: skip


def test_ctrl_c_ends_a_test_with_status_130(sqlite_log: Kept) -> None:
    """Also while an answer is waited for."""
    (sqlite_log.folder / "slowfilter.py").write_text(
        "from twisted.internet.defer import Deferred\n"
        "import sys\n"
        "class F:\n    def characterise(self, event):\n"
        "        print('asked', file=sys.stderr, flush=True)\n        return Deferred()\n"
    )
    sqlite_log.hub.put("1")
    config = sqlite_log.write("new.toml", '[filter]\nfactory = "slowfilter:F"\ntimeout = "1h"\n')
    env = {"PYTHONPATH": str(sqlite_log.folder)}
    with notifyctl("rules", "test", "--filter", "--config", config, env=env) as process:
        assert process.error_line() == "asked"
        process.interrupt()
        assert process.end() == (130, b"", "")


def test_the_configuration_that_decided_moves_nothing(tmp_path: Path) -> None:
    """Whatever producers sent: rules, hints, words that are no priority, data of every kind, storms."""
    toml = RULES + (
        '[[rule]]\nname = "hot"\nwhere = { "fields.celsius" = { ">" = 38.5 } }\npriority = "important"\n'
        '[[rule]]\nname = "named"\npriority_from = "value"\nset = { ward = "3" }\n[[suppress]]\ntype = "f*"\n'
    )
    kept = Kept(tmp_path, toml=toml)
    datas: list[dict[str, Any]] = [
        {"data": data}
        for data in (
            None, "critical", [1, {"x": "é\ud800"}], {"fields": {"celsius": "39"}}, {"fields": {"celsius": 38.5}}
        )
    ]  # fmt: skip
    datas += [{}, {"data_base64": "AAA="}, {"subject": "s", "ward": 1}]
    priorities = [{}, {"priority": "critical"}, {"priority": "urgent"}, {"priority": 7}, {"priority": None}]
    events = [
        line(f"{kind}-{number}", type=kind, **data, **priority)
        for kind in ("fire", "odd", "same", "other")
        for number, data in enumerate(datas)
        for priority in priorities
    ]
    kept.hub.producer(*events)
    told = account(kept, toml)
    assert (told["tested"], told["moved"], told["unchanged_by_another_rule"]) == (len(events), [], 0)
    kept.hub.close()
