"""docs/filters.md: its example is run as it stands there, and what it says is what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import UNSET
from twisted.internet.task import Clock

from notifyd import event as events
from notifyd.config_hub import Filter, HubConfig, parse_hub
from notifyd.event import Priority
from notifyd.filters import Event, make_event
from notifyd.hub import filtering, json_value
from notifyd.hub.draft import Draft
from notifyd.hub.filtering import FilterRunner, load_filter
from notifyd.hub.pipeline import BATCH_EVENTS
from tests.filtering import Rig, answer
from tests.test_docs import _anchors, _blocks, _first_cells, _section, _templates

ROOT = Path(__file__).parent.parent
FILTERS = ROOT / "docs/filters.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the example's module and its test, from which modules are imported."""
    module, test = _blocks(FILTERS, "python")
    (tmp_path / "ward_filter.py").write_text(module)
    (tmp_path / "test_ward_filter.py").write_text(test)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("ward_filter", None)


def configured() -> HubConfig:
    """Gives the example's settings."""
    (block,) = _blocks(FILTERS, "toml")
    assert block.startswith("# hub.toml\n")
    return parse_hub(block, "docs/filters.md")


def test_the_example_does_to_an_event_what_the_document_shows(folder: Path) -> None:
    """From its module, by its settings, with its event, to what its client receives."""
    sent, received = (json.loads(block) for block in _blocks(FILTERS, "json"))
    settings = configured().filter
    assert settings is not None
    draft = Draft(events.decode(json.dumps(sent).encode()))
    draft.disown_context()
    runner = FilterRunner(Clock(), settings, load_filter(settings))
    rig = Rig()
    rig.runner = runner
    (outcome,) = rig.run(draft)
    draft.write_data()
    assert draft.event.data is not UNSET
    assert outcome == Priority(received["priority"])
    assert json.loads(bytes(draft.event.data)) == received["data"]
    given = {"priority", "offset", "received", "rule", "data"}
    assert {name: received[name] for name in received if name not in given} == {
        name: sent[name] for name in sent if name not in given
    }
    assert received["rule"] == "filter"


def test_the_example_is_well_typed(folder: Path) -> None:
    """For the strictest of type checkers, as a filter too."""
    (folder / "made.py").write_text(
        "from notifyd.filters import Filter\nfrom ward_filter import WardFilter\nmade: Filter = WardFilter()\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={folder}"),
            *("ward_filter.py", "test_ward_filter.py", "made.py"),
        ],
        cwd=folder, check=False, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_of_a_test_passes(folder: Path) -> None:
    """As its reader would run it."""
    code = "import test_ward_filter, sys; test_ward_filter.test_smoke_at_night_is_critical(); sys.exit(42)"
    path = f"{ROOT}:{folder}"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": path}, check=False, timeout=60)
    assert done.returncode == 42


@pytest.mark.parametrize(
    ("type", "time", "fields", "expected"),
    [
        ("panel.alarm", "23:00:00", {"text": "smoke"}, "critical"), ("panel.alarm", "23:00:00", {"text": "x"}, None),
        ("panel.alarm", "12:00:00", {"text": "smoke"}, None), ("door.open", "03:00:00", {"zone": "9"}, "important"),
        ("door.open", "03:00:00", {"zone": "12"}, None), ("panel.alarm", "23:00:00", None, None),
    ],
)  # fmt: skip
def test_the_example_decides_as_its_text_says(
    folder: Path, type: str, time: str, fields: dict[str, str] | None, expected: str | None  # noqa: A002
) -> None:  # fmt: skip
    """By day the rules decide; at night smoke is critical, and a door where nobody is expected important."""
    data = {} if fields is None else {"fields": fields}
    line = {"id": "1", "source": "/a/b", "type": type, "time": f"2026-11-22T{time}Z", "data": data}
    made = load_filter(Filter(factory="ward_filter:WardFilter"))
    rig = Rig()
    rig.runner = FilterRunner(Clock(), Filter(factory="ward_filter:WardFilter"), made)
    assert answer(rig.begin(Draft(events.decode(json.dumps(line).encode())))) == [expected]


def test_every_attribute_of_the_interface_is_documented() -> None:
    """And no other; all of them are there."""
    cells = [cell for cell in _first_cells(_section(FILTERS, "The interface")) if cell.startswith("`")]
    documented = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert documented == {name for name in vars(Event) if not name.startswith("_")}
    for name in documented:
        getattr(make_event(), name)


def test_lines_of_the_log_are_as_documented() -> None:
    """Whoever looks for one finds it, word for word."""
    templates = _templates()
    cells = _first_cells(_section(FILTERS, "Timeouts"))
    lines = [line for cell in cells for line in re.findall(r"`([^`]+)`", cell)]
    assert len(lines) == 5
    reason = filtering.FilterRunner(Clock(), Filter(factory="a:b"), None)._late.reason
    lines = [line.replace("filter: no answer within … s", reason.replace("2", "…")) for line in lines]
    assert [line for line in lines if not any(each.fullmatch(line) for each in templates)] == []


def test_links_lead_somewhere() -> None:
    """Each relative link names a file that is there, and a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FILTERS.read_text()):
        name, _, anchor = target.partition("#")
        file = (FILTERS.parent / name).resolve() if name else FILTERS
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("about 2,000", BATCH_EVENTS), ("more than 64 KiB", json_value.MAX_ADDED / 1024),
        ("more than 100 levels", json_value.MAX_DEPTH), ("more than 10,000 calls", filtering.MAX_LEFT_BEHIND),
        ("`timeout` (2 s unless set)", Filter(factory="a:b").timeout),
        ("some 4,200 figures", int(json_value.MAX_INTEGER_BITS * 0.30103 / 100) * 100),
    ],
)  # fmt: skip
def test_a_limit_has_the_number_that_is_documented(text: str, value: float) -> None:
    """The figure in the text is the one in the code."""
    assert text in " ".join(FILTERS.read_text().split())
    assert f"{value:.0f}" in [figure.replace(",", "") for figure in re.findall(r"[0-9][0-9,]*", text)]
