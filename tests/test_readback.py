"""Reading back: pages of the log, gaps, and finding a time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd import event as events
from notifyd.hub.entries import Entries
from notifyd.hub.readback import PAGE, Expected, Page
from notifyd.hub.records import Batch, Found
from notifyd.wire import Gap
from tests.hubkit import T0, Hub
from tests.hubparts import result
from tests.logs import Logs
from tests.test_log import entry, expire, fill


def page(hub: Hub, stream: str, after: int, until: int) -> Page:
    """Reads a page."""
    return result(hub.reader.page(stream, after, until))  # type: ignore[no-any-return]


def test_a_page_ends_where_it_was_asked_to(hub: Hub) -> None:
    """Nothing behind ``until`` comes, though it is stored: it will come from memory."""
    a, b, c = fill(hub, ("normal", 0), ("normal", 1), ("normal", 2))
    read = page(hub, "normal", a, b)
    assert ([json.loads(each)["id"] for each in read.data.splitlines()], read.last, read.gap) == ([str(b)], b, None)
    assert page(hub, "normal", c, c + 10) == Page(None, b"", c + 10, 0)


def test_a_page_holds_about_as_much_as_it_may_and_the_next_goes_on(hub: Hub) -> None:
    """However much there is, memory stays bounded; nothing is left out between the pages."""
    hub.put(*(str(n) for n in range(90)), data="ü" * 5_000)
    after, read = 0, b""
    while after < hub.pipeline.last:
        each = page(hub, "normal", after, hub.pipeline.last)
        assert len(each.data) < 3 * PAGE
        read += each.data
        after = each.last
    assert read.decode().splitlines() == hub.rows("body")


def test_a_gap_stands_in_front_of_what_is_still_held(hub: Hub) -> None:
    """From what was asked for to the first event held, or to behind the last expired one where none is."""
    a, b, c, d = fill(hub, ("normal", 0), ("critical", 1), ("normal", 2), ("normal", 3))
    expire(hub, 1.5)
    assert page(hub, "normal", 0, d).gap == Gap("0", str(c), "expired")
    assert page(hub, "critical", 0, d) == Page(Gap("0", str(b + 1), "expired"), b"", d, 0)
    assert page(hub, "normal", a, d).gap is None
    assert page(hub, "critical", a, d).gap == Gap(str(a), str(b + 1), "expired")
    assert page(hub, "important", 0, d).gap is None
    assert page(hub, "all", 0, d).gap == Gap("0", str(c), "expired")


def test_a_gap_is_told_once_and_with_what_is_behind_it(hub: Hub) -> None:
    """Also where more has expired than a page was expected to have: else two gaps could follow each other."""
    first, *_, last = fill(hub, *(("normal", at) for at in range(10)))
    expire(hub, 7.5)
    read = result(hub.reader.page("normal", first, last, expected=Expected(3, is_dense=True)))
    assert (read.gap, read.events, read.last) == (Gap(str(first), str(last - 1), "expired"), 2, last)


def test_what_expires_while_a_page_is_read_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been gone before all of the page was read."""
    _, b, c, d = fill(hub, ("normal", 0), ("normal", 1), ("normal", 2), ("normal", 3))
    real, reads = hub.backend.read_events, []

    def read(*arguments: Any) -> Found:
        found = real(*arguments)
        if not reads:  # as if the last one of several statements had seen it
            expire(hub, 1.5)
            found = found._replace(expired=real(*arguments).expired)
        reads.append(found.events)
        return found

    monkeypatch.setattr(hub.backend, "read_events", read)
    told = page(hub, "normal", 0, d)
    assert (told.gap, told.events, told.last) == (Gap("0", str(c), "expired"), 2, d)
    assert page(hub, "normal", b, d).gap is None
    assert reads == [4, 2, 2]


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
    logs: Logs, steps: list[tuple[int, bool]], moment: int, apart: int
) -> None:
    """Against a plain model, however far apart the offsets are."""
    hub = logs.emptied()()
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
        assert [json.loads(each)["id"] for each in read] == [str(each) for each in expected]
    finally:
        hub.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["normal", "critical", "quiet"]), st.sampled_from([1, 40_000])), max_size=15),
    st.integers(1, 5),
    st.sampled_from(["normal", "all"]),
    st.none() | st.builds(Expected, st.sampled_from([1, 3, 30]), st.booleans()),
    st.data(),
)
def test_pages_leave_nothing_out(
    logs: Logs, kinds: list[tuple[str, int]], rows: int, stream: str, expected: Expected | None, data: st.DataObject
) -> None:
    """However few rows a statement may fetch, or are expected, whatever the sizes, wherever it begins and ends."""
    hub = logs.emptied()()
    try:
        hub.backend.page_rows = rows
        base = hub.memory.last + 1
        entries = [entry(base + 2 * n, "normal" if kind == "quiet" else kind) for n, (kind, _) in enumerate(kinds)]
        for each, (kind, size) in zip(entries, kinds, strict=True):
            each.line = each.line.replace(b"}", b',"data":"%s"}' % (b"x" * size))
            each.kind = each.kind._replace(suppressed=kind == "quiet")
            result(hub.log.append(Batch(Entries.of([each]))))
        after = first = data.draw(st.integers(base - 2, base + 2 * len(kinds)))
        until = data.draw(st.integers(after, base + 2 * len(kinds) + 2))
        read = b""
        while after < until:
            end = until if expected is None else data.draw(st.integers(after + 1, until))
            each_page = result(hub.reader.page(stream, after, end, expected=expected))
            assert after < each_page.last <= end
            assert len(each_page.data) < PAGE + 50_000
            assert each_page.events == each_page.data.count(b"\n")
            read += each_page.data
            after = each_page.last
        sent = [e for e in entries if not e.kind.suppressed and stream in ("all", e.kind.priority)]
        mine = [e for e in sent if first < e.offset <= until]
        assert read == b"".join(e.line + b"\n" for e in mine)
    finally:
        hub.close()
