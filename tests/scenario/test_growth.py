"""The time to check a file grows as its size does: scenarios of thousands of generated entries can be used."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.scenario import ScenarioError, load_scenario

SIZE = 500
HEAD = """
apiVersion: testbed/v1
kind: Scenario
metadata: {name: large}
spec:
  topology: {regions: {east: {zones: {east-a: {nodes: 2}, east-b: {nodes: 2}}}}}
  gateway: {routes: [{path: /, service: web}]}
  load: {sources: [{zone: east-a, rate: 10/s}], duration: 100000s}
"""
WEB = "  services: {web: {replicas: 2}}\n"


def faults(line: Callable[[int], str]) -> Callable[[int], str]:
    return lambda size: f"{HEAD}{WEB}  faults:\n" + "".join(f"    - {{{line(i)}}}\n" for i in range(size))


def services(line: Callable[[int, int], str]) -> Callable[[int], str]:
    return lambda size: f"{HEAD}  services:\n    web: {{}}\n" + "".join(f"    {line(i, size)}\n" for i in range(size))


LARGE: dict[str, Callable[[int], str]] = {
    "faults": faults(lambda i: f"name: f{i}, at: {10 + i}s, for: 1ms, cut: {{from: east-a, to: '*'}}"),
    "crashes of one node": faults(lambda i: f"name: f{i}, at: {10 + i}s, for: 10s, crash: {{node: east-a-1}}"),
    "crashes at one time": faults(lambda i: f"name: f{i}, at: 10s, for: 10s, crash: {{zone: east-a}}"),
    "kills at one time": faults(lambda i: f"name: f{i}, at: 10s, kill: {{service: web}}"),
    "equal names": faults(lambda _: "name: f, at: 10s, kill: {service: web}"),
    "equal keys": lambda size: HEAD + WEB + "  faults: []\n" * size,
    "misspelt keys": faults(lambda i: f"nmae: f{i}, at: {i}, kill: {{service: web}}"),
    "unknown names": faults(lambda i: f"name: f{i}, at: 10s, kill: {{service: web{i}, zone: east{i}}}"),
    "references": lambda size: (
        faults(lambda i: f"name: f{i}, at: {10 + i}s, kill: {{service: web}}")(size)
        + "  expect:\n"
        + "".join(f"    - {{metric: time_to_recover, fault: {'fg'[i % 2]}{i}, atMost: 1s}}\n" for i in range(size))
    ),
    "services": services(lambda i, _: f"s{i}: {{workload: {{calls: [s{i + 1}, web]}}}}"),
    "services in a circle": services(lambda i, n: f"s{i}: {{replicas: 0, workload: {{calls: [s{(i + 1) % n}, s0]}}}}"),
    "services of a zone": services(lambda i, _: f"s{i}: {{zones: [east-a]}}"),
    "policies": lambda size: (
        HEAD
        + WEB
        + "  mesh:\n    policies:\n"
        + "".join(f"      - {{service: s{i}, trafficPolicy: {{outlierDetection: {{}}}}}}\n" for i in range(size))
    ),
    "requests": lambda size: HEAD.replace("load: {", "load: {requests: [" + "{path: /x}, " * size + "], ") + WEB,
}


def cpu_s(file: Path) -> float:
    # The collector looks at everything that other tests keep, too.
    gc.collect()
    gc.disable()
    started_s = time.process_time()
    try:
        with contextlib.suppress(ScenarioError):
            load_scenario(file)
        return time.process_time() - started_s
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", LARGE)
def test_four_times_as_much_takes_about_four_times_as_long(kind: str, tmp_path: Path) -> None:
    small, large = tmp_path / "small.yaml", tmp_path / "large.yaml"
    small.write_text(LARGE[kind](SIZE))
    large.write_text(LARGE[kind](4 * SIZE))
    # Sixteen times is what a loop within a loop would take. What others do on the machine only makes a time longer, so
    # that the shortest of some counts.
    small_s, large_s = cpu_s(small), cpu_s(large)
    for _ in range(4):
        if large_s < 8 * small_s:
            break
        small_s, large_s = min(small_s, cpu_s(small)), min(large_s, cpu_s(large))
    assert large_s < 8 * small_s
