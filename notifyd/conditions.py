"""Conditions on a value: whether it is what is asked for, and if not, why not. Rules of both daemons use them."""

from __future__ import annotations

import fnmatch
import json
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from notifyd.config import Comparison, Scalar

ABSENT = object()
"""The value that stands where nothing does."""

MAX_SHOWN = 100
"""Characters of a value in a sentence for an operator: enough to know it again."""

_MAX_LISTED = 10
"""Values of a list in a sentence."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]+)?")
_WILD = re.compile(r"[*?\[]")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class Pattern:
    """A glob over a whole text, in which upper case differs from lower; without a wildcard it is the text itself."""

    __slots__ = ("exact", "fits", "inside", "missed", "prefix", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.exact = _WILD.search(text) is None
        self.missed = f"not {shown(text)}" if self.exact else f"not like {shown(text)}"
        literal = text.strip("*")
        self.prefix: str | None = None
        """What a text must begin with, where this is all that is asked of it."""
        self.inside: str | None = None
        """What must stand anywhere in a text, where this is all that is asked of it."""
        self.fits: Callable[[str], object]
        if self.exact:
            self.fits = text.__eq__
        elif _WILD.search(literal) is not None:
            self.fits = re.compile(fnmatch.translate(text)).match
        elif text[0] != "*":
            self.prefix = literal
            self.fits = lambda text: text.startswith(literal)
        elif text[-1] != "*":
            self.fits = lambda text: text.endswith(literal)
        else:
            self.inside = literal
            self.fits = lambda text: literal in text


class Where:
    """What is asked of the value at one path.

    Attributes:
        path: where the value stands, as it is written.
        steps: the same, split at its dots.
        texts: of which the value's text must be one; None where a comparison is asked for.
        pattern: what the value's text must fit.
        bounds: how the value must compare as a number.
    """

    __slots__ = ("bounds", "path", "pattern", "steps", "texts")

    def __init__(self, path: str, expected: Scalar | Sequence[Scalar] | Comparison) -> None:
        self.path = path
        self.steps = tuple(path.split("."))
        self.texts: dict[str, None] | None = None
        self.pattern: Pattern | None = None
        self.bounds: tuple[tuple[str, int | float], ...] = ()
        if isinstance(expected, Comparison):
            self.pattern = None if expected.glob is None else Pattern(expected.glob)
            limits = (expected.gt, expected.ge, expected.lt, expected.le)
            bounds = zip(_OPERATORS, limits, strict=True)
            self.bounds = tuple((sign, limit) for sign, limit in bounds if limit is not None)
        else:
            values = expected if isinstance(expected, list | tuple) else (expected,)
            self.texts = dict.fromkeys(text for text in map(text_of, values) if text is not None)

    def holds(self, value: Any) -> bool:
        """Tells whether a value, or :data:`ABSENT`, is what is asked for."""
        text = text_of(value)
        if text is None:
            return False
        if self.texts is not None:
            return text in self.texts
        if self.pattern is not None and not self.pattern.fits(text):
            return False
        return not self.bounds or self._missed_bound(number_of(value)) is None

    def _missed_bound(self, number: int | float | None) -> str | None:
        for sign, limit in self.bounds:
            if number is None or not _OPERATORS[sign](number, limit):
                return f"not {sign} {shown(limit)}"
        return None

    def failure(self, value: Any) -> str:
        """Says how a value for which this does not hold differs from what is asked for."""
        if self.texts is not None:
            listed = [shown(text) for text in list(self.texts)[:_MAX_LISTED]]
            more = ", …" if len(self.texts) > _MAX_LISTED else ""
            missed = f"none of {', '.join(listed)}{more}" if len(listed) != 1 else f"not {listed[0]}"
        elif self.pattern is not None and not self.pattern.fits(text_of(value) or ""):
            missed = self.pattern.missed
        else:
            number = number_of(value)
            missed = str(self._missed_bound(number))
            if number is None and value is not ABSENT:
                missed = f"no number, and so {missed}"
        if value is ABSENT:
            return f"nothing stands at {short(self.path)}: {missed}"
        return f"{short(self.path)} is {shown(value)}, {missed}"


def text_of(value: Any) -> str | None:
    """Gives a scalar as text, so that a rule's ``7`` and a field's ``"7"`` are the same; None is equal to nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else json.dumps(value)
    return None


def number_of(value: Any) -> int | float | None:
    """Gives a JSON number, or a text that is wholly a decimal number such as ``-2``, ``38.5`` or ``1e3``, else None.

    Blanks around it make a text no number, as they make it unequal to one.
    """
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match is None:
            return None
        if match.lastindex is None:
            try:
                return int(value)
            except ValueError:  # of more figures than Python reads: larger than any limit that it has read
                pass
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return value


def short(text: str) -> str:
    """Cuts a text off at :data:`MAX_SHOWN` characters."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def shown(value: Any) -> str:
    """Gives a value as JSON for an operator's eyes, cut off at :data:`MAX_SHOWN` characters."""
    try:
        return short(json.dumps(value, default=str))
    except RecursionError:
        return "of many levels"
