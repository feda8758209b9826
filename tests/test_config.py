"""Configuration: what is refused, and that the line which says so names file, key and reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd import config, config_agent, config_hub
from notifyd.config import ConfigurationError, Duration, Size
from notifyd.config_hub import MAX_SET
from notifyd.event import Priority

SOURCE = '[[source]]\nname = "panel"\nport = "/dev/ttyUSB0"\n'


def refusal(text: str, parse: Any = config_hub.parse_hub) -> str:
    """Gives the reason for which a text is refused."""
    with pytest.raises(ConfigurationError) as refused:
        parse(text, "x.toml")
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith("x.toml: ")
    return line.removeprefix("x.toml: ")


def agent_refusal(text: str) -> str:
    """Gives the reason for which an agent's file is refused."""
    return refusal(text, config_agent.parse_agent)


# --- defaults ------------------------------------------------------------------------------------------------


def test_an_empty_hub_file_has_every_default() -> None:
    """As the documentation says them."""
    hub = config_hub.parse_hub("", "x")
    assert hub.default_priority is Priority.ERROR
    assert hub.listen.streams() == {
        "normal": "tcp:1600:interface=127.0.0.1",
        "important": "tcp:1601:interface=127.0.0.1",
        "critical": "tcp:1602:interface=127.0.0.1",
    }
    assert (hub.listen.ingest, hub.database.url, hub.state) == ("tcp:1500:interface=127.0.0.1", None, None)
    assert (hub.database.retention, hub.own_events.agent_lost_after) == (30 * 86_400, 60)
    limits = hub.limits
    assert (limits.max_producers, limits.max_subscribers) == (1000, 10_000)
    assert (limits.stream_memory, limits.stall_timeout) == (64 * 2**20, 300)
    assert hub.own_events.priority == "important"


def test_an_agent_file_needs_one_source_only() -> None:
    """Everything else has its default."""
    agent = config_agent.parse_agent(SOURCE, "x")
    (source,) = agent.source
    assert (agent.hub, agent.spool.max_events, agent.name) == ("tcp:127.0.0.1:1500", 1_000_000, None)
    settings = (source.baudrate, source.bytesize, source.parity, source.stopbits, source.xonxoff, source.rtscts)
    assert settings == (9600, 8, "N", 1, False, False)
    assert (source.encoding, source.framing, source.silence, source.priority) == ("ascii", "line", None, "normal")


@pytest.mark.parametrize(
    ("extra", "sends"),
    [("", True), ('[[source.rule]]\nmatch="x"', False), ('unmatched="drop"', False),
     ('unmatched="send"\n[[source.rule]]\nmatch="x"', True)],
)  # fmt: skip
def test_what_no_rule_matches_is_sent_when_there_are_no_rules(extra: str, sends: bool) -> None:
    """Or when the file says so."""
    assert config_agent.parse_agent(SOURCE + extra, "x").source[0].sends_unmatched is sends


def test_every_setting_of_the_examples_is_taken() -> None:
    """The commented files in etc are valid."""
    etc = Path(__file__).parent.parent / "etc"
    parsers: list[tuple[str, Any]] = [("hub.toml", config_hub.parse_hub), ("agent.toml", config_agent.parse_agent)]
    for name, parse in parsers:
        if (etc / name).exists():
            parse((etc / name).read_text(), name)


