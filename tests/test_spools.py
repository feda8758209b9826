"""Spools: positions, and whose turn it is to speak for one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from notifyd.hub.entries import Position
from notifyd.hub.spools import Spools
from tests.hubparts import pending


class Speaker:
    """A connection whose lines are durable when the test says so."""

    def __init__(self) -> None:
        self.finishing: Deferred[None] | None = None

    def finish_replaced(self) -> Deferred[None]:
        assert self.finishing is None, "it was replaced twice"
        self.finishing = Deferred()
        return self.finishing

    def done(self) -> None:
        assert self.finishing is not None
        self.finishing.callback(None)


class Store:
    """Stored positions, read when the test says so."""

    def __init__(self, positions: dict[str, int]) -> None:
        self.positions = positions
        self.asked: list[Deferred[Any]] = []

    async def load(self, name: str) -> dict[str, int]:
        self.asked.append(Deferred())
        await self.asked[-1]
        return self.positions

    def answer(self) -> None:
        self.asked.pop(0).callback(None)


def test_a_spool_is_loaded_once_and_its_repeats_are_known() -> None:
    """Per lane; what comes while it is loaded is not forgotten."""
    store = Store({"normal": 7})
    spools = Spools(store.load)
    spool, speaker = spools.use("s"), Speaker()
    claim = pending(spools.claim(spool, speaker))
    assert not claim
    store.answer()
    assert claim == [True]
    assert spool.is_repeat("normal", 7)
    assert not spool.is_repeat("normal", 9)
    assert spool.is_repeat("normal", 8)
    assert not spool.is_repeat("critical", 1)
    assert spool.durable == {"critical": 0, "important": 0, "normal": 7}
    spools.stored(Position("s", "normal", "a", 9))
    spools.stored(Position("unknown", "normal", "a", 9))
    assert spool.durable["normal"] == 9
    following = pending(spools.claim(spool, Speaker()))
    assert not store.asked
    speaker.done()
    assert following == [True]


def test_only_the_newest_of_many_claims_holds() -> None:
    """It waits for everybody who still has something in hand."""
    store = Store({})
    spools = Spools(store.load)
    spool = spools.use("s")
    one, two, three = Speaker(), Speaker(), Speaker()
    first = pending(spools.claim(spool, one))
    second = pending(spools.claim(spool, two))
    one.done()
    third = pending(spools.claim(spool, three))
    while store.asked:
        store.answer()
    assert (first, second, third) == ([False], [False], [])
    two.done()
    while store.asked:
        store.answer()
    assert third == [True]
    assert spool.speaker is three


def test_a_spool_that_nobody_uses_is_forgotten() -> None:
    """Memory does not grow with the spools that have ever been; the log knows them."""
    spools = Spools(Store({}).load)
    spool = spools.use("s")
    assert spools.use("s") is spool
    spools.leave(spool)
    assert spools.use("s") is spool
    spools.leave(spool)
    spools.leave(spool)
    assert spools.use("s") is not spool
