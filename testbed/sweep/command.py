"""One run of a sweep, as a command of its own: whatever becomes of it, nothing is left of it for the next one."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from testbed.sweep.plan import Ended, Run

_COMMAND = (sys.executable, "-c", "from testbed.cli import main; main()", "run")
_BAD_INPUT, _INTERRUPTED = 2, 130
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class RunRefused(Exception):
    """The run was never begun, nor would any other be: what the command said."""


class RunCommand:
    """`testbed run` of one variant with one seed. `folder` is that of the sweep, `tries` where it leaves its result.

    It has a session of its own, so that a Ctrl-C of the terminal comes once, by `interrupt`; and if the sweep is
    killed, it ends in order.
    """

    def __init__(self, run: Run, scenario: Path, folder: Path, tries: Path, options: Sequence[str]) -> None:
        """Raises OSError."""
        self._run, self._folder, self._tries = run, folder, tries
        tries.mkdir(0o700, parents=True, exist_ok=True)
        self._before = {each.name for each in tries.iterdir()}
        self._printed = tries / f"printed-{sum(name.startswith('printed-') for name in self._before) + 1}.txt"
        arguments = [str(scenario), "--seed", str(run.seed), "--out", str(tries), "--quiet", *options]
        self._began_s = time.monotonic()
        with self._printed.open("wb") as printed:
            self._process = subprocess.Popen(
                [*_COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_the_sweep,
            )

    def interrupt(self) -> None:
        """As Ctrl-C does: the first in good order, the second at once."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> Ended:
        """Raises RunRefused if it is bad input, which it would be for the others, too."""
        code = self._process.wait()
        took_s = time.monotonic() - self._began_s
        said = self._printed.read_text(errors="replace").strip()
        if code == _BAD_INPUT:
            raise RunRefused(said)
        made = next((each for each in self._tries.iterdir() if each.is_dir() and each.name not in self._before), None)
        folder = None if made is None else str(made.relative_to(self._folder))
        summary = None if made is None else _summary(made)
        if summary is not None:
            why = next(iter(summary["invalid_reasons"]), "")
            return Ended(self._run, summary["verdict"], folder, took_s, why)
        if code == _INTERRUPTED:
            return Ended(self._run, "interrupted", folder, took_s)
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Ended(self._run, "none", folder, took_s, (said.splitlines() or [how])[0])


def _summary(run_dir: Path) -> dict[str, Any] | None:
    try:
        summary: dict[str, Any] = orjson.loads((run_dir / "summary.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return summary


def _end_with_the_sweep() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
