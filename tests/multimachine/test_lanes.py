"""A sweep whose runs go on side by side, each on machines of its own."""

from __future__ import annotations

import re
import shlex

import orjson
import pytest

from tests.emulation.conftest import DEADLINE_S, SHORT_OF_CORES, until
from tests.multimachine.conftest import RUN_TIMEOUT_S, Cluster, unavailable

pytestmark = [pytest.mark.live, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]

SCENARIO = """
apiVersion: testbed/v1
kind: Scenario
metadata: {name: beside}
spec:
  topology: {regions: {east: {zones: {east-x: {nodes: 1}}}}}
  services: {web: {replicas: 1, workload: {work: 1ms}}}
  gateway: {routes: [{path: /, service: web}]}
  load: {sources: [{zone: east-x, rate: 10/s}], warmup: 0s, duration: 2s}
"""
MACHINES = ("m1", "m2", "m3", "m4")
RUNNING = "[t]estbed.cli import main; main.. run"


def sweep_command(*options: str) -> str:
    rates = shlex.quote("spec.load.sources[east-x].rate=10/s,20/s")
    given = f"--repeat 1 --hosting node --address auto --machines 4 --set {rates} {' '.join(options)}"
    return f"echo {shlex.quote(SCENARIO)} > beside.yaml; exec testbed sweep beside.yaml {given}"


def runs_on(cluster: Cluster) -> list[str]:
    """Machines on which a run goes on that a sweep has started."""
    return [machine for machine in MACHINES if cluster.run(machine, f"pgrep -f '{RUNNING}'")[0] == 0]


def what_is_left(cluster: Cluster) -> list[str]:
    return [
        cluster.run(machine, f"pgrep -f '{RUNNING}'; ls -d /tmp/testbed-[0-9a-f]* 2>/dev/null")[1]
        for machine in MACHINES
    ]


def test_runs_of_a_sweep_go_on_side_by_side_on_machines_of_their_own(cluster: Cluster) -> None:
    code, output = cluster.run("m1", sweep_command("--out swept"))
    lines = output.splitlines()
    assert any("2 runs, 2 at a time" in line for line in lines), output
    assert "  each on machines of its own: m2; m3; m4; m1" in lines
    begins = [number for number, line in enumerate(lines) if line.startswith("▸ run ")]
    ends = [number for number, line in enumerate(lines) if re.match("  [AB], seed 0: ", line)]
    assert [re.sub("; about .*", "", lines[number]) for number in begins[:2]] == [
        "▸ run 1 of 2: A, seed 0 on m2",
        "▸ run 2 of 2: B, seed 0 on m3",
    ]
    assert begins[1] < ends[0], output
    folder = cluster.plan.state_dir / "homes" / "m1" / "swept"
    tries = [orjson.loads(line) for line in (folder / "runs.jsonl").read_bytes().splitlines()]
    for each in tries:
        assert each["verdict"] == "passed" or SHORT_OF_CORES.search(each["why"]), each
        facts = orjson.loads((folder / each["folder"] / "facts.json").read_bytes())
        assert [machine["name"] for machine in facts["machines"]] == each["machines"]
        assert (folder / each["folder"] / "report.html").stat().st_size > 1000
    valid = {each["run"]["variant"] for each in tries if each["verdict"] == "passed"}
    assert code == (0 if valid == {"A", "B"} else 3), output
    assert what_is_left(cluster) == [""] * 4


@pytest.mark.soak
def test_an_interrupt_ends_all_runs_and_leaves_nothing(cluster: Cluster) -> None:
    sweep = cluster.start("m1", sweep_command("--out broken-off", "--set spec.load.duration=100s"))
    assert until(lambda: runs_on(cluster) == ["m2", "m3"])
    cluster.run("m1", "pkill -INT -f '[t]estbed sweep'")
    # Long before their load would have ended.
    output, _ = sweep.communicate(timeout=DEADLINE_S)
    assert sweep.returncode == 130, output
    assert "interrupted: the present runs end; once more to end them at once" in output
    assert "interrupted: 0 runs are done, 2 are left" in output
    assert what_is_left(cluster) == [""] * 4


@pytest.mark.soak
def test_a_sweep_that_is_killed_leaves_nothing_on_any_machine(cluster: Cluster) -> None:
    sweep = cluster.start("m1", sweep_command("--out killed", "--set spec.load.duration=100s"))
    assert until(lambda: runs_on(cluster) == ["m2", "m3"])
    cluster.run("m1", "pkill -9 -f '[t]estbed sweep'")
    sweep.communicate(timeout=RUN_TIMEOUT_S)
    assert until(lambda: what_is_left(cluster) == [""] * 4)
