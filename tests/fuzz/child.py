"""Fuzzes one framing in this process, which libFuzzer ends: ``python -m tests.fuzz.child NAME [arguments]``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["notifyd.agent.framing", "notifyd.agent.rules"]):
    import notifyd.agent.framing
    import notifyd.agent.rules  # noqa: F401
from tests.fuzz.targets import check

if __name__ == "__main__":
    framing, *arguments = sys.argv[1:]
    atheris.Setup([sys.argv[0], *arguments], lambda data: check(framing, data))
    atheris.Fuzz()
