"""What ``notifyctl`` says beside its output: one line each, on standard error, safe for a terminal."""

from __future__ import annotations

import contextlib
import os
import sys

import click

_SHOWN_AS_SPACE = "\u00a0\u202f"


def printable(text: str) -> str:
    r"""Replaces what a terminal would obey, or show as nothing, by an escape such as ``\x1b``.

    That is every character that Unicode counts as control, format (the bidirectional overrides among
    them), surrogate, unassigned, or as a line or paragraph separator.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char in _SHOWN_AS_SPACE else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def complain(text: str) -> None:
    """Says one line on standard error, in colour where that is a terminal and colour is wanted."""
    line = f"notifyctl: {printable(' '.join(text.split()))}"
    coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    # Whoever closed standard error does not want to be told.
    with contextlib.suppress(OSError, ValueError):
        click.secho(line, err=True, fg="yellow" if coloured and sys.stderr.isatty() else None)


class CommandError(click.ClickException):
    """Something went wrong that the command line is not to blame for; exit status 1."""
