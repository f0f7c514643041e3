"""Runs a scenario through the command line, as a user does, and reads its summary."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class FinishedRun:
    summary: dict[str, Any]
    run_dir: Path


def temporary_folder() -> Path:
    """A folder that lasts as long as the benchmarks do."""
    folder = Path(tempfile.mkdtemp(prefix="testbed-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def testbed_run(scenario: Path, *overrides: str) -> FinishedRun:
    """The run's summary and folder. Raises RuntimeError when there is none."""
    out = temporary_folder()
    arguments = [sys.executable, "-c", "from testbed.cli import main; main()", "run", str(scenario)]
    for override in overrides:
        arguments += ["--set", override]
    done = subprocess.run([*arguments, "--json", "--out", str(out)], capture_output=True, check=False, timeout=300)
    if not done.stdout:
        raise RuntimeError(f"{scenario}: exit code {done.returncode}: {done.stderr.decode()}")
    return FinishedRun(orjson.loads(done.stdout), next(out.iterdir()))
