"""A zone that crashes and comes back among many pods, against the same among few: as valid, and with the same end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.row import Row
from benchmarks.testbed_run import FinishedRun, testbed_run
from testbed.results.tables.writer import read_table

SCENARIO = Path(__file__).parent / "zone-crash.yaml"
FEW = (
    *(f"spec.topology.regions.east.zones.east-{letter}.nodes=1" for letter in "abcde"),
    *(f"spec.services.{service}.replicas=5" for service in ("web", "orders", "stock")),
)
"""20 pods on 5 nodes, with the same load."""

AFTER_HEAL_S = 10
BUSY_PERCENT = 95
"""A run is invalid that is above that in more than a tenth of the samples."""


def measure() -> Iterator[Row]:
    many, few = testbed_run(SCENARIO), testbed_run(SCENARIO, *FEW)
    yield Row("zone crash, 110 pods", _verdict(many), f"{_verdict(few)}, 20 pods", "", "valid")
    yield Row("its recovery", _recovery(many), _recovery(few), "", "as with few")
    yield Row(f"CPU in {AFTER_HEAL_S} s after its heal", _cpu(many), _cpu(few), "", "<= 10 % of samples")


def _verdict(run: FinishedRun) -> str:
    return "valid" if run.summary["valid"] else "; ".join(run.summary["invalid_reasons"])


def _recovery(run: FinishedRun) -> str:
    crash = run.summary["faults"][0]
    heal = crash["heal"]
    healed = f"healed: {_seconds(heal['time_to_recover_s'])}, ACKed {_seconds(heal['control_path']['propagated_s'])}"
    return f"{_seconds(crash['time_to_recover_s'])}; {healed}"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def _cpu(run: FinishedRun) -> str:
    samples = [(row["t_s"], row["cpu_percent"]) for row in read_table(run.run_dir, "machines").to_pylist()]
    healed_s = run.summary["faults"][0]["healed_s"]
    after_heal = np.mean([percent for t_s, percent in samples if healed_s <= t_s < healed_s + AFTER_HEAL_S])
    busy = np.mean([percent > BUSY_PERCENT for t_s, percent in samples if t_s >= 0])
    return f"{after_heal:.0f} %; above {BUSY_PERCENT} % in {busy:.0%} of all samples"
