"""Rules: which frame is which event, and that every frame is one that the hub takes."""

from __future__ import annotations

import base64
import tomllib
import warnings
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd import config_agent
from notifyd.agent.framing import MAX_FRAME, Frame
from notifyd.agent.own import AGENT, own_event
from notifyd.agent.rules import Rules
from notifyd.event import Event, data_object, decode, encode, format_time
from notifyd.wire import MAX_LINE

READ_AT = 1_795_384_923.123456


def source(toml: str = "", **keys: Any) -> config_agent.Source:
    """A source as the configuration file gives it."""
    table = tomllib.loads(toml)
    return msgspec.convert({"name": "panel", "port": "/dev/ttyS0", **table, **keys}, config_agent.Source)


def sent(event: Event | None) -> Event:
    """The event as the hub reads it, with what the spool fills in."""
    assert event is not None
    event.id = "6f1c2a9e-1795384923123456"
    event.sequence = f"{1795384923123456:020}"
    line = encode(event) + b"\n"
    assert len(line) <= MAX_LINE
    return decode(line[:-1])


def data_of(frame: Frame, **keys: Any) -> dict[str, Any]:
    """The data of what a source without rules makes of a frame."""
    return data_object(sent(Rules(source(**keys), "ward3").event(frame, READ_AT)))


ALARM = r"""
priority = "important"
[[rule]]
match    = '^ALARM (?P<zone>\d+)(?: (?P<text>.+))?$'
type     = "panel.alarm"
priority = "critical"
[[rule]]
match = 'ALARM|TEST'
type  = "panel.other"
"""


def test_the_first_rule_that_matches_gives_type_priority_and_fields() -> None:
    """Rules are tried in the order of the file; named groups become fields."""
    event = sent(Rules(source(ALARM), "ward3").event(Frame(b"ALARM 7 smoke"), READ_AT))
    assert (event.specversion, event.source, event.type) == ("1.0", "/ward3/panel", "panel.alarm")
    assert (event.priority, event.time) == ("critical", "2026-11-22T22:02:03.123456Z")
    assert data_object(event) == {"line": "ALARM 7 smoke", "fields": {"zone": "7", "text": "smoke"}}


def test_a_group_that_took_no_part_is_no_field() -> None:
    """An optional part that the device left out is not an empty field."""
    event = sent(Rules(source(ALARM), "ward3").event(Frame(b"ALARM 7"), READ_AT))
    assert data_object(event)["fields"] == {"zone": "7"}


def test_a_rule_without_priority_takes_the_sources_and_may_match_anywhere() -> None:
    """A rule needs no anchor, and only says what differs."""
    event = sent(Rules(source(ALARM), "ward3").event(Frame(b"  TEST run"), READ_AT))
    assert (event.type, event.priority) == ("panel.other", "important")


def test_what_no_rule_matches_is_dropped_and_counted_beside_rules() -> None:
    """A source with rules sends what they match and nothing else."""
    rules = Rules(source(ALARM), "ward3")
    assert rules.event(Frame(b"idle"), READ_AT) is None
    assert rules.unmatched == 1


@pytest.mark.parametrize("toml", ["", 'unmatched = "send"\n' + ALARM])
def test_what_no_rule_matches_is_sent_as_a_line_without_rules_or_when_asked(toml: str) -> None:
    """A source without rules sends every line; one with rules does when told to."""
    event = sent(Rules(source(toml), "ward3").event(Frame(b"idle"), READ_AT))
    assert event.type == "notifyd.line"
    assert event.priority == ("important" if toml else "normal")
    assert data_object(event) == {"line": "idle", "fields": {}}


def test_each_read_has_its_own_time() -> None:
    """The time is when the frame was read, not when the agent started."""
    rules = Rules(source(), "ward3")
    times = [sent(rules.event(Frame(b"x"), at)).time for at in (READ_AT, READ_AT, READ_AT + 1)]
    assert times == [format_time(READ_AT), format_time(READ_AT), format_time(READ_AT + 1)]


def test_text_is_decoded_in_the_sources_encoding() -> None:
    """A device that prints Latin-1 or Shift JIS is read as such."""
    assert data_of(Frame("Küche".encode("latin-1")), encoding="latin-1")["line"] == "Küche"
    assert data_of(Frame("火災".encode("shift_jis")), encoding="shift_jis")["line"] == "火災"


def test_bytes_that_the_encoding_does_not_know_are_kept_as_raw() -> None:
    """Line noise is shown with replacement characters, and kept byte for byte."""
    data = data_of(Frame(b"AL\xffRM"))
    assert data == {"line": "AL\ufffdRM", "fields": {}, "raw": base64.b64encode(b"AL\xffRM").decode()}


