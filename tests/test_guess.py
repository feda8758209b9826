"""Guessing rate and framing from bytes: those of real devices, and what a wrong rate makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.agent import guess

DATA = Path(__file__).parents[2] / "shared" / "data"
RECORDINGS = sorted(DATA.glob("*/*.log")) + sorted(DATA.glob("*/*.txt"))


def at_another_rate(data: bytes, sent: int, read: int) -> tuple[bytes, int]:
    """Gives what a UART at rate ``read`` makes of bytes sent back to back at ``sent``, and its framing errors."""
    bits: list[int] = [1] * 20
    for byte in data:
        bits += [0, *((byte >> position) & 1 for position in range(8)), 1]
    bits += [1] * 20

    def level(time: float) -> int:
        return bits[min(len(bits) - 1, int(time * sent))]

    def until(wanted: int, time: float) -> float:
        place = min(len(bits) - 1, int(time * sent))
        if bits[place] == wanted:
            return time
        return bits.index(wanted, place) / sent if wanted in bits[place:] else len(bits) / sent

    result, errors, time = bytearray(), 0, 0.0
    end = len(bits) / sent
    while (time := until(0, time) + 0.5 / read) < end:  # the middle of a start bit
        if level(time):
            continue
        result.append(sum(level(time + (position + 1) / read) << position for position in range(8)))
        time += 9 / read
        errors += not level(time)
        time = until(1, time)  # a line that is held low is one damaged character
    return bytes(result), errors


TEXT = b"".join(b"ALARM %d smoke in the kitchen\r\n" % number for number in range(40))
NMEA = b"".join(
    b"$%s*%02X\r\n" % (text, guess.xor(text))
    for text in (b"GPGGA,1139%02d.50,3842.86,N,11705.43,W,2,09" % n for n in range(40))
)


@pytest.mark.parametrize("data", [TEXT, NMEA], ids=["text", "nmea"])
@pytest.mark.parametrize("sent", [1200, 9600, 19200, 115200])
@pytest.mark.parametrize("counts", [True, False])
def test_the_right_rate_wins_over_every_other(data: bytes, sent: int, counts: bool) -> None:
    """With and without a driver that counts damaged characters; no wrong rate is called sure."""
    scores = {}
    for rate in guess.RATES:
        read, errors = at_another_rate(data[:400], sent, rate)
        scores[rate] = guess.score(read, errors if counts else 0)
    assert guess.best(scores) == sent
    assert [rate for rate, score in scores.items() if score.value >= guess.SURE] == [sent]
    assert guess.best({rate: score for rate, score in scores.items() if rate != sent}) is None


def test_nothing_is_believed_of_silence_or_noise() -> None:
    """Too few bytes, and bytes of all values."""
    noise = random.Random(7).randbytes(2000)
    assert guess.best({}) is None
    assert guess.best({9600: guess.score(b""), 4800: guess.score(b"$GP"), 2400: guess.score(noise)}) is None


@pytest.mark.skipif(not RECORDINGS, reason="the recordings are not beside the checkout")
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recordings_of_devices_are_recognised(path: Path) -> None:
    """All are NMEA, but for one that is binary for the most part, and one that is damaged nearly everywhere."""
    data = path.read_bytes()
    found = guess.guess_framing(data)
    if path.stem in ("tcp-torture", "ublox-neo-m8n"):
        return
    assert (found.framing, found.confidence) == ("nmea", 1.0)
    assert guess.score(data).value >= guess.SURE
    assert guess.guess_parity(data) == (8, "N")


def crc_message(text: bytes) -> bytes:
    """A message of DC-09."""
    return b"\n%04X0%03X%s\r" % (guess.crc16(text), len(text), text)


def telegram(number: int) -> bytes:
    """A telegram of a smart meter."""
    text = b"/ISk5\\2MT382-1000\r\n\r\n1-0:1.8.1(00%04d.789*kWh)\r\n!" % number
    return b"%s%04X\r\n" % (text, guess.crc16(text))


def espa(number: int) -> bytes:
    """A poll and a block of ESPA 4.4.4."""
    block = b"1\x021\x1f%d\x1e2\x1fROOM %d\x03" % (number, number)
    return b"1\x052\x05\x01" + block + bytes([guess.xor(block)])


def checked(check: Callable[[bytes], int]) -> bytes:
    """Frames from STX to ETX with a check behind."""
    return b"".join(b"\x02%b\x03%c" % (text, check(text)) for text in (b"T%03d" % number for number in range(9)))


CONTACT = [b"123418113101015", b"123418313001002"]


def contact_id(message: bytes) -> bytes:
    """A message of Contact ID with its check."""
    missing = -sum(int(chr(digit), 16) or 10 for digit in message) % 15 or 15
    return message + b"%X" % (0 if missing == 10 else missing)


@pytest.mark.parametrize(
    ("data", "framing", "settings"),
    [
        (b"".join(telegram(number) for number in range(3)), "dsmr", {}),
        (b"".join(crc_message(b'"SIA-DCS"%04dL0#1234[#1234|NFA129]' % n) for n in range(3)), "dc09", {}),
        (b"".join(espa(number) for number in range(5)), "espa444", {}),
        (b"1\x052\x05" * 20, "espa444", {}),
        (b"".join(b"101118%04dE13001%03d\x14" % (n, n) for n in range(5)), "surgard", {}),
        (checked(lambda text: guess.xor(text + b"\x03")), "stx-etx", {"checksum": "bcc"}),
        (checked(guess.xor), "stx-etx", {"checksum": "xor"}),
        (checked(lambda text: sum(text) & 255), "stx-etx", {"checksum": "sum8"}),
        (b"".join(b"\x02weight %03d kg\x03" % n for n in range(9)), "stx-etx", {}),
        (b"\r\n".join(map(contact_id, CONTACT * 3)), "contact-id", {}),
        (TEXT, "line", {}),
        (TEXT.replace(b"\r\n", b"\r"), "line", {}),
        (TEXT.replace(b"\r\n", b"\0"), "line", {"delimiter": "\0"}),
        (b"".join(b"\xaa\x55" + random.Random(n).randbytes(9) for n in range(60)), "fixed", {"length": 11}),
    ],
)  # fmt: skip
def test_framings_are_recognised(data: bytes, framing: str, settings: dict[str, object]) -> None:
    """By checksums that hold where there are some, else by what ends a message; also from the middle of one on."""
    for cut in (0, 3):
        found = guess.guess_framing(data[cut:])
        assert (found.framing, dict(found.settings)) == (framing, settings)
        assert found.confidence > 0.5


def test_bursts_are_told_apart_by_their_pauses() -> None:
    """A second between them, milliseconds within: the gap lies between."""
    noise = random.Random(1).randbytes(300)
    reads = [(burst + part * 0.004, 10) for burst in range(10) for part in range(3)]
    found = guess.guess_framing(noise, reads)
    assert found.framing == "gap"
    assert 8 <= int(str(found.settings["gap"]).removesuffix("ms")) <= 900
    alone = guess.guess_framing(noise, [(float(second), 30) for second in range(10)])
    assert (alone.framing, alone.settings["gap"]) == ("gap", "500ms")
    assert guess.guess_framing(noise, [(moment / 100, 3) for moment in range(100)]).confidence == 0.0


@pytest.mark.parametrize(("bytesize", "parity"), [(7, "E"), (7, "O"), (7, "M"), (8, "N")])
def test_parity_is_seen_in_the_eighth_bit(bytesize: int, parity: str) -> None:
    """Of a line that was read with 8 bits and none."""
    high = {
        "N": lambda byte: 0,
        "E": lambda byte: byte.bit_count() & 1,
        "O": lambda byte: 1 - (byte.bit_count() & 1),
        "M": lambda byte: 1,
    }[parity]
    read = bytes(byte | high(byte) << 7 for byte in TEXT)
    assert guess.guess_parity(read) == (bytesize, parity)
    assert guess.guess_parity(random.Random(3).randbytes(500)) == (8, "N")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 100)), max_size=50))
def test_any_bytes_are_judged(data: bytes, reads: list[tuple[float, int]]) -> None:
    """A score from 0 to 1 and a framing that a source takes, whatever comes."""
    found = guess.guess_framing(data, sorted(reads))
    assert 0 <= found.confidence <= 1
    assert 0 <= guess.score(data, len(data) // 3).value <= 1
    guess.guess_parity(data)
    assert 0 <= guess.text_share(data) <= 1


@given(
    st.lists(st.sampled_from([b"/ABC5", b"!", b"\x01", b"\x02", b"\x03", b"$", b"*", b"\n", b'"', b"0", b"1-0:1.8.1"]))
)
def test_what_looks_like_a_beginning_is_judged_soon(parts: list[bytes]) -> None:
    """No pattern of a device makes the search long: it is over 32 KiB at most."""
    unit = b"".join(parts) or b"/ABC5"
    guess.guess_framing(unit * (guess.MAX_SAMPLE // len(unit)))


def test_the_checksums_are_those_of_the_standards() -> None:
    """The check value of CRC-16/ARC, and a sentence of NMEA 0183."""
    assert guess.crc16(b"123456789") == 0xBB3D
    assert guess.xor(b"GPGSA,A,1,,,,,,,,,,,,,50.0,50.0,50.0") == 0x05
