"""Pages that are read ahead: for some clients at once, none of them lost, twice, or kept for nobody."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from notifyd.event import parse_time
from notifyd.hub import readback
from notifyd.hub.backplane import Stream
from notifyd.hub.readback import FILLED, LARGE_PAGE, MOST_AHEAD, MOST_EXPECTED, PAGE, Expected, Page, Pages
from tests.hubparts import pending


class Log:
    """Stands for the reader of a log; the test answers."""

    def __init__(self) -> None:
        self.ahead = 0
        self.asked: list[tuple[int, int, Deferred[Page]]] = []
        self.expected: Expected | None = None  # of what was asked last
        self.received_s: float | None = None  # so is this

    def page(
        self, stream: str, after: int, until: int, size: int, expected: Expected | None, received_s: float | None
    ) -> Deferred[Page]:
        """Notes what is asked for."""
        assert (stream, until) == ("normal", 1_000)
        self.expected, self.received_s = expected, received_s
        self.asked.append((after, size, Deferred()))
        return self.asked[-1][2]

    def answer(self, last: int | Exception, events: int = 0, data: bytes = b"") -> None:
        """Answers what was asked last."""
        deferred = self.asked[-1][2]
        if isinstance(last, Exception):
            deferred.errback(last)
        else:
            deferred.callback(Page(None, data, last, events))

    @property
    def wanted(self) -> list[tuple[int, int]]:
        """What was asked for: behind which offset, and how much."""
        return [(after, size) for after, size, _ in self.asked]


@pytest.fixture
def log() -> Log:
    """A log."""
    return Log()


def pages_of(log: Any) -> Pages:
    """Gives the pages of a client, in whose stream everything behind 900 is in memory."""
    stream = Stream("normal", 900, 2**20)
    stream.end = 1_000
    return Pages(log, stream)


def read(pages: Pages, after: int) -> list[Any]:
    """Asks for a page."""

    async def work() -> Page:
        return await pages.read(after)

    return pending(work())


@pytest.mark.parametrize(("events", "is_dense"), [(100, True), (99, False)])
def test_a_page_tells_whether_the_next_one_is_dense(log: Log, events: int, is_dense: bool) -> None:
    """Where at least half of the offsets were of the stream."""
    pages = pages_of(log)
    read(pages, 0)
    log.answer(200, events=events, data=b"x" * events * 10_000)
    read(pages, 200)
    assert log.expected == (LARGE_PAGE * 9 // 100_000, is_dense)


def test_the_next_page_is_read_while_one_is_sent(log: Log) -> None:
    """Until the rest is in memory; then there is room for another client."""
    pages = pages_of(log)
    first = read(pages, 0)
    log.answer(300)
    assert [page.last for page in first] == [300]
    assert log.wanted == [(0, LARGE_PAGE), (300, LARGE_PAGE)]
    second = read(pages, 300)
    assert not second
    log.answer(900)
    assert [page.last for page in second] == [900]
    assert len(log.asked) == 2
    assert log.ahead == 0


def test_what_came_before_it_was_asked_for_is_kept(log: Log) -> None:
    """And the one behind it is read when it is."""
    pages = pages_of(log)
    read(pages, 0)
    log.answer(300)
    log.answer(600)
    assert len(log.asked) == 2
    assert [page.last for page in read(pages, 300)] == [600]
    assert log.wanted[2:] == [(600, LARGE_PAGE)]


def test_what_is_known_of_a_place_is_forgotten_with_it(log: Log) -> None:
    """How old its events are, and how long and dense; what still comes from there tells nothing of another one."""
    pages = pages_of(log)
    line = b'{"received":"2026-11-22T10:00:00.000000Z"}\n'
    known = parse_time("2026-11-22T10:00:00Z")
    read(pages, 0)
    assert log.received_s is None
    log.answer(300, events=300, data=299 * b"{}\n" + line)
    assert log.received_s == known
    late = read(pages, 300)
    pages.drop()
    read(pages, 700)
    assert (log.received_s, log.expected) == (None, None)
    log.asked[-2][2].callback(Page(None, line, 500, 100))
    assert [page.last for page in late] == [500]
    assert log.wanted == [(0, LARGE_PAGE), (300, LARGE_PAGE), (700, LARGE_PAGE)]
    log.answer(800, events=1, data=line)
    assert log.received_s == known


def test_few_clients_are_read_ahead(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have small pages, one at a time, till one of the first is gone."""
    monkeypatch.setattr(readback, "MOST_AHEAD", 2)
    clients = [pages_of(log) for _ in range(3)]
    for client in clients:
        read(client, 0)
    assert [size for _, size in log.wanted] == [LARGE_PAGE, LARGE_PAGE, PAGE]
    log.answer(300)
    assert len(log.asked) == 3
    clients[0].drop()
    clients[0].drop()
    assert log.ahead == 1
    read(clients[2], 300)
    assert log.wanted[3:] == [(300, LARGE_PAGE)]
    for client in clients:
        client.drop()
    assert log.ahead == 0


def test_another_place_than_was_read_ahead_is_read_anew(log: Log) -> None:
    """A client may subscribe meanwhile."""
    pages = pages_of(log)
    read(pages, 0)
    log.answer(300)
    other = read(pages, 500)
    log.answer(700)
    assert [page.last for page in other] == [700]
    assert [after for after, _ in log.wanted] == [0, 300, 500, 700]


def test_a_page_that_could_not_be_read_ahead_is_asked_for_again(log: Log) -> None:
    """Only who waits for it is told, and what nobody asks for is forgotten."""
    pages = pages_of(log)
    read(pages, 0)
    log.answer(300)
    log.answer(OSError("away"))
    again = read(pages, 300)
    assert not again
    log.answer(600)
    assert [page.last for page in again] == [600]
    waiting = read(pages, 600)
    log.answer(OSError("away"))
    assert waiting[0].check(OSError)
    read(pages, 600)
    log.answer(700)
    log.asked[-1], dropped = log.asked[-2], log.asked[-1]
    pages.drop()
    dropped[2].errback(OSError("away"))
    gc.collect()
    assert [after for after, _ in log.wanted] == [0, 300, 300, 600, 600, 600]
    assert log.ahead == 0


@pytest.mark.parametrize("crowded", [False, True])
def test_what_a_page_had_tells_how_many_rows_the_next_one_takes(log: Log, crowded: bool) -> None:
    """Whether it is read ahead or not; none are expected where nothing is known."""
    log.ahead = MOST_AHEAD if crowded else 0
    size = PAGE if crowded else LARGE_PAGE
    pages = pages_of(log)
    read(pages, 0)
    assert log.expected is None
    log.answer(300, events=3, data=b"x" * 1_200)
    read(pages, 300)
    assert log.expected == (min(int(FILLED * size / 400), MOST_EXPECTED), False)
    log.answer(400, events=1, data=b"x" * 2 * size)
    read(pages, 400)
    assert log.expected == (1, False)
    log.answer(450, events=50, data=b"x" * 50)
    read(pages, 450)
    assert log.expected == (MOST_EXPECTED, True)
    log.answer(500)
    read(pages, 500)
    assert log.expected is None
