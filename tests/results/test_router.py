"""What directed clients asked a router: their rows, the figures of phases, expectations and the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from testbed.results.compare.runs import Bound, read_run
from testbed.results.measure.calls import Completeness, completeness
from testbed.results.measure.phases import RouterStats
from testbed.results.show.openmetrics import openmetrics
from testbed.results.show.report import render
from testbed.results.show.summarize import summarize
from testbed.results.tables.facts import LocustCount
from testbed.results.tables.ingest import ingest_requests
from testbed.results.tables.schemas import SCHEMAS, Clock
from testbed.results.tables.writer import TableWriter, read_table, write_missing_tables
from testbed.scenario import Expectation, ExpectedShares, LoadSource
from tests.results.conftest import FACTS

CLOCK = Clock(t0_monotonic_s=100.0, epoch_minus_monotonic_s=1_700_000_000.0)
RATE_PER_S = 20
END_S = 10.0
FAULT_S = 6.0
UNROUTED = {"entry_zone": None, "cell": None, "map_version": None}


def expectation(metric: str, when: Any, at_most: float, fault: str | None = None) -> Expectation:
    return Expectation(metric, when, fault, None, None, at_most, f"{metric} {when}")


def row(number: int) -> dict[str, Any]:
    """Every tenth asks; from 6 s on all who ask are told nothing."""
    intended_s = number / RATE_PER_S
    asks = number % 10 == 0
    lost = asks and intended_s >= FAULT_S
    took_ms = 1000.0 if lost else 5.0
    return {
        "request_id": f"r{number}",
        "origin_zone": "east-a",
        "name": "GET /",
        "intended_s": intended_s,
        "sent_s": intended_s,
        "finished_s": intended_s + took_ms / 1e3,
        "latency_ms": took_ms,
        "outcome": "unknown" if lost else "ok",
        "error": "router: timed out" if lost else None,
        "questions": int(asks),
        "router_ms": (took_ms if lost else 1.0 + number / 1000) if asks else None,
        **(UNROUTED if lost else {"entry_zone": "east-a", "cell": "rz01", "map_version": 3}),
    }


@pytest.fixture
def directed_run(tmp_path: Path) -> Path:
    run_dir = tmp_path / "directed"
    run_dir.mkdir()
    total = int(END_S * RATE_PER_S)
    faults = (replace(FACTS.faults[0], name="no-router", declared_at_s=FAULT_S, applied_s=FAULT_S, healed_s=9.0),)
    expectations = (
        expectation("questions", "steady", 0.1),
        expectation("unrouted", "during", 0.05, "no-router"),
        expectation("unrouted", "steady", 0.0),
        expectation("questions", "all", 0.2),
        expectation("unrouted", "all", 0.01),
        replace(expectation("routed_success_rate", "during", 1.0, "no-router"), at_least=1.0),
    )
    sources = (LoadSource("east-a", float(RATE_PER_S), "constant"),)
    replace(
        FACTS,
        end_s=END_S,
        sources=sources,
        faults=faults,
        expectations=expectations,
        locust={"east-a": LocustCount(total, 8)},
        expected=ExpectedShares(1.0, 0.0, questions=0.2),
    ).save(run_dir)
    with TableWriter(run_dir, "requests", "east-a") as requests, TableWriter(run_dir, "hops", "gateway") as hops:
        for number in range(total):
            requests.append(row(number))
            if row(number)["outcome"] == "ok":
                hops.append({"request_id": f"r{number}", "direction": "outbound", "start_s": number / RATE_PER_S})
    write_missing_tables(run_dir)
    return run_dir


def test_a_request_of_a_directed_client_says_where_it_went_and_what_asking_took(tmp_path: Path) -> None:
    sent = {"e": "s", "id": "r1", "t": "GET", "u": "/", "n": "GET /", "i": 101.0, "s": 101.0, "z": None}
    finished = {"e": "f", "id": "r1", "f": 103.0, "c": 200, "o": "ok", "m": None, "a": 0, "b": 9, "p": "7"}
    trip = {"z": "west-a", "k": "rz03", "v": 4, "q": 1, "r": 12.5}
    lines = [sent, {**finished, **trip}, {**sent, "id": "r2"}]
    (tmp_path / "records").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    with TableWriter(tmp_path, "requests", "c") as requests, TableWriter(tmp_path, "events", "c") as events:
        ingest_requests(tmp_path / "records", requests, events, CLOCK, "east-a")
    names = ("entry_zone", "cell", "map_version", "questions", "router_ms")
    rows = [tuple(row[name] for name in names) for row in read_table(tmp_path, "requests").to_pylist()]
    assert rows == [("west-a", "rz03", 4, 1, 12.5), (None,) * 5]


def test_phases_have_how_many_asked_what_it_took_and_who_was_told_nothing(directed_run: Path) -> None:
    phases = {phase.name: phase for phase in summarize(directed_run).phases}
    steady = phases["steady"].router
    assert steady is not None
    assert (steady.asked, steady.questions, steady.unrouted) == (8, 8, 0)
    assert (steady.p50_ms, steady.p99_ms) == (pytest.approx(1.075), pytest.approx(1.1093))
    assert phases["during no-router"].router == RouterStats(6, 6, 6, None, None)


def test_questions_and_who_is_unrouted_can_be_expected(directed_run: Path) -> None:
    summary = summarize(directed_run)
    assert [(each.measured, each.held) for each in summary.expectations] == [
        (0.1, True),
        (0.1, False),
        (0.0, True),
        (0.1, True),
        (0.05, False),
        (1.0, True),
    ]
    assert {each.error: each.count for each in summary.errors} == {"router: timed out": 8}


def test_what_is_expected_of_questions_stands_beside_what_was_measured(directed_run: Path) -> None:
    (beside,) = [each for each in summarize(directed_run).ledger.as_expected if each.what == "questions"]
    assert (beside.expected, beside.measured, beside.by_chance) == (0.2, 0.1, True)


def test_the_report_has_a_line_of_questions_for_each_phase_and_none_where_nobody_asks(
    directed_run: Path, run_dir: Path
) -> None:
    text = "\n".join(line.plain for line in render(summarize(directed_run), directed_run, 80))
    assert (
        """Questions to the router (ms until told)
  phase               asked  questions  p50  p99  unrouted
  steady            10.00 %          8  1.1  1.1         0
  during no-router  10.00 %          6    -    -         6
  after no-router   10.00 %          2    -    -         2
