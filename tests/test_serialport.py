"""The supervision of a serial port, with a port and a clock that are moved by hand."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from serial import SerialException
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from notifyd import config_agent
from notifyd.agent.framing import Frame, LineFramer
from notifyd.agent.linecounters import LineCounters
from notifyd.agent.port import PortError
from notifyd.agent.serialport import AHEAD_BYTES, LASTS_S, MAX_DELAY_S, MAX_REASONS, SLOW_S, STEADY_S, SerialSource
from notifyd.event import Event
from tests.conftest import Logged
from tests.serialtools import FakePort, Sink, settings

WALL = 1_795_384_923.5


class Rig:
    """A source on a fake port; ``fault`` is what opening raises, None where it works."""

    def __init__(self, *, jitter: float = 1.0, max_rate: int | None = None, **keys: Any) -> None:
        self.clock = Clock()
        self.sink = Sink()
        self.fault: Exception | None = None
        self.tries: list[float] = []
        self.flushes: list[Deferred[None]] = []
        self.opening: Deferred[FakePort] | None = None  # what opening gives, where it does not end at once
        self.at_once: Exception | None = None  # what the port is lost to as soon as the reactor runs
        self.ports: list[FakePort] = []
        self.source = SerialSource(
            self.clock,
            settings(**keys),
            "ward3",
            "critical",
            self.sink,
            flush=self.flush,
            max_rate=max_rate,
            random=lambda: jitter,
            opener=self.open,
            now=lambda: WALL + self.clock.seconds(),
        )

    def open(self, protocol: Any, _settings: config_agent.Source, _reactor: Any) -> FakePort | Deferred[FakePort]:
        self.tries.append(self.clock.seconds())
        if self.fault is not None:
            raise self.fault
        port = FakePort(protocol)
        port.counted = LineCounters(overrun=3, buffer_overrun=2, frame=4, parity=1)
        self.ports.append(port)
        if self.opening is not None:
            return self.opening
        if self.at_once is not None:
            self.clock.callLater(0, port.lose, self.at_once)
        return port

    def flush(self) -> Deferred[None]:
        self.flushes.append(Deferred())
        return self.flushes[-1]

    @property
    def port(self) -> FakePort:
        return self.ports[-1]

    def prints(self, data: bytes) -> None:
        self.port.protocol.dataReceived(data)

    def advance(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Lets time pass, each timer running at its own time, until ``seconds`` are over or ``until`` holds."""
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and calls[0].getTime() <= end and not until():
            self.clock.rightNow = max(self.clock.rightNow, calls[0].getTime())
            self.clock.advance(0)
        if not until():
            self.clock.rightNow = end

    @property
    def pauses(self) -> list[float]:
        """The time between one try and the next."""
        return [round(later - earlier, 2) for earlier, later in itertools.pairwise(self.tries)]

    def stop(self) -> None:
        self.source.stopService()
        assert self.clock.getDelayedCalls() == []


GONE = SerialException(errno.ENOENT, "could not open port")


