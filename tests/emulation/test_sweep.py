"""A sweep of real runs: what each leaves, and the comparison of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import orjson
import pytest

from tests.emulation.conftest import COMMAND, RUN_TIMEOUT_S, SCENARIOS, SHORT_OF_CORES

pytestmark = pytest.mark.live


def test_two_variants_are_run_and_compared(tmp_path: Path) -> None:
    rates = ("--set", "spec.load.sources[east-a].rate=10/s,20/s", "--set", "spec.load.duration=2s")
    options = ("--repeat", "1", "--seed", "3", "--hosting", "node", "--out", str(tmp_path / "sweep"))
    command = [*COMMAND, "sweep", str(SCENARIOS / "small.yaml"), *rates, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * RUN_TIMEOUT_S)
    tries = [orjson.loads(line) for line in (tmp_path / "sweep" / "runs.jsonl").read_bytes().splitlines()]
    assert {(each["run"]["variant"], each["run"]["seed"]) for each in tries} == {("A", 3), ("B", 3)}
    for each in tries:
        # That it is invalid on a machine that is busy with much else is no matter here.
        assert each["verdict"] == "passed" or SHORT_OF_CORES.search(each["why"]), each
        facts = orjson.loads((tmp_path / "sweep" / each["folder"] / "facts.json").read_bytes())
        assert (facts["seed"], facts["hosting"]) == (3, "node")
        assert "cores of" in facts["machines"][0]["hardware"]
        assert "sources" in facts["machines"][0]["software"]
    valid = {each["run"]["variant"] for each in tries if each["verdict"] == "passed"}
    assert done.returncode == (0 if len(valid) == 2 else 3), done.stderr
    assert "B  spec.load.sources[east-a].rate=20/s" in done.stdout
