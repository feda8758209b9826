"""Columns of a table, read back from lines that the hub has written."""

from __future__ import annotations

import subprocess
import sys

import pytest

from notifyd.event import NotAcceptableError, decode, encode, read_columns

DEEP = b'{"a":' + b"[" * 990 + b"]" * 990 + b"}"


@pytest.mark.parametrize("data", [b'{"a":1}', b'"\\ud800"', b'{"\\udc00":1}', DEEP, b'{"a":1e999}', None])
@pytest.mark.parametrize("more", [b"", b',"unit":7,"specversion":2', b',"sequence":[1]'])
def test_columns_are_read_from_what_the_hub_has_written(data: bytes | None, more: bytes) -> None:
    """Whatever else stands in it."""
    member = b"" if data is None else b',"data":' + data
    event = decode(b'{"id":"1","source":"/\xc3\xbc","type":"t"' + more + member + b"}")
    event.time = event.received = "2026-11-22T10:00:00.000000Z"
    event.rule = "r"
    read = read_columns(encode(event))
    assert (read.id, read.source, read.type, read.rule) == ("1", "/\u00fc", "t", "r")
    assert read.time == read.received == event.time


def test_columns_of_what_the_hub_has_not_written_are_refused() -> None:
    """With a reason."""
    for line in (b"", b"{}", b"[1]", b'{"id":"1"}'):
        with pytest.raises(NotAcceptableError):
            read_columns(line)


PROGRAM = """
import sys
from notifyd.event import decode, encode, read_columns

def at_depth(depth, line):
    return at_depth(depth - 1, line) if depth else decode(line)

deep = b"[" * 998 + b"]" * 998
event = at_depth(900, b'{"id":"1","source":"/a","type":"t","data":{"a":%b}}' % deep)
event.time = event.received = event.rule = "x"
assert deep in encode(event)
assert read_columns(encode(event)).id == "1"
# Since Python 3.12 functions in C have a limit of their own.
assert sys.getrecursionlimit() == 5_000 or sys.version_info >= (3, 12)
"""


def test_a_program_that_has_prepared_nothing_reads_deep_events() -> None:
    """Where there is a limit it is raised when it is needed, however deep the stack is by then."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
