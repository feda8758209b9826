"""A soak: a hub at full rate for as long as one likes, with clients that come, go and stall, and a verdict.

    python -m tests.bench.soak --minutes 30 --log soak.log

One producer with a spool sends as fast as it can (or at ``--rate``). Some clients read everything all the time and are
counted; one checks every event; registered ones acknowledge, leave in the middle, some by a crash, and come back; some
stall until the hub closes them, or go on before that; some only look in. The log keeps events for ``--retention``.
Every 30 seconds a line tells how the hub is. The status is 1 if anything was lost, repeated or out of order, or if
memory grew, and 2 if the disk was too small for the rate. SIGINT and SIGTERM end it early, with a verdict all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from notifyd.config import Duration
from tests.bench import board as slots
from tests.bench import cc
from tests.bench.drain import raise_files
from tests.bench.event import BLOCK
from tests.bench.guests import Guest, Registered, Short, Soak, Staller, Steady
from tests.bench.load import Load, rss_kib
from tests.bench.peers.notifyd import Notifyd
from tests.bench.work import Bench, Options

FIRST = 1
"""The producer's first block."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Of which the first ends the load, and the second the waiting for clients."""

TOLD_S = 30.0
"""Between two lines."""

WARM_S = 300.0
"""After which memory may not grow any more: caches and streams are full by then, and all kinds of clients were there.
A run of less than 20 minutes takes a quarter of its time."""

STREAM_EVENTS = 250_000
"""That fill a stream's memory (``stream_memory``, 64 MiB): until then it grows as it should."""

GROWTH_MIB = 32.0
"""How much more memory the hub may have at the end: malloc's arenas come and go by some MiB, a leak does not go."""

SHORTEST_S = 30.0
"""Below which nothing is said of memory."""

LEAST_FREE = 10 * 10**9
"""Bytes of the disk that are left alone."""

SETTLE_S = 300.0
"""How long clients may take to read what they have not read when the last event is sent."""

STUCK_S = 30.0
"""For how long nobody may read anything then: what has not come by then does not come."""

LATE_S = 60.0
FULL_EVENTS = 25_000
"""By how much later than it promises a busy hub may close a client that takes nothing, and how many events the buffers
of its sockets can hold, which come first."""


_APART = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"
"""Runs a program where signals to the soak's group, such as Ctrl-C's, do not reach it: it is ended last."""


class SoakHub(Notifyd):
    """The hub of this checkout, with a retention and an impatience of its own."""

    def __init__(self, retention: str, stall: str) -> None:
        super().__init__()
        self._more = f'[database]\nretention = "{retention}"\n[limits]\nstall_timeout = "{stall}"\n'

    def command(self) -> list[str]:
        """Everything else is as in the benchmark."""
        command = super().command()
        with (self.folder / "hub.toml").open("a") as config:
            config.write(self._more)
        return [sys.executable, "-c", _APART, *command]

    def log_bytes(self) -> int:
        """Gives the size of the log on the disk."""
        sizes = 0
        for path in (self.folder / "state").glob("hub.db*"):
            with contextlib.suppress(FileNotFoundError):
                sizes += path.stat().st_size
        return sizes

    def complaints(self) -> list[str]:
        """Gives what the hub has logged that it should not have."""
        assert self.server is not None
        return [line for line in self.server.text.splitlines() if re.search("#error|#critical|Traceback", line)][:10]

    def closed(self) -> int:
        """Gives how many clients it has closed since they took nothing."""
        assert self.server is not None
        return self.server.text.count("is closed: it has taken nothing for")


def growth_mib(samples: Sequence[tuple[float, int, int]]) -> tuple[float, float] | None:
    """Gives the hub's most memory in a minute after the warm-up, and in the last minute, in MiB.

    Args:
        samples: seconds since the beginning, events stored, and memory in KiB, in the order of time.

    Returns:
        None where the run was too short for both. A run of less than 20 minutes has a quarter of its time to warm up,
        and an eighth for a minute.
    """
    total_s = samples[-1][0] if samples else 0.0
    minute_s = min(60.0, total_s / 8)
    filled_s = next((at_s for at_s, events, _ in samples if events >= STREAM_EVENTS), total_s)
    warm_s = max(filled_s, min(WARM_S, total_s / 4))
    early = [kib for at_s, _, kib in samples if warm_s <= at_s < warm_s + minute_s]
    late = [kib for at_s, _, kib in samples if at_s >= total_s - minute_s]
    return (max(early) / 1024, max(late) / 1024) if total_s >= SHORTEST_S and warm_s <= total_s / 2 else None


