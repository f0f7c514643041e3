"""What it costs to compute and apply the key: the chain with cells against the same chain without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.row import Row
from benchmarks.testbed_run import testbed_run

FOLDER = Path(__file__).parent
PAIRS = 3


def measure() -> Iterator[Row]:
    """In turns, so that what else the machine does hits both; the ratio of medians."""
    with_cells, without = [], []
    for _ in range(PAIRS):
        without.append(_rate(FOLDER / "chain.yaml"))
        with_cells.append(_rate(FOLDER / "chain-cells.yaml"))
    yield Row(
        "mesh throughput with cells",
        f"{median(with_cells):.0f} requests/s",
        f"{median(without):.0f} requests/s without cells",
        f"{median(with_cells) / median(without):.2f}",
        ">= 0.9",
    )


def _rate(scenario: Path) -> float:
    phases = testbed_run(scenario).summary["phases"]
    rate: float = next(phase["rate_per_s"] for phase in phases if phase["name"] == "steady")
    return rate
