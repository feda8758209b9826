"""Reading back: pages of the log, gaps, and finding a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor

from notifyd import event as events
from notifyd.hub.backplane import CHUNK
from notifyd.hub.log import EventLog
from notifyd.hub.readback import Page, Reader
from notifyd.hub.service import _refused
from notifyd.wire import Gap
from tests.hubkit import T0, Hub, result
from tests.test_log import expire, fill


def page(hub: Hub, stream: str, after: int, until: int) -> Page:
    """Reads a page."""
    return result(hub.reader.page(stream, after, until))  # type: ignore[no-any-return]


def test_a_page_ends_where_it_was_asked_to(hub: Hub) -> None:
    """Nothing behind ``until`` comes, though it is stored: it will come from memory."""
    a, b, c = fill(hub, ("normal", 0), ("normal", 1), ("normal", 2))
    read = page(hub, "normal", a, b)
    assert (read.data, read.last, read.gap) == (b'{"id":"%d"}\n' % b, b, None)
    assert page(hub, "normal", c, c + 10) == Page(None, b"", c + 10)


def test_a_page_holds_about_one_chunk_and_the_next_goes_on(hub: Hub) -> None:
    """However much there is, memory stays bounded; nothing is left out between the pages."""
    hub.put(*(str(n) for n in range(30)), data="ü" * 5_000)
    after, read = 0, b""
    while after < hub.pipeline.last:
        each = page(hub, "normal", after, hub.pipeline.last)
        assert len(each.data) < 3 * CHUNK
        read += each.data
        after = each.last
    assert read.decode().splitlines() == hub.rows("body")


def test_a_gap_stands_in_front_of_what_is_still_held(hub: Hub) -> None:
    """From what was asked for to the first event held, or to behind the last expired one where none is."""
    a, b, c, d = fill(hub, ("normal", 0), ("critical", 1), ("normal", 2), ("normal", 3))
    expire(hub, 1.5)
    assert page(hub, "normal", 0, d).gap == Gap("0", str(c), "expired")
    assert page(hub, "critical", 0, d) == Page(Gap("0", str(b + 1), "expired"), b"", d)
    assert page(hub, "normal", a, d).gap is None
    assert page(hub, "critical", a, d).gap == Gap(str(a), str(b + 1), "expired")
    assert page(hub, "important", 0, d).gap is None
    assert page(hub, "all", 0, d).gap == Gap("0", str(c), "expired")


def test_the_first_event_held_can_be_found(hub: Hub) -> None:
    """Or the end, where there is none of the stream."""
    assert result(hub.reader.first("normal", 7)) == 7
    a, b = fill(hub, ("critical", 0), ("normal", 1))
    assert result(hub.reader.first("normal", b)) == b - 1
    assert result(hub.reader.first("all", b)) == a - 1
    assert result(hub.reader.first("error", b)) == b


def test_since_a_time_of_which_some_has_expired_tells_the_gap(hub: Hub) -> None:
    """The client asked for events that are gone, so it is told; one who asked for later ones is not."""
    _, _, c = fill(hub, ("normal", 0), ("normal", 10), ("normal", 20))
    expire(hub, 15)
    assert result(hub.reader.since("normal", events.format_time(T0 + 10), c)) == 0
    assert page(hub, "normal", 0, c).gap is not None
    after = result(hub.reader.since("normal", events.format_time(T0 + 11), c))
    assert page(hub, "normal", after, c).gap is None


def test_since_in_an_empty_log_is_now(hub: Hub) -> None:
    """There is nothing to begin with."""
    assert result(hub.reader.since("normal", events.format_time(T0), 42)) == 42


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=20), st.integers(-1, 11), st.integers(1, 10**6))
def test_since_finds_the_first_event_of_that_time(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]], moment: int, apart: int
) -> None:
    """Against a plain model, however far apart the offsets are."""
    hub = Hub(tmp_path_factory.mktemp("hub"))
    try:
        rows = sorted((float(at), "normal" if mine else "critical") for at, mine in steps)
        offsets = []
        for at, priority in rows:
            hub.memory.last += apart
            offsets += fill(hub, (priority, at))
        end = offsets[-1] if offsets else 5
        after = result(hub.reader.since("normal", events.format_time(T0 + moment), end))
        assert after <= end
        read = page(hub, "normal", after, end).data.splitlines()
        expected = [o for o, (at, p) in zip(offsets, rows, strict=True) if p == "normal" and at >= moment]
        assert read == [b'{"id":"%d"}' % each for each in expected]
    finally:
        hub.close()


@pytest_twisted.ensureDeferred
async def test_the_real_reader_cannot_write(tmp_path: Path, make_hub: Callable[..., Hub]) -> None:
    """It has connections of its own that refuse to."""
    log = EventLog(tmp_path / "hub.db", reactor, _refused)
    await log.open()
    reader = Reader(tmp_path / "hub.db", reactor)
    assert await reader.page("all", 0, 10) == Page(None, b"", 10)
    with pytest.raises(Exception, match=r"readonly|read-only"):
        await reader._pool.runInteraction(lambda cursor: cursor.execute("DELETE FROM event"))
    reader.close()
    log.close()
