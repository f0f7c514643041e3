"""A Ray cluster on machines of a lab, brought up as a user would: `testbed lab up`, then `ray up cluster.yaml`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbed.machines.lab.lifecycle import check_host, make_lab, remove_lab
from testbed.machines.lab.plan import LabError, LabPlan
from testbed.results.tables.writer import read_table

PLAN = LabPlan(5, ("east-a", "east-b", "east-c"), "testbed-test78", "198.18.78.0/24")
STRANGER = "m5"
"""On the same network, but none of the cluster's."""
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from testbed.cli import main; main()")
RUN_TIMEOUT_S = 180.0


def unavailable() -> str | None:
    """Why there can be no lab here."""
    try:
        check_host()
    except LabError as error:
        return str(error)
    made = subprocess.run(["unshare", "--net", "--time", "--pid", "--fork", "true"], capture_output=True, text=True)
    return None if made.returncode == 0 else f"no namespaces here: {made.stderr.strip()}"


@dataclass(frozen=True)
class Cluster:
    """m1 is the head, m2 to m4 carry a zone each."""

    plan: LabPlan
    home: Path

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "TESTBED_LAB": self.plan.name, "HOME": str(self.home), "RAY_AUTH_MODE": "token"}

    def address(self, machine: str) -> str:
        return self.plan.machine(machine).address

    def start(self, machine: str, script: str) -> subprocess.Popen[str]:
        """A shell script on a machine, in its home."""
        arguments = [*COMMAND, "lab", "exec", machine, "--", "bash", "-c", script]
        return subprocess.Popen(
            arguments, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )

    def submit(self, folder: Path, command: list[str]) -> subprocess.Popen[str]:
        """A job for the head, from a machine that is none of the cluster's. It has the folder, and runs in it."""
        ray = str(Path(sys.executable).with_name("ray"))
        job = [ray, "job", "submit", "--address", f"http://{self.address('m1')}:8265", "--working-dir", str(folder)]
        return subprocess.Popen(
            [*job, "--", *command], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, machine: str, script: str, timeout_s: float = RUN_TIMEOUT_S) -> tuple[int, str]:
        """Its exit code and all that it printed."""
        process = self.start(machine, script)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            pytest.fail(f"{script} on {machine} did not end within {timeout_s:g} s:\n{output}")
        return process.returncode, output

    def lab(self, *arguments: str) -> None:
        subprocess.run(
            [*COMMAND, "lab", *arguments], env=self.env, check=True, timeout=RUN_TIMEOUT_S, capture_output=True
        )

    def run_dirs(self, machine: str = "m1") -> list[Path]:
        return sorted((self.plan.state_dir / "homes" / machine).glob("runs/*"))


def run_command(*overrides: str, machines: int = 4, options: str = "--address auto") -> str:
    """The command line of a run of the scenario that `ray up` has brought along."""
    settings = " ".join(f"--set {shlex.quote(override)}" for override in overrides)
    return f"testbed run testbed/scenarios/zone-outage.yaml --machines {machines} {options} {settings}"


@dataclass(frozen=True)
class Result:
    """The folder that a run left on the head."""

    run_dir: Path

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = orjson.loads((self.run_dir / "summary.json").read_bytes())
        return summary

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.run_dir, table).to_pylist()
        return rows


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    cluster = Cluster(PLAN, tmp_path_factory.mktemp("home"))
    config = ROOT / "cluster.yaml"
    ours = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    # Relative paths of a cluster file count from where `ray up` is called.
    ours.write_text(config.read_text().replace("198.18.0.", "198.18.78.").replace("name: testbed", "name: test78"))
    remove_lab(PLAN.name)
    make_lab(PLAN, cluster.home)
    try:
        ray = str(Path(sys.executable).with_name("ray"))
        up = subprocess.run(
            [ray, "up", "-y", str(ours)], env=cluster.env, cwd=ROOT, capture_output=True, text=True, timeout=180.0
        )
        assert up.returncode == 0, up.stdout + up.stderr
        yield cluster
    finally:
        remove_lab(PLAN.name)
