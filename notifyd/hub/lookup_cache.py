"""The answers that a lookup has had."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from msgspec import Raw

Plain = str | int | float
"""What is bound to a parameter."""

Key = tuple[Plain, ...]
"""What is asked for: a value for each parameter."""

Entry = tuple[float, dict[str, Any] | None, Raw | None, int]
"""An answer as it is kept: when it expires; the row; as JSON, None for no answer; its size."""

CACHE_BYTES = 16 * 2**20
"""What a lookup's answers may take, about; more where ``cache_entries`` asks for it, a KiB for each."""

ENTRY_BYTES = 600
"""What an answer takes beside its texts: its places in tables, and Python's own."""


class Cache:
    """Answers by their keys, bounded in time, entries and bytes; what was not used for longest goes first."""

    def __init__(self, cache_s: float, entries: int) -> None:
        self._cache_s = cache_s
        self._max_entries = entries
        self._max_bytes = max(CACHE_BYTES, entries * 1024)
        self.size = 0  # bytes, about
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._get = self._entries.get
        self._touch = self._entries.move_to_end

    def get(self, key: Key, now_s: float) -> Entry | None:
        """Gives a key's answer, None where there is none or it is too old."""
        entry = self._get(key)
        if entry is None or entry[0] <= now_s:
            return None
        self._touch(key)
        return entry

    def put(self, key: Key, asked_s: float, row: dict[str, Any] | None, encoded: bytes | None) -> Entry:
        """Keeps an answer that was asked for at ``asked_s``, in the place of an older one, and gives it."""
        size = ENTRY_BYTES + 3 * len(encoded or b"") + sum(4 * len(v) for v in key if isinstance(v, str))
        entry = (asked_s + self._cache_s, row, None if encoded is None else Raw(encoded), size)
        old = self._entries.pop(key, None)
        self.size += size - (0 if old is None else old[3])
        self._entries[key] = entry
        while len(self._entries) > self._max_entries or self.size > self._max_bytes:
            _, gone = self._entries.popitem(last=False)
            self.size -= gone[3]
        return entry
