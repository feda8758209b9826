"""What a device is sent: greetings, polls, and answers that wait until what they answer to is stored."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from notifyd.agent.linecounters import Counters
from notifyd.agent.replies import LAST_WORDS_S, MAX_WAITING, Replies
from notifyd.agent.teller import Teller
from notifyd.agent.timers import Timers
from tests.serialtools import FakePort, Sink, settings


class Rig:
    """A device that is spoken to, and a spool that stores when the test says so."""

    def __init__(self, **keys: Any) -> None:
        self.clock, self.counters, self.port = Clock(), Counters(), FakePort()
        self.flushes: list[Deferred[None]] = []
        source = settings(**keys)
        self.timers = Timers(self.clock)
        teller = Teller(source, "ward3", "important", Sink(), lambda: 0.0)
        self.replies = Replies(source, self.flush, self.counters, self.timers, teller)
        self.replies.opened(self.port)

    def flush(self) -> Deferred[None]:
        self.flushes.append(Deferred())
        return self.flushes[-1]

    def answer(self, *replies: bytes, stored: bool = True) -> None:
        for reply in replies:
            self.replies.add(reply, is_stored_first=stored)
        self.replies.go()


def test_an_answer_waits_until_its_event_is_stored() -> None:
    """A device that was told yes forgets its event: only the disk may say so."""
    rig = Rig()
    rig.answer(b"ACK1")
    assert rig.port.sent == []
    rig.flushes[0].callback(None)
    assert rig.port.sent == [b"ACK1"]


def test_answers_of_one_read_share_a_flush_and_later_ones_have_the_next() -> None:
    """What was put after a flush began is not covered by it; the order is kept."""
    rig = Rig()
    rig.answer(b"1", b"2")
    rig.answer(b"3")
    rig.answer(b"4", b"5", stored=False)
    assert len(rig.flushes) == 1
    rig.flushes[0].callback(None)
    assert rig.port.sent == [b"1", b"2"]
    assert len(rig.flushes) == 2
    rig.flushes[1].callback(None)
    assert rig.port.sent == [b"1", b"2", b"3", b"4", b"5"]


def test_an_answer_to_what_is_no_event_goes_at_once() -> None:
    """There is nothing to store."""
    rig = Rig()
    rig.answer(b"ACK", stored=False)
    assert (rig.port.sent, rig.flushes) == ([b"ACK"], [])


def test_answers_do_not_go_to_another_port_than_the_one_that_asked() -> None:
    """After an unplug the device asks again."""
    rig = Rig()
    rig.answer(b"ACK1")
    rig.replies.closed()
    again = FakePort()
    rig.replies.opened(again)
    rig.flushes[0].callback(None)
    assert again.sent == []
    rig.answer(b"ACK2")
    rig.flushes[1].callback(None)
    assert (again.sent, rig.counters.not_taken) == ([b"ACK2"], 1)


def test_what_the_spool_cannot_store_is_not_answered() -> None:
    """The device keeps it; later answers go on."""
    rig = Rig()
    rig.answer(b"ACK1")
    rig.flushes[0].errback(RuntimeError("closed"))
    rig.answer(b"ACK2", stored=False)
    assert rig.port.sent == [b"ACK2"]


def test_answers_do_not_fill_the_memory_while_nothing_can_be_stored() -> None:
    """Beyond a limit they are dropped, counted, and told once."""
    rig = Rig()
    with capturedLogs() as logs:
        for _ in range(MAX_WAITING // 4 + 10):
            rig.answer(b"ACK!")
    assert rig.counters.not_taken == 10
    assert len(logs) == 1
    rig.flushes[0].callback(None)
    rig.flushes[1].callback(None)
    assert len(rig.port.sent) == MAX_WAITING // 4


def test_a_device_that_takes_nothing_is_told_once_and_again_when_it_does() -> None:
    """One line each, however many answers it does not take."""
    rig = Rig()
    rig.port.has_room = False
    with capturedLogs() as logs:
        for _ in range(10):
            rig.replies.send(b"x")
        rig.port.has_room = True
        rig.replies.send(b"x")
    assert [formatEvent(entry) for entry in logs] == [
        "Source panel: /dev/fake does not take what is sent to it; it is not sent until it does",
        "Source panel: /dev/fake takes again what is sent to it",
    ]
    assert rig.counters.not_taken == 10


def test_a_device_is_greeted_and_asked_at_each_opening() -> None:
    """The texts stand for bytes, one character each."""
    rig = Rig(on_open="\u0005\xff\r", poll={"send": "?\r", "every": "10s"})
    assert rig.port.sent == [b"\x05\xff\r", b"?\r"]
    rig.clock.pump([5] * 5)
    assert rig.port.sent == [b"\x05\xff\r", b"?\r", b"?\r", b"?\r"]
    rig.timers.cancel_all()  # as the supervisor does it
    rig.replies.closed()
    rig.clock.pump([10] * 5)
    assert len(rig.port.sent) == 4
    assert rig.counters.not_taken == 0


def test_a_device_that_has_not_taken_the_last_question_is_not_asked_again() -> None:
    """Old questions are not kept for it."""
    rig = Rig(poll={"send": "?", "every": "1s"})
    rig.port.unsent = 1
    rig.clock.pump([1] * 5)
    assert (rig.port.sent, rig.counters.not_taken) == ([b"?"], 5)
    rig.port.unsent = 0
    rig.clock.advance(1)
    assert rig.port.sent == [b"?", b"?"]
    rig.timers.cancel_all()


def test_a_stop_waits_until_the_device_has_its_answers() -> None:
    """Or else it would send what is stored once more; but it waits for a second at most."""
    rig = Rig()
    assert rig.replies.finish(rig.clock).called
    rig.answer(b"ACK")
    finished = rig.replies.finish(rig.clock)
    rig.port.unsent = 3
    rig.flushes[0].callback(None)
    rig.clock.advance(0.1)
    assert not finished.called
    rig.port.unsent = 0
    rig.clock.advance(0.1)
    assert finished.called
    rig.answer(b"ACK")
    hopeless = rig.replies.finish(rig.clock)
    rig.clock.pump([LAST_WORDS_S / 10] * 11)
    assert hopeless.called
    assert rig.clock.getDelayedCalls() == []
