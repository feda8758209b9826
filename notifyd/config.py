"""Configuration: TOML text to typed, frozen settings. What each key means stands in ``etc/*.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta, field

Lane = Literal["normal", "important", "critical"]
Name = Annotated[str, Meta(pattern=r"^[^\s/\x00-\x1f]([^/\x00-\x1f]{0,253}[^\s/\x00-\x1f])?$")]
Text = Annotated[str, Meta(min_length=1, max_length=1000)]


class ConfigurationError(Exception):
    """A configuration cannot be used; the text is one line: file, key, reason."""

    def __init__(self, path: str, key: str, reason: str) -> None:
        super().__init__(": ".join(" ".join(part.split()) for part in (path, key, reason) if part))


class Duration(float):
    """A length of time in seconds; written ``"90s"``, ``"5m"``, ``"1.5h"``."""

    _units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012 - a constant

    @classmethod
    def parse(cls, value: object) -> Duration:
        """Reads a positive duration; raises ValueError with what is expected."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError('expected a duration such as "90s", "5m" or "30d"')
        seconds = float(match[1]) * cls._units[match[2]]
        if not 0 < seconds <= 36_525 * 86_400:
            raise ValueError("a duration must be longer than nothing and at most a century")
        return cls(seconds)


class Size(int):
    """An amount of memory in bytes; written ``"64MiB"``."""

    _units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}  # noqa: RUF012 - a constant

    @classmethod
    def parse(cls, value: object) -> Size:
        """Reads a size of at least 64 KiB; raises ValueError with what is expected."""
        match = re.fullmatch(r"([0-9]{1,12})\s*(B|KiB|MiB|GiB)", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError('expected a size such as "512KiB", "64MiB" or "1GiB"')
        size = int(match[1]) * cls._units[match[2]]
        if size < 64 * 1024:
            raise ValueError("a size must be at least 64KiB")
        return cls(size)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a key that it does not know is refused."""


# --- both ------------------------------------------------------------------------------------------------


class OwnEvents(Section, frozen=True):
    """``[own_events]``: events that a daemon sends about itself."""

    priority: Lane = "important"


Scalar = str | int | float | bool


class Comparison(Section, frozen=True):
    """A condition on a value in an event's data that is not equality; all of its parts must hold.

    ``glob`` is a pattern for the value's text, the others compare it as a number.
    """

    glob: Text | None = None
    gt: int | float | None = field(name=">", default=None)
    ge: int | float | None = field(name=">=", default=None)
    lt: int | float | None = field(name="<", default=None)
    le: int | float | None = field(name="<=", default=None)


WhereTable = dict[Text, Scalar | tuple[Scalar, ...] | Comparison]
"""``where``: by path the value that must stand there, a list of which one must, or a :class:`Comparison`."""


# --- reading ---------------------------------------------------------------------------------------------

Kind = TypeVar("Kind")


def looks_like_agent(text: str) -> bool:
    """Tells an agent's file from a hub's by the tables that only one of them has."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        return re.search(r"^\s*\[\[source\]\]", text, re.MULTILINE) is not None
    hub_only = {"listen", "database", "rule", "default_priority", "lookup", "filter", "suppress"}
    return not hub_only & document.keys() and bool({"source", "spool", "hub", "name"} & document.keys())


def state_folder(setting: str | None, environ: Mapping[str, str], daemon: str) -> Path:
    """Gives the folder for a daemon's state: the setting, systemd's, else the XDG state directory."""
    if setting is not None:
        return Path(setting).expanduser()
    if systemd := environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    home = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "/")) / ".local/state")
    return Path(home) / daemon


def check_database_url(url: str) -> None:
    """Sees that ``url`` names a database of a kind that works.

    Raises:
        ValueError: it does not.
    """
    if not is_postgresql(url):
        sqlite_path(url)


def is_postgresql(url: str) -> bool:
    """Tells whether ``url`` is a PostgreSQL connection URI (its manual, section 34.1.1.2)."""
    return url.startswith(("postgresql://", "postgres://"))


