"""The pace at which the log is read back while the hub is pressed: who waits, for how long, and who does not."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from unittest.mock import Mock

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from notifyd import event as events
from notifyd.event import Event
from notifyd.fewthreads import FewThreads
from notifyd.hub import pipeline as pipeline_module
from notifyd.hub.pace import LONGEST_S, RATE, Pace, received_of
from tests.hubkit import T0, Hub, line, subscribe
from tests.hubparts import LOCKED
from tests.test_log import fill

KEEP_S = 3_600.0


def pace_of(clock: Clock, *, pressed: bool = True, keep_s: float = KEEP_S) -> Pace:
    """Gives a pace, to which the clock's beginning is T0."""
    return Pace(clock, lambda: pressed, keep_s, lambda: T0 + clock.seconds())


def test_pages_wait_for_their_turn_while_the_hub_is_pressed() -> None:
    """The first goes at once; others by the rate, and no longer than a bound, after which the queue is as before."""
    clock = Clock()
    pace = pace_of(clock)
    assert [pace.wait_s("normal", T0, RATE // 4) for _ in range(8)] == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    clock.advance(0.5)
    assert pace.wait_s("all", T0, RATE // 8) == pytest.approx(0.75)
    clock.advance(10)
    assert [pace.wait_s("normal", T0, RATE // 8) for _ in range(2)] == [0, 0.125]
    pace.give_back(RATE // 8)
    assert pace.wait_s("normal", T0, 1) == 0.125
    assert LONGEST_S == 1


def test_nobody_waits_who_need_not_or_must_not() -> None:
    """The hub has time, nothing is known, events are critical or old: no turn is used."""
    clock = Clock()
    assert [pace_of(clock, pressed=False).wait_s("normal", T0, RATE) for _ in range(2)] == [None, None]
    pace = pace_of(clock)
    for stream, received_s in (("normal", None), ("critical", T0), ("all", T0 - 30.1), ("normal", T0 - 7_200)):
        assert pace.wait_s(stream, received_s, RATE) is None
    assert [pace.wait_s("normal", T0 - 29.9, RATE) for _ in range(2)] == [0, 1]
    clock.advance(0.2)
    assert pace.wait_s("normal", T0 - 29.9, RATE) is None
    assert pace.wait_s("normal", T0, RATE) is not None
    assert pace_of(clock, keep_s=100.0).wait_s("normal", T0 - 8.7, RATE) is not None
    assert pace_of(clock, keep_s=100.0).wait_s("normal", T0 - 8.9, RATE) is None
    for keep_s in (1.0, 5.0, 10.0):
        assert pace_of(clock, keep_s=keep_s).wait_s("normal", T0 + 0.1, RATE) is None


def test_the_time_of_the_last_line_is_the_hubs() -> None:
    """Whatever stands in its data, or in other lines."""
    event = Event(id="1", source="/s", type="t", data=events.raw_data({"received": "9999", "x": '"received":"9999"'}))
    event.received = events.format_time(T0)
    first = events.encode(Event(id="1", source="/s", type="t"))
    assert received_of(first + b"\n" + events.encode(event) + b"\n") == T0
    more = b',"received":"%b"}\n' % events.format_time(T0 + 1).encode()
    assert received_of(events.encode(event)[:-1] + more) == T0 + 1
    spoilt = (b"", b"\n", b"{}\n", b'{"received":1}\n', b"\xff\n", b"[" * 100_000 + b"\n", b'{"received":"a"}\n')
    assert {received_of(each) for each in spoilt} == {None}


def behind(hub: Hub) -> list[str]:
    """Stores more than memory holds, of one kind; gives the ids."""
    ids = [str(number) for number in range(600)]
    for start in range(0, 600, 10):
        hub.put(*ids[start : start + 10], data={"line": "x" * 5_000})
    return ids


def test_a_client_that_catches_up_waits_between_pages_and_misses_nothing(make_hub: Callable[..., Hub]) -> None:
    """While the hub is pressed; its first page comes at once, and the rest as soon as there is time."""
    hub = make_hub(stream_memory=65_536)
    ids = behind(hub)
    hub.pressed = True
    client = hub.client("normal", subscribe(after="first"))
    got = [json.loads(each)["id"] for each in client.lines() if each.startswith(b"{")]
    assert got == ids[: len(got)]
    assert 50 <= len(got) < 300
    for _ in range(100):
        hub.clock.advance(0.005)
        got += [json.loads(each)["id"] for each in client.lines()]
    assert got == ids
    hub.pressed = False
    other = hub.client("normal", subscribe(after="first"))
    assert [json.loads(each)["id"] for each in other.lines() if each.startswith(b"{")] == ids


def test_what_waits_is_called_off_when_the_log_is_closed(make_hub: Callable[..., Hub]) -> None:
    """The client is gone by then, or will never be sent it. What has come before is not called off."""
    hub = make_hub(stream_memory=65_536)
    behind(hub)
    before = set(hub.clock.getDelayedCalls())
    hub.pressed = True
    hub.client("normal", subscribe(after="first"))
    (first,) = set(hub.clock.getDelayedCalls()) - before
    hub.clock.advance(first.getTime() - hub.clock.seconds())
    hub.client("normal", subscribe(after="first")).lose()
    waiting = set(hub.clock.getDelayedCalls()) - before
    assert len(waiting) == 2
    reads = hub.reads.runs
    hub.reader.close()
    assert not any(each.active() for each in waiting)
    hub.clock.advance(1)
    assert hub.reads.runs == reads


def test_a_page_is_counted_for_what_it_had(hub: Hub) -> None:
    """The next one's turn comes sooner where it had less than it might have, or could not be read."""
    (last,) = fill(hub, ("normal", 0))
    hub.pressed = True
    after, got = last - 1, []
    for _ in range(3):
        hub.reader.page("normal", after, last, RATE // 2, None, hub.now()).addBoth(got.append)
    assert [page.events for page in got] == [1]
    (first, second) = (call.getTime() - hub.clock.seconds() for call in hub.reader._waiting)
    assert {round(first, 3), round(second, 3)} == {0, 0.5}
    hub.clock.advance(0.001)
    assert len(got) == 2
    hub.reads.faults = [LOCKED]
    hub.clock.advance(0.5)
    assert isinstance(got[2], Failure)
    hub.reader.page("normal", after, last, RATE // 2, None, hub.now()).addBoth(got.append)
    assert got[3].events == 1


def test_large_batches_tell_that_the_hub_is_pressed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they are being stored, and for a moment after that."""
    monkeypatch.setattr(pipeline_module, "LARGE_BATCH", 2_000)
    hub.put("1", data="x" * 1_000)
    assert not hub.pipeline.is_pressed()
    hub.writes.held = True
    producer = hub.producer(line("2", data="x" * 2_000))
    hub.clock.advance(10)
    assert hub.pipeline.is_pressed()
    hub.log.away = True
    assert not hub.pipeline.is_pressed()
    hub.log.away = False
    hub.writes.release()
    assert hub.pipeline.is_pressed()
    hub.clock.advance(pipeline_module.PRESSED_S / 2)
    assert hub.pipeline.is_pressed()
    producer.send(line("3"))
    hub.clock.advance(pipeline_module.PRESSED_S / 2)
    assert not hub.pipeline.is_pressed()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the system has no such threads")
def test_threads_in_the_background_interrupt_no_others() -> None:
    """No other thread is one, and neither are they where the system forbids it: the work is done all the same."""
    values: list[int] = []

    def mine() -> int:
        return os.sched_getscheduler(threading.get_native_id())

    def seen(*, background: bool) -> int:
        threads = FewThreads("under test", 1, background=background)
        threads.start()
        threads.callInThreadWithCallback(lambda done, result: values.append(result), mine)
        threads.stop()
        return values.pop()

    usual = mine()
    assert seen(background=True) == os.SCHED_BATCH
    assert seen(background=False) == mine() == usual
    with pytest.MonkeyPatch.context() as patch:
        for error in (PermissionError, AttributeError):
            patch.setattr(os, "sched_setscheduler", Mock(side_effect=error))
            assert seen(background=True) == usual
