"""The report as text, at any width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from testbed.control.cells.ownership import Move
from testbed.results.show.report import show
from testbed.results.show.summarize import summarize
from testbed.results.show.summary import MissingLoad, Summary
from testbed.results.tables.facts import AppliedFault, MachineFacts, MapStep
from testbed.results.tables.writer import TableWriter
from tests.results.conftest import FACTS, write_run


def printed(summary: Summary, width: int = 100, **console: Any) -> str:
    out = io.StringIO()
    show(summary, Path("runs/zone-outage-1"), Console(file=out, width=width, highlight=False, **console))
    return out.getvalue()


FURTHER: tuple[dict[str, str], ...] = (
    {},
    {"node": "east-a-2"},
    {"node": "east-a-2"},
    {"node": "east-b-1", "zone": "east-b"},
    {"node": "west-a-1", "zone": "west-a", "region": "west"},
)


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """A run with everything: long names, faults that share a moment, errors all the time, ejections, a machine off."""
    long = "cut-everything-between-east-a-and-east-b-for-a-while-2026"
    faults = (
        AppliedFault("lose-east-a", 6.0, 6.001, 12.0, 12.0, victims=("east-a-1",)),
        AppliedFault(long, 6.0, 6.012, 12.0, 12.0),
        AppliedFault("kill-12", 14.0, 14.25, instant=True, victims=("web-1234567890",)),
    )
    off = MachineFacts(
        "machine-7", ("clients/east-b", "east-b-1"), lost_s=15.5, records_until_s=15.25, powered_off=True
    )
    facts = replace(FACTS, faults=faults, machines=(MachineFacts("m1"), off), warmup_s=0.5)
    run_dir = write_run(tmp_path_factory.mktemp("eventful") / "run", facts)
    with TableWriter(run_dir, "requests", "more") as requests:
        for number in range(12_000):
            row = {"request_id": f"more-{number}", "origin_zone": "east-c", "intended_s": 1 + number / 1000}
            outcome = "failed" if number % 400 == 0 else "ok"
            error = f"URL http://127.103.3.1:22001/path/{number // 400 % 11}: code=503" if outcome == "failed" else None
            taken = {"sent_s": 1 + number / 1000, "finished_s": 1.01 + number / 1000, "latency_ms": 12345.678}
            requests.append({**row, **taken, "outcome": outcome, "error": error})
    with TableWriter(run_dir, "events", "more") as events:
        for pod in range(6):
            row = {"t_s": 3.25 + pod, "source": "gateway-east-a-1", "kind": "Endpoint", "object": f"web-{pod + 10}"}
            events.append({**row, "reason": "Ejected", "details": "{}"})
    with TableWriter(run_dir, "hops", "more") as hops:
        for number in range(3000):
            service = ("web", "orders")[number % 2]
            here = {"pod": f"{service}-1", "service": service, "node": "east-a-1", "zone": "east-a", "region": "east"}
            there = {**here, **FURTHER[number % len(FURTHER)], "pod": "stock-1", "service": "stock"}
            ends = {
                f"{end}_{key}": value
                for end, at in (("source", here), ("destination", there))
                for key, value in at.items()
            }
            carried = {"start_s": 1 + number / 200, "request_bytes": 2_000, "response_bytes": 150_000}
            hops.append({"request_id": f"more-{number}", "direction": "outbound", **ends, **carried})
    return summarize(run_dir)


OPERATIONS = (
    AppliedFault(
        "move-ten",
        6.0,
        6.002,
        9.003,
        steps=(
            replace(
                MapStep(1, 2, False, 6.0, 6.002, 2, "0-4", {"gateways": 6.21, "sidecars": 6.55}),
                moves=(Move((0, 1, 2, 3, 4), "rz01", "rz02"),),
            ),
            replace(
                MapStep(2, 2, False, 9.0, 9.003, 3, "5-9", {"gateways": None, "sidecars": 14.4}, ("gateway-east-a-1",)),
                moves=(Move((5, 6, 7, 8, 9), "rz01", "rz02"),),
            ),
        ),
    ),
    AppliedFault("go-green", 13.0, 13.001, instant=True, steps=(MapStep(1, 1, False, 13.0, 13.001, 4, "", {}),)),
)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_report_of_operations_step_by_step(tmp_path: Path, width: int, golden: Callable[[str, str], None]) -> None:
    run_dir = write_run(tmp_path / "run", replace(FACTS, faults=OPERATIONS))
    served = (("rz01", 0, 5.9), ("rz01", 4, 6.4), ("rz02", 1, 6.502), ("rz01", 5, 11.0), ("rz02", 5, 9.5))
    with TableWriter(run_dir, "hops", "served") as hops:
        for cell, partition, start_s in served:
            call = {"request_id": "east-b-1", "direction": "inbound", "start_s": start_s, "duration_ms": 2.0}
            hops.append({**call, "status": 200, "partition": str(partition), "destination_cell": cell, "route": "own"})
    golden(f"report-operations-{width}.txt", printed(summarize(run_dir), width))


def test_who_was_cut_off_is_named_beside_the_last_ack_of_all_others(tmp_path: Path) -> None:
    cut = AppliedFault("cut", 6.0, 6.0, 14.5, 14.5, cut_off=("east-c-1",))
    run_dir = write_run(tmp_path / "run", replace(FACTS, faults=(cut,)))
    with TableWriter(run_dir, "pods", "more") as pods:
        pods.append({"pod": "web-east-c", "service": "web", "node": "east-c-1", "zone": "east-c", "region": "east"})
    text = printed(summarize(run_dir), 120)
    assert "400 ms  410 ms  420 ms  422 ms" in text
    assert "cut: ACKed is without 1 that were cut off and had it after 423 ms: web-east-c" in text


def test_faults_and_operations_share_a_table(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", replace(FACTS, faults=(AppliedFault("cut", 4.0, 4.0, 5.0, 5.0), *OPERATIONS)))
    assert "Faults and operations (times after the change)" in printed(summarize(run_dir))


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_of_a_small_run(run_dir: Path, width: int, golden: Callable[[str, str], None]) -> None:
    golden(f"report-{width}.txt", printed(summarize(run_dir), width))


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_of_an_eventful_run(eventful: Summary, width: int, golden: Callable[[str, str], None]) -> None:
    golden(f"report-eventful-{width}.txt", printed(eventful, width))


def test_the_report_fits_a_screen_and_has_colour_on_a_terminal_only(run_dir: Path) -> None:
    summary = summarize(run_dir)
    plain = printed(summary)
    assert len(plain.splitlines()) <= 40
    assert "\x1b" not in plain
    assert "\x1b" in printed(summary, force_terminal=True)


@pytest.mark.parametrize("width", range(60, 201))
def test_at_no_width_is_a_figure_cut_a_line_too_long_or_blank_at_its_end(eventful: Summary, width: int) -> None:
    text = printed(eventful, width)
    for line in text.splitlines():
        assert len(line) <= width
        assert line == line.rstrip()
    assert "…" not in text
    assert _figures(text) >= _figures(printed(eventful, 1000)) - _matrix_figures(eventful)


def _figures(text: str) -> set[str]:
    return set(re.findall(r"\d[\d.]*", text))


def _matrix_figures(summary: Summary) -> set[str]:
    """Matrices are shown as far as they fit beside each other, those of the first phase always."""
    first, *others = [
        {str(calls) for row in matrix.values() for calls in row.values()}
        for name, matrix in summary.call_matrix_by_phase.items()
        if name not in ("warmup", "all")
    ]
    return set().union(*others) - first


def test_a_table_is_folded_with_its_first_column_repeated(run_dir: Path) -> None:
    lines = [line.split() for line in printed(summarize(run_dir), 70).splitlines()]
    assert [line[0] for line in lines if "recovered" in line or "ACKed" in line] == ["fault", "fault"]
    assert [line[-1] for line in lines if line[0] == "healed"] == ["0", "ms"]


def test_errors_of_a_run_that_passed_are_listed_all_of_them(run_dir: Path) -> None:
    with TableWriter(run_dir, "requests", "more") as requests:
        for number in range(9):
            row = {"request_id": f"m{number}", "origin_zone": "x", "intended_s": 1.0, "outcome": "failed"}
            requests.append({**row, "error": f"code={500 + number}"})
    lines = printed(replace(summarize(run_dir), verdict="passed")).splitlines()
    at = lines.index("Requests that were not ok")
    assert lines[at + 1 : at + 4] == ["  20 failed: timed out", "  20 unknown: timed out", "   1 failed: code=500"]
    assert lines[at + 9] == "  and 3 more, of 3 requests"


@pytest.mark.parametrize("changes", [{"interrupted": True}, {"locust": {}}, {"broken": "a defect"}])
def test_what_was_not_judged_is_never_said_to_be_missed(tmp_path: Path, changes: dict[str, Any]) -> None:
    expectations = tuple(replace(one, at_least=2.0, at_most=None) for one in FACTS.expectations)
    run_dir = write_run(tmp_path / "run", replace(FACTS, expectations=expectations, **changes))
    summary = summarize(run_dir)
    assert [result.held for result in summary.expectations] == [None] * 3
    text = printed(summary)
    assert "MISSED" not in text
    assert "held" not in text
    assert "not judged  success_rate at least 98%                   98.333%\n" in text


def test_the_load_of_clients_that_went_with_their_machine_is_said_to_be_missing(tmp_path: Path) -> None:
    off = MachineFacts("m2", ("east-b-1", "clients/east-b"), lost_s=12.5, records_until_s=12.25, powered_off=True)
    summary = summarize(write_run(tmp_path / "run", replace(FACTS, machines=(MachineFacts("m1"), off))))
    assert summary.missing_load == (MissingLoad("east-b", "m2", from_s=12.5, rate_per_s=50.0, users=0),)
    text = " ".join(printed(summary).split())
    assert "load of east-b is missing from 12.50 s on (50/s): its clients were on machine m2, which went off" in text
