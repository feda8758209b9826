"""Reading back from the log: resuming, catching up and finding a time, on a read-only pool of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from notifyd.hub.backend import Backend, ask
from notifyd.hub.backplane import ALL, Stream
from notifyd.hub.pace import Pace, received_of
from notifyd.wire import Gap

T = TypeVar("T")

READERS = 2
"""Pages that are read at once."""

PAGE = 256 * 1024
"""Bytes of lines (characters, where PostgreSQL has the log) after which a page ends: each client that reads the log may
have one of its own in memory."""

LARGE_PAGE = 512 * 1024
FILLED = 0.9
"""Of a page, by what the lines of the last one had: a little more than was expected still has room."""

MOST_AHEAD = 8
"""So many clients may have two larger ones: the one that is sent, and the next."""


MOST_EXPECTED = 1_536
"""Rows: much longer lines than those of the last page may come, and be read in vain."""


class Page(NamedTuple):
    """Some events of a stream from the log.

    ``data`` has their lines, each with its LF; ``last`` is the offset up to which nothing of the stream is left out;
    ``gap`` tells what is no longer held in front of them; ``events`` is how many they are.
    """

    gap: Gap | None
    data: bytes
    last: int
    events: int


class Expected(NamedTuple):
    """What a page is expected to have: about so many ``rows``, but not more; ``is_dense``: most are of the stream."""

    rows: int
    is_dense: bool = False


class Reader:
    """Reads the log beside its writer.

    Args:
        backend: the database that holds the log; its schema must be up to date.
        reactor: its clock, threads and shutdown are used.
        pace: tells how long pages wait.
    """

    def __init__(self, backend: Backend, reactor: Any, pace: Pace) -> None:
        self._backend = backend
        self._reactor = reactor
        self._pace = pace
        self._pool = backend.open_reader(reactor, READERS)
        self._waiting: set[Any] = set()  # delayed calls, each of a page
        self.ahead = 0  # clients that are read ahead

    def close(self) -> None:
        """Closes the pool; a page that waits never comes."""
        for call in self._waiting:
            call.cancel()
        self._waiting.clear()
        self._pool.close()

    def page(
        self,
        stream: str,
        after: int,
        until: int,
        size: int = PAGE,
        expected: Expected | None = None,
        received_s: float | None = None,
    ) -> Deferred[Page]:
        """Reads the events of a stream, in its turn.

        Args:
            stream: its name.
            after: the offset behind which they come.
            until: the last offset that may be theirs.
            size: bytes that a page holds.
            expected: what is known of it, without which it takes more turns.
            received_s: of the event at ``after``, in seconds since 1970, where it is known: the page may have to wait.
        """
        wait_s = self._pace.wait_s(stream, received_s, size)
        if wait_s is None:
            return self._interact(_page, stream, after, until, size, expected)

        def read() -> Deferred[Page]:
            page = self._interact(_page, stream, after, until, size, expected)
            return page.addBoth(self._settle, size)

        return self._later(wait_s, read) if wait_s else read()

    def _settle(self, page: Page | Failure, size: int) -> Page | Failure:
        self._pace.give_back(size - (len(page.data) if isinstance(page, Page) else 0))
        return page

    def _later(self, wait_s: float, read: Callable[[], Deferred[Page]]) -> Deferred[Page]:
        def begin() -> None:
            self._waiting.discard(call)
            read().chainDeferred(page)

        page: Deferred[Page] = Deferred()
        call = self._reactor.callLater(wait_s, begin)
        self._waiting.add(call)
        return page

    def first(self, stream: str, end: int) -> Deferred[int]:
        """Gives the offset behind which the oldest event held of the stream comes; ``end`` where there is none."""
        return self._interact(_before_first, stream, end)

    def since(self, stream: str, moment: str, end: int) -> Deferred[int]:
        """Gives the offset behind which the first event with ``received`` at or after ``moment`` comes.

        Args:
            stream: whose events are asked for.
            moment: RFC 3339 in the hub's own format, so that times compare as text.
            end: the answer where there is no such event.
        """
        return self._interact(_since, stream, moment, end)

    def _interact(self, work: Callable[..., T], *arguments: object) -> Deferred[T]:
        backend, pool = self._backend, self._pool
        return ask(self._reactor, backend, pool, lambda cursor: work(cursor, backend, *arguments))


class Pages:
    """The pages of the log that one client reads.

    Some clients at once are read ahead: while one is sent a page, its next one is read, and both are large. A client
    for which there is no room among them is read a small page when it has been sent the last one.

    Args:
        reader: of the log.
        stream: the client's.
    """

    __slots__ = ("_ahead", "_is_ahead", "_is_dense", "_journey", "_per_row", "_reader", "_received_s", "_stream")

    def __init__(self, reader: Reader, stream: Stream) -> None:
        self._reader = reader
        self._stream = stream
        self._is_ahead = False
        self._ahead: tuple[int, Deferred[Page]] | None = None  # behind which offset it is
        self._journey = 0  # counts the places at which reading has begun
        self._set_out()

    def _set_out(self) -> None:
        """Begins somewhere: nothing is known of what stands there."""
        self._journey += 1
        self._per_row = 0.0  # bytes of a line, in the last page
        self._is_dense = False  # most events there were of this stream
        self._received_s: float | None = None  # the last event's

    def read(self, after: int) -> Deferred[Page]:
        """Gives the page behind ``after``, whose last event the client has, or is being sent."""
        if not self._is_ahead and self._reader.ahead < MOST_AHEAD:
            self._is_ahead = True
            self._reader.ahead += 1
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == after:
            answer = ahead[1]
        else:
            _forget(ahead)
            answer = self._ask(after)
        return answer.addCallback(self._go_on, after, self._journey)

    def drop(self) -> None:
        """Makes room for others: the client has caught up, will begin elsewhere, or is gone."""
        _forget(self._ahead)
        self._ahead = None
        self._set_out()
        if self._is_ahead:
            self._is_ahead = False
            self._reader.ahead -= 1

    def _go_on(self, page: Page, after: int, journey: int) -> Page:
        if journey != self._journey:
            return page  # of another place than the client is at now
        self._per_row = len(page.data) / page.events if page.events else 0.0
        self._is_dense = 2 * page.events >= page.last - after
        self._received_s = received_of(page.data)
        if page.last >= self._stream.start:
            self.drop()  # the rest is in memory
        elif self._is_ahead:
            self._ahead = (page.last, self._ask(page.last))
            self._ahead[1].addErrback(self._not_ahead, page.last)
        return page

    def _not_ahead(self, failure: Failure, after: int) -> Failure | None:
        """Forgets a page that could not be read ahead, so that it is read when it is asked for."""
        if self._ahead is None or self._ahead[0] != after:
            return failure  # who has asked for it meanwhile is told
        self._ahead = None
        return None

    def _ask(self, after: int) -> Deferred[Page]:
        size = LARGE_PAGE if self._is_ahead else PAGE
        expected = None
        if self._per_row:
            expected = Expected(max(1, min(int(FILLED * size / self._per_row), MOST_EXPECTED)), self._is_dense)
        return self._reader.page(self._stream.name, after, self._stream.end, size, expected, self._received_s)


def _forget(ahead: tuple[int, Deferred[Page]] | None) -> None:
    if ahead is not None:
        ahead[1].addErrback(lambda failure: None)  # who asks again meets it again


def _of(stream: str) -> tuple[str, tuple[str, ...]]:
    """Gives the condition for what is sent to a stream's clients."""
    return ("NOT suppressed AND ", ()) if stream == ALL else ("priority = ? AND NOT suppressed AND ", (stream,))


