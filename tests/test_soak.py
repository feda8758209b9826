"""What the soak's clients check: order, completeness and gaps. Nothing here is timed."""

from __future__ import annotations

import pytest

from notifyd.event import format_time
from tests.bench.order import Order
from tests.bench.soak import STREAM_EVENTS, growth_mib

NOW_S = 1_795_390_437.0


def lines(*numbers: int, width: int = 20, offset: int = 1_000_000, age_s: float = 0.0) -> bytes:
    """Gives events as the hub sends them; their offsets are a fixed way above their sequences."""
    received = format_time(NOW_S - age_s)
    return b"".join(
        b'{"sequence":"%0*d","data":{"line":"x"},"offset":"%d","received":"%s"}\n'
        % (width, number, offset + number, received.encode())
        for number in numbers
    )


class Checked(Order):
    """An order that keeps its problems."""

    def __init__(self, expected: int | None = None, retention_s: float = 60.0) -> None:
        self.problems: list[str] = []
        super().__init__(self.problems.append, expected=expected, retention_s=retention_s, now=lambda: NOW_S)


@pytest.mark.parametrize("size", [1, 7, 64, 1_000, 1_000_000])
@pytest.mark.parametrize("width", [1, 20])
def test_events_that_are_all_there_are_counted_wherever_they_are_cut(size: int, width: int) -> None:
    """Also where the upper figures of a number change, or it grows longer, within what was read at once."""
    order, data = Checked(9_900), lines(*range(9_900, 10_100), width=width)
    for at in range(0, len(data), size):
        order.feed(data[at : at + size])
    assert (order.problems, order.events, order.expected, order.offset) == ([], 200, 10_100, 1_010_099)


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ([5, 6, 8], "sequence 8 comes behind 6"),
        ([5, 6, 6, 7], "sequence 6 comes behind 6"),
        ([5, 7, 6, 8], "sequence 7 comes behind 5"),
        ([6, 7], "1 are missing"),
        ([4, 5], "it has come before"),
    ],
)
def test_what_is_missing_repeated_or_out_of_order_is_told(numbers: list[int], problem: str) -> None:
    """Within what was read at once, and between two reads."""
    order = Checked(5)
    order.feed(lines(*numbers))
    assert problem in order.problems[0]


def test_offsets_must_ascend() -> None:
    """Whatever the sequences do."""
    order = Checked(5)
    order.feed(lines(5, 6) + lines(7, offset=999_999))
    order.feed(lines(8, offset=999_998))
    assert order.problems == ["offset 1000006 comes behind 1000006", "offset 1000006 comes behind 1000006"]


def test_a_registered_client_goes_on_behind_what_it_has_acknowledged() -> None:
    """What it had beyond that comes again; what comes before OK is thrown away."""
    order = Checked()
    order.connect(subscribes=True)
    order.feed(lines(90) + b'OK {"stream":"normal","after":"1000004"}\n' + lines(5, 6))
    assert order.acknowledge() == b"ACK 1000006\n"
    order.feed(lines(7, 8))
    order.connect(subscribes=True)
    order.feed(lines(95) + b'OK {"stream":"normal","after":"1000006"}\n' + lines(7, 8, 9))
    assert (order.problems, order.events) == ([], 7)
    order.connect(subscribes=True)
    order.feed(b'OK {"stream":"normal","after":"1000006"}\n' + lines(8))
    assert order.problems == ["sequence 8 comes in place of 7: 1 are missing"]


def test_a_client_that_never_acknowledged_goes_on_where_it_began() -> None:
    """Its first event tells which sequence comes there."""
    order = Checked()
    for numbers in ([5, 6], [6]):
        order.connect(subscribes=True)
        order.feed(b'OK {"stream":"normal","after":"1000004"}\n' + lines(*numbers))
    assert order.problems == ["sequence 6 comes in place of 5: 1 are missing"]


def test_a_position_that_was_never_acknowledged_is_told() -> None:
    """The hub has kept another one."""
    order = Checked()
    order.connect(subscribes=True)
    order.feed(b'OK {"stream":"normal","after":"1000004"}\n' + lines(5, 6))
    order.acknowledge()
    order.connect(subscribes=True)
    order.feed(b'OK {"stream":"normal","after":"1000005"}\n')
    assert "never acknowledged" in order.problems[0]


def test_what_a_gap_tells_may_be_missing_and_is_counted() -> None:
    """As many as it says, if they are as old as the retention."""
    order = Checked(5)
    order.feed(lines(5) + b'GAP {"after":"1000005","before":"1000009","reason":"expired"}\n' + lines(9, age_s=60))
    assert (order.problems, order.gaps, order.missed) == ([], 1, 3)


@pytest.mark.parametrize(
    ("gap", "age_s", "problem"),
    [
        (b'GAP {"after":"1000005","before":"1000008","reason":"expired"}\n', 60, "3 are missing"),
        (b'GAP {"after":"1000004","before":"1000009","reason":"expired"}\n', 60, "comes GAP"),
        (b'GAP {"after":"1000005","before":"1000009","reason":"expired"}\n', 20, "after only 20.0 s"),
    ],
)
def test_a_gap_that_is_wrong_or_too_early_is_told(gap: bytes, age_s: float, problem: str) -> None:
    """More is missing than it says, it begins elsewhere, or the retention does not ask for it."""
    order = Checked(5)
    order.feed(lines(5) + gap + lines(9, age_s=age_s))
    assert problem in order.problems[0]


def test_memory_is_compared_once_streams_are_full() -> None:
    """What the hub is to hold is no growth; a peak within a minute counts."""
    minutes = [(60.0 * minute, STREAM_EVENTS * minute // 7, 1024 * min(100, 60 + 6 * minute)) for minute in range(31)]
    assert growth_mib(minutes) == (100.0, 100.0)
    minutes[-2] = (1_770.0, STREAM_EVENTS * 5, 1024 * 140)
    assert growth_mib(minutes) == (100.0, 140.0)


@pytest.mark.parametrize("samples", [[], [(20.0, STREAM_EVENTS, 1024)], [(float(at), at, 1024) for at in range(60)]])
def test_memory_of_a_run_that_was_too_short_is_not_judged(samples: list[tuple[float, int, int]]) -> None:
    """Nor where too few events came to fill a stream."""
    assert growth_mib(samples) is None
