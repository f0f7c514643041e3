"""Writes that nobody took while data was moved: of what moved, and of all else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from testbed.control.cells.ownership import Move
from testbed.results.judge.verdict import ExpectationResult
from testbed.results.measure.blocked import BlockedWrites, blocked_writes
from testbed.results.measure.leaders import LeaderChange
from testbed.results.show.report import render
from testbed.results.show.summarize import summarize
from testbed.results.tables.facts import AppliedFault, HeldWrites, MapStep, PromotedData, RunFacts
from testbed.results.tables.schemas import SCHEMAS
from testbed.results.tables.writer import TableWriter
from testbed.scenario import Expectation

STEP = MapStep(
    1, 1, False, 10.0, 10.1, 2, "0-1", {"gateways": 10.3, "sidecars": None}, moves=(Move((0, 1), "rz01", "rz02"),)
)
WITH_DATA = MapStep(
    1, 1, False, 10.0, 10.1, 2, "0-1", STEP.delivered_s, moves=STEP.moves, promoted=PromotedData(10.0, 10.08)
)


def _operation(
    invoked_s: float, partition: str | None, outcome: str = "ok", operation: str = "write"
) -> dict[str, Any]:
    return {"invoked_s": invoked_s, "partition": partition, "outcome": outcome, "operation": operation}


def test_what_is_sent_from_the_first_order_until_all_have_the_map_is_told_apart_by_what_moved() -> None:
    rows = [
        _operation(9.9, "0", "failed"),
        _operation(10.0, "0", "failed"),
        _operation(10.01, "1", "unknown"),
        _operation(10.02, "1"),
        _operation(10.03, "1", "failed", "read"),
        _operation(10.04, "10", "failed"),
        _operation(10.05, "2"),
        _operation(10.06, None),
        _operation(11.4, "0", "failed"),
    ]
    leaders = [
        LeaderChange(10.01, "data/0", "0-1", "data-r1-1", 3, "yields"),
        LeaderChange(10.06, "data/0", "0-1", "data-r2-1", 4, "leads", 0.05),
        LeaderChange(19.0, "data/1", "2-9", "data-r2-1", 4, "leads", 0.5),
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["operations"])
    assert blocked_writes(table, leaders, [STEP]) == {}
    found = blocked_writes(table, leaders, [WITH_DATA])[2]
    assert found == BlockedWrites(10.0, pytest.approx(11.3), 3, 2, 3, 1, (("0-1", 0.05),))


def test_the_report_says_for_how_long_which_partitions_were_blocked_and_expectations_bound_it(run_dir: Path) -> None:
    what = {"request_id": "r", "process": "p", "key": "k", "value": "v", "returned_s": 11.0}
    with TableWriter(run_dir, "operations", "more") as operations:
        operations.append({**what, **_operation(10.05, "0", "failed")})
        operations.append({**what, **_operation(10.1, "7", "failed"), "value": "w"})
    with TableWriter(run_dir, "events", "data") as events:
        for t_s, pod, reason, term in (
            (10.01, "data-r1-1", "LeaderYields", 3),
            (10.06, "data-r2-1", "LeaderElected", 4),
        ):
            details = orjson.dumps({"term": term, "partitions": "0-1"}).decode()
            row = {"t_s": t_s, "source": pod, "kind": "Leader", "object": "data/0", "reason": reason}
            events.append({**row, "details": details})
    bounds = (("blocked_time", 0.04), ("blocked_elsewhere", 1.0))
    expectations = tuple(Expectation(metric, "all", None, None, None, most, metric) for metric, most in bounds)
    operation = AppliedFault("move", 10.0, 10.0, instant=True, steps=(WITH_DATA,))
    replace(RunFacts.load(run_dir), faults=(operation,), expectations=expectations).save(run_dir)

    summary = summarize(run_dir)
    text = "\n".join(line.plain for line in render(summary, run_dir, 160))
    assert "move 1/1: before it, replicas of the new owners were asked to lead, and did after 80 ms" in text
    assert "move 1/1: without a leader were 50 ms (partitions 0-1)" in text
    refused = "1 of 1 writes of what moved and 1 of 1 writes of all else were not acknowledged from 10.00 s to 11.30 s"
    assert refused in text
    (row,) = (line.split() for line in text.splitlines() if "data-r2-1" in line)
    assert row == ["data/0", "10.06", "s", "0-1", "data-r2-1", "leads", "4", "50", "ms", "move", "60", "ms"]
    assert orjson.loads(summary.json())["blocked"]["2"]["moved_refused"] == 1
    time, elsewhere = summary.expectations
    assert (time.held, time.measured) == (False, pytest.approx(0.05))
    assert (elsewhere.held, elsewhere.measured) == (True, 1.0)
    replace(RunFacts.load(run_dir), faults=(replace(operation, steps=(STEP,)),)).save(run_dir)
    unmeasured: tuple[ExpectationResult, ...] = summarize(run_dir).expectations
    assert {each.shown for each in unmeasured} == {"no data was moved"}


def test_writes_that_were_forbidden_are_blocked_until_they_are_allowed_and_each_phase_has_its_time(
    run_dir: Path,
) -> None:
    held = HeldWrites(10.0, 10.02, 10.4, 10.6, lacked=4, missing=("data-r3",))
    with TableWriter(run_dir, "operations", "more") as operations:
        what = {"request_id": "r", "process": "p", "key": "k", "value": "v", "returned_s": 11.0}
        operations.append({**what, **_operation(11.5, "0", "failed")})
    with TableWriter(run_dir, "events", "data") as events:
        for t_s, pod, reason, term in (
            (10.01, "data-r1-1", "WritesForbidden", 1),
            (10.45, "data-r1-1", "LeaderLost", 1),
            (10.5, "data-r2-1", "LeaderElected", 2),
            (10.59, "data-r2-1", "WritesAllowed", 2),
        ):
            details = orjson.dumps({"term": term, "partitions": "0-1"}).decode()
            row = {"t_s": t_s, "source": pod, "kind": "Leader", "object": "data/0", "reason": reason}
            events.append({**row, "details": details})
    expectation = Expectation("blocked_time", "all", None, None, None, 0.1, "blocked_time")
    step = replace(STEP, held=held)
    operation = AppliedFault("move", 10.0, 10.0, instant=True, steps=(step,))
    replace(RunFacts.load(run_dir), faults=(operation,), expectations=(expectation,)).save(run_dir)

    summary = summarize(run_dir)
    text = " ".join("\n".join(line.plain for line in render(summary, run_dir, 160)).split())
    phases = "writes were forbidden after 20 ms, gateways had the map after 300 ms, replication caught up after 400 ms"
    assert f"move 1/1: {phases}, writes were allowed after 600 ms" in text
    assert "to be waited for were 4 writes; data-r3 could not be told to take none" in text
    assert "move 1/1: blocked were 580 ms (partitions 0-1)" in text
    # What was sent until a second after that counts.
    assert (
        "1 of 1 writes of what moved and 0 of 0 writes of all else were not acknowledged from 10.00 s to 11.60 s"
        in text
    )
    (blocked,) = summary.expectations
    assert (blocked.held, blocked.measured) == (False, pytest.approx(0.58))


def test_a_step_that_was_given_up_as_replication_did_not_catch_up_says_so_and_what_is_known_of_it(
    run_dir: Path,
) -> None:
    held = HeldWrites(10.0, 10.02, None, 20.9, missing=("data-r1",), given_up_s=20.5)
    back = replace(STEP, reverts=True, gives_up=True, applied_s=20.6, version=STEP.version + 1)
    operation = AppliedFault("move", 10.0, 10.0, steps=(replace(STEP, held=held), back))
    replace(RunFacts.load(run_dir), faults=(operation,)).save(run_dir)
    text = " ".join("\n".join(line.plain for line in render(summarize(run_dir), run_dir, 160)).split())
    given_up = "it was given up, as replication had not caught up, after 10.50 s, writes were allowed after 10.90 s"
    assert given_up in text
    assert "whoever led has not answered how many writes were to be waited for; data-r1 could not be told" in text
    assert "move given up" in text
