"""What lookups and rules cost: events a second through the hub, as ratios to a hub with none, in one run.

Run it with ``python -m tests.bench.stages``; ``--events`` and ``--rounds`` make it longer.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from tests.integration import rig

SEND_AT_ONCE = 256 * 1024
"""Bytes handed to the kernel at once: enough that the producer does not wait for itself."""

ZONES = 100
CASES = [(0, 0), (0, 5), (0, 50), (0, 200), (1, 5), (1, 50), (1, 200), (3, 5), (3, 50), (3, 200)]
TARGET = (1, 50, 0.70)
"""With one cached lookup and 50 rules the hub is to keep so much of the rate that it has without any."""


def event_lines(count: int, *, zones: int = 100, size: int = 256) -> bytes:
    """Gives ``count`` event lines, as an agent makes them, of ``size`` bytes each where that is possible."""
    lines = []
    for number in range(count):
        zone = number % zones
        event = {
            "specversion": "1.0",
            "id": f"b{number:09}",
            "source": "/ward3/panel",
            "type": "panel.alarm",
            "time": "2026-11-22T10:00:00.123456Z",
            "priority": "normal",
            "data": {"line": "", "fields": {"zone": str(zone)}},
        }
        bare = len(json.dumps(event, separators=(",", ":"))) + 1
        event["data"] = {"line": "x" * max(0, size - bare), "fields": {"zone": str(zone)}}
        lines.append(json.dumps(event, separators=(",", ":")).encode() + b"\n")
    return b"".join(lines)


def send_all(port: int, data: bytes, count: int, limit_s: float = 300.0) -> float:
    """Sends event lines and reads until all are acknowledged.

    Args:
        port: of the hub's ingest, on this machine.
        data: the lines.
        count: how many they are.
        limit_s: after which it is given up.

    Returns:
        the seconds from the first byte to the last acknowledgement.
    """
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setblocking(False)
        view, sent, acked, rest = memoryview(data), 0, 0, b""
        start = time.perf_counter()
        while acked < count:
            wants = [connection] if sent < len(data) else []
            readable, writable, _ = select.select([connection], wants, [], limit_s)
            if not readable and not writable:
                raise TimeoutError("nothing moves")
            if writable:
                sent += connection.send(view[sent : sent + SEND_AT_ONCE])
            if readable:
                answer = connection.recv(65_536)
                if not answer:
                    raise ConnectionError("the hub has closed the connection")
                *lines, rest = (rest + answer).split(b"\n")
                if lines:
                    assert lines[-1].startswith(b"ACK "), lines[-1]
                    acked = int(lines[-1][4:])
        return time.perf_counter() - start


def settings(lookups: int, rules: int, database: Path) -> str:
    """Gives the tables of ``hub.toml``: each event has its rule, somewhere in the list."""
    parts = [
        f'[[lookup]]\nname = "zone{number}"\ndatabase = "sqlite:///{database}"\ncache = "10m"\n'
        'sql = "SELECT location, responder, priority FROM zone WHERE zone = :zone"\n'
        for number in range(lookups)
    ]
    parts += [
        f'[[rule]]\nname = "zone {number}"\ntype = "panel.*"\nwhere = {{ "fields.zone" = "{number % ZONES}" }}\n'
        f'priority = "normal"\n'
        for number in range(rules)
    ]
    return "".join(parts)


def make_database(path: Path) -> None:
    """Makes the table that is looked up."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE zone (zone TEXT PRIMARY KEY, location TEXT, responder TEXT, priority TEXT)")
        rows = [(str(zone), f"Ward 3, room {zone}", f"team-{zone % 7}", "normal") for zone in range(ZONES)]
        connection.executemany("INSERT INTO zone VALUES (?, ?, ?, ?)", rows)
    connection.close()


def run_case(folder: Path, lookups: int, rules: int, data: bytes, count: int) -> float:
    """Gives the events a second of one hub."""
    hub = rig.Hub(folder, settings(lookups, rules, folder.parent / "zones.db"))
    process = hub.start()
    try:
        send_all(hub.ports["ingest"], data[: len(data) // 20], count // 20)  # fills the caches
        return count / send_all(hub.ports["ingest"], data, count)
    finally:
        process.stop()
        rig.release_ports()


def main() -> None:
    """Runs every case in turns and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.events // 20 * 20
    data = event_lines(count, zones=ZONES)
    rates: dict[tuple[int, int], list[float]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as name:
        make_database(Path(name) / "zones.db")
        for number in range(arguments.rounds):
            for lookups, rules in CASES:
                folder = Path(name) / f"{number}-{lookups}-{rules}"
                rates[lookups, rules].append(run_case(folder, lookups, rules, data, count))
    base = statistics.median(rates[0, 0])
    print(f"{count} events of 256 bytes, {arguments.rounds} rounds; ratio of the medians to no lookup and no rule")
    print("lookups  rules   events/s   ratio")
    for (lookups, rules), found in rates.items():
        median = statistics.median(found)
        print(f"{lookups:7}  {rules:5}  {median:9,.0f}   {median / base:5.2f}")
    lookups, rules, least = TARGET
    ratio = statistics.median(rates[lookups, rules]) / base
    print(f"target: {lookups} lookup and {rules} rules at least {least:.2f}: {ratio:.2f}")


if __name__ == "__main__":
    main()
