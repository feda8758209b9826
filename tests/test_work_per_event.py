"""What the hub does for an event and a delivery stays within bounds, which stand in ``work_per_event.py``.

Nothing here is timed. ``python -m tests.work_per_event`` prints what is counted.
"""

from __future__ import annotations

import pytest

from tests.work_per_event import BOUNDS, measure, table

pytestmark = pytest.mark.xdist_group("work_per_event")  # it is counted once, not by each process


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    """What this hub does."""
    figures = measure()
    print(table(figures))
    return figures


@pytest.fixture(scope="module")
def wasteful() -> dict[str, float]:
    """What a hub does that runs, asks and keeps more for each event than it has to."""
    return measure(wasteful=True)


@pytest.mark.parametrize("name", BOUNDS)
def test_the_hub_does_no_more_than(name: str, figures: dict[str, float]) -> None:
    """A change that makes events or deliveries dearer is seen here, on however slow a machine."""
    assert figures[name] <= BOUNDS[name].most, f"{BOUNDS[name].what}; it was {BOUNDS[name].now}"


@pytest.mark.parametrize("name", ["reactor", "database", "steps", "statements", "held_blocks", "kept_blocks"])
def test_a_hub_that_does_more_is_found(name: str, wasteful: dict[str, float]) -> None:
    """600 turns of a loop and 20 objects for each event, or some questions to the database, are too much."""
    assert wasteful[name] > BOUNDS[name].most


def test_waste_of_one_kind_is_not_taken_for_another(wasteful: dict[str, float]) -> None:
    """What an event costs is not counted as what a delivery costs, and the sockets are used as ever."""
    for name in ("commits", "receives", "answers", "sends", "delivery", "delivery_library"):
        assert wasteful[name] <= BOUNDS[name].most, name
