"""Somebody else who makes files in a folder for a while, as actors do that Ray has still to end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCRIPT = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
end_s, number = time.monotonic() + 1.5, 0
while time.monotonic() < end_s:
    number += 1
    try:
        (folder / str(number)).touch()
    except FileNotFoundError:
        break
    if number == 500:
        print("begun", flush=True)
"""


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """During the block files are made there, until the folder is gone or a second and a half has passed."""
    with subprocess.Popen([sys.executable, "-c", _SCRIPT, str(folder)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        yield
    assert writer.returncode == 0
