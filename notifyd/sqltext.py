"""A lookup's SELECT: its named parameters, and its text as the drivers take it.

Sources: PostgreSQL 15 manual, section 4.1 (lexical structure); https://www.sqlite.org/lang_expr.html and
lang_comment.html; psycopg 3 for ``%(name)s`` and ``%%``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class SelectText:
    """A statement that was taken apart.

    Attributes:
        names: of its parameters, each once, in the order in which they stand in it.
        text: the statement without a semicolon, with its parameters as the driver of its database writes them.
    """

    names: tuple[str, ...]
    text: str


def parse(sql: str, *, postgresql: bool) -> SelectText:
    """Takes a lookup's statement apart.

    Args:
        sql: one SELECT, or WITH and SELECT, in which ``:name`` stands for a value; a semicolon may end it.
        postgresql: for that database, else SQLite: they differ in what is a quotation, a comment and a parameter.

    Raises:
        ValueError: it is no such statement; the text is the reason, in one line.
    """
    _check_characters(sql)
    names: dict[str, None] = {}
    parts: list[str] = []
    first = ""
    depth = end = 0  # end: of the parts, up to the last that is neither white space nor a comment
    ended = False
    for kind, piece in _tokens(sql, postgresql):
        text = piece.replace("%", "%%") if postgresql else piece
        if kind == "parameter":
            name = _check_name(piece[1:])
            names[name] = None
            text = f"%({name})s" if postgresql else piece
        parts.append(text)
        if kind in ("space", "comment"):
            continue
        if ended:
            raise ValueError("is more than one statement")
        if piece == ";":
            ended = True
            continue
        first = first or piece.upper()
        depth += (piece == "(") - (piece == ")")
        if depth < 0:
            raise ValueError("has a closing parenthesis too many")
        end = len(parts)
    if first not in ("SELECT", "WITH"):
        raise ValueError("is no SELECT statement" if first else "is empty")
    if depth:
        raise ValueError("has a parenthesis that is not closed")
    return SelectText(tuple(names), "".join(parts[:end]).strip())


def _check_characters(sql: str) -> None:
    if "\0" in sql:
        raise ValueError("has a NUL")
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise ValueError("has an unpaired surrogate") from None


def _check_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("has a parameter whose name is not made of letters (A-Z, a-z), figures and _")
    return name


def _tokens(sql: str, postgresql: bool) -> Iterator[tuple[str, str]]:
    """Gives each token with its kind; joined they are the whole text."""
    pattern = _POSTGRESQL if postgresql else _SQLITE
    place = 0
    while place < len(sql):
        if postgresql and sql.startswith("/*", place):
            end = _comment_end(sql, place)
            yield "comment", sql[place:end]
        else:
            match = pattern.match(sql, place)
            assert match is not None  # noqa: S101 - the last alternative takes any character
            end = match.end()
            kind = match.lastgroup or ""
            if kind in _REFUSED:
                raise ValueError(_REFUSED[kind])
            yield kind, match[0]
        place = end


def _comment_end(sql: str, start: int) -> int:
    """Gives where the comment at ``start`` ends: PostgreSQL's can stand in one another."""
    depth = 0
    for mark in re.compile(r"/\*|\*/").finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise ValueError("has a comment that is not closed")


_REFUSED = {
    "open": "has a quotation that is not closed",
    "nameless": "has a parameter that is no :name; write :zone for data.fields.zone",
}

_LETTER = "[A-Za-z_\x80-\U0010ffff]"  # both take every character beyond ASCII for one
_WORD = f"{_LETTER}[A-Za-z0-9_$\x80-\U0010ffff]*+"
_SINGLE, _DOUBLE, _BACK = (f"{quote}(?:[^{quote}]|{quote}{quote})*+{quote}" for quote in "'\"`")
_ESCAPED = r"'(?:[^'\\]|''|\\.)*+'"
_TAG = f"[$](?:{_LETTER}[A-Za-z0-9_\x80-\U0010ffff]*+)?[$]"

_POSTGRESQL = re.compile(
    rf"""
    (?P<space>[ \t\n\r\f]+)
    | (?P<comment>--[^\r\n]*)
    | (?P<quoted>
        [eE]{_ESCAPED}(?:[ \t\r\f]*+\n[ \t\n\r\f]*+{_ESCAPED})*+
        | {_SINGLE} | {_DOUBLE} | (?P<tag>{_TAG}).*?(?P=tag) )
    | (?P<open>[eE]?' | " | {_TAG})
    | (?P<nameless>[$][0-9])
    | (?P<word>{_WORD})
    | (?P<cast>::)
    | (?P<parameter>:{_WORD})
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_SQLITE = re.compile(
    rf"""
    (?P<space>[ \t\n\r\f]+)
    | (?P<comment>--[^\n]* | /[*].*?(?:[*]/|\Z))
    | (?P<quoted>{_SINGLE} | {_DOUBLE} | {_BACK} | \[[^\]]*\])
    | (?P<open>['"`\[])
    | (?P<nameless>[?] | [@$][A-Za-z0-9_$:\x80-\U0010ffff] | :[0-9])
    | (?P<word>{_WORD})
    | (?P<parameter>:{_WORD})
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
