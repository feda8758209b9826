"""The pace at which the log is read back while the hub is pressed: who waits, for how long, and who does not."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from twisted.internet.task import Clock

from notifyd import event as events
from notifyd.event import Event
from notifyd.fewthreads import NICE, FewThreads
from notifyd.hub import pipeline as pipeline_module
from notifyd.hub.pace import LONGEST_S, RATE, Pace, received_of
from tests.hubkit import T0, Hub, line, subscribe

NEW, OLD = events.format_time(T0 - 49), events.format_time(T0 - 51)


def test_pages_wait_for_their_turn_while_the_hub_is_pressed() -> None:
    """The first goes at once; others by the rate, and no longer than a bound, after which the queue is as before."""
    clock = Clock()
    pace = Pace(clock, lambda: True, 100.0, lambda: T0)
    assert [pace.wait_s(RATE // 4, NEW) for _ in range(8)] == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    clock.advance(0.5)
    assert pace.wait_s(RATE // 8, NEW) == pytest.approx(0.75)
    clock.advance(10)
    assert [pace.wait_s(RATE // 8, NEW) for _ in range(2)] == [0, 0.125]
    assert LONGEST_S == 1


def test_nobody_waits_who_need_not_or_must_not() -> None:
    """The hub has time, nothing is known, or what would be read has had half of its time; none of it takes a turn."""
    pressed = False
    pace = Pace(Clock(), lambda: pressed, 100.0, lambda: T0)
    assert [pace.wait_s(RATE, NEW) for _ in range(2)] == [0, 0]
    pressed = True
    assert [pace.wait_s(RATE, each) for each in (None, OLD, None, OLD, NEW, OLD, NEW)] == [0, 0, 0, 0, 0, 0, 1]


def test_the_time_of_the_last_line_is_the_hubs() -> None:
    """Whatever stands in its data, or in other lines."""
    event = Event(id="1", source="/s", type="t", data=events.raw_data({"received": "9999", "x": '"received":"9999"'}))
    event.received = NEW
    first = events.encode(Event(id="1", source="/s", type="t"))
    assert received_of(first + b"\n" + events.encode(event) + b"\n") == NEW
    assert received_of(events.encode(event)[:-1] + b',"received":"%b"}\n' % OLD.encode()) == OLD
    for spoilt in (b"", b"\n", b"{}\n", b'{"received":1}\n', b"\xff\n", b"[" * 100_000 + b"\n", b'{"received":"a"\n'):
        assert received_of(spoilt) is None


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
    """Nobody is there any more who could be sent it."""
    hub = make_hub(stream_memory=65_536)
    behind(hub)
    before = set(hub.clock.getDelayedCalls())
    hub.pressed = True
    client = hub.client("normal", subscribe(after="first"))
    client.lines()
    (waits,) = set(hub.clock.getDelayedCalls()) - before
    client.lose()
    hub.reader.close()
    assert not waits.active()


def test_large_batches_tell_that_the_hub_is_pressed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment, as long as no more of them come."""
    monkeypatch.setattr(pipeline_module, "LARGE_BATCH", 2_000)
    hub.put("1", data="x" * 1_000)
    assert not hub.pipeline.is_pressed()
    producer = hub.producer(line("2", data="x" * 2_000))
    assert hub.pipeline.is_pressed()
    hub.clock.advance(pipeline_module.PRESSED_S / 2)
    assert hub.pipeline.is_pressed()
    producer.send(line("3"))
    hub.clock.advance(pipeline_module.PRESSED_S / 2)
    assert not hub.pipeline.is_pressed()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads do not differ in that")
def test_threads_in_the_background_leave_processors_to_others() -> None:
    """No other thread does, and neither do they where the system forbids it: the work is done all the same."""
    values: list[Any] = []

    def mine() -> tuple[int, int]:
        thread = threading.get_native_id()
        return os.getpriority(os.PRIO_PROCESS, thread), os.sched_getscheduler(thread)

    def seen(*, background: bool) -> tuple[int, int]:
        threads = FewThreads("under test", 1, background=background)
        threads.start()
        threads.callInThreadWithCallback(lambda done, result: values.append(result), mine)
        threads.stop()
        return values.pop()  # type: ignore[no-any-return]

    nice, policy = mine()
    assert seen(background=True) == (min(nice + NICE, 19), os.SCHED_BATCH)
    assert seen(background=False) == mine() == (nice, policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_setscheduler", Mock(side_effect=PermissionError))
        assert seen(background=True) == (nice, policy)
