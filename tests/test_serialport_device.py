"""A source: what the device is sent, framings that need time, floods, and errors of the line."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs, formatEvent

from notifyd.agent.framing import Frame, LineFramer
from notifyd.agent.linecounters import LineCounters
from notifyd.agent.serialport import AHEAD_BYTES
from notifyd.event import Event
from tests.conftest import Logged
from tests.serialrig import GONE, Rig

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