# --- the hub's file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("x = 1", "x"), ("[listen]\nx = 1", "listen.x"), ("[database]\nx = 1", "database.x"), ("[x]", "x"),
        ("[own_events]\nx = 1", "own_events.x"), ("[limits]\nx = 1", "limits.x"), ("[[x]]", "x"),
        ('[[rule]]\npriority="normal"\nx = 1', "rule[0].x"),
        ('[[rule]]\npriority="normal"\n[[rule]]\nx=1', "rule[1].x"),
        ('token_file = "x"', "token_file"), ('"a\\nb" = 1', "a b"), ('"" = 1', ""),
        ("[[source]]", "source"), ('[database]\n"url " = ""', "database.url "),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_by_its_name(text: str, key: str) -> None:
    """Also one of a feature that does not work yet."""
    assert refusal(text) == ": ".join(part for part in (" ".join(key.split()), "unknown key") if part)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("state = 1", "state"), ('state = ""', "state"), ('state = "a\\u0000"', "state"),
        ('state = "~nobody/x"', "state"),
        ('default_priority = "urgent"', "default_priority"), ("default_priority = 1", "default_priority"),
        ("listen = 1", "listen"), ("[listen]\ningest = 1500", "listen.ingest"), ('[listen]\nall = ""', "listen.all"),
        ('[database]\nurl = "mysql://x"', "database.url"), ('[database]\nurl = "hub.db"', "database.url"),
        ('[database]\nurl = "sqlite://"', "database.url"), ('[database]\nurl = "sqlite://hub.db"', "database.url"),
        ('[database]\nurl = "sqlite:///a?b"', "database.url"), ('[database]\nurl = "sqlite:///%00"', "database.url"),
        ('[database]\nurl = "sqlite://["', "database.url"), ("[database]\nretention = 30", "database.retention"),
        ('[database]\nretention = "30"', "database.retention"), ('[database]\nretention = "-1d"', "database.retention"),
        ('[database]\nretention = "0s"', "database.retention"), ('[database]\nretention = "1y"', "database.retention"),
        (f'[database]\nretention = "{"9" * 400}d"', "database.retention"),
        ('[own_events]\npriority = "error"', "own_events.priority"),
        ("[own_events]\nagent_lost_after = true", "own_events.agent_lost_after"),
        ("rule = 1", "rule"), ("rule = [1]", "rule[0]"), ("[[rule]]", "rule[0]"), ("[rule]", "rule"),
        ('[[rule]]\npriority = "x"', "rule[0].priority"), ('[[rule]]\npriority = "normal"\ntype = 1', "rule[0].type"),
        ('[[rule]]\npriority = "normal"\npriority_from = "a"', "rule[0]"),
        ('[[rule]]\npriority = "normal"\nwhere = 1', "rule[0].where"),
        ('[[rule]]\npriority = "normal"\nwhere = {a = [[1]]}', "rule[0].where[...][0]"),
        ('[[rule]]\npriority = "normal"\nwhere = {a = 2026-11-22}', "rule[0].where"),
        ("[limits]\nmax_producers = 0", "limits.max_producers"),
        ('[[rule]]\nname = "default"\npriority = "normal"', "rule[0].name"),
        ("[limits]\nmax_producers = 1.5", "limits.max_producers"),
        ("[limits]\nmax_subscribers = true", "limits.max_subscribers"),
        ('[limits]\nmax_subscribers = "9"', "limits.max_subscribers"),
        ("[limits]\nstream_memory = 1", "limits.stream_memory"),
        ('[limits]\nstream_memory = "1KiB"', "limits.stream_memory"),
        ('[limits]\nstream_memory = "64MB"', "limits.stream_memory"),
        ('[limits]\nstall_timeout = "soon"', "limits.stall_timeout"),
    ],
)  # fmt: skip
def test_a_wrong_type_or_an_impossible_value_is_refused_by_its_key(text: str, key: str) -> None:
    """With what would be right."""
    line = refusal(text)
    assert re.match(re.escape(key) + r"(\[\.\.\.\])?: .{5,}", line), line
    assert "`" not in line.replace("`date`", "")


NORMAL = '[[rule]]\npriority = "normal"\n'


def attributes(count: int, text: str) -> str:
    """Gives a ``set`` of attributes, each of so many characters as one may have, or of a multiple of that."""
    return f"set = {{{', '.join(f'a{n} = {json.dumps(text * MAX_SET, ensure_ascii=False)}' for n in range(count))}}}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (NORMAL + "where = {a = []}", "rule[0].where.a"), (NORMAL + "where = {a = {}}", "rule[0].where.a"),
        ("[[suppress]]\nwhere = {a = []}", "suppress[0].where.a"),
        ('[[lookup]]\nname = "a"\nsql = "SELECT 1"\nwhere = {b = {}}', "lookup[0].where.b"),
        ("[[rule]]\ndrop = true\npriority = 'normal'", "rule[0]"), ("[[rule]]\ndrop = false", "rule[0]"),
        ("[[rule]]\ndrop = true\nset = {a = 1}", "rule[0].set"),
        *((NORMAL + f"set = {{{name} = 1}}", f"rule[0].set.{name}")
          for name in ("A", "a-b", "a" * 65, "id", "time", "priority", "offset", "rule", "data", "datacontenttype")),
        (NORMAL + 'set = {a = "\\u0000"}', "rule[0].set.a"),
        (NORMAL + attributes(1, "xx"), "rule[0].set.a0"),
        (NORMAL + attributes(9, "é"), "rule[0].set"), (NORMAL + attributes(17, "x"), "rule[0].set"),
        *((f'[[suppress]]\nname = "{name}"', "suppress[0].name") for name in ("filter", "hint", "default")),
    ],
)  # fmt: skip
def test_what_no_event_could_meet_or_carry_is_refused_by_its_key(text: str, key: str) -> None:
    """Conditions that are empty, and attributes that are not a rule's to set or would make lines too long."""
    assert refusal(text).startswith(f"{key}: ")


def test_a_rule_may_add_what_a_line_has_room_for() -> None:
    """Up to the limits, and with CloudEvents' subject among it."""
    text = NORMAL + attributes(16, "x").replace("a0", "subject")
    assert len(config_hub.parse_hub(text, "hub.toml").rule[0].set) == 16


