"""What a database answered, as JSON can hold it."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_ROW = 32 * 1024
"""Bytes of a row as JSON: an event's line has room for 128 KiB, and three such rows shall fit beside its own 32."""

MAX_ROW_NESTING = 50
"""Levels in a JSON value or an array of a column; whoever writes them deeper wrote no row for people to read."""


class RefusedError(Exception):
    """A value cannot be looked up, or its row cannot be used: nothing is wrong with the database. The text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the answer.

    Attributes:
        value: its columns by their names; of a name that comes twice the last counts.
        encoded: the same as JSON.
    """

    value: dict[str, Any]
    encoded: bytes


def make_row(names: Sequence[str], values: Sequence[Any]) -> Row:
    """Gives a row as JSON can hold it.

    Args:
        names: of the columns.
        values: as the database's driver gave them.

    Raises:
        RefusedError: it is larger than :data:`MAX_ROW`, or nested too deeply.
    """
    if sum(len(value) for value in values if isinstance(value, str | bytes)) > MAX_ROW:
        raise RefusedError(_TOO_LARGE)
    row = {name: _plain(value, 0) for name, value in zip(names, values, strict=True)}
    try:
        encoded = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:  # an unpaired surrogate that a JSON column has as an escape, or an integer of very many figures
        raise RefusedError("a column's value is nothing that JSON can hold") from None
    if len(encoded) > MAX_ROW:
        raise RefusedError(_TOO_LARGE)
    return Row(row, encoded)


_TOO_LARGE = f"its row is larger than {MAX_ROW} bytes: name only the columns that events need"


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if depth >= MAX_ROW_NESTING:
        raise RefusedError(f"a column's value is nested deeper than {MAX_ROW_NESTING} levels")
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1) for inner in value]
    return str(value)


def _number(value: decimal.Decimal) -> int | float | None:
    """Gives a decimal as a number: a whole one as it is, any other as near as JSON's readers can come to it."""
    if not value.is_finite():
        return None
    if value.adjusted() < _MAX_FIGURES and value == value.to_integral_value():
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


_MAX_FIGURES = 1_000  # Python writes integers of 4,300 figures at most
