"""Where a microsecond goes: a flame graph of the hub at full rate, with subscribers that read everything.

Run it with ``make profile`` or ``python -m tests.bench.profile --output hub.svg``; py-spy has to be allowed to look at
the hub's process (as root, or with ``kernel.yama.ptrace_scope = 0``).
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.bench.stages import event_lines, send_all
from tests.integration import rig

RULES = "".join(f'[[rule]]\ntype = "other.{number}"\npriority = "normal"\n' for number in range(4)) + (
    '[[rule]]\ntype = "panel.*"\npriority = "normal"\n'
)
EVENTS_AT_ONCE = 100_000


def read_all(connection: socket.socket) -> None:
    """Reads and throws away, until the hub ends."""
    buffer = bytearray(1 << 20)
    while connection.recv_into(buffer):
        pass


def main() -> None:
    """Starts a hub, loads it, and has py-spy watch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="hub.svg", help="an SVG, or a .txt with collapsed stacks")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--subscribers", type=int, default=10)
    arguments = parser.parse_args()
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        sys.exit("py-spy is not installed: pip install 'notifyd[bench]'")
    lines = event_lines(EVENTS_AT_ONCE)
    with tempfile.TemporaryDirectory() as name:
        hub = rig.Hub(Path(name), RULES)
        process = hub.start()
        try:
            for _ in range(arguments.subscribers):
                connection = socket.create_connection(("127.0.0.1", hub.ports["normal"]))
                threading.Thread(target=read_all, args=(connection,), daemon=True).start()
            form = "raw" if arguments.output.endswith(".txt") else "flamegraph"
            command = [spy, "record", "--pid", str(process.popen.pid), "--duration", str(arguments.seconds)]
            watcher = subprocess.Popen([*command, "--rate", "500", "--format", form, "--output", arguments.output])
            while watcher.poll() is None:
                send_all(hub.ports["ingest"], lines, EVENTS_AT_ONCE)
        finally:
            process.stop()
            rig.release_ports()
    sys.exit(watcher.returncode)


if __name__ == "__main__":
    main()
