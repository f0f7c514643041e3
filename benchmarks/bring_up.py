"""From nothing to a ready zone-outage cluster, against the same number of bare Ray actors on the same machine."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.row import Row
from benchmarks.testbed_run import testbed_run
from testbed.scenario import load_scenario

SCENARIO = Path(__file__).parent.parent / "scenarios" / "zone-outage.yaml"
PAIRS = 3
SHORT = ("spec.load.duration=2s", "spec.load.warmup=0s", "spec.faults=[]", "spec.expect=[]")

_BARE_ACTORS = """
import logging, sys, time
import ray

# As the testbed counts its own: from when everything is imported.
started_s = time.monotonic()
ray.init(num_cpus=int(sys.argv[1]), object_store_memory=256 * 2**20, include_dashboard=False, log_to_driver=False,
         configure_logging=False, logging_level=logging.ERROR)

@ray.remote(num_cpus=0)
class Bare:
    def ping(self):
        pass

actors = [Bare.remote() for _ in range(int(sys.argv[1]))]
ray.get([actor.ping.remote() for actor in actors])
print("ready after", time.monotonic() - started_s, flush=True)
sys.stdin.read()
"""


def measure() -> Iterator[Row]:
    from testbed.emulation.driver.survey import expected_actors

    count = expected_actors(load_scenario(SCENARIO))
    ours, bare = [], []
    for _ in range(PAIRS):
        bare.append(_bare_actors_s(count))
        ours.append(testbed_run(SCENARIO, *SHORT).summary["ready_s"])
    ratio = median(a / b for a, b in zip(ours, bare, strict=True))
    yield Row(
        "bring-up of zone-outage",
        f"{median(ours):.1f} s to ready",
        f"{median(bare):.1f} s for {count} bare Ray actors",
        f"{ratio:.2f}",
        "<= 1.3",
    )


def _bare_actors_s(count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="bare-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _BARE_ACTORS, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # As a run's Ray: for its own user only, and gone afterwards.
            env={
                **os.environ,
                "RAY_TMPDIR": folder,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            },
        )
        assert process.stdin is not None
        assert process.stdout is not None
        taken_s = next(float(line.split()[-1]) for line in process.stdout if line.startswith(b"ready after"))
        process.stdin.close()
        process.wait(timeout=30)
    return taken_s
