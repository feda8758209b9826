"""Spools: how far each has come, which connection speaks for it, and when a newer one takes over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from notifyd.event import LANES
from notifyd.hub.entries import Position


class Speaker(Protocol):
    """The connection that said HELLO for a spool."""

    def finish_replaced(self) -> Deferred[None]:
        """Stops reading; fires when all that was read is durable and acknowledged, or can no longer be."""


class Spool:
    """What the hub knows of one spool.

    ``known`` is, per lane, the highest sequence that the hub holds or has in hand; ``durable`` what it holds.
    """

    __slots__ = ("_drained", "_draining", "durable", "known", "loaded", "name", "speaker", "users")

    def __init__(self, name: str) -> None:
        self.name = name
        self.known = dict.fromkeys((lane.value for lane in LANES), 0)
        self.durable = dict(self.known)
        self.loaded = False
        self.speaker: Speaker | None = None
        self.users = 0
        self._draining = 0
        self._drained: list[Deferred[None]] = []

    async def finish(self, speaker: Speaker | None) -> None:
        """Has a speaker that is replaced finish, and waits for every one that still does."""
        if speaker is not None:
            self._draining += 1
            speaker.finish_replaced().addCallback(self._one_drained)
        while self._draining:
            done: Deferred[None] = Deferred()
            self._drained.append(done)
            await done

    def _one_drained(self, _: None) -> None:
        self._draining -= 1
        if not self._draining:
            waiting, self._drained = self._drained, []
            for done in waiting:
                done.callback(None)

    def is_repeat(self, lane: str, sequence: int) -> bool:
        """Tells whether an event has been received before; notes it where it has not."""
        if sequence <= self.known[lane]:
            return True
        self.known[lane] = sequence
        return False


class Spools:
    """The spools that are connected, or whose events are in hand.

    Args:
        load: reads the stored positions of a spool; it waits for a database that is away.
    """

    def __init__(self, load: Callable[[str], Awaitable[dict[str, int]]]) -> None:
        self._load = load
        self._spools: dict[str, Spool] = {}

    def use(self, name: str) -> Spool:
        """Gives a spool; each use is ended with :meth:`leave`."""
        spool = self._spools.setdefault(name, Spool(name))
        spool.users += 1
        return spool

    def leave(self, spool: Spool) -> None:
        """Ends a use; a spool that nobody uses is forgotten, since the log knows it."""
        spool.users -= 1
        if not spool.users:
            del self._spools[spool.name]

    async def claim(self, spool: Spool, speaker: Speaker) -> bool:
        """Makes ``speaker`` the one that speaks for the spool.

        What another connection had sent for it is finished first.

        Returns:
            whether it still is; not so where a newer one has come meanwhile.
        """
        previous, spool.speaker = spool.speaker, speaker
        await spool.finish(previous)
        if not spool.loaded:
            positions = await self._load(spool.name)
            if not spool.loaded:
                for lane, sequence in positions.items():
                    spool.durable[lane] = max(spool.durable.get(lane, 0), sequence)
                    spool.known[lane] = max(spool.known.get(lane, 0), sequence)
                spool.loaded = True
        return spool.speaker is speaker

    def stored(self, position: Position) -> None:
        """Is called when an event of a spool is on the disk."""
        spool = self._spools.get(position.spool)
        if spool is not None:
            spool.durable[position.lane] = max(spool.durable[position.lane], position.sequence)
