"""Where the hub's log is in a test: the tests of the hub run on both databases."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from tests.hubkit import Hub
from tests.postgres import Cluster


class Logs:
    """Makes empty logs.

    Args:
        folders: makes a folder.
        server: that has them, if it is not SQLite.
    """

    def __init__(self, folders: pytest.TempPathFactory, server: Cluster | None) -> None:
        self._folders = folders
        self._server = server
        self._used: str | None = None

    def fresh(self) -> Callable[..., Hub]:
        """Gives what makes hubs on a log of its own."""
        url = None if self._server is None else self._server.fresh_url()
        return functools.partial(Hub, self._folders.mktemp("hub"), url)

    def emptied(self) -> Callable[..., Hub]:
        """Gives the same, on PostgreSQL with tables that were made before: the tests of hypothesis want many."""
        if self._server is None:
            return self.fresh()
        self._server.start()
        if self._used is None:
            self._used = self._server.fresh_url()
        else:
            tables = ("event", "spool", "subscriber", "agent", "expired")
            self._server.execute(";".join(f"DELETE FROM {table}" for table in tables), self._used)
        return functools.partial(Hub, self._folders.mktemp("hub"), self._used)
