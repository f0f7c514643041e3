"""How many pods one machine carries: bring-up, CPU and memory at rest, against the bare parts that any way needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import yaml

from benchmarks import bare_parts
from benchmarks.bare_parts import BareParts
from benchmarks.row import Row
from benchmarks.testbed_run import temporary_folder, testbed_run
from testbed.results.tables.writer import read_table
from testbed.scenario import load_scenario

CLUSTERS = ((3, 1, 8), (5, 2, 45), (5, 4, 110), (5, 5, 250))
"""Zones, nodes a zone, and pods with one gateway a zone among them."""
DURATION_S = 14
AT_REST_FROM_S = 4
"""By then bring-up and Locust's own start are over."""


def measure() -> Iterator[Row]:
    from testbed.emulation.driver.survey import expected_actors

    for zones, nodes, pods in CLUSTERS:
        name = f"{pods} pods on {zones * nodes} nodes"
        path = temporary_folder() / "density.yaml"
        path.write_text(yaml.safe_dump(_scenario(zones, nodes, pods)))
        bare = bare_parts.measure(envoys=pods, workloads=pods - zones, actors=expected_actors(load_scenario(path)))
        ours = _testbed(path)
        yield _row(f"bring-up of {name}", ours.ready_s, bare.ready_s, "s", "<= 1.7")
        yield _row(f"CPU at rest, {name}", ours.cpu_percent / pods, bare.cpu_percent / pods, "% of a core a pod", "")
        yield _row(f"memory, {name}", ours.memory_bytes / pods / 1e6, bare.memory_bytes / pods / 1e6, "MB a pod", "")


def _row(name: str, ours: float, bare: float, unit: str, bound: str) -> Row:
    return Row(name, f"{ours:.2f} {unit}", f"{bare:.2f} {unit}, bare parts", f"{ours / bare:.2f}", bound)


def _testbed(path: Path) -> BareParts:
    """The same for a cluster of ours, which is sent one request a second."""
    used_bytes = psutil.virtual_memory().used
    run = testbed_run(path)
    at_rest = [row for row in read_table(run.run_dir, "machines").to_pylist() if row["t_s"] > AT_REST_FROM_S]
    return BareParts(
        ready_s=run.summary["ready_s"],
        cpu_percent=float(np.mean([row["cpu_percent"] for row in at_rest])) * (psutil.cpu_count() or 1),
        memory_bytes=max(row["memory_bytes"] for row in at_rest) - used_bytes,
    )


def _scenario(zones: int, nodes: int, pods: int) -> dict[str, object]:
    names = [f"east-{letter}" for letter in "abcde"[:zones]]
    front = (pods - zones) // 2
    return {
        "apiVersion": "testbed/v1",
        "kind": "Scenario",
        "metadata": {"name": "density"},
        "spec": {
            "topology": {
                "regions": {"east": {"zones": {name: {"nodes": nodes} for name in names}}},
                "links": {"sameZone": {"rtt": "0.3ms"}, "sameRegion": {"rtt": "2ms"}},
            },
            "controlPlane": {"readyTimeout": "180s"},
            "services": {
                "web": {"replicas": front, "workload": {"work": "1ms", "calls": ["orders"]}},
                "orders": {"replicas": pods - zones - front, "workload": {"work": "1ms"}},
            },
            "gateway": {"routes": [{"path": "/", "service": "web"}]},
            "load": {
                "sources": [{"zone": names[0], "rate": "1/s"}],
                "warmup": "0s",
                "duration": f"{DURATION_S}s",
            },
        },
    }
