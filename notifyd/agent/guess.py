"""Guesses how a port is set and how its device frames, from the bytes that come. Pure.

Sources of the checks: NMEA 0183; the DSMR P1 companion standard 5.0.2; ANSI/SIA DC-09-2021; SIA DC-05 (Contact ID);
ESPA 4.4.4.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from notifyd.agent.framing.checksums import crc16, xor
from notifyd.config_agent import FramingName

RATES = (9600, 19200, 115200, 4800, 2400, 38400, 57600, 1200, 230400, 300)
"""Rates to be tried, the most common first."""

ENOUGH = 32
"""Bytes below which nothing is guessed: garbage looks like anything."""

SURE = 0.9
"""A score at which no other rate need be tried."""

POSSIBLE = 0.7
"""A score below which a rate is not believed."""

MAX_SAMPLE = 32 * 1024
"""Bytes that are looked at; more do not make it surer."""

MAX_LENGTH = 256
"""Bytes of a fixed frame that are tried."""

_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\r\n\t")
_CONTROLS = frozenset(b"\x01\x02\x03\x04\x05\x06\x10\x14\x15\x16\x17")


@dataclass(frozen=True)
class FramingGuess:
    """How frames seem to be told apart.

    Attributes:
        framing: as in ``agent.toml``.
        why: for people.
        confidence: from 0 to 1; 1 where checksums hold.
        settings: further keys of the source.
    """

    framing: FramingName
    why: str
    confidence: float
    settings: Mapping[str, str | int | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """How well bytes look like what a device says.

    Attributes:
        value: from 0 to 1.
        why: for people.
    """

    value: float
    why: str


# --- the line's settings -----------------------------------------------------------------------------------


def score(data: bytes, errors: int = 0) -> Score:
    """Judges what was read at one rate.

    Args:
        data: the bytes.
        errors: how many characters the driver has called damaged meanwhile.
    """
    if len(data) < ENOUGH:
        return Score(0.0, f"{len(data)} bytes are too few")
    sample = data[:MAX_SAMPLE]
    found = guess_framing(sample)
    damaged = min(1.0, errors / len(data))
    if found.confidence >= 1.0:
        return Score(1.0 - damaged / 2, found.why)
    text = text_share(sample)
    # A wrong rate makes of letters now and then others that can be printed, but no line ends at even distances.
    lines = 1.0 if re.search(rb"[\r\n]", sample) or found.confidence >= 0.8 else 0.85
    return Score(text * lines * (1.0 - damaged), f"{text:.0%} of it is text")


def best(scores: Mapping[int, Score]) -> int | None:
    """Gives the rate with the best score, None where none is to be believed."""
    rate = max(scores, key=lambda each: scores[each].value, default=None)
    return None if rate is None or scores[rate].value < POSSIBLE else rate


def text_share(data: bytes) -> float:
    """Gives which part of the bytes is ASCII text, or a control that devices frame with."""
    known = _TEXT | _CONTROLS
    return sum(count for byte, count in Counter(data).items() if byte in known) / len(data) if data else 0.0


def guess_parity(data: bytes) -> tuple[int, str]:
    """Gives ``bytesize`` and ``parity`` of a line that was read with 8 bits and none.

    A line of 7 bits with parity then shows the parity as the eighth bit of each byte.
    """
    if len(data) < ENOUGH or all(byte < 0x80 for byte in data):
        return 8, "N"
    if text_share(bytes(byte & 0x7F for byte in data)) < SURE:
        return 8, "N"
    odd = sum(byte.bit_count() & 1 for byte in data)
    if odd == 0:
        return 7, "E"
    if odd == len(data):
        return 7, "O"
    return (7, "M") if all(byte & 0x80 for byte in data) else (8, "N")


# --- framing ---------------------------------------------------------------------------------------------


def guess_framing(data: bytes, reads: Sequence[tuple[float, int]] = ()) -> FramingGuess:
    """Gives the most likely framing.

    Args:
        data: what the device has printed.
        reads: when how many of these bytes came, in seconds: for frames that are told apart by pauses.
    """
    data = data[:MAX_SAMPLE]
    checks: tuple[Callable[[bytes], FramingGuess | None], ...] = (
        _dsmr, _dc09, _nmea, _espa444, _surgard, _stx_etx, _contact_id, _lines, _delimited,
    )  # fmt: skip
    for check in checks:
        if (found := check(data)) is not None:
            return found
    return _gap(reads) or _fixed(data) or FramingGuess("line", "nothing better fits", 0.0)


def _holding(found: Iterable[bool]) -> tuple[int, int]:
    verdicts = list(found)
    return sum(verdicts), len(verdicts)


def _nmea(data: bytes) -> FramingGuess | None:
    sentences = re.findall(rb"[$!]([^$!*\r\n]{3,120})\*([0-9A-Fa-f]{2})[\r\n]", data)
    good, seen = _holding(xor(text) == int(told, 16) for text, told in sentences)
    if good < 2 or good * 2 < seen:
        return None
    return FramingGuess("nmea", f"{good} of {seen} NMEA checksums hold", 1.0)


def _dsmr(data: bytes) -> FramingGuess | None:
    telegrams = re.findall(rb"(/[^/!]{8,4096}!)([0-9A-F]{4})\r?\n", data)
    good, seen = _holding(crc16(text) == int(told, 16) for text, told in telegrams)
    if good:
        return FramingGuess("dsmr", f"{good} of {seen} DSMR telegrams have a CRC that holds", 1.0)
    if re.search(rb"/[A-Za-z]{3}[0-9][^/!]{8,4096}\d-\d:\d+\.\d+\.\d+[^/!]{1,4096}!\r?\n", data):
        return FramingGuess("dsmr", "telegrams from / to ! with OBIS codes", 0.9)
    return None


def _dc09(data: bytes) -> FramingGuess | None:
    messages = re.findall(rb'\n([0-9A-F]{4})0([0-9A-F]{3})("[^\r\n]{4,2048})\r', data)
    good, seen = _holding(crc16(text) == int(crc, 16) and int(size, 16) == len(text) for crc, size, text in messages)
    return FramingGuess("dc09", f"{good} of {seen} DC-09 messages have a CRC that holds", 1.0) if good else None


def _espa444(data: bytes) -> FramingGuess | None:
    blocks = re.findall(rb"\x01([^\x01\x03]{1,8}\x02[^\x03]{1,512}\x03)(.)", data, re.DOTALL)
    good, seen = _holding(xor(block) & 0x7F == told[0] & 0x7F for block, told in blocks)
    if good:
        return FramingGuess("espa444", f"{good} of {seen} ESPA 4.4.4 blocks have a check that holds", 1.0)
    if len(re.findall(rb"[0-9]\x05[0-9]\x05", data)) >= 3:
        return FramingGuess("espa444", "a station polls others with ENQ", 0.9)
    return None


def _surgard(data: bytes) -> FramingGuess | None:
    found = re.findall(rb"[0-9A-Za-z@][ -~]{4,80}\x14", data)
    if len(found) >= 2 and sum(map(len, found)) * 2 > len(data):
        return FramingGuess("surgard", f"{len(found)} messages end with DC4", 0.95)
    return None


def _stx_etx(data: bytes) -> FramingGuess | None:
    frames = re.findall(rb"\x02([^\x02\x03]{1,1024})\x03(?=(.?))", data, re.DOTALL)
    if len(frames) < 2 or sum(len(text) + 2 for text, _ in frames) * 2 < len(data):
        return None
    checks: dict[str, Callable[[bytes], int]] = {
        "bcc": lambda text: xor(text) ^ 3,
        "xor": xor,
        "sum8": lambda text: sum(text) & 0xFF,
    }
    whole = [(text, told[0]) for text, told in frames if told]
    for name, check in checks.items():
        good = sum(check(text) == told for text, told in whole)
        if good >= 2 and good * 2 > len(whole):
            why = f"{good} of {len(whole)} frames from STX to ETX have a check ({name}) that holds"
            return FramingGuess("stx-etx", why, 1.0, {"checksum": name})
    return FramingGuess("stx-etx", f"{len(frames)} frames from STX to ETX", 0.9)


def _contact_id(data: bytes) -> FramingGuess | None:
    """Contact ID: 16 digits, of which 0 counts as 10 and the sum is a multiple of 15."""
    messages = re.findall(rb"(?<![0-9A-Fa-f])[0-9B-F]{4}(?:18|98)[136][0-9B-F]{9}(?![0-9A-Fa-f])", data)
    good, seen = _holding(sum(int(chr(digit), 16) or 10 for digit in message) % 15 == 0 for message in messages)
    if good < 2 or good * 2 < seen:
        return None
    return FramingGuess("contact-id", f"{good} of {seen} Contact ID messages have a check that holds", 1.0)


def _lines(data: bytes) -> FramingGuess | None:
    ends = len(re.findall(rb"\r\n|\r|\n", data))
    if ends == 0 or text_share(data) < POSSIBLE:
        return None
    return FramingGuess("line", f"{ends} lines of text", 0.9 if ends > 1 else 0.6)


def _delimited(data: bytes) -> FramingGuess | None:
    """Text whose messages end with one other control character, or a NUL."""
    controls = Counter(byte for byte in data if byte < 0x20)
    if not controls or text_share(bytes(byte for byte in data if byte >= 0x20)) < SURE:
        return None
    byte, count = controls.most_common(1)[0]
    if count < 2 or count * 2 < sum(controls.values()) or count * 2 > len(data):
        return None
    return FramingGuess("line", f"{count} messages end with the byte 0x{byte:02x}", 0.7, {"delimiter": chr(byte)})


def _gap(reads: Sequence[tuple[float, int]]) -> FramingGuess | None:
    """Bursts: some pauses are many times as long as all others."""
    pauses = sorted(after[0] - before[0] for before, after in itertools.pairwise(reads))
    if len(pauses) < 3:
        return None
    if pauses[0] >= 0.05:  # each read is a burst of its own
        return FramingGuess("gap", f"{len(reads)} bursts", 0.6, {"gap": _milliseconds(pauses[0] / 2)})
    steps = [(after / max(before, 0.001), index) for index, (before, after) in enumerate(itertools.pairwise(pauses))]
    step, index = max(steps)
    if step < 5 or len(pauses) - index - 1 < 2 or pauses[index + 1] < 0.005:
        return None
    gap = max(pauses[index] * 2, pauses[index + 1] / 4)
    return FramingGuess("gap", f"{len(pauses) - index} bursts", 0.6, {"gap": _milliseconds(gap)})


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _fixed(data: bytes) -> FramingGuess | None:
    """Frames of one length: bytes are like those one length before, more often than at any other distance."""
    if len(data) < 4 * ENOUGH:
        return None
    sample = data[:4096]
    shares = {
        length: sum(map(operator.eq, sample, sample[length:])) / (len(sample) - length)
        for length in range(2, min(MAX_LENGTH, len(sample) // 4) + 1)
    }
    usual = sorted(shares.values())[len(shares) // 2]
    top = max(shares.values())
    if top < 0.15 or top < usual * 2 + 0.05:
        return None
    length = next(length for length, share in shares.items() if share >= usual + (top - usual) * 0.8)
    return FramingGuess("fixed", f"bytes repeat every {length}", 0.6, {"length": length})