def test_a_missing_port_is_tried_again_ever_more_slowly_but_at_least_every_five_seconds() -> None:
    """The backoff doubles from 0.1 s to 5 s, and never ends."""
    rig = Rig()
    rig.fault = GONE
    rig.source.startService()
    rig.advance(60)
    assert rig.pauses[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert max(rig.pauses) == MAX_DELAY_S
    rig.stop()


def test_jitter_shortens_a_pause_by_half_at_most() -> None:
    """Many agents that lost the same hub of cables do not come back in step, nor does one spin."""
    rig = Rig(jitter=0.0)
    rig.fault = GONE
    rig.source.startService()
    rig.advance(20)
    assert rig.pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert max(rig.pauses) == MAX_DELAY_S / 2
    rig.stop()


def test_a_port_that_opens_and_fails_at_once_is_tried_as_slowly_and_told_once() -> None:
    """A broken adapter costs neither the processor nor the people who get the events."""
    rig = Rig()
    rig.at_once = OSError(errno.EIO, "Input/output error")
    with capturedLogs() as logs:
        rig.source.startService()
        rig.advance(60)
    assert len(rig.tries) < 20
    assert rig.sink.own == ["lost"]
    assert [formatEvent(entry) for entry in logs] == [
        "Source panel: /dev/fake is open",
        "Source panel: /dev/fake cannot be read: the device does not answer (input/output error);"
        " it is tried again until it can",
    ]
    rig.stop()


@pytest.mark.parametrize("proof", ["bytes", "time"])
def test_a_port_counts_as_back_when_it_has_spoken_or_stayed_open(proof: str) -> None:
    """Then it is told as restored, before its first line, and its next loss is retried soon."""
    rig = Rig()
    rig.fault = GONE
    rig.source.startService()
    rig.advance(10)
    rig.fault = None
    rig.advance(10, until=lambda: rig.ports)
    seconds = round(rig.clock.seconds(), 3)
    assert rig.sink.own == ["lost"]
    if proof == "bytes":
        rig.prints(b"one\n")
    else:
        rig.advance(STEADY_S)
    assert rig.sink.events[1].type == "notifyd.source.restored"
    fields = {"port": "/dev/fake", "reason": "there is no such device", "seconds": seconds, "bytes": 0}
    assert rig.sink.fields("restored") == fields
    rig.port.lose(ConnectionDone())
    lost_at = rig.clock.seconds()
    rig.advance(1, until=lambda: len(rig.ports) == 2)
    assert rig.tries[-1] - lost_at == pytest.approx(0.1)
    rig.stop()


def test_a_first_successful_open_is_not_told_as_an_event() -> None:
    """Nothing was lost, so nothing is restored."""
    rig = Rig()
    rig.source.startService()
    rig.prints(b"one\n")
    rig.advance(10)
    assert rig.sink.own == []
    rig.stop()


def test_one_log_line_per_change_and_one_more_for_each_new_reason_that_lasts() -> None:
    """A log of a week without the device has a handful of lines; that what was unplugged is not there is no news."""
    rig = Rig()
    with capturedLogs() as logs:
        rig.source.startService()
        rig.prints(b"one\n")
        rig.port.lose(ConnectionDone())
        rig.fault = GONE
        rig.advance(60)
        rig.fault = SerialException(errno.EACCES, "could not open port")
        rig.advance(60)
        rig.fault = None
        rig.advance(10)
    said = [formatEvent(entry) for entry in logs]
    assert [line.split(": ", 1)[1].split(";")[0][:60] for line in said] == [
        "/dev/fake is open",
        "/dev/fake cannot be read: it was unplugged, or hung up",
        "/dev/fake cannot be read: permission denied (is the agent's "[:60],
        "/dev/fake is open",
    ]
    assert rig.sink.own == ["lost", "restored"]
    rig.stop()


def test_an_event_has_the_time_of_the_read_by_the_wall_clock() -> None:
    """Not of the agent's start, nor of the spool's commit."""
    rig = Rig()
    rig.source.startService()
    rig.advance(1)
    rig.prints(b"one\n")
    assert rig.sink.events[0].time == "2026-11-22T22:02:04.500000Z"
    rig.stop()


def test_silence_is_told_once_and_again_only_after_the_source_has_spoken() -> None:
    """A dead panel makes one event, not one every ninety seconds."""
    rig = Rig(silence="90s")
    rig.source.startService()
    rig.clock.advance(60)
    rig.prints(b"one\n")
    rig.clock.advance(89)
    rig.clock.advance(0.5)
    assert rig.sink.own == []
    rig.clock.advance(0.6)
    assert rig.sink.own == ["silent"]
    assert rig.sink.fields("silent") == {"port": "/dev/fake", "seconds": 90.0, "bytes": 4}
    rig.clock.pump([50] * 10)
    assert rig.sink.own == ["silent"]
    with capturedLogs() as logs:
        rig.prints(b"two\n")
    assert [formatEvent(entry) for entry in logs] == ["Source panel speaks again"]
    rig.clock.pump([30] * 4)
    assert rig.sink.own == ["silent", "silent"]
    rig.stop()


def test_silence_counts_only_while_the_port_is_open() -> None:
    """A port that is away is lost, not silent; its silence begins when it is open again."""
    rig = Rig(silence="90s")
    rig.source.startService()
    rig.clock.advance(80)
    rig.port.lose(ConnectionDone())
    rig.fault = GONE
    rig.clock.pump([10] * 20)
    rig.fault = None
    rig.clock.pump([5] * 2)
    assert rig.sink.own == ["lost", "restored"]
    rig.clock.pump([8] * 10)
    assert rig.sink.own == ["lost", "restored"]
    rig.clock.advance(10)
    assert rig.sink.own == ["lost", "restored", "silent"]
    rig.port.lose(ConnectionDone())
    rig.clock.pump([10] * 30)
    assert rig.sink.own == ["lost", "restored", "silent", "lost", "restored"]
    rig.stop()


def test_half_a_line_is_not_joined_with_what_comes_after_a_loss() -> None:
    """Two halves of different lines never make an event that no device printed."""
    rig = Rig()
    rig.source.startService()
    rig.prints(b"ALA")
    rig.port.lose(ConnectionDone())
    rig.advance(1)
    rig.prints(b"RM\n")
    assert rig.sink.lines == ["ALA", "RM"]
    rig.stop()


def test_a_stop_ends_the_retries_and_tells_no_loss() -> None:
    """Whoever stops the agent knows that the port is closed."""
    rig = Rig()
    rig.source.startService()
    rig.port.held = b"last\n"
    rig.stop()
    assert (rig.sink.lines, rig.sink.own) == (["last"], [])
    rig.source.startService()
    assert len(rig.ports) == 2
    rig.stop()


def test_a_stop_while_the_port_is_away_or_before_any_start_is_clean() -> None:
    """Stopping works in every state, and more than once."""
    rig = Rig()
    rig.stop()
    rig.fault = GONE
    rig.source.startService()
    rig.stop()
    rig.stop()


def test_an_own_event_that_is_not_taken_does_not_end_the_retries(logged: Logged) -> None:
    """The port is supervised, whatever becomes of its events."""
    rig = Rig()
    rig.fault = GONE

    def refuse(event: Event) -> None:
        raise RuntimeError("a mistake")

    rig.source._teller._put = refuse
    rig.source.startService()
    rig.advance(1)
    assert len(rig.tries) > 2
    assert logged.expect_failure(RuntimeError)
    rig.stop()


def test_a_mistake_in_framing_is_logged_and_does_not_close_the_port(logged: Logged) -> None:
    """Twisted closes a port whose reader raises: the agent catches first."""
    rig = Rig()
    rig.source.startService()
    rig.source._reader.framer = None
    with capturedLogs() as logs:
        rig.prints(b"one\n")
    assert "log_failure" in logs[0]
    assert logged.expect_failure(AttributeError)
    rig.source._reader.framer = LineFramer()
    rig.prints(b"two\n")
    assert (rig.sink.lines, rig.sink.own) == (["two"], [])
    rig.stop()


def test_what_the_driver_counts_as_lost_is_counted_and_logged() -> None:
    """Characters that the kernel had no room for do not vanish in silence."""
    rig = Rig()
    rig.source.startService()
    rig.clock.advance(60)
    rig.port.counted = LineCounters(overrun=4, buffer_overrun=4, frame=5, parity=1, breaks=7)
    with capturedLogs() as logs:
        rig.clock.pump([60, 60])
    assert [formatEvent(entry) for entry in logs] == [
        "Source panel: the driver reports 3 characters lost and 1 damaged"
    ]
    assert rig.source.line_errors == LineCounters(overrun=1, buffer_overrun=2, frame=1, breaks=7)
    counted = {"overrun": 1, "buffer_overrun": 2, "frame": 1, "parity": 0}
    assert rig.sink.fields("errors") == {"port": "/dev/fake", **counted}
    assert rig.sink.own == ["errors"]
    rig.stop()


def test_long_and_unmatched_frames_are_counted_in_the_closing_line() -> None:
    """What was left out on purpose can be looked up."""
    rig = Rig(rule=[{"match": "^ALARM"}])
    rig.source.startService()
    rig.prints(b"x" * 9000 + b"\nALARM\n")
    with capturedLogs() as logs:
        rig.stop()
    assert (rig.source.frames, rig.source.unmatched, rig.source.skipped_bytes) == (2, 1, 808)
    assert "2 frames were read; 1 of them matched no rule" in formatEvent(logs[0])


# --- how long, how much, and why -----------------------------------------------------------------------


def test_a_loss_and_a_silence_say_how_much_came_before() -> None:
    """A device that never said a word is another case than one that stopped."""
    rig = Rig(silence="90s")
    rig.source.startService()
    rig.prints(b"one\n")
    rig.clock.advance(10)
    rig.prints(b"two\nhal")
    rig.clock.advance(5)
    rig.port.lose(ConnectionDone())
    reason = "it was unplugged, or hung up"
    lost = {"port": "/dev/fake", "reason": reason, "seconds": 15.0, "bytes": 11}
    assert rig.sink.fields("lost") == lost
    rig.advance(1)
    rig.prints(b"three\n")
    assert rig.sink.fields("restored") == {"port": "/dev/fake", "reason": reason, "seconds": 0.1, "bytes": 11}
    rig.clock.pump([91])
    assert rig.sink.fields("silent")["bytes"] == 6
    rig.prints(b"four\n")
    rig.clock.pump([91])
    assert rig.sink.fields("silent")["bytes"] == 5
    rig.stop()


def test_a_port_that_never_opened_had_no_bytes_nor_seconds() -> None:
    """Nothing of an earlier opening is told again."""
    rig = Rig()
    rig.fault = GONE
    rig.clock.advance(7)
    rig.source.startService()
    assert rig.sink.fields("lost") == {
        "port": "/dev/fake",
        "reason": "there is no such device",
        "seconds": 0.0,
        "bytes": 0,
    }
    rig.stop()


def test_another_reason_is_told_only_when_it_lasts() -> None:
    """A port whose rights come a moment after its device costs no line."""
    rig = Rig()
    rig.source.startService()
    rig.prints(b"one\n")
    with capturedLogs() as logs:
        rig.port.lose(ConnectionDone())
        rig.fault = SerialException(errno.EACCES, "could not open port")
        rig.advance(LASTS_S - 1)
        assert len(logs) == 1
        rig.advance(LASTS_S + MAX_DELAY_S)
        assert len(logs) == 2
        rig.advance(3600)
    assert len(logs) == 2
    rig.stop()


def test_a_port_with_ever_new_reasons_does_not_fill_the_log() -> None:
    """Such as one that another program opens each minute, under another number."""
    rig = Rig()
    with capturedLogs() as logs:
        rig.source.startService()
        rig.port.lose(ConnectionDone())
        for number in range(50):
            rig.fault = PortError(f"another process has it open (process {number})")
            rig.advance(60)
    assert len(logs) == 1 + MAX_REASONS
    assert len(rig.source._reasons) == MAX_REASONS
    rig.stop()


def test_what_will_not_come_back_is_not_tried_again() -> None:
    """A file that was read to its end."""
    rig = Rig()
    rig.source.startService()
    rig.port.lose(PortError("this is its end", is_final=True))
    rig.advance(60)
    assert len(rig.tries) == 1
    assert rig.sink.own == ["lost"]
    rig.stop()


def test_bytes_prove_a_port_only_after_as_long_as_its_kind_asks() -> None:
    """A server that says why it has no port, and closes, is tried ever more slowly, and told once."""
    rig = Rig()
    rig.fault = GONE
    rig.source.startService()
    rig.fault = None
    FakePort.proof_s = 0.5
    try:
        for _ in range(20):
            rig.advance(10, until=lambda: len(rig.ports) and rig.source._port is not None)
            rig.prints(b"Device open failure\r\n")
            rig.port.lose(ConnectionDone())
        assert rig.sink.own == ["lost"]
        assert rig.pauses[-1] == MAX_DELAY_S
        rig.advance(10, until=lambda: rig.source._port is not None)
        rig.prints(b"one\n")
        rig.advance(0.4)
        rig.prints(b"two\n")
        assert rig.sink.own == ["lost"]
        rig.advance(0.2)
        assert rig.sink.own == ["lost", "restored"]
    finally:
        FakePort.proof_s = 0.0
    rig.stop()


# --- opening that takes its time -----------------------------------------------------------------------


def test_a_port_that_takes_long_to_open_is_told_and_waited_for() -> None:
    """A driver that hangs is asked once, not again and again; when it answers all is well."""
    rig = Rig()
    rig.opening = Deferred()
    rig.source.startService()
    rig.advance(SLOW_S - 1)
    assert rig.sink.own == []
    rig.advance(60)
    assert rig.sink.fields("lost")["reason"] == "it has not opened for 8 s, and is waited for"
    assert len(rig.tries) == 1
    rig.opening.callback(rig.port)
    rig.prints(b"one\n")
    assert rig.sink.own == ["lost", "restored"]
    rig.stop()


def test_a_port_that_fails_late_is_tried_again() -> None:
    """Whether it fails at once or in a minute."""
    rig = Rig()
    rig.opening = Deferred()
    rig.source.startService()
    rig.advance(60)
    opening, rig.opening = rig.opening, None
    opening.errback(GONE)
    rig.advance(1)
    assert len(rig.tries) == 2
    rig.stop()


def test_a_stop_while_a_port_opens_gives_it_up() -> None:
    """Whatever comes of it is no concern of the source any more."""
    rig = Rig()
    rig.opening = Deferred()
    rig.source.startService()
    rig.stop()
    assert rig.opening.called
    assert rig.source.first_try.called
    assert rig.sink.own == []


# --- what the device is sent ---------------------------------------------------------------------------


class Answering(LineFramer):
    """A framing that answers lines once they are stored, and a question at once."""

    def feed(self, data: bytes, at_s: float = 0.0) -> list[Frame]:
        self.asked = b"?" in data
        return [Frame(frame.data, reply=b"ACK " + frame.data) for frame in super().feed(data, at_s)]

    def replies(self) -> bytes:
        return b"!" if self.asked else b""


def test_a_frame_is_answered_when_its_event_is_in_the_spool() -> None:
    """And at once where no rule makes an event of it."""
    rig = Rig(rule=[{"match": "^ALARM"}])
    rig.source._reader.framer = Answering()
    rig.source.startService()
    rig.prints(b"quiet?\n")
    assert rig.port.sent == [b"!", b"ACK quiet?"]
    rig.prints(b"ALARM 1\nALARM 2\n")
    assert len(rig.port.sent) == 2
    rig.flushes[0].callback(None)
    assert rig.port.sent[2:] == [b"ACK ALARM 1", b"ACK ALARM 2"]
    rig.stop()


def test_a_frame_that_could_not_be_handled_is_not_answered(logged: Logged) -> None:
    """The device sends it again."""
    rig = Rig()
    rig.source._reader.framer = Answering()

    def refuse(event: Event) -> None:
        raise RuntimeError("a mistake")

    rig.source._reader._put = refuse
    rig.source.startService()
    rig.prints(b"one\n")
    assert (rig.port.sent, rig.flushes) == ([], [])
    assert logged.expect_failure(RuntimeError)
    rig.stop()


def test_a_stop_answers_what_it_has_stored_before_it_closes_the_port() -> None:
    """Else the device would send it again to the next agent."""
    rig = Rig()
    rig.source._reader.framer = Answering()
    rig.source.startService()
    rig.port.held = b"last\n"
    stopped = rig.source.stopService()
    assert not stopped.called
    assert not rig.port.is_reading
    rig.flushes[0].callback(None)
    rig.clock.advance(0.1)
    assert stopped.called
    assert rig.port.sent == [b"ACK last"]
    assert rig.clock.getDelayedCalls() == []


def test_a_stop_does_not_wait_for_a_port_that_is_lost_meanwhile() -> None:
    """There is nobody to answer."""
    rig = Rig()
    rig.source._reader.framer = Answering()
    rig.source.startService()
    rig.prints(b"one\n")
    stopped = rig.source.stopService()
    rig.port.lose(ConnectionDone())
    rig.clock.advance(0.1)
    assert stopped.called
    assert rig.clock.getDelayedCalls() == []


def test_a_poll_is_skipped_while_the_port_is_away() -> None:
    """And comes at once when it is back."""
    rig = Rig(poll={"send": "?", "every": "10s"}, on_open="hello")
    rig.source.startService()
    rig.advance(15)
    assert rig.port.sent == [b"hello", b"?", b"?"]
    rig.port.lose(ConnectionDone())
    rig.fault = GONE
    rig.advance(100)
    rig.fault = None
    rig.advance(10, until=lambda: len(rig.ports) == 2)
    assert rig.port.sent == [b"hello", b"?"]
    rig.stop()


# --- time for a framing --------------------------------------------------------------------------------


class Gap(LineFramer):
    """A framing that ends a frame a second after its last byte."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks: list[float] = []

    def feed(self, data: bytes, at_s: float = 0.0) -> list[Frame]:
        self.held, self.deadline_s = data, at_s + 1
        return []

    def tick(self, now_s: float) -> list[Frame]:
        self.ticks.append(now_s)
        if self.deadline_s is None or now_s < self.deadline_s:
            return []
        self.deadline_s = None
        return [Frame(self.held)]

    def flush(self) -> Frame | None:
        self.deadline_s = None
        return None


def test_a_framing_is_called_when_its_time_has_come() -> None:
    """A pause ends a frame though nothing comes any more."""
    rig = Rig()
    framer = rig.source._reader.framer = Gap()
    rig.source.startService()
    for _ in range(10):
        rig.prints(b"one")
        rig.advance(0.5)
    assert rig.sink.lines == []
    rig.advance(10)
    assert rig.sink.lines == ["one"]
    assert len(framer.ticks) <= 10
    rig.prints(b"two")
    rig.port.lose(ConnectionDone())
    rig.fault = GONE
    rig.advance(5)
    assert rig.sink.lines == ["one"]
    rig.stop()


# --- floods and what can wait --------------------------------------------------------------------------


def test_a_flood_is_thinned_by_rule_counted_and_told() -> None:
    """It begins at once and ends with what was left out; critical events are all there."""
    rules = [{"name": "alarm", "match": "^ALARM", "priority": "critical"}, {"match": "^door"}]
    rig = Rig(max_rate=10, rule=rules, unmatched="send")
    rig.source.startService()
    with capturedLogs() as logs:
        rig.prints(b"tick\n" * 10 + b"door\n" * 5 + b"ALARM\n" * 5 + b"tick\n" * 5)
        assert rig.sink.fields("flood") == {"port": "/dev/fake", "state": "began", "max_rate": 10}
        assert rig.sink.lines == ["tick"] * 10 + ["door"] + ["ALARM"] * 5
        rig.advance(10)
    assert rig.source.counters.thinned == 9
    assert rig.sink.own == ["flood", "flood"]
    ended = {"state": "ended", "seconds": 0.0, "thinned": 9, "by_rule": {"rule 2": 4, "unmatched": 5}}
    assert rig.sink.fields("flood") == {"port": "/dev/fake", **ended}
    assert len(logs) == 2
    assert rig.source.frames == 25
    rig.prints(b"tick\n")
    assert rig.sink.lines[-1] == "tick"
    rig.stop()


def test_a_flood_ends_with_its_port() -> None:
    """What was left out is told, also at a stop."""
    rig = Rig(max_rate=1)
    rig.source.startService()
    rig.prints(b"a\n" * 5)
    rig.port.lose(ConnectionDone())
    assert rig.sink.own == ["flood", "flood", "lost"]
    rig.advance(1)
    rig.prints(b"a\n" * 5)
    with capturedLogs() as logs:
        rig.stop()
    assert rig.sink.own[3:] == ["restored", "flood", "flood"]
    assert "8 events were left out in floods" in formatEvent(logs[-1])


def test_what_can_wait_is_read_no_faster_than_it_is_stored() -> None:
    """A file is paused; a serial line cannot be."""
    rig = Rig()
    rig.source.startService()
    rig.prints(b"x" * AHEAD_BYTES + b"\n")
    assert rig.port.is_reading
    rig.port.can_wait = True
    rig.prints(b"x" * AHEAD_BYTES + b"\n")
    assert not rig.port.is_reading
    rig.flushes[0].callback(None)
    assert rig.port.is_reading
    rig.stop()


# --- the line ------------------------------------------------------------------------------------------


def test_errors_of_the_line_are_told_once_a_minute_at_most() -> None:
    """However often the port comes and goes; what was not told is told with the next."""
    rig = Rig()
    rig.source.startService()
    for _ in range(10):
        counted = rig.port.counted
        assert counted is not None
        rig.port.counted = counted._replace(parity=counted.parity + 1)
        rig.port.lose(ConnectionDone())
        rig.advance(1, until=lambda: rig.source._port is not None)
        rig.prints(b"x\n")
    assert rig.sink.own.count("errors") == 1
    rig.advance(61)
    assert rig.sink.own.count("errors") == 2
    assert rig.sink.fields("errors")["parity"] == 9
    assert rig.source.line_errors == LineCounters(parity=10)
    rig.stop()


def test_a_driver_that_begins_to_count_anew_has_added_nothing() -> None:
    """Counters that go back are no errors."""
    rig = Rig()
    rig.source.startService()
    rig.port.counted = LineCounters()
    rig.advance(61)
    rig.port.counted = LineCounters(overrun=1)
    rig.advance(61)
    assert rig.source.line_errors == LineCounters(overrun=1)
    rig.stop()