def _page(
    cursor: Any, backend: Backend, stream: str, after: int, until: int, size: int, expected: Expected | None
) -> Page:
    """Reads a page; each turn of the interpreter's lock costs a busy reactor, so that there are few."""
    condition, arguments = _of(stream)
    condition += '"offset" > ? AND "offset" <= ?'
    rows, end = (None, until) if expected is None else (expected.rows, until)
    if expected is not None and expected.is_dense:
        end = min(until, after + expected.rows)  # rows between two offsets are read faster than so many of a stream
    found = backend.read_events(cursor, stream, condition, (*arguments, after, end), size, rows)
    gap = None
    if found.expired is not None and after < found.expired:  # perhaps between two statements: it is read again
        _begin(cursor, backend)  # what expires meanwhile is seen by all that follows, or by nothing
        end = until  # a gap is told once, and what comes behind it with it
        found = backend.read_events(cursor, stream, condition, (*arguments, after, end), size, rows)
        first = _before_first(cursor, backend, stream, found.expired or after) + 1
        gap = Gap(str(after), str(first), "expired")
        after = first - 1
    return Page(gap, found.data, max(after, end) if found.last is None else found.last, found.events)


def _begin(cursor: Any, backend: Backend) -> None:
    """Begins one snapshot, where the driver does not do so itself."""
    if backend.begin_snapshot:
        cursor.execute(backend.begin_snapshot)


def _before_first(cursor: Any, backend: Backend, stream: str, otherwise: int) -> int:
    condition, arguments = _of(stream)
    query = f'SELECT "offset" FROM event WHERE {condition}"offset" > ? ORDER BY "offset" LIMIT 1'  # noqa: S608 - constants
    row = cursor.execute(backend.sql(query), (*arguments, 0)).fetchone()
    return otherwise if row is None else int(row[0]) - 1


def _since(cursor: Any, backend: Backend, stream: str, moment: str, end: int) -> int:
    _begin(cursor, backend)
    expired = cursor.execute(backend.sql("SELECT received FROM expired WHERE stream = ?"), (stream,)).fetchone()
    if expired is not None and expired[0] >= moment:
        return 0  # some of what is asked for has expired: reading from the very beginning tells the gap
    return search(cursor, backend, moment, end)


def search(cursor: Any, backend: Backend, moment: str, end: int) -> int:
    """Searches the log by halves: ``received`` ascends with the offset, save where the clock was set back.

    Args:
        cursor: in a transaction that only reads.
        backend: of the database.
        moment: RFC 3339 in the hub's own format.
        end: the answer where there is no such event.

    Returns:
        The offset behind which the first event with ``received`` at or after ``moment`` comes.
    """
    low = cursor.execute('SELECT coalesce(min("offset"), 0) FROM event').fetchone()[0]
    high = end + 1
    while low < high:
        middle = (low + high) // 2
        # SQLite gives no time of a line that is nested too deeply for it, or was spoilt: the next one's counts.
        condition = '"offset" >= ? AND received IS NOT NULL'
        query = backend.sql(f'SELECT "offset", received FROM event WHERE {condition} ORDER BY "offset" LIMIT 1')  # noqa: S608 - a constant
        row = cursor.execute(query, (middle,)).fetchone()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    return min(low - 1, end) if low else end
