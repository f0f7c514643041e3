"""One run of a sweep, as a command of its own: whatever becomes of it, nothing is left of it for the next one."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson

from testbed.sweep.plan import Ended, Machines, Run

COMMAND = ("-c", "from testbed.cli import main; main()")
"""What Python does for `testbed`."""
_BAD_INPUT, _INTERRUPTED = 2, 130
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class RunRefused(Exception):
    """The run was never begun, nor would any other be: what the command said."""


class RunLost(Exception):
    """Nobody knows what became of the run: why."""


class Running(Protocol):
    """A command that has been started, here or elsewhere."""

    def interrupt(self) -> None:
        """As Ctrl-C does: the first in good order, the second at once."""

    def wait(self) -> int:
        """Its exit code, once all that it left is where it belongs. Raises RunLost or OSError."""


Start = Callable[[Path, Sequence[str], Path, Path], Running]
"""Starts `testbed run` of a scenario with these options, whose result belongs into a folder and what it prints into a
file. Raises OSError, RunLost, or RunRefused."""


class RunCommand:
    """`testbed run` of one variant with one seed. `folder` is that of the sweep, `tries` where it leaves its result,
    `machines` the lane in which `start` starts it."""

    def __init__(
        self,
        run: Run,
        scenario: Path,
        folder: Path,
        tries: Path,
        options: Sequence[str],
        start: Start,
        machines: Machines = (),
    ) -> None:
        """Raises what `start` does."""
        self._run, self._folder, self._tries, self._machines = run, folder, tries, machines
        tries.mkdir(0o700, parents=True, exist_ok=True)
        self._before = {each.name for each in tries.iterdir()}
        self._printed = tries / f"printed-{sum(name.startswith('printed-') for name in self._before) + 1}.txt"
        self._began_s = time.monotonic()
        self._interrupted = False
        self._running = start(scenario, ["--seed", str(run.seed), "--quiet", *options], tries, self._printed)

    def interrupt(self) -> None:
        """As Ctrl-C does: the first in good order, the second at once."""
        self._interrupted = True
        self._running.interrupt()

    def wait(self) -> Ended:
        """Raises RunRefused if it is bad input, which it would be for the others, too; OSError."""
        try:
            code = self._running.wait()
        except RunLost as lost:
            return self._ended("none", None, str(lost))
        said = self._printed.read_text(errors="replace").strip()
        if code == _BAD_INPUT:
            raise RunRefused(said)
        made = next((each for each in self._tries.iterdir() if each.is_dir() and each.name not in self._before), None)
        folder = None if made is None else str(made.relative_to(self._folder))
        summary = None if made is None else _summary(made)
        if summary is not None:
            return self._ended(summary["verdict"], folder, next(iter(summary["invalid_reasons"]), ""))
        # Python that has only just begun does not take signals yet.
        if code == _INTERRUPTED or (self._interrupted and code in (-signal.SIGINT, -signal.SIGTERM)):
            return self._ended("interrupted", folder)
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return self._ended("none", folder, (said.splitlines() or [how])[0])

    def _ended(self, verdict: str, folder: str | None, why: str = "") -> Ended:
        return Ended(self._run, verdict, folder, time.monotonic() - self._began_s, why, self._machines)


class RunningHere:
    """It has a session of its own, so that a Ctrl-C of the terminal comes once, by `interrupt`; and if the sweep is
    killed, it ends in order. To be started by a thread that stays until its end."""

    def __init__(self, scenario: Path, options: Sequence[str], out: Path, printed: Path) -> None:
        """A Start."""
        with printed.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *COMMAND, "run", str(scenario), *options, "--out", str(out)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_the_sweep,
            )

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        return self._process.wait()


def _summary(run_dir: Path) -> dict[str, Any] | None:
    try:
        summary: dict[str, Any] = orjson.loads((run_dir / "summary.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return summary


def _end_with_the_sweep() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
