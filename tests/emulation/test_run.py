"""The command from outside: exit codes, interruption, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulation.conftest import (
    FinishedRun,
    finish_run,
    load_has_begun,
    processes_marked,
    run_id,
    start_run,
    until,
    wrongs,
)

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def real_program(testbed_run: Callable[..., FinishedRun]) -> FinishedRun:
    lines = Path(__file__).parent / "lines.py"
    commands = (
        f"spec.services.{name}.workload.command=[python3, {lines}, {does}]"
        for name, does in {"lines": "serve", "asker": "ask"}.items()
    )
    run = testbed_run("real-program.yaml", *commands)
    assert run.summary, run.stderr
    return run


def test_a_real_program_takes_part_is_probed_and_is_restarted_when_killed(real_program: FinishedRun) -> None:
    run = real_program
    fault = run.summary["faults"][0]
    calls = [
        row["start_s"]
        for row in run.rows("hops")
        if row["destination_service"] == "files" and row["direction"] == "inbound" and row["status"] == 200
    ]
    events = [(row["t_s"], row["object"], row["reason"]) for row in run.rows("events")]
    # It is applied once the node has said so, by when the process may be known to have ended.
    killed_s = fault["declared_at_s"]
    assert [t_s for t_s in calls if t_s < killed_s]
    assert [t_s for t_s, pod, reason in events if pod == "files-1" and reason == "ProcessExited" and t_s >= killed_s]
    assert not [found for found in run.summary["undeclared"] if found["what"] == "death"]
    restarted = [t_s for t_s, pod, reason in events if pod == "files-1" and reason == "Started" and t_s > killed_s]
    assert restarted
    assert [t_s for t_s in calls if t_s > restarted[0]]


def test_programs_that_speak_no_http_reach_each_other_through_the_mesh_and_its_links(real_program: FinishedRun) -> None:
    assert real_program.run_dir is not None
    log = (real_program.run_dir / "logs" / "asker-1.log").read_text()
    asked = [json.loads(line) for line in log.splitlines()]
    answered = [index for index, each in enumerate(asked) if each["answer"]]
    # Before, and after, not all of the cluster is there.
    meanwhile = asked[answered[0] : answered[-1] + 1]
    assert len(meanwhile) > 50
    assert {(each["answer"], each["error"]) for each in meanwhile} == {("lines-1", "")}
    assert min(each["took_ms"] for each in meanwhile) >= 20.0
    connected = [row for row in real_program.rows("connections") if row["received_bytes"]]
    assert len(connected) >= len(meanwhile) - 1
    assert {(row["source_pod"], row["destination_pod"]) for row in connected} == {("asker-1", "lines-1")}
    assert {row["sent_bytes"] for row in connected} == {len(b"who is there?\n")}


def test_an_expectation_that_does_not_hold_fails_the_run(real_program: FinishedRun) -> None:
    summary = real_program.summary
    assert wrongs(real_program) == []
    (result,) = summary["expectations"]
    assert result["measured"] < 1000
    # A machine that is short of cores makes the run invalid, and then nothing is judged.
    expected = ("invalid", 3, None) if summary["invalid_reasons"] else ("failed", 1, False)
    assert (summary["verdict"], real_program.exit_code, result["held"]) == expected


def test_faults_of_one_moment_come_together_and_are_undone_together(testbed_run: Callable[..., FinishedRun]) -> None:
    run = testbed_run("three-crashes.yaml")
    assert run.summary, run.stderr
    assert wrongs(run) == []
    assert run.exit_code == (3 if run.summary["invalid_reasons"] else 0)
    faults = run.summary["faults"]
    assert [fault["victims"] for fault in faults] == [["east-a-2"], ["east-b-2"], ["east-c-2"]]
    # A valid run has none that is late. On a busy machine each may be, but none waits for what another one takes.
    for change in ("applied_s", "healed_s"):
        times_s = [fault[change] for fault in faults]
        assert max(times_s) - min(times_s) < 0.5, faults


def test_a_generator_that_cannot_keep_up_exits_with_3_and_says_so(testbed_run: Callable[..., FinishedRun]) -> None:
    run = testbed_run("small.yaml", "spec.load.sources[0].rate=8000/s", "spec.load.warmup=0s", "spec.load.duration=1s")
    assert (run.exit_code, run.summary["verdict"]) == (3, "invalid")
    assert any("load generator" in reason or "rate" in reason for reason in run.summary["invalid_reasons"])
    requests = run.summary["requests"]
    assert requests["sent"] == run.summary["locust"]["requests"] == len(run.rows("requests"))


def test_a_cluster_that_does_not_come_up_names_what_and_why_and_leaves_nothing(
    testbed_run: Callable[..., FinishedRun],
) -> None:
    run = testbed_run(
        "small.yaml",
        "spec.services.web.workload={command: [python3, -c, 'raise SystemExit(\"no database\")']}",
        "spec.controlPlane.readyTimeout=6s",
    )
    assert run.exit_code == 3
    assert "pod web-1" in run.stderr
    assert "no database" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_ctrl_c_keeps_what_was_measured_and_ends_every_process(out: Path) -> None:
    process = start_run("small.yaml", out, "spec.load.duration=100s")
    assert until(lambda: load_has_begun(out))
    mark = run_id(out)
    assert until(lambda: load_has_begun(out, 120))
    os.kill(process.pid, signal.SIGINT)
    run = finish_run(process, out)
    assert run.exit_code == 130, run.stderr
    assert run.summary["interrupted"]
    assert run.summary["requests"]["sent"] == run.summary["locust"]["requests"] == len(run.rows("requests")) > 30
    assert not processes_marked(mark)
    assert "Traceback" not in run.stderr
