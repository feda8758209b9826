"""Runs the fuzzers, each for a bounded time, and keeps what they found.

``python -m tests.fuzz [NAME …] [--seconds N] [--keep]``: a NAME is a framing, or ``framing`` for all of them. An input
that fails is put into the corpus, where pytest runs it from then on. ``--keep`` adds inputs that reached new code.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import CORPUS, FRAMINGS, kinds

MAX_LENGTH = 400
"""Bytes of an input: a few frames of any kind."""

MAX_FILES = 16
"""Inputs that are kept of a framing: with what it finds, ten of them stay below 200 files."""


def seed(framing: str, folder: Path) -> None:
    """Writes the frames that the tests know, for the first run and for each new way of using a framing."""
    for number, kind in enumerate(kinds(framing)):
        frames = [kind.write(text)[0] for text in (kind.alphabet[:12], kind.alphabet[-9:])]
        name = kind.name.replace(" ", "-")
        (folder / f"seed-{name}").write_bytes(bytes([number, 5]) + b"".join([*frames, *kind.extra]))


def fuzz(framing: str, seconds: int, *, keep: bool) -> bool:
    """Fuzzes a framing; gives whether nothing failed."""
    corpus = CORPUS / framing
    corpus.mkdir(parents=True, exist_ok=True)
    seed(framing, corpus)
    with tempfile.TemporaryDirectory() as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        limits = [f"-max_len={MAX_LENGTH}", "-len_control=0", "-timeout=10", f"-max_total_time={seconds}"]
        folders = [f"-artifact_prefix={scratch}/", str(new), str(corpus)]
        command = [sys.executable, "-m", "tests.fuzz.child", framing, *limits, *folders]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        for finding in [*Path(scratch).glob("crash-*"), *Path(scratch).glob("timeout-*")]:
            shutil.copy(finding, corpus / f"found-{finding.name[-12:]}")
        if keep:
            room = max(0, MAX_FILES - len(list(corpus.iterdir())))
            fresh = sorted(new.iterdir(), key=lambda file: file.stat().st_size, reverse=True)
            for file in fresh[:: max(1, len(fresh) // max(1, room))][:room]:  # long ones and short ones
                shutil.copy(file, corpus / file.name[:12])
    lines = [line for line in done.stderr.splitlines() if "stat::" in line or line.startswith("Done ")]
    print(f"{framing}: {'nothing found' if done.returncode == 0 else 'FAILED'}; {'; '.join(lines)}", flush=True)
    if done.returncode != 0:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    return done.returncode == 0


def main() -> int:
    """Fuzzes what is asked for; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("names", nargs="*", default=["framing"], choices=[*FRAMINGS, "framing"], metavar="NAME")
    parser.add_argument("--seconds", type=int, default=20, help="for each framing")
    parser.add_argument("--keep", action="store_true", help="add inputs that reached new code to the corpus")
    arguments = parser.parse_args()
    names = FRAMINGS if "framing" in arguments.names else arguments.names
    well = [fuzz(name, arguments.seconds, keep=arguments.keep) for name in names]  # all of them, also after a finding
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
