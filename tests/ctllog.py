"""What tests of the commands that read the log share: a log as the hub writes it, and ``notifyctl`` beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakehub import run
from tests.hubkit import Hub


class Kept:
    """A hub's log, and the file that names it.

    Args:
        folder: of the hub.
        url: of its database, if it is not in the folder.
        toml: what the hub has for lookups, rules and suppression.
    """

    def __init__(self, folder: Path, url: str | None = None, toml: str = "") -> None:
        self.folder, self.url = folder, url
        self.hub = Hub(folder, url, toml=toml)
        self.config = self.write("hub.toml", toml)

    def write(self, name: str, toml: str) -> str:
        """Writes a configuration that names this log, and gives its path."""
        database = "" if self.url is None else f"[database]\nurl = {json.dumps(self.url)}\n"
        (path := self.folder / name).write_text(f"state = {json.dumps(str(self.folder))}\n{toml}\n{database}")
        return str(path)

    def restart(self, toml: str) -> None:
        """Goes on with another configuration."""
        self.hub.close()
        self.hub = Hub(self.folder, self.url, toml=toml)

    def run(self, *arguments: str, config: str | None = None, **env: str) -> tuple[int, str, str]:
        """Runs ``notifyctl`` with a configuration, by default the hub's."""
        return run(*arguments, "--config", config or self.config, env=env)

    def output(self, *arguments: str, config: str | None = None) -> str:
        """Gives what ``notifyctl`` printed; it must have gone well, without a word more."""
        status, out, err = self.run(*arguments, config=config)
        assert (status, err) == (0, "")
        return out

    def ids(self, *arguments: str) -> list[str]:
        """Gives the ids of the events that ``notifyctl history`` prints."""
        return [json.loads(line)["id"] for line in self.output("history", *arguments).splitlines()]

    def change(self, event_id: str, **members: Any) -> None:
        """Changes members of a stored event's data, as lookups would have written them."""
        offset, body = self.hub.execute('SELECT "offset", body FROM event WHERE id = ?', event_id).fetchone()
        event = json.loads(body)
        event["data"] = {**event.get("data", {}), **members}
        self.hub.execute(f'UPDATE {self.hub.backend.table} SET body = ? WHERE "offset" = ?', json.dumps(event), offset)
        self.hub.connection.commit()

    def offset(self, event_id: str) -> str:
        """Gives an event's offset."""
        (found,) = self.hub.execute('SELECT "offset" FROM event WHERE id = ?', event_id).fetchone()
        self.hub.connection.commit()
        return str(found)


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """A log in each of the two databases."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    kept = Kept(tmp_path, url)
    yield kept
    kept.hub.close()


@pytest.fixture
def sqlite_log(tmp_path: Path) -> Iterator[Kept]:
    """A log in SQLite."""
    kept = Kept(tmp_path)
    yield kept
    kept.hub.close()
