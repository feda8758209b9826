"""What a person sees of an event, whatever is in it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.ctl.output import escape_json, write_all
from notifyd.ctl.say import printable
from notifyd.ctl.screen import Screen, describe
from tests.fakehub import event


@pytest.mark.parametrize(
    ("data", "text", "context"),
    [
        ({"line": "a", "fields": {"zone": "7"}, "truncated": True}, "a [cut]", ""),
        ({"level": 3}, '{"level":3}', ""),
        ({"value": 3, "context": {"zone": None, "x": 4}}, '{"value":3}', "zone: not found  x: 4"),
        ({"line": "a", "unavailable": ["zone", "room"]}, "a", "unavailable: zone, room"),
        ({"context": 4}, "", ""),
        ([1, None], "[1,null]", ""),
        (None, "", ""),
        ({"line": "x" * 3000}, "x" * 2000 + " [1000 more]", ""),
        ({"line": "a\u00a0b\u2028c"}, "a b\\u2028c", ""),
    ],
)
def test_text_and_context_are_made_of_the_events_data(data: object, text: str, context: str) -> None:
    """The line where there is one, else the data in short; what the hub looked up apart from it."""
    row = describe(event(1, data=data))
    assert (row.text, row.context) == (text, context)


def test_the_reason_of_an_error_event_is_shown() -> None:
    """Whoever watches the error stream wants to know."""
    assert describe(event(1, reason="no JSON object")).context == "[no JSON object]"


def test_binary_data_is_named() -> None:
    """It says nothing to a person, but is not nothing."""
    assert describe(b'{"data_base64":"AAA="}').text == "(binary data)"


@pytest.mark.parametrize("line", [b"{", b"3", b"\xff\x1b", b'{"data":' + b"[" * 3000, b'{"a":"\\ud800"}', b"{}"])
def test_a_line_that_cannot_be_read_is_shown_as_it_is(line: bytes) -> None:
    """Nothing that comes from outside ends the display."""
    assert describe(line).text.isprintable()


def test_data_with_an_unpaired_surrogate_is_shown() -> None:
    """JSON allows it, UTF-8 does not."""
    assert describe(b'{"type":"t","data":{"line":"a\\ud800"}}').text == "a\\ud800"


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_no_text_reaches_a_terminal_that_cannot_be_printed(text: str) -> None:
    """Of all characters that there are."""
    assert printable(text).isprintable()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_escaped_json_means_the_same(text: str) -> None:
    """Whatever stands in its strings."""
    import msgspec

    line = msgspec.json.encode({"line": text})
    escaped = escape_json(line)
    assert escaped.decode().isprintable()
    assert msgspec.json.decode(escaped) == {"line": text}


@pytest.mark.parametrize("width", [1, 20, 80, 200])
def test_a_table_fits_any_terminal(width: int) -> None:
    """A narrow one folds; a line where another day begins divides it."""
    reader, writer = os.pipe()
    with open(reader, "rb") as shown, open(writer, "wb") as terminal:
        screen = Screen(terminal.fileno(), width=width)
        screen.write([])
        screen.write([event(1), event(2, time="2026-11-25T10:00:00Z"), event(3, time="0001-01-01T00:00:00Z")])
        terminal.close()
        text = shown.read().decode()
    if width >= 80:
        assert text.index("time") < text.index("line 1") < text.index("2026-11-25") < text.index("line 2")


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    """Another process may have set it so; nothing is lost and nothing is thrown."""
    import threading

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(300_000)
    with open(reader, "rb") as file:
        thread = threading.Thread(target=lambda: (write_all(writer, data), os.close(writer)))
        thread.start()
        assert file.read() == data
        thread.join()