"""
        in text
    )
    assert "Questions to the router" in (directed_run / "report.html").read_text()
    assert "outer" not in "\n".join(line.plain for line in render(summarize(run_dir), run_dir, 80))


def test_a_comparison_has_what_all_requests_asked_a_router(directed_run: Path, run_dir: Path) -> None:
    for run in (directed_run, run_dir):
        summarize(run)
        (run / "scenario.yaml").write_text(yaml.safe_dump({"metadata": {"name": "x"}, "spec": {}}))
    read = read_run(directed_run)
    figures = {metric.name: (value, metric.unit, metric.better) for metric, value in read.figures.items()}
    (every,) = [phase for phase in summarize(directed_run).phases if phase.name == "all"]
    assert every.router is not None
    assert (every.sent, every.router.asked, every.router.unrouted) == (160, 16, 8)
    assert figures["requests that asked a router"] == (0.1, "share", "lower")
    assert figures["questions to routers"] == (16, "count", "lower")
    assert figures["unrouted requests"] == (0.05, "share", "lower")
    for quantile, value_ms in (("p50", every.router.p50_ms), ("p99", every.router.p99_ms)):
        assert figures[f"latency {quantile} of asking a router"] == (value_ms, "ms", "lower")
    bounds = {metric.name: bounds for metric, bounds in read.bounds.items()}
    assert bounds["requests that asked a router"] == (Bound("at most 20%", True),)
    assert bounds["unrouted requests"] == (Bound("at most 1%", False),)
    assert not [metric.name for metric in read_run(run_dir).figures if "rout" in metric.name]


def test_what_is_expected_of_questions_is_compared_as_a_share(directed_run: Path) -> None:
    summarize(directed_run)
    (directed_run / "scenario.yaml").write_text(yaml.safe_dump({"metadata": {"name": "x"}, "spec": {}}))
    units = {metric.name: metric.unit for metric in read_run(directed_run).figures}
    assert (units["questions steady"], units["unrouted during"]) == ("share", "share")


def test_openmetrics_have_the_questions_of_each_phase_and_no_sample_where_nobody_asks(
    directed_run: Path, run_dir: Path
) -> None:
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(openmetrics(summarize(directed_run)).decode())
        for sample in family.samples
    }
    assert found["testbed_asked_router_ratio", "steady"] == 0.1
    assert found["testbed_router_questions_total", "steady"] == 8
    assert found["testbed_router_latency_seconds", "steady", "0.5"] == pytest.approx(1.075e-3)
    assert found["testbed_router_latency_seconds", "steady", "0.99"] == pytest.approx(1.1093e-3)
    assert found["testbed_unrouted_ratio", "during no-router"] == 0.1
    assert ("testbed_router_latency_seconds", "during no-router", "0.5") not in found
    assert b"rout" not in openmetrics(summarize(run_dir))


def test_that_a_router_was_asked_is_no_trace_of_the_request_itself() -> None:
    requests = pa.Table.from_pylist([{"request_id": "r1", "outcome": "ok"}], schema=SCHEMAS["requests"])
    question = {"request_id": "r1", "direction": "inbound", "destination_service": "router"}
    hops = pa.Table.from_pylist([question], schema=SCHEMAS["hops"])
    pods = SCHEMAS["pods"].empty_table()
    assert completeness(requests, hops, pods, []) == Completeness(without_hops=1, explained=0)
    gateway = {"request_id": "r1", "direction": "outbound"}
    hops = pa.Table.from_pylist([question, gateway], schema=SCHEMAS["hops"])
    assert completeness(requests, hops, pods, []).without_hops == 0