class Run:
    """One soak.

    Args:
        arguments: of the command line.
        log: a file for what is told, too.
    """

    def __init__(self, arguments: argparse.Namespace, log: TextIO | None) -> None:
        self._arguments, self._log, self._stop = arguments, log, threading.Event()
        self._hub = SoakHub(arguments.retention, arguments.stall)
        stall_s = float(Duration.parse(arguments.stall))
        patience_s = stall_s + LATE_S + (FULL_EVENTS / arguments.rate if arguments.rate else 0)
        retention_s = float(Duration.parse(arguments.retention))
        self._soak = Soak(0, FIRST * BLOCK, retention_s, stall_s, patience_s)
        self._memory: list[tuple[float, int, int]] = []
        self._guests: list[Guest] = []
        self._began_s = 0.0
        self.cut_short = False

    def _on_signal(self, *_: object) -> None:
        self._stop.set()

    def tell(self, text: str) -> None:
        """Prints a line, and writes it into the log."""
        for file in (sys.stdout, self._log):
            if file is not None:
                print(text, file=file, flush=True)

    def run(self, root: Path) -> bool:
        """Runs it all; tells whether everything was as it should be."""
        with Bench(root, Options()).running(self._hub) as folder, Load(self._hub, folder / "load") as load:
            self._soak.port = self._hub.subscriber_port
            load.subscribe(self._arguments.readers)
            self._invite()
            load.produce(first=FIRST, most=self._arguments.rate)
            for number in SIGNALS:
                signal.signal(number, self._on_signal)  # from now on, see _without_signals
            self._began_s = time.monotonic()
            try:
                self._watch(load)
                sent, acked = self._finish(load)
            except RuntimeError as error:
                self._soak.problems.append(str(error))
                sent = acked = sum(board[slots.ACKED] for _, board in load.producers)
            self._soak.ending.set()
            self._soak.given_up.set()
            for guest in self._guests:
                guest.join(5)
            return self._judge(load, sent, acked)

    def _invite(self) -> None:
        """Has the clients come; those that check everything are there before the first event."""
        soak = self._soak
        steady = Steady(soak, "steady", 0, expected=soak.first)
        steady.come()
        self._guests = [
            steady,
            Registered(soak, "follower-1", 1, 0.3, (5.0, 40.0), (0.5, 5.0)),
            Registered(soak, "follower-2", 2, 0.3, (0.5, 10.0), (0.1, 2.0)),
            Registered(soak, "sluggard", 3, 0.01, (10.0, 60.0), (5.0, 30.0)),
            Staller(soak, "staller-1", 4, goes_on=False),
            Staller(soak, "staller-2", 5, goes_on=True),
            Staller(soak, "staller-3", 6, goes_on=True),
            Short(soak, "short-1", 7),
            Short(soak, "short-2", 8),
            Short(soak, "short-3", 9),
        ]
        for guest in self._guests:
            guest.start()

    # --- while it runs ------------------------------------------------------------------------------------------

    def _watch(self, load: Load) -> None:
        """Looks at everything each second, and tells of it now and then."""
        end_s, told_s, told = self._began_s + 60 * self._arguments.minutes, self._began_s, 0
        while (now := time.monotonic()) < end_s and not self._stop.is_set():
            self._stop.wait(min(1.0, end_s - now))
            load.look()
            stored = load.producers[0][1][slots.ACKED]
            self._memory.append((time.monotonic() - self._began_s, stored, rss_kib(self._hub.pid)))
            if shutil.disk_usage(self._hub.folder).free < LEAST_FREE:
                self.tell("Stopped: less than 10 GB of the disk are free. Give a --rate that retention keeps up with.")
                self.cut_short = True
                return
            if time.monotonic() - told_s >= TOLD_S:
                self.tell(self._line(stored, (stored - told) / (time.monotonic() - told_s)))
                told_s, told = time.monotonic(), stored
        if self._stop.is_set():
            self.tell("Stopped by a signal.")

    def _line(self, stored: int, rate: float) -> str:
        soak, pid = self._soak, self._hub.pid
        minutes, seconds = divmod(round(time.monotonic() - self._began_s), 60)
        threads = len(os.listdir(f"/proc/{pid}/task"))
        free = shutil.disk_usage(self._hub.folder).free
        registered = [guest.order for guest in self._guests if isinstance(guest, Registered)]
        return (
            f"{time.strftime('%H:%M:%S')} {minutes:3}:{seconds:02}  stored {stored:,} ({rate:,.0f}/s)"
            f"  rss {rss_kib(pid) / 1024:.1f} MiB  files {len(os.listdir(f'/proc/{pid}/fd'))}  threads {threads}"
            f"  log {self._hub.log_bytes() / 1e9:.2f} GB, free {free / 1e9:.0f} GB"
            f"  clients {soak.connected + self._arguments.readers}: come {soak.come} gone {soak.gone}"
            f" stalled {soak.stalled} closed {soak.closed}"
            f"  gaps {sum(order.gaps for order in registered)}  problems {len(soak.problems)}"
        )

    # --- the end ------------------------------------------------------------------------------------------------

    def _finish(self, load: Load) -> tuple[int, int]:
        """Has the producer stop, and waits until everybody has everything; gives what was sent and acknowledged."""
        load.finish()
        _, board = load.producers[0]
        sent, acked = board[slots.TOTAL], board[slots.ACKED]
        self._soak.last = self._soak.first + sent - 1
        self._soak.ending.set()
        self.tell(f"The producer has ended: {sent:,} events sent, {acked:,} acknowledged; clients read what is left.")
        self._stop.clear()  # one signal ends the load, another one the waiting
        end_s, moved_s, had = time.monotonic() + SETTLE_S, time.monotonic(), 0
        while (now := time.monotonic()) < min(end_s, moved_s + STUCK_S) and self._left(load, sent):
            if (have := sum(load.counts()) + sum(guest.order.events for guest in self._guests)) != had:
                moved_s, had = now, have
            if self._stop.wait(0.1):
                break
            load.look()
        return sent, acked

    def _left(self, load: Load, sent: int) -> int:
        """Gives how many clients have not had everything."""
        alive = sum(guest.is_alive() for guest in self._guests)
        return alive + sum(count < sent for count in load.counts())

    def _judge(self, load: Load, sent: int, acked: int) -> bool:
        """Tells the verdict."""
        soak, problems = self._soak, self._soak.problems
        counts = load.counts()
        if acked != sent:
            problems.append(f"of {sent:,} events, only {acked:,} were acknowledged")
        if any(count != sent for count in counts):
            problems.append(f"of {sent:,} events, the readers have had {', '.join(f'{count:,}' for count in counts)}")
        problems += [f"the hub says: {line}" for line in self._hub.complaints()]
        self.tell(f"\nreaders: {len(counts)}, each has had {min(counts):,} to {max(counts):,} of {sent:,} events")
        for guest in self._guests:
            order = guest.order
            if isinstance(guest, Steady | Registered):
                if not guest.has_everything():
                    problems.append(f"{guest.name} has not come to the end: it is at {order.expected}")
                self.tell(
                    f"{guest.name}: {guest.visits} visits, {order.events:,} events checked;"
                    f" {order.gaps} gaps, in which {order.missed:,} had expired"
                )
        if self._guests[0].order.gaps:  # it reads all the time: nothing may have expired before it came to it
            problems.append("the steady client was so slow that events expired")
        self.tell(
            f"clients: {soak.come} have come, {soak.stalled} stalled; the hub closed {soak.closed}, and says it closed"
            f" {self._hub.closed()}"
        )
        self._judge_memory()
        for problem in problems[:20]:
            self.tell(f"PROBLEM {problem}")
        self.tell(f"verdict: {'BAD' if problems else 'good'}, {len(problems)} problems")
        return not problems

    def _judge_memory(self) -> None:
        growth = growth_mib(self._memory)
        if growth is None:
            self.tell("memory: the run was too short to judge it")
            return
        early, late = growth
        self.tell(f"memory: {early:.1f} MiB after the warm-up, {late:.1f} MiB at the end; bound: {GROWTH_MIB:.0f} more")
        if late - early > GROWTH_MIB:
            self._soak.problems.append(f"memory has grown by {late - early:.1f} MiB")


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """Ignores the signals that end a run while its processes are started, which inherit that.

    Ctrl-C and timeout(1) reach all of them, and they are to be ended in order.
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])


def _arguments(words: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=30.0, help="for how long events are sent (%(default)s)")
    add("--rate", type=float, default=0.0, help="events a second at most; 0, the default, is full speed")
    add("--readers", type=int, default=3, help="clients that read everything and are only counted (%(default)s)")
    add("--retention", default="60s", help="of the hub's log (%(default)s)")
    add("--stall", default="20s", help="the hub's stall_timeout (%(default)s)")
    add("--log", type=Path, metavar="FILE", help="write there what is printed, too")
    add("--folder", type=Path, default=Path("/var/tmp"), help="where the log is made (%(default)s)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Runs it; gives the status."""
    arguments = _arguments(words)
    raise_files()
    if cc.compiler() is None:
        print("The readers are in Python, since there is no C compiler: they may be what is slow.", flush=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_signals())
        root = Path(tempfile.mkdtemp(prefix="notifyd-soak-", dir=arguments.folder))
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        log = stack.enter_context(arguments.log.open("a")) if arguments.log else None
        run = Run(arguments, log)
        good = run.run(root)
    return 1 if not good else 2 if run.cut_short else 0


if __name__ == "__main__":
    sys.exit(main())
