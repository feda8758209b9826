"""Fixtures of the integration tests: what they start is ended, and what they make is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import rig


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Gives ``start(kind, ...)``, which makes a part of the rig that is cleaned up after the test."""
    made: list[Any] = []

    def make(kind: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        made.append(part := kind(*arguments, **options))
        return part

    yield make
    for part in reversed(made):
        process = part if isinstance(part, rig.Process) else getattr(part, "process", None)
        if process is not None:
            process.kill()
        for end in ("close", "unplug"):
            if hasattr(part, end):
                getattr(part, end)()
    rig.release_ports()


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path, start: Callable[..., Any]) -> rig.Hub:
    """A hub that runs, with every stream served; its log is in SQLite, save where ``on_both`` says otherwise."""
    url = request.getfixturevalue("postgres_url") if getattr(request, "param", "sqlite") == "postgresql" else None
    hub: rig.Hub = start(rig.Hub, tmp_path, url=url)
    hub.start()
    return hub
