"""Load for the benchmarks: event lines made before the clock starts, and a producer that sends them at full speed."""

from __future__ import annotations

import json
import select
import socket
import time

SEND_AT_ONCE = 256 * 1024
"""Bytes handed to the kernel at once: enough that the producer does not wait for itself."""


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
