"""The leading master of three is killed while requests are under way: another leads, and nothing else changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbed.results.tables.writer import read_table
from testbed.scenario import load_scenario
from tests.emulation.conftest import RUN_TIMEOUT_S

pytestmark = pytest.mark.live

PROGRAM = Path(__file__).with_name("takeover_under_load.py")
SCENARIO = Path(__file__).parent / "scenarios" / "masters.yaml"
POD = "web-1"
SUFFERED = {"Killing", "ProcessExited", "NodeNotReady", "NotReady", "TaintManagerEviction", "Started"}


def test_another_master_leads_in_time_no_request_and_no_pod_suffers_and_a_pod_that_dies_later_is_started_again(
    tmp_path: Path,
) -> None:
    command = [sys.executable, str(PROGRAM), str(SCENARIO), str(tmp_path)]
    environment = os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0"}
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=RUN_TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    summary = orjson.loads((tmp_path / "summary.json").read_bytes())
    killed_s, pod_killed_s = (fault["applied_s"] for fault in summary["faults"])
    timeout_s = load_scenario(SCENARIO).cluster.timings.election_timeout_s

    (killed,) = (
        row["object"] for row in rows(tmp_path, "events") if row["reason"] == "Killed" and row["kind"] == "Master"
    )
    (leads,) = (each for each in summary["leaders"] if each["log"] == "control-plane" and each["what"] == "leads")
    assert leads["who"] != killed
    assert timeout_s <= leads["t_s"] - killed_s <= 3 * timeout_s

    # The pod is dead a little before its agent has said so, and a request to it may be under way.
    alone_s = pod_killed_s - 0.1
    sent = [row for row in rows(tmp_path, "requests") if row["sent_s"] < alone_s]
    assert [row for row in sent if row["sent_s"] > killed_s]
    assert [row for row in sent if row["outcome"] != "ok"] == []

    events = [row for row in rows(tmp_path, "events") if row["kind"] != "Master" and row["t_s"] > killed_s]
    assert [row for row in events if row["t_s"] < alone_s and row["reason"] in SUFFERED] == []
    # Its container and its proxy are started again one after the other, and each is told.
    again = [row for row in events if (row["kind"], row["object"], row["reason"]) == ("Pod", POD, "Started")]
    assert {orjson.loads(row["details"])["restarts"] for row in again} == {1}


def rows(run_dir: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_table(run_dir, table).to_pylist()
    return found
