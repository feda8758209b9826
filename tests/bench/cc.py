"""Compiles the harness's C files into a temporary folder, when they are needed."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path


def compiler() -> str | None:
    """Gives the C compiler, where there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="notifyd-bench-cc-")


@functools.cache
def build(source: Path) -> Path:
    """Gives the program that is made of one C file.

    Raises:
        RuntimeError: the compiler does not take it.
    """
    program = Path(_folder().name) / source.stem
    command = [compiler() or "cc", "-O3", "-Wall", "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{source.name} does not compile: {done.stderr}")
    return program
