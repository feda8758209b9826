"""The cursor of a subscriber against a plain model: each event of its stream once, in order, gaps only where due."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred

from notifyd import event as events
from notifyd.hub.readback import LARGE_PAGE
from tests.hubkit import Hub, line, payload, subscribe
from tests.hubparts import LOCKED, Peer
from tests.logs import Logs

PRIORITIES = ("normal", "critical")
STREAMS = (*PRIORITIES, "all")


class Expectation:
    """What one client was sent, checked line by line against what the hub has stored."""

    def __init__(self, peer: Peer, stream: str, after: int | None) -> None:
        self.peer = peer
        self.stream = stream
        self.after = after  # None until OK says it
        self.until: int | None = None  # before OK: what was under way already may still come
        self.acked = 0


class Cursors(RuleBasedStateMachine):
    """Clients connect, subscribe, stall, go on and acknowledge while events are stored, evicted and expired."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self.logs = logs

    def opened(self, **settings: Any) -> Hub:
        """Starts a hub on the log."""
        hub: Hub = self.make(**settings)
        return hub

    @initialize(big=st.booleans())
    def start(self, big: bool) -> None:
        self.make = self.logs.emptied()
        self.hub = self.opened(stream_memory=2**18 if big else 65_536)
        self.stored: list[tuple[int, str, str]] = []  # offset, priority, id
        self.expired = 0  # how many of them
        self.clients: list[Expectation] = []
        self.names: dict[str, int] = {}
        self.count = 0

    @rule(
        priorities=st.lists(st.sampled_from(PRIORITIES), min_size=1, max_size=6),
        size=st.sampled_from([1, 9_000, 20_000, 30_000]),
    )
    def store(self, priorities: list[str], size: int) -> None:
        """A batch of events is stored and published."""
        self.hub.clock.advance(1)
        lines = []
        for priority in priorities:
            self.count += 1
            lines.append(line(str(self.count), priority=priority, data="x" * size))
        self.hub.producer(*lines).lose()
        rows = self.hub.rows('"offset", priority, id', f'"offset" > {self.stored[-1][0] if self.stored else 0}')
        self.stored += rows

    @rule(stream=st.sampled_from(STREAMS), takes=st.booleans())
    def connect(self, stream: str, takes: bool) -> None:
        """A client that says nothing."""
        self.clients.append(Expectation(self.hub.client(stream, takes=takes), stream, self.hub.pipeline.last))

    @rule(data=st.data(), stream=st.sampled_from(STREAMS), takes=st.booleans())
    def subscribe(self, data: st.DataObject, stream: str, takes: bool) -> None:
        """A client that asks for a place in the log."""
        offsets = [0, self.hub.pipeline.last, *(row[0] for row in self.stored)]
        after = data.draw(st.sampled_from(["first", "now", *(str(each) for each in offsets)]))
        self.clients.append(Expectation(self.hub.client(stream, subscribe(after=after), takes=takes), stream, None))

    @rule(data=st.data(), takes=st.booleans(), name=st.sampled_from(["p", "q"]))
    def register(self, data: st.DataObject, takes: bool, name: str) -> None:
        """A registered client comes, perhaps while it is connected already."""
        wish = data.draw(st.sampled_from([{}, {"after": "first"}, {"after": "0"}]))
        peer = self.hub.client("normal", subscribe(name=name, **wish), takes=takes)
        self.clients.append(Expectation(peer, "normal", None))

    @rule(data=st.data())
    def subscribe_late(self, data: st.DataObject) -> None:
        """A client that has read for a while asks for another place."""
        candidates = [each for each in self.clients if not each.peer.protocol._subscribed]
        if candidates:
            client = data.draw(st.sampled_from(candidates))
            self.check(client)
            if client.peer.under_way:
                client.until = client.peer.protocol._sent
            else:
                client.after = None
            client.peer.send(subscribe(after=data.draw(st.sampled_from(["first", "now", "0"]))))

    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        """A client takes what waits for it."""
        if self.clients:
            data.draw(st.sampled_from(self.clients)).peer.transport.drain()

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A client goes."""
        if self.clients:
            client = data.draw(st.sampled_from(self.clients))
            self.clients.remove(client)
            client.peer.lose()

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """A registered client acknowledges what it has got."""
        named = [
            each
            for each in self.clients
            if each.peer.protocol._client and each.after is not None and each.until is None
        ]
        if named:
            client = data.draw(st.sampled_from(named))
            self.check(client)
            client.peer.send(b"ACK %d" % client.after)
            name = client.peer.protocol._client.name
            self.names[name] = max(self.names.get(name, 0), client.after or 0)

    @rule(share=st.sampled_from([0.1, 0.5, 1.0]), at_once=st.sampled_from([1, 3, 100]))
    def expire(self, share: float, at_once: int) -> None:
        """Retention deletes a prefix, never the newest event."""
        if self.stored:
            held = self.stored[self.expired :]
            row = held[min(int(len(held) * share), len(held) - 1)]
            cutoff = self.hub.rows("received", f'"offset" = {row[0]}')[0]
            done: list[Any] = []
            Deferred.fromCoroutine(self.hub.log.expire(cutoff, at_once)).addCallback(done.append)
            self.expired += sum(done[0].values())
            assert self.expired < len(self.stored)

    @rule()
    def hold_reads(self) -> None:
        """The log is read slowly."""
        self.hub.reads.held = True

    @rule()
    def step_reads(self) -> None:
        """One page comes."""
        if self.hub.reads.waiting:
            self.hub.reads.step()

    @rule(pressed=st.booleans())
    def press(self, pressed: bool) -> None:
        """Pages of the log wait for their turn from now on, or no more."""
        self.hub.pressed = pressed

    @rule(faults=st.lists(st.just(LOCKED), max_size=2))
    def release_reads(self, faults: list[Any]) -> None:
        """The log is read at once again, after it could not be read at all."""
        self.hub.reads.faults = faults
        self.hub.reads.release()

    @rule()
    def restart(self) -> None:
        """The hub is stopped and started: everything is in the log only."""
        self.settle()
        start = self.hub.now() + 1
        memory = self.hub.backplane.streams["normal"]._max_bytes
        self.hub.close()
        self.clients.clear()
        self.hub = self.opened(stream_memory=memory, start=start)

    def check(self, client: Expectation) -> None:
        """Sees that what came is what the model expects behind what came before."""
        for each in client.peer.lines():
            if each.startswith(b"OK "):
                assert client.after is None or client.until is not None, "OK comes once, in answer to SUBSCRIBE"
                client.until = None
                client.after = int(payload(each)["after"])
                continue
            if each.startswith(b"ERROR replaced") or each == b"PONG":
                continue
            assert client.after is not None, f"{each[:60]!r} came between SUBSCRIBE and OK"
            if each.startswith(b"GAP "):
                gap = payload(each)
                # What the client has had, or a place behind it up to which nothing of its stream was left out.
                skipped = [row for row in self.mine(client) if client.after < row[0] <= int(gap["after"])]
                assert (int(gap["after"]) >= client.after, skipped) == (True, [])
                lost = [row for row in self.mine(client) if client.after < row[0] < int(gap["before"])]
                assert lost, "a gap without an event in it"
                last = self.stored[self.expired - 1][0]
                assert all(row[0] <= last for row in lost), "a gap over what is held"
                client.after = int(gap["before"]) - 1
                continue
            event = events.decode(each)
            offset = int(json.loads(each)["offset"])
            assert client.until is None or offset <= client.until, "it came between SUBSCRIBE and OK"
            expected = next(row for row in self.mine(client) if row[0] > client.after)
            assert (offset, event.id) == (expected[0], expected[2])
            client.after = offset

    def mine(self, client: Expectation) -> list[tuple[int, str, str]]:
        return [row for row in self.stored if client.stream in ("all", row[1])]

    @invariant()
    def nothing_wrong_was_sent(self) -> None:
        """After each step."""
        if hasattr(self, "hub"):
            for client in self.clients:
                self.check(client)
                assert client.peer.transport.waiting < 65_536 + LARGE_PAGE + 65_536 + 40_000
            for stream in self.hub.backplane.streams.values():
                assert stream.memory <= stream._max_bytes

    def settle(self) -> None:
        """Lets everybody read all there is, and sees that nobody misses anything."""
        self.hub.reads.faults.clear()
        self.hub.reads.release()
        self.hub.pressed = False
        for _ in range(6):
            self.hub.clock.advance(1)
        for client in self.clients:
            while client.peer.transport.waiting:
                client.peer.transport.drain()
            self.check(client)
            if not client.peer.transport.ended:
                assert client.after is not None
                assert not [row for row in self.mine(client) if row[0] > client.after]
        for name, acked in self.names.items():
            query = "SELECT acked FROM subscriber WHERE name = ?"
            assert self.hub.execute(query, name).fetchone()[0] >= acked

    def teardown(self) -> None:
        if hasattr(self, "hub"):
            try:
                self.settle()
            finally:
                self.hub.close()


def test_each_client_is_sent_each_event_once_and_in_order(logs: Logs) -> None:
    """Whatever clients and log do, on either database."""
    run_state_machine_as_test(
        lambda: Cursors(logs), settings=settings(max_examples=100, stateful_step_count=50, deadline=None)
    )
