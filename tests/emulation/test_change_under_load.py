"""A policy and a number of replicas that change while requests are under way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest

pytestmark = pytest.mark.live

RATE_PER_S, DURATION_S = 40, 6
LOAD = f"spec.load={{sources: [{{zone: east-a, rate: {RATE_PER_S}/s, arrival: constant}}], duration: {DURATION_S}s}}"
PROGRAM = Path(__file__).with_name("change_under_load.py")
SMALL = Path(__file__).parent / "scenarios" / "small.yaml"


def test_a_policy_and_a_replica_count_change_under_load_without_a_lost_request(tmp_path: Path) -> None:
    environment = os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0"}
    command = [sys.executable, str(PROGRAM), str(SMALL), str(tmp_path), LOAD]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    found = orjson.loads(ended.stdout)
    assert found["changed_s"] < DURATION_S - 1, "all has changed while load was sent"
    assert (found["requests"], found["failures"]) == (RATE_PER_S * DURATION_S, 0)
    assert found["refusal"] == "Node 'elsewhere': the topology has no such place"
    assert set(found["calls"]) == {"web-1", "web-2", "web-3"}
    assert all(calls > 20 for calls in found["calls"].values()), found["calls"]
    assert [push["error"] for push in found["pushes"] if push["error"]] == []
    acked = Counter((push["proxy"], push["type"]) for push in found["pushes"] if push["acked"])
    assert acked["gateway-east-a-1", "Cluster"] == 3, "at first, with the rule, and without it again"
    assert acked["gateway-east-a-1", "RouteConfiguration"] == 2
