"""What a lab leaves in its folder for those who come later: its plan, and which processes are its own.

A process is known by its id and its start time, so that another one with the same id is never taken for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from testbed.machines.lab.plan import LabPlan

_FILE = "lab.json"


@dataclass(frozen=True, slots=True)
class Process:
    """`started` is the kernel's, in clock ticks since boot."""

    pid: int
    started: int

    @property
    def is_running(self) -> bool:
        return _start_time(self.pid) == self.started

    def signal(self, number: int) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True, slots=True)
class LabState:
    """`processes` begins with the supervisor."""

    plan: LabPlan
    processes: tuple[Process, ...]

    def save(self) -> None:
        path = self.plan.state_dir / _FILE
        draft = path.with_suffix(".new")
        draft.write_bytes(orjson.dumps(dataclasses.asdict(self)))
        draft.replace(path)


def load_state(state_dir: Path) -> LabState | None:
    """None where no lab is, or where one has not got as far as to have processes."""
    try:
        fields = orjson.loads((state_dir / _FILE).read_bytes())
    except FileNotFoundError:
        return None
    plan = fields["plan"]
    return LabState(
        LabPlan(**{**plan, "zones": tuple(plan["zones"])}),
        tuple(Process(**process) for process in fields["processes"]),
    )


def find_processes(pids: Iterable[int]) -> tuple[Process, ...]:
    """Those of `pids` that run."""
    started = [(pid, _start_time(pid)) for pid in pids]
    return tuple(Process(pid, time) for pid, time in started if time is not None)


def _start_time(pid: int) -> int | None:
    """None for a process that is gone, and for a zombie: it holds nothing any more."""
    try:
        # The name, in parentheses, may contain anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