def sqlite_path(url: str) -> Path:
    """Gives the file that ``sqlite:///relative`` or ``sqlite:////absolute`` names.

    Raises:
        ValueError: ``url`` is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        reason = "is no database that works; use sqlite:////path/to/hub.db or postgresql://host/name"
        raise ValueError(f"{parts.scheme or url!r} {reason}")
    if parts.netloc or not parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("expected sqlite:////absolute/path or sqlite:///relative/path")
    file = unquote(parts.path[1:])
    if "\0" in file:
        raise ValueError("has a NUL")
    return Path(file)


def read_toml(text: str, path: str) -> dict[str, Any]:
    """Parses TOML; raises ConfigurationError."""
    try:
        return tomllib.loads(text)
    except ValueError as error:  # what tomllib itself raises, and int() for a number of thousands of digits
        raise ConfigurationError(path, "", f"no valid TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(path, "", "no valid TOML: nested too deeply") from None


def _hook(kind: type, value: object) -> object:
    if kind in (Duration, Size):
        return kind.parse(value)
    raise NotImplementedError(kind)


def convert(document: dict[str, Any], path: str, kind: type[Kind]) -> Kind:
    """Gives a document as settings of a kind; raises ConfigurationError with the key that is wrong."""
    try:
        return msgspec.convert(document, kind, dec_hook=_hook)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        key = place.strip("`").lstrip(".")
        if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", reason, re.DOTALL):
            key, reason = (f"{key}.{unknown[1]}" if key else unknown[1]), "unknown key"
        elif missing := re.fullmatch(r"Object missing required field `(.*)`", reason):
            key, reason = (f"{key}.{missing[1]}" if key else missing[1]), "is required"
        raise ConfigurationError(path, key, _for_people(reason)) from None


def _for_people(reason: str) -> str:
    names = {"`str`": "text", "`int`": "a whole number", "`bool`": "true or false", "`float`": "a number"}
    names |= {"`array`": "a list", "`object`": "a table", "`null`": "nothing"}
    if "matching regex" in reason:
        return "expected a name without slashes, control characters or spaces around it"
    reason = re.sub(r"`([a-z]+(?: \| [a-z]+)+)`", _either, reason)
    for theirs, ours in names.items():
        reason = reason.replace(theirs, ours)
    return reason[:1].lower() + reason[1:]


def _either(kinds: re.Match[str]) -> str:
    return " or ".join(f"`{kind}`" for kind in kinds[1].split(" | ") if kind != "null")


def check_unique(path: str, key: str, values: Sequence[str], what: str = "name") -> None:
    """Sees that no two entries of a list of tables share a value; raises ConfigurationError."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ConfigurationError(path, f"{key}[{index}].{what}", f"{value!r} is taken by another {key}")


def check_where(path: str, key: str, where: WhereTable) -> None:
    """Sees that no condition of a rule is empty; raises ConfigurationError."""
    for place, expected in where.items():
        if expected in ((), Comparison()):
            raise ConfigurationError(path, f"{key}.where.{place}", "is empty, so that no event could have it")


def check_state(path: str, state: str | None) -> None:
    """Sees that the state folder can be one; raises ConfigurationError."""
    check_folder(path, "state", state)


def check_folder(path: str, key: str, folder: str | None) -> None:
    """Sees that a folder can be one; raises ConfigurationError."""
    if folder is not None and "\0" in folder:
        raise ConfigurationError(path, key, "has a NUL")
    if folder is not None and folder.startswith("~") and folder != "~" and not folder.startswith("~/"):
        raise ConfigurationError(path, key, "expected a path; of those with ~ only ~ itself and ~/folder")


def check_name(path: str, key: str, name: str) -> None:
    """Sees that a name can stand in HELLO; raises ConfigurationError."""
    if not name.isprintable():  # the hub would refuse HELLO
        raise ConfigurationError(path, key, "has characters that cannot be printed")
