"""Figures by what requests have in common, on demand: `testbed report RUN --by origin,name`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from testbed.cli import app
from testbed.results.measure.breakdown import break_down
from testbed.results.measure.parts import By
from testbed.results.show.by_tables import render
from testbed.results.show.summarize import summarize
from testbed.results.tables.facts import RunFacts
from testbed.results.tables.writer import TableWriter
from tests.results.conftest import FACTS

LONG = "POST /a-path-that-is-longer-than-half-of-a-narrow-terminal?query=1"


def shown(run_dir: Path, by: Sequence[By], width: int, most: int = 40) -> str:
    return "".join(f"{line.plain}\n" for line in render(break_down(run_dir, by, most), width))


@pytest.fixture
def with_another_name(run_dir: Path) -> Path:
    with TableWriter(run_dir, "requests", "more") as requests:
        for number in range(1800):
            row = {"request_id": f"m-{number}", "origin_zone": "east-a", "name": LONG, "entry_zone": "east-a"}
            times = {
                "intended_s": number / 100,
                "sent_s": number / 100,
                "finished_s": number / 100 + 0.1,
                "latency_ms": 123456.789,
            }
            requests.append({**row, **times, "outcome": "ok" if number % 100 else "failed"})
    return run_dir


@pytest.mark.parametrize("width", [60, 80, 120])
def test_requests_by_origin_and_name_at_any_width(
    with_another_name: Path, width: int, golden: Callable[[str, str], None]
) -> None:
    text = shown(with_another_name, ("origin", "name"), width)
    golden(f"by-origin-name-{width}.txt", text)
    assert "…" not in text
    for line in text.splitlines():
        assert len(line) <= width
        assert line == line.rstrip()
    figures = {word for word in shown(with_another_name, ("origin", "name"), 1000).split() if word[0].isdigit()}
    assert figures <= set(text.split())


def test_parts_are_those_of_the_summary(run_dir: Path) -> None:
    breakdown = break_down(run_dir, ("origin",), 40)
    (fault,) = summarize(run_dir).faults
    for zone, part in fault.by["origin"].items():
        found = breakdown.changes[0].parts[zone]
        assert (found.errors, found.recovered_s, found.sent) == (part.errors, part.recovered_s, part.sent)


def test_the_busiest_parts_are_shown_and_the_others_counted(with_another_name: Path) -> None:
    breakdown = break_down(with_another_name, ("origin", "name"), 2)
    assert list(breakdown.stats) == ["east-a, GET /", f"east-a, {LONG}"]
    assert (breakdown.more, breakdown.more_requests, breakdown.without) == (2, 1800, 0)
    text = shown(with_another_name, ("cell",), 80)
    assert "  4500 requests are of none of them" in text


def test_a_run_without_faults_or_requests_has_no_recovery(tmp_path: Path, run_dir: Path) -> None:
    replace(FACTS, faults=()).save(run_dir)
    assert "Recovery" not in shown(run_dir, ("origin",), 80)
    RunFacts("empty", 0, "fast", 1.0, 0.0, 0.0, interrupted=True).save(tmp_path)
    assert shown(tmp_path, ("origin", "service"), 80).startswith("Requests by origin, service")


def test_the_command_shows_the_report_and_then_the_parts(run_dir: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(run_dir), "--by", "name, origin"])
    assert result.exit_code == 0
    assert result.stdout.index("Results in") < result.stdout.index("Requests by name, origin")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "origin,nam"], "--by: there is no 'nam'; choose from origin, service, cell, name"),
        (["--by", ""], "--by: there is no ''; choose from"),
        (["--by", "name", "--json"], "--by is for the report as text"),
    ],
)
def test_what_there_is_not_is_refused(run_dir: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["report", str(run_dir), *options])
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
