"""Programs that tests need and Python does not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def require_tool(name: str) -> str:
    """Gives the path of a program; without it the test is skipped, but fails where CI has to have it."""
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
