"""Rules on what a framing parsed, and damaged frames."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest

from notifyd.agent.framing import MAX_FRAME, Frame, make_framer
from notifyd.agent.rules import Rules
from notifyd.config_agent import parse_agent
from notifyd.event import Event, data_object, decode, encode

GPS = Frame(b"$GPRMC,1*00", fields={"talker": "GP", "sentence": "RMC", "f7": "38.5", "f1": "1"})


def rules(toml: str) -> Rules:
    """The rules of a source as it stands in agent.toml."""
    return Rules(parse_agent(f'[[source]]\nname="gnss"\nport="x"\n{toml}', "agent.toml").source[0], "ward3")


def made(toml: str, frame: Frame = GPS) -> dict[str, Any] | None:
    """Type and fields of the event that a frame becomes."""
    event = rules(toml).event(frame, 0.0)
    return None if event is None else {"type": event.type, "fields": data_object(event)["fields"]}


def matches(condition: str) -> bool:
    """Tells whether a rule with a condition takes the frame."""
    return made(f"[[source.rule]]\nwhere = {{ {condition} }}") is not None


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('sentence = "RMC"', True), ('sentence = "GGA"', False), ('sentence = ["GGA", "RMC"]', True),
        ('sentence = { glob = "R*" }', True), ('f7 = { ">" = 38, "<=" = 38.5 }', True), ('f7 = { ">" = 40 }', False),
        ("f1 = 1", True), ('sentence = "RMC", talker = "GN"', False), ('nothing = ""', False),
    ],
)  # fmt: skip
def test_where_takes_the_forms_that_it_has_in_the_hub(condition: str, expected: bool) -> None:
    """On the fields that the framing parsed; all of them must hold."""
    assert matches(condition) == expected


def test_an_event_has_the_parsed_fields_and_the_groups() -> None:
    """A group replaces a field of its name, and where sees it."""
    rule = "[[source.rule]]\nmatch = 'GP(?P<sentence>...),(?P<number>\\d)'\nwhere = { number = 1 }\ntype = \"gps\""
    assert made(rule) == {"type": "gps", "fields": {**(GPS.fields or {}), "sentence": "RMC", "number": "1"}}
    replaced = "[[source.rule]]\nmatch = '(?P<sentence>GP)'\nwhere = { sentence = \"RMC\" }"
    assert made(replaced) is None
    assert GPS.fields is not None
    assert GPS.fields["sentence"] == "RMC"


def test_where_works_on_groups_alone() -> None:
    """A framing that parses nothing has its fields from match."""
    toml = '[[source.rule]]\nmatch = \'TEMP (?P<celsius>[\\d.]+)\'\nwhere = { celsius = { ">" = 60 } }\ntype = "hot"'
    assert made(toml, Frame(b"TEMP 61.5")) == {"type": "hot", "fields": {"celsius": "61.5"}}
    assert made(toml, Frame(b"TEMP 59")) is None


def test_the_next_rule_is_asked_where_a_condition_does_not_hold() -> None:
    """The first rule of which everything holds decides."""
    toml = '[[source.rule]]\nwhere = { sentence = "GGA" }\ntype = "fix"\n[[source.rule]]\ntype = "other"'
    assert made(toml) == {"type": "other", "fields": GPS.fields}


def test_what_no_rule_matches_keeps_its_parsed_fields() -> None:
    """A source without rules says all that it knows."""
    assert made("") == {"type": "notifyd.line", "fields": GPS.fields}


def sent(event: Event | None) -> Event:
    """The event as the hub reads it."""
    assert event is not None
    event.id, event.sequence = "a-1", "0" * 20
    return decode(encode(event))


@pytest.mark.parametrize("toml", ["", '[[source.rule]]\ntype = "x"', 'priority = "critical"\nunmatched = "drop"'])
def test_a_damaged_frame_is_an_event_of_its_own_kind_with_its_bytes(toml: str) -> None:
    """No rule of the agent is asked; it waits in the normal lane."""
    frame = Frame(b"$GPRMC,1*01", damaged="checksum 01, calculated 5A")
    event = sent(rules(toml).event(frame, 0.0))
    assert (event.type, event.priority, event.source) == ("notifyd.frame.damaged", "normal", "/ward3/gnss")
    assert data_object(event) == {
        "line": "$GPRMC,1*01",
        "fields": {"reason": "checksum 01, calculated 5A"},
        "raw": base64.b64encode(frame.data).decode(),
    }


def test_a_damaged_frame_that_was_cut_says_so_and_keeps_every_byte() -> None:
    """The longest that there is."""
    frame = Frame(b"\x01" * MAX_FRAME, truncated=True, damaged="no end within 8192 bytes")
    data = data_object(sent(rules("").event(frame, 0.0)))
    assert data["truncated"] is True
    assert base64.b64decode(data["raw"]) == frame.data


def test_a_source_is_framed_as_its_settings_say() -> None:
    """From the file to the event, of a nurse call system."""
    toml = (
        'framing = "espa444"\nstation = "3"\nbad_frames = "send"\n[[source.rule]]\n'
        'where = { header = 1, priority = ["1", "2"] }\ntype = "call"'
    )
    source = parse_agent(f'[[source]]\nname="gnss"\nport="x"\n{toml}', "agent.toml").source[0]
    framer = make_framer(source)
    block = b"1\x021\x1f550\x1e6\x1f1\x03"
    bcc = bytes([list(itertools.accumulate(block, lambda one, other: one ^ other))[-1]])
    (frame,) = framer.feed(b"1\x053\x05\x01" + block + bcc, 0.0)
    assert made(toml, frame) == {"type": "call", "fields": frame.fields}
