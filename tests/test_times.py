"""Times as RFC 3339: read and written without loss, in the order in which they pass."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.times import format_time, is_rfc3339, parse_time


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000000Z"),
        ("2026-11-22t10:00:00z", "2026-11-22T10:00:00.000000Z"),
        ("2026-11-22T12:30:00.5+02:30", "2026-11-22T10:00:00.500000Z"),
        ("2026-11-22T10:00:00.1234567899Z", "2026-11-22T10:00:00.123456Z"),
        ("2026-11-22T10:00:00-00:00", "2026-11-22T10:00:00.000000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000000Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000000Z"),
        ("0900-01-01T00:00:00Z", "0900-01-01T00:00:00.000000Z"),
        ("0000-02-28T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_rfc3339_times_are_read_and_written_in_utc(text: str, written: str) -> None:
    """Any offset and any number of digits; what is out of any calendar becomes its first or last moment."""
    assert is_rfc3339(text)
    assert format_time(parse_time(text)) == written


@given(st.integers(0, 4_102_444_800_000_000))
def test_microseconds_survive(microseconds: int) -> None:
    """Times are floats in between, and lose nothing up to the year 2100; as text they sort as they pass."""
    text = format_time(microseconds / 1e6)
    assert len(text) == 27
    assert round(parse_time(text) * 1e6) == microseconds
    assert format_time((microseconds + 1) / 1e6) > text
    assert math.isclose(parse_time(text), microseconds / 1e6)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (-1e-7, "1970-01-01T00:00:00.000000Z"),
        (-0.5, "1969-12-31T23:59:59.500000Z"),
        (0.9999994, "1970-01-01T00:00:00.999999Z"),
        (0.9999996, "1970-01-01T00:00:01.000000Z"),
        (59.9999996, "1970-01-01T00:01:00.000000Z"),
        (-1e300, "0001-01-01T00:00:00.000000Z"),
        (1e300, "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_parts_of_a_second_are_rounded(seconds: float, written: str) -> None:
    """Over its end and before 1970, too."""
    assert format_time(seconds) == written
