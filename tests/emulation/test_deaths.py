"""Processes of the testbed that die or hang in the middle of a run, and signals before there is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.emulation.conftest import (
    FinishedRun,
    finish_run,
    load_has_begun,
    processes_marked,
    run_id,
    start_run,
    until,
)

pytestmark = pytest.mark.live

RELAY = "testbed.network.wire.relay_process"
LONG = "spec.load.duration=100s"
TWO_NODES = "spec.topology.regions.east.zones.east-a.nodes=2"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@dataclass(frozen=True)
class Running:
    """A run whose load has begun."""

    process: subprocess.Popen[bytes]
    out: Path
    mark: str

    @classmethod
    def begun(cls, process: subprocess.Popen[bytes], out: Path) -> Running:
        assert until(lambda: load_has_begun(out, 60))
        return cls(process, out, run_id(out))

    def signal(self, number: signal.Signals, *titles: str) -> None:
        """To one process of each title."""
        marked = processes_marked(self.mark)
        for title in titles:
            os.kill(next(pid for pid, line in marked.items() if line.startswith(title)), number)

    def ended(self) -> FinishedRun:
        """What was measured is there, and nothing else."""
        run = finish_run(self.process, self.out)
        assert until(lambda: not processes_marked(self.mark)), processes_marked(self.mark)
        assert "Traceback" not in run.stderr
        assert run.summary["requests"]["sent"] == len(run.rows("requests")) >= 30
        return run


def test_supervisors_that_are_killed_end_the_run_by_name_and_what_was_measured_is_kept(out: Path) -> None:
    running = Running.begun(start_run("small.yaml", out, LONG, hosting="actor"), out)
    running.signal(signal.SIGKILL, "ray::Pod", "ray::Sidecar", f"{sys.executable} -m {RELAY}")
    run = running.ended()
    assert run.exit_code == 3, run.stderr
    reasons = "\n".join(run.summary["invalid_reasons"])
    assert "the supervisor of pod web-1 (container) on node east-a-1 died" in reasons
    assert "(sidecar) on node east-a-1 died" in reasons
    assert "the link relay of machine" in reasons
    assert "died (exit code -9)" in reasons
    assert "Ray" not in reasons
    assert run.rows("hops")


def test_processes_that_hang_end_the_run_or_let_it_be_interrupted_and_what_was_measured_is_kept(tmp_path: Path) -> None:
    # Two runs at once, since most of the time is spent on waiting for who hangs.
    outs = tmp_path / "agent", tmp_path / "load"
    processes = [start_run("small.yaml", out, LONG, TWO_NODES) for out in outs]
    agent, load = (Running.begun(process, out) for process, out in zip(processes, outs, strict=True))
    agent.signal(signal.SIGSTOP, "ray::SharedProcess")
    load.signal(signal.SIGSTOP, "ray::LoadGenerator")
    os.kill(load.process.pid, signal.SIGINT)
    run = agent.ended()
    assert run.exit_code == 3, run.stderr
    # They share the process.
    for node in ("east-a-1", "east-a-2"):
        assert f"the agent of node {node} does not answer" in " ".join(run.summary["invalid_reasons"])
    assert load.ended().exit_code == 130


def test_sigterm_while_ray_starts_is_an_interrupt_and_leaves_no_run_folder(out: Path) -> None:
    process = start_run("small.yaml", out)
    assert until(lambda: [path for path in out.glob("*/logs") if path.is_dir()])
    time.sleep(1.0)  # somewhere in the seconds that Ray takes
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.decode().splitlines()[-1]) == (130, "interrupted")
    assert b"Traceback" not in stderr
    assert list(out.iterdir()) == []
