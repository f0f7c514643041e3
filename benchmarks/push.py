"""From the first push of an endpoint change to the last proxy's ACK, in a cluster under a zone outage."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.bring_up import SCENARIO
from benchmarks.row import Row
from benchmarks.testbed_run import testbed_run
from testbed.results.tables.writer import read_table

WAVE_GAP_S = 0.05


def measure() -> Iterator[Row]:
    done = testbed_run(SCENARIO, "spec.load.sources=[{zone: east-b, rate: 20/s}]", "spec.expect=[]")
    pushes = sorted(
        (row for row in read_table(done.run_dir, "pushes").to_pylist() if row["sent_s"] > 0 and row["acked_s"]),
        key=lambda row: row["sent_s"],
    )
    waves: list[list[dict[str, float]]] = []
    for push in pushes:
        if waves and push["sent_s"] - waves[-1][-1]["sent_s"] < WAVE_GAP_S:
            waves[-1].append(push)
        else:
            waves.append([push])
    each = [(push["acked_s"] - push["sent_s"]) * 1e3 for push in pushes]
    last = [(max(push["acked_s"] for push in wave) - wave[0]["sent_s"]) * 1e3 for wave in waves]
    yield Row(
        "push to ACK",
        f"median {median(each):.1f} ms a proxy",
        f"{len(each)} pushes in {len(waves)} waves",
        f"last ACK after {median(last):.1f} ms (median), {max(last):.1f} ms (worst)",
        "-",
    )
