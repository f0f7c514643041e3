"""What a lab leaves for those who come later."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from testbed.machines.lab import plan as plan_module
from testbed.machines.lab.plan import LabPlan
from testbed.machines.lab.state import LabState, Process, find_processes, load_state


def test_a_saved_state_is_the_one_that_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "state_dir", lambda _: tmp_path)
    state = LabState(LabPlan(3, ("a", "b")), find_processes([os.getpid()]))
    state.save()
    assert load_state(tmp_path) == state


def test_where_no_lab_is_there_is_no_state(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None


def test_a_process_with_the_same_id_but_another_start_is_not_taken_for_it() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        (process,) = find_processes([child.pid])
        stranger = Process(child.pid, process.started - 1)
        assert process.is_running
        assert not stranger.is_running
        stranger.signal(signal.SIGKILL)
        assert child.poll() is None
        process.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not process.is_running
        assert find_processes([child.pid]) == ()
    finally:
        child.kill()
        child.wait()


def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen(["true"], stdout=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert find_processes([child.pid]) == ()
    child.wait()