@pytest.mark.parametrize(
    ("encoding", "frame"), [("utf-7", b"+2AA-"), ("raw_unicode_escape", rb"\ud800"), ("utf-8", b"\xed\xa0\x80")]
)
def test_an_unpaired_surrogate_never_reaches_the_event(encoding: str, frame: bytes) -> None:
    """Encodings that let surrogates through cannot make a line that the hub refuses."""
    data = data_of(Frame(frame), encoding=encoding)
    assert "\ufffd" in data["line"]
    assert base64.b64decode(data["raw"]) == frame


def test_a_cut_frame_is_marked() -> None:
    """Whoever reads the event sees that its end is missing."""
    assert data_of(Frame(b"hal", truncated=True)) == {"line": "hal", "fields": {}, "truncated": True}


def test_fields_are_left_out_of_an_event_that_would_be_too_long() -> None:
    """A rule that captures a long line many times over costs the fields, not the event."""
    groups = "".join(f"(?=(?P<g{number}>.*))" for number in range(10))
    rules = Rules(source(rule=[{"match": groups, "type": "t"}]), "ward3")
    data = data_object(sent(rules.event(Frame(b"x" * MAX_FRAME), READ_AT)))
    assert data == {"line": "x" * MAX_FRAME, "truncated": True}


def test_the_line_is_left_out_where_leaving_out_the_fields_is_not_enough() -> None:
    """The worst frame under the longest names still gives an event, with every byte in raw."""
    longest = source(name="\x7f" + "\U0001f514" * 254, rule=[{"match": "", "type": "\x01" * 1000}])
    frame = Frame(b"\x01" * (MAX_FRAME - 1) + b"\xff")
    data = data_object(sent(Rules(longest, "\U0001f514" * 255).event(frame, READ_AT)))
    assert data == {"raw": base64.b64encode(frame.data).decode(), "truncated": True}


def test_raw_is_added_where_the_line_of_an_intact_frame_is_left_out() -> None:
    """No byte is lost, even where the encoding knew them all."""
    rules = Rules(source(), "ward3")
    # An intact frame is at most 48 KiB of line: only a smaller limit shows what would happen.
    rules._otherwise = msgspec.structs.replace(rules._otherwise, max_data=20_000)
    frame = Frame(b"\x02" * MAX_FRAME)
    data = data_object(sent(rules.event(frame, READ_AT)))
    assert data == {"raw": base64.b64encode(frame.data).decode(), "truncated": True}


ENCODINGS = [
    "ascii", "latin-1", "utf-8", "utf-8-sig", "cp437", "cp1252", "shift_jis", "big5hkscs", "gb18030", "utf-16",
    "utf-32", "utf-7", "iso2022_jp", "hz", "punycode", "unicode_escape", "raw_unicode_escape",
]  # fmt: skip


chunks = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([rb"\ud800", rb"\N{DEGREE SIGN}", rb"\U00110000", b"+2AA-", b"\x00", b'"\\', b"{", b"~{"]),
)
frames = st.builds(
    lambda parts, times, truncated: Frame((b"".join(parts) * times)[:MAX_FRAME] or b"?", truncated),
    st.lists(chunks, max_size=6),
    st.sampled_from([1, 1, 1, 50, MAX_FRAME]),
    st.booleans(),
)


# Not parametrized: with pytest-twisted, hypothesis runs only the first of several parameters.
@settings(max_examples=500, deadline=None)
@given(encoding=st.sampled_from(ENCODINGS), frame=frames)
def test_any_bytes_in_any_encoding_give_an_event_that_the_hub_takes(encoding: str, frame: Frame) -> None:
    """Whatever a device prints, the line is within the limit, is acceptable, and no byte is lost."""
    rules = Rules(source(encoding=encoding, rule=[{"match": "(?P<all>(?s:.*))", "type": "t"}]), "ward3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # unicode_escape, of escapes it does not know
        data = data_object(sent(rules.event(frame, READ_AT)))
        if "raw" in data:
            assert base64.b64decode(data["raw"]) == frame.data
        else:
            assert data["line"] == frame.data.decode(encoding)
    if "fields" in data:
        assert data["fields"] == {"all": data["line"]}
    assert data.get("truncated", False) >= frame.truncated


def test_an_event_of_the_agents_own_has_the_form_of_a_devices() -> None:
    """What reads a device's events reads the agent's too."""
    event = own_event(
        agent="ward3",
        source=AGENT,
        type="notifyd.hub.restored",
        priority="important",
        line="The hub was restored",
        fields={"first": 1},
        now=READ_AT,
    )
    event = sent(event)
    assert (event.source, event.type, event.priority) == ("/ward3/agent", "notifyd.hub.restored", "important")
    assert event.time == format_time(READ_AT)
    assert data_object(event) == {"line": "The hub was restored", "fields": {"first": 1}}
