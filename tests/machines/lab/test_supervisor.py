"""What the owner of the machines does when one of them fails it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from testbed.machines.lab import plan as plan_module
from testbed.machines.lab import supervisor
from testbed.machines.lab.plan import LabError, LabPlan, MachinePlan
from testbed.machines.lab.state import find_processes, load_state
from testbed.machines.lab.supervisor import Lab
from testbed.machines.lab.switch import Switch


class StuckMachine:
    """It starts and never comes up; m1 cannot even be plugged in."""

    def __init__(self, lab: LabPlan, machine: MachinePlan, authorized_key: str) -> None:
        self.plan = machine
        self.init_pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_up(self) -> bool:
        return self._process is not None

    @property
    def pids(self) -> list[int]:
        return [] if self._process is None else [self._process.pid]

    def boot(self) -> None:
        self._process = subprocess.Popen(["sleep", "60"])

    def connect(self, switch: Switch, cut_from: Iterable[str]) -> None:
        if self.plan.name == "m1":
            raise subprocess.CalledProcessError(1, "ip")

    def wait_until_up(self) -> None:
        raise LabError(f"machine {self.plan.name} did not come up")

    def power_off(self, switch: Switch) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.mark.parametrize(("machine", "error"), [("m1", subprocess.CalledProcessError), ("m2", LabError)])
def test_a_machine_that_cannot_start_is_off_and_none_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, error: type[Exception]
) -> None:
    monkeypatch.setattr(plan_module, "state_dir", lambda _: tmp_path)
    monkeypatch.setattr(supervisor, "Machine", StuckMachine)
    plan = LabPlan(2)
    lab = Lab(plan, Switch(plan, host_netns=-1), "")
    with pytest.raises(error):
        lab.handle({"command": "start", "machines": [machine]})
    assert [state["state"] for state in lab.handle({"command": "status"})["machines"]] == ["off", "off"]
    state = load_state(tmp_path)
    assert state is not None
    assert state.processes == find_processes([os.getpid()])