@pytest.mark.parametrize(
    "text",
    ["x", "= 1", "[", "a = 1\na = 2", 'a = "', "\x00", f"a = {'9' * 5000}", "a = " + "[" * 5000, "a = 2026-13-45",
    "\ufeff="],
)  # fmt: skip
def test_what_is_no_toml_is_refused(text: str) -> None:
    """With the place, where there is one."""
    for parse in (config_hub.parse_hub, config_agent.parse_agent):
        assert refusal(text, parse).startswith("no valid TOML: ")
    assert config.looks_like_agent(text) is False


# --- the agent's file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "source"), ("source = []", "source"), ("[[source]]", "source[0].name"),
        ('[[source]]\nname="a"', "source[0].port"),
        ("x = 1\n" + SOURCE, "x"), (SOURCE + "x = 1", "source[0].x"),
        (SOURCE + "[[source.rule]]\nx = 1", "source[0].rule[0].x"),
        (SOURCE + "[spool]\nx = 1", "spool.x"),
        (SOURCE + "[own_events]\nagent_lost_after = '1s'", "own_events.agent_lost_after"),
        ("name = 1\n" + SOURCE, "name"), ('name = "a/b"\n' + SOURCE, "name"), ('name = " a"\n' + SOURCE, "name"),
        ('name = "a\\n"\n' + SOURCE, "name"), ('name = "a\\u200b"\n' + SOURCE, "name"),
        ('name = ""\n' + SOURCE, "name"),
        (f'name = "{"a" * 256}"\n' + SOURCE, "name"), ("hub = 1500\n" + SOURCE, "hub"), ('hub = ""\n' + SOURCE, "hub"),
        ('state = "\\u0000"\n' + SOURCE, "state"), ('token_file = "x"\n' + SOURCE, "token_file"),
        (SOURCE + "baudrate = 0", "source[0].baudrate"), (SOURCE + 'baudrate = "9600"', "source[0].baudrate"),
        (SOURCE + "bytesize = 9", "source[0].bytesize"), (SOURCE + 'parity = "X"', "source[0].parity"),
        (SOURCE + "stopbits = 3", "source[0].stopbits"), (SOURCE + "stopbits = nan", "source[0].stopbits"),
        (SOURCE + "xonxoff = 1", "source[0].xonxoff"), (SOURCE + 'framing = "stx"', "source[0].framing"),
        (SOURCE + 'delimiter = ""', "source[0].delimiter"), (SOURCE + 'delimiter = "\u20ac"', "source[0].delimiter"),
        (SOURCE + 'framing = "nmea"\ndelimiter = "x"', "source[0].delimiter"),
        (SOURCE + 'checksum = "bcc"', "source[0].checksum"), (SOURCE + "dle = true", "source[0].dle"),
        (SOURCE + 'framing = "stx-etx"\nchecksum = "crc"', "source[0].checksum"),
        (SOURCE + 'framing = "fixed"', "source[0].length"), (SOURCE + "length = 5", "source[0].length"),
        (SOURCE + 'framing = "fixed"\nlength = 9000', "source[0].length"),
        (SOURCE + 'framing = "gap"', "source[0].gap"), (SOURCE + 'gap = "50ms"', "source[0].gap"),
        (SOURCE + 'station = "3"', "source[0].station"),
        (SOURCE + 'framing = "espa444"\nstation = "\\u0005"', "source[0].station"),
        (SOURCE + 'bad_frames = "send"', "source[0].bad_frames"),
        (SOURCE + 'framing = "dsmr"\nbad_frames = "keep"', "source[0].bad_frames"),
        (SOURCE + "[[source.rule]]\nwhere = { a = [] }", "source[0].rule[0].where.a"),
        (SOURCE + "[[source.rule]]\nwhere = { a = { '=' = 1 } }", "source[0].rule[0].where[...].="),
        (SOURCE + 'encoding = "klingon"', "source[0].encoding"), (SOURCE + 'encoding = "hex"', "source[0].encoding"),
        (SOURCE + "silence = 90", "source[0].silence"), (SOURCE + 'priority = "error"', "source[0].priority"),
        (SOURCE + 'unmatched = "keep"', "source[0].unmatched"),
        (SOURCE + "[spool]\nmax_events = 0", "spool.max_events"),
        (SOURCE + 'record = "yes"', "source[0].record"), (SOURCE + "[record]\nmax_files = 0", "record.max_files"),
        (SOURCE + '[record]\nmax_size = "1B"', "record.max_size"),
        (SOURCE + '[record]\nfolder = "\\u0000"', "record.folder"),
        (SOURCE + '[record]\nfolder = "~other/x"', "record.folder"),
        (SOURCE + "[[source.rule]]\nmatch = '('", "source[0].rule[0].match"),
        (SOURCE + "[[source.rule]]\nmatch = 1", "source[0].rule[0].match"),
        (SOURCE + '[[source.rule]]\ntype = ""', "source[0].rule[0].type"),
        (SOURCE + '[[source.rule]]\ntype = "a\\u0000"', "source[0].rule[0].type"),
        (SOURCE + '[[source.rule]]\npriority = "error"', "source[0].rule[0].priority"),
        (SOURCE + SOURCE.replace("USB0", "USB1"), "source[1].name"),
        (SOURCE + SOURCE.replace("panel", "other"), "source[1].port"),
        ('[[source]]\nname="a"\nport="socket://x"', "source[0].port"),
        ('[[source]]\nname="a"\nport="loop://"', "source[0].port"),
        ('[[source]]\nname="a"\nport="usb:0403"', "source[0].port"),
        (SOURCE + 'on_open = "\\u0100"', "source[0].on_open"),
        (SOURCE + 'poll = { send = "€", every = "10s" }', "source[0].poll.send"),
        (SOURCE + 'poll = { send = "?", every = "99ms" }', "source[0].poll.every"),
        (SOURCE + 'poll = { send = "", every = "1s" }', "source[0].poll.send"),
        ('[[source]]\nname="a"\nport="file:-"\non_open = "?"', "source[0].on_open"),
        ('[[source]]\nname="a"\nport="file:/x"\npoll = { send = "?", every = "1s" }', "source[0].poll.send"),
        (SOURCE + "[limits]\nmax_rate = 0", "limits.max_rate"),
        ('[[source]]\nname="a"\nport="\\u0000"', "source[0].port"),
        ('[[source]]\nname="a\\u0085b"\nport="x"', "source[0].name"), ("[listen]", "listen"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_agents_file_is_refused_by_its_key(text: str, key: str) -> None:
    """Also a name that the hub would not take in HELLO."""
    assert agent_refusal(text).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("text", "agent"),
    [(SOURCE, True), ('name = "a"', True), ("[spool]", True), ("[[source]]\nbroken", True), ("", False),
    ("[listen]", False),
     ('state = "x"', False), ("[[rule]]", False)],
)  # fmt: skip
def test_an_agents_file_is_told_from_a_hubs(text: str, agent: bool) -> None:
    """Also a broken one, so that the right mistakes are told."""
    assert config.looks_like_agent(text) is agent


