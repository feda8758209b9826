"""The supervision of a serial port, with a port and a clock that are moved by hand."""

from __future__ import annotations

import errno

import pytest
from serial import SerialException
from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs, formatEvent

from notifyd.agent.framing import LineFramer
from notifyd.agent.linecounters import LineCounters
from notifyd.agent.serialport import MAX_DELAY_S, STEADY_S
from notifyd.event import Event
from tests.conftest import Logged
from tests.serialrig import GONE, Rig


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
