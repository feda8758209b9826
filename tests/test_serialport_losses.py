"""A source: how long, how much and why it was lost, and ports that take long to open."""

from __future__ import annotations

import errno

from serial import SerialException
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs

from notifyd.agent.port import PortError
from notifyd.agent.serialport import LASTS_S, MAX_DELAY_S, MAX_REASONS, SLOW_S
from tests.serialrig import GONE, Rig
from tests.serialtools import FakePort

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