# --- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("30d", 2_592_000),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1 s", 1),
        ("36525d", 36_525 * 86_400),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """In the units that people use."""
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "90", "90 sec", "-1s", "+1s", "0s", "0.0h", "1e3s", "٣s", "1s ", "1w", ".5s", "36526d", 90, None]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """With an example, or the bounds."""
    with pytest.raises(ValueError, match=r"duration"):
        Duration.parse(text)


@pytest.mark.parametrize(("text", "size"), [("64MiB", 2**26), ("65536B", 65_536), ("1 GiB", 2**30), ("64KiB", 65_536)])
def test_sizes_are_read(text: str, size: int) -> None:
    """In binary units."""
    assert Size.parse(text) == size


@pytest.mark.parametrize(
    "text", ["", "64", "64MB", "64mib", "1B", "63KiB", "-1MiB", "1.5MiB", "9" * 20 + "B", 64, None]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    """With an example, or the least."""
    with pytest.raises(ValueError, match="size"):
        Size.parse(text)


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_size_or_refused(text: str) -> None:
    """Nothing else is raised."""
    for kind in (Duration, Size):
        try:
            assert kind.parse(text) > 0
        except ValueError:
            continue


def test_the_database_is_named_by_a_url() -> None:
    """Absolute with four slashes, relative with three, percent signs decoded."""
    assert config.sqlite_path("sqlite:////var/lib/hub.db") == Path("/var/lib/hub.db")
    assert config.sqlite_path("sqlite:///a%20b/hub.db") == Path("a b/hub.db")


@pytest.mark.parametrize(
    ("setting", "environ", "folder"),
    [
        ("/a", {"STATE_DIRECTORY": "/b"}, "/a"), (None, {"STATE_DIRECTORY": "/b:/c", "HOME": "/h"}, "/b"),
        (None, {"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/d"), (None, {"HOME": "/h"}, "/h/.local/state/d"),
    ],
)  # fmt: skip
def test_state_is_where_the_file_or_systemd_or_xdg_says(
    setting: str | None, environ: dict[str, str], folder: str
) -> None:
    """In this order."""
    assert config.state_folder(setting, environ, "d") == Path(folder)


def test_a_tilde_is_the_home_of_the_user() -> None:
    """As people write it."""
    assert config.state_folder("~/x", {}, "d") == Path.home() / "x"
