"""Times as RFC 3339 (section 5.6), which is how CloudEvents writes them."""

from __future__ import annotations

import calendar
import datetime as dt
import functools
import math
import re
from collections.abc import Sequence

_RFC3339 = re.compile(
    r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]"
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


_OWN_LENGTH = len("2026-11-22T10:00:00.000000Z")
_FIRST_S = dt.datetime(1, 1, 1, tzinfo=dt.UTC).timestamp()
_LAST_S = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp()


def is_rfc3339(text: str) -> bool:
    """Tells whether ``text`` is a date-time of RFC 3339; a leap second counts as one."""
    if len(text) == _OWN_LENGTH and text[-1] == "Z" and text[20:-1].isdigit() and text.isascii():
        return _is_moment(text[:20] + "0Z")  # notifyd's own form: many events share a second
    return _is_moment.__wrapped__(text)


def are_rfc3339(texts: Sequence[str]) -> bool:
    """Tells whether all of ``texts`` are date-times of RFC 3339; costs least where they are in notifyd's own form."""
    if len(texts) == 1:
        return is_rfc3339(texts[0])
    joined = "".join(texts)
    own = set(map(len, texts)) == {_OWN_LENGTH} and joined.isascii()
    if not (own and joined[_OWN_LENGTH - 1 :: _OWN_LENGTH] == "Z" * len(texts)):
        return all(map(is_rfc3339, texts))
    fraction = "".join(joined[place::_OWN_LENGTH] for place in range(20, _OWN_LENGTH - 1))
    if not fraction.isdigit():
        return False
    seconds = {texts[0][:20]}
    if joined.count(texts[0][:20]) < len(texts):
        seconds = {text[:20] for text in texts}
    return all(_is_moment(second + "0Z") for second in seconds)


@functools.lru_cache(maxsize=256)
def _is_moment(text: str) -> bool:
    match = _RFC3339.fullmatch(text)
    if match is None:
        return False
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    return day <= 28 or (year > 0 and day <= calendar.monthrange(year, month)[1])


def format_time(seconds: float) -> str:
    """Gives ``seconds`` since 1970 as RFC 3339 in UTC with microseconds, as in ``2026-11-22T10:00:00.000000Z``.

    A moment before the year 1 or after the year 9999 becomes the first or the last that can be written.
    """
    fraction, whole = math.modf(min(max(seconds, _FIRST_S), _LAST_S))
    more, microseconds = divmod(round(fraction * 1_000_000), 1_000_000)
    return f"{_second(int(whole) + more)}.{microseconds:06}Z"


@functools.lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()[:-6]


def parse_time(text: str) -> float:
    """Gives an RFC 3339 time in seconds since 1970; a leap second counts as the second before it.

    Raises:
        ValueError: ``text`` is no RFC 3339 time.
    """
    if not is_rfc3339(text):
        raise ValueError(f"{text!r} is no RFC 3339 time such as 2026-11-22T10:00:00Z")
    text = text.upper()
    if text.startswith("0000"):
        return _FIRST_S  # RFC 3339 has a year 0, datetime has not
    if text[17:19] == "60":
        text = text[:17] + "59" + text[19:]
    return dt.datetime.fromisoformat(text).timestamp()
