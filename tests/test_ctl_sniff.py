"""``notifyctl sniff``: frames as they come, and how the port is to be read."""

from __future__ import annotations

import itertools

import pytest

from notifyd import config_agent
from notifyd.agent import guess
from notifyd.ctl.sniff import _table
from notifyd.ctl.sniffing import GATHER_S, Sample, Sniffer, find_rate
from tests.fakehub import run
from tests.serialtools import settings
from tests.test_guess import NMEA, TEXT, at_another_rate


class Device:
    """A port whose device sends at one rate, by a clock that reading moves."""

    def __init__(self, data: bytes, sent: int, *, refuses: int = 0, speaks: bool = True) -> None:
        self.seconds = 0.0
        self.rates: list[int] = []
        self._data, self._sent, self._refuses, self._speaks = data, sent, refuses, speaks
        self._errors = 0

    def now(self) -> float:
        return self.seconds

    def read(self) -> bytes:
        self.seconds += 0.5
        if not self._speaks:
            return b""
        read, errors = at_another_rate(self._data[:200], self._sent, self.rates[-1])
        self._errors += errors
        return read

    def set_rate(self, baudrate: int) -> bool:
        self.rates.append(baudrate)
        return baudrate != self._refuses

    def damaged(self) -> int:
        return self._errors


def find(device: Device) -> tuple[int | None, bytes, list[int]]:
    """Finds a rate, and gives which were tried."""
    tried: list[int] = []
    rate, data = find_rate(device, lambda rate, score: tried.append(rate), now=device.now)
    return rate, data, tried


@pytest.mark.parametrize("sent", [9600, 115200, 2400, 300])
def test_the_rate_of_a_device_is_found(sent: int) -> None:
    """The common ones are tried first, and none after the one that it is; what was read at it is not lost."""
    device = Device(NMEA, sent)
    rate, data, tried = find(device)
    assert rate == sent
    assert tried == list(guess.RATES[: guess.RATES.index(sent) + 1])
    assert device.rates[-1] == sent
    assert NMEA[:200] in data


def test_a_device_that_says_nothing_has_no_rate() -> None:
    """Each was listened to for a while; a rate that the port cannot do is left out."""
    device = Device(TEXT, 9600, refuses=19200, speaks=False)
    rate, data, tried = find(device)
    assert (rate, data) == (None, b"")
    assert tried == [rate for rate in guess.RATES if rate != 19200]


def shown(sniffer: Sniffer, reads: list[tuple[float, bytes]]) -> list[str]:
    """Gives all lines, without their times."""
    lines = [line for at_s, data in reads for line in sniffer.take(at_s, data)]
    lines += sniffer.end(reads[-1][0])
    return [line[14:] if line[:1].isdigit() or line.startswith(" ") else line for line in lines]


def test_frames_are_shown_raw_and_as_the_rules_see_them() -> None:
    """No byte commands the terminal."""
    rules = [{"match": "^A(?P<zone>.*)", "type": "a", "name": "first", "priority": "critical"}]
    source = settings(rule=rules, encoding="latin-1")
    sniffer = Sniffer(source, source, has_rules=True, wall=0.0)
    assert shown(sniffer, [(0.0, b"A\xfc\x1b[2J\r\nB"), (1.0, b"\n"), (2.0, b"C")]) == [
        r"A\xfc\x1b[2J",
        r"Aü\x1b[2J",
        r"→ a critical (first) zone=ü\x1b[2J",
        "B",
        "→ dropped: no rule matches",
        "C (cut)",
        "→ dropped: no rule matches",
    ]


def test_the_framing_is_guessed_from_what_comes_first() -> None:
    """Which is shown then, so that nothing is missing."""
    sniffer = Sniffer(None, settings(), has_rules=False, wall=0.0)
    assert list(sniffer.take(0.0, NMEA[:100])) == []
    assert list(sniffer.take(GATHER_S, b"")) != []
    lines = shown(sniffer, [(4.0, NMEA[100:])])
    assert lines[-1] == NMEA.split(b"\r\n")[-2].decode()
    assert sniffer.guessed is not None
    assert sniffer.guessed.framing == "nmea"


def test_what_comes_before_the_end_is_shown_although_it_was_too_little_to_guess() -> None:
    """One line."""
    sniffer = Sniffer(None, settings(), has_rules=False, wall=0.0)
    lines = shown(sniffer, [(0.0, b"hello\r\n")])
    assert lines == ["framing line: 1 lines of text", "hello"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (NMEA, {"framing": "nmea"}),
        (b"".join(b"\x02T%03d\x03%c" % (n, guess.xor(b"T%03d\x03" % n)) for n in range(200)), {"checksum": "bcc"}),
        (TEXT.replace(b"\r\n", b"\x1e"), {"framing": "line", "delimiter": "\x1e"}),
        (bytes(byte | (byte.bit_count() & 1) << 7 for byte in TEXT), {"bytesize": 7, "parity": "E"}),
    ],
)
def test_the_table_at_the_end_can_be_pasted(data: bytes, expected: dict[str, object]) -> None:
    """It has what was found."""
    sniffer = Sniffer(None, settings(), has_rules=False, wall=0.0)
    for _ in itertools.chain(sniffer.take(0.0, data), sniffer.end(0.1)):
        pass
    (source,) = config_agent.parse_agent(_table(settings("/dev/ttyUSB0"), sniffer), "pasted").source
    assert {key: getattr(source, key) for key in expected} == expected


def test_what_is_kept_for_the_guess_is_bounded() -> None:
    """A port may be looked at for days."""
    sample = Sample()
    for number in range(20_000):
        sample.add(number / 1000, b"x")
    assert len(sample.reads) <= 10_000
    many = Sample()
    for _ in range(100):
        many.add(0.0, b"x" * 4096)
    assert len(many.data) <= guess.MAX_SAMPLE + 4096


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/none"], "/none: there is no such device"),
        (["/dev/null"], "/dev/null: it is no serial port"),
        (["/none", "--baud", "fast"], "expected auto or a number of bits a second"),
        (["/none", "--source", "x"], "--source needs --config"),
        (["/none", "--framing", "x"], "is not one of"),
        (["/none", "--config", "/none.toml"], "/none.toml"),
    ],
)
def test_what_cannot_be_sniffed_is_told(arguments: list[str], said: str) -> None:
    """In one line."""
    status, out, err = run("sniff", *arguments)
    assert said in err
    assert (status != 0, out) == (True, "")
    assert len(err.splitlines()) == 1
