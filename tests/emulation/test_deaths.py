"""Processes of the testbed that die or hang in the middle of a run, and signals before there is one."""

from __future__ import annotations

import os
import signal
import time
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


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def broken_run(out: Path, number: signal.Signals, *titles: str, interrupt: bool = False) -> tuple[FinishedRun, float]:
    """A run in which one process of each title is sent the signal, and how long it took to end after that."""
    process = start_run("small.yaml", out, "spec.load.duration=100s")
    assert until(lambda: load_has_begun(out, 60), 60)
    mark = run_id(out)
    marked = processes_marked(mark)
    for title in titles:
        os.kill(next(pid for pid, line in marked.items() if line.startswith(title)), number)
    if interrupt:
        os.kill(process.pid, signal.SIGINT)
    since_s = time.monotonic()
    run = finish_run(process, out)
    took_s = time.monotonic() - since_s
    assert until(lambda: not processes_marked(mark), 10), processes_marked(mark)
    assert "Traceback" not in run.stderr
    assert run.summary["requests"]["sent"] == len(run.rows("requests")) >= 30
    return run, took_s


def test_supervisors_that_are_killed_end_the_run_by_name_and_what_was_measured_is_kept(out: Path) -> None:
    run, _ = broken_run(out, signal.SIGKILL, "ray::Pod", "ray::Sidecar")
    assert run.exit_code == 3, run.stderr
    reasons = "\n".join(run.summary["invalid_reasons"])
    assert "the supervisor of pod web-1 (container) on node east-a-1 died" in reasons
    assert "(sidecar) on node east-a-1 died" in reasons
    assert "Ray" not in reasons
    assert run.rows("hops")


def test_a_node_agent_that_hangs_ends_the_run_with_what_was_measured(out: Path) -> None:
    run, took_s = broken_run(out, signal.SIGSTOP, "ray::NodeAgent")
    assert run.exit_code == 3, run.stderr
    assert any("the agent of node east-a-1 does not answer" in reason for reason in run.summary["invalid_reasons"])
    assert took_s < 60


def test_ctrl_c_ends_a_run_whose_load_generator_hangs(out: Path) -> None:
    run, took_s = broken_run(out, signal.SIGSTOP, "ray::LoadGenerator", interrupt=True)
    assert run.exit_code == 130, run.stderr
    assert took_s < 60


def test_sigterm_while_ray_starts_is_an_interrupt_and_leaves_no_run_folder(out: Path) -> None:
    process = start_run("small.yaml", out)
    assert until(lambda: [path for path in out.glob("*/logs") if path.is_dir()], 30)
    time.sleep(1.0)  # somewhere in the seconds that Ray takes
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.decode().splitlines()[-1]) == (130, "interrupted")
    assert b"Traceback" not in stderr
    assert list(out.iterdir()) == []
