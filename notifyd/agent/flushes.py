"""Who waits until everything that was put into the spool so far is stored."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred


class Flushes:
    """The Deferreds that wait, each for a sequence.

    Args:
        is_settled: tells whether everything up to a sequence is stored, or dropped and told.
    """

    def __init__(self, is_settled: Callable[[int], bool]) -> None:
        self._is_settled = is_settled
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def wait(self, sequence: int) -> Deferred[None]:
        """Gives a Deferred that fires when everything up to a sequence is settled."""
        done: Deferred[None] = Deferred()
        if self._is_settled(sequence):
            done.callback(None)
        else:
            self._waiting.append((sequence, done))
        return done

    def settle(self) -> None:
        """Fires those that need not wait any longer."""
        waiting, self._waiting = self._waiting, []
        for sequence, done in waiting:
            if self._is_settled(sequence):
                done.callback(None)
            else:
                self._waiting.append((sequence, done))

    def retarget(self, sequence: int) -> None:
        """Has all wait for another sequence, since events got new ones."""
        self._waiting = [(sequence, done) for _, done in self._waiting]
