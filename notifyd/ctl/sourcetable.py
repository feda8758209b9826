"""A ``[[source]]`` table of ``agent.toml``, ready to be pasted."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence

from notifyd.ctl.say import printable

MAX_NAME = 40
"""Characters of a name that is made: it stands in each event."""


def source_table(settings: Mapping[str, str | int | float | bool], comments: Sequence[str] = ()) -> str:
    """Gives the table, as TOML.

    Args:
        settings: in the order in which they are to stand.
        comments: lines that stand above.
    """
    lines = [f"# {printable(' '.join(comment.split()))}" for comment in comments]
    lines += ["[[source]]", *(f"{key} = {toml_value(value)}" for key, value in settings.items())]
    return "\n".join(lines) + "\n"


def toml_value(value: str | float | bool) -> str:
    """Gives a value as TOML, with every character that is not plain as an escape."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML knows no escapes for surrogates; they come from file names that are no UTF-8, which TOML cannot tell.
        text = json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
        return re.sub(
            r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", lambda match: f"\\u{ord(match[0]):04x}", text
        )
    return f"{value:g}" if isinstance(value, float) else str(value)


def source_name(product: str, device: str, taken: Collection[str] = ()) -> str:
    """Makes a name for a source, which no other has.

    Args:
        product: what the device calls itself; may be empty.
        device: its path, for one without a product.
        taken: the names of others.
    """
    made = _plain(product) or _plain(device.rstrip("/").rpartition("/")[2]) or "device"
    name, number = made, 2
    while name in taken:
        name, number = f"{made}-{number}", number + 1
    return name


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_NAME].strip("-")
