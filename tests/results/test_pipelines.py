"""What pipelines read of a run: its JUnit report and its OpenMetrics text, by the parsers of those who read them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from typer.testing import CliRunner

from testbed.cli import app
from testbed.results.judge.verdict import ExpectationResult
from testbed.results.measure.ledger import PhaseLedger, Traffic
from testbed.results.measure.phases import RouterStats
from testbed.results.show.junit import junit, junit_without_results
from testbed.results.show.openmetrics import openmetrics
from testbed.results.show.summarize import summarize
from testbed.results.show.summary import Summary
from testbed.results.tables.facts import RunFacts
from testbed.scenario import Expectation

PAGE = Path(__file__).parents[2] / "docs" / "pipelines.md"


@pytest.fixture(scope="module")
def summary(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarize(Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("summary") / "run")))


def _cases(content: bytes) -> dict[str, str]:
    """By name how each test case ended; the counts of the suite are those of its cases."""
    (suite,) = ElementTree.fromstring(content).findall("testsuite")
    found = {case.get("name", ""): next((end.tag for end in case), "passed") for case in suite.findall("testcase")}
    for attribute, end in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(attribute, "")) == sum(each == end for each in found.values())
    assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
    return found


def test_each_expectation_is_a_test_case_and_so_is_the_validity(run_dir: Path) -> None:
    facts = RunFacts.load(run_dir)
    strict = Expectation("success_rate", "all", None, None, 0.999, None, "success_rate at least 99.9%")
    replace(facts, expectations=(*facts.expectations, strict)).save(run_dir)
    summarize(run_dir)
    content = (run_dir / "junit.xml").read_bytes()
    assert _cases(content) == {
        "the run is valid": "passed",
        "success_rate at least 98%": "passed",
        "time_to_recover lose-east-a at most 3s": "passed",
        "same_zone_share of web steady at least 95%": "passed",
        "success_rate at least 99.9%": "failure",
    }
    failure = ElementTree.fromstring(content).find(".//failure")
    assert failure is not None
    assert re.fullmatch(r"measured 98\.\d+%, expected at least 99\.9%", failure.get("message", ""))


def test_an_invalid_run_is_an_error_with_every_reason_and_its_expectations_are_skipped(summary: Summary) -> None:
    unjudged = tuple(replace(each, held=None) for each in summary.expectations)
    content = junit(replace(summary, invalid_reasons=("<late>", "lost"), expectations=unjudged, verdict="invalid"))
    cases = _cases(content)
    assert cases.pop("the run is valid") == "error"
    assert set(cases.values()) == {"skipped"}
    error = ElementTree.fromstring(content).find(".//error")
    assert error is not None
    assert (error.get("message"), error.text) == ("<late>", "<late>\nlost")


def test_an_interrupted_run_is_an_error(summary: Summary) -> None:
    assert _cases(junit(replace(summary, interrupted=True)))["the run is valid"] == "error"


def test_a_run_that_came_to_nothing_is_an_error_too() -> None:
    cases = _cases(junit_without_results("mine", ["errors at most 0"], "no pod came up\nweb-1: exit code 1"))
    assert cases == {"the run is valid": "error", "errors at most 0": "skipped"}


@given(st.text(), st.text())
@settings(max_examples=50, deadline=None)
def test_whatever_texts_hold_the_report_can_be_read(name: str, shown: str) -> None:
    content = junit_without_results(name, [shown], shown)
    (suite,) = ElementTree.fromstring(content).findall("testsuite")
    assert [len(case) for case in suite.findall("testcase")] == [1, 1]


# --- OpenMetrics ---------------------------------------------------------------------------------------------------


def _families(summary: Summary) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(openmetrics(summary).decode()))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def _value(families: dict[str, Metric], name: str, **labels: str) -> float:
    samples = [each for family in families.values() for each in family.samples if each.name == name]
    (value,) = (each.value for each in samples if each.labels == labels)
    return value


def test_the_figures_of_a_summary_are_openmetrics_in_base_units(summary: Summary) -> None:
    families = _families(summary)
    every = next(phase for phase in summary.phases if phase.name == "all")
    assert _value(families, "testbed_requests_total", phase="all", outcome="unknown") == every.unknown
    assert every.latency_ms["p99"] is not None
    p99_s = _value(families, "testbed_request_latency_seconds", phase="all", quantile="0.99")
    assert p99_s == pytest.approx(every.latency_ms["p99"] / 1e3)
    (fault,) = summary.faults
    recovered_s = _value(families, "testbed_time_to_recover_seconds", fault="lose-east-a", change="fault")
    assert recovered_s == fault.time_to_recover_s
    calls = _value(families, "testbed_calls_total", phase="steady", source_zone="east-a", destination_zone="east-a")
    assert calls == summary.call_matrix["east-a"]["east-a"]
    assert families["testbed_phase_duration_seconds"].unit == "seconds"


def test_what_has_no_value_has_no_sample(summary: Summary) -> None:
    (fault,) = summary.faults
    families = _families(replace(summary, faults=(replace(fault, time_to_recover_s=None, heal=None),)))
    assert "testbed_time_to_recover_seconds" not in families
    assert _value(families, "testbed_never_recovered", fault="lose-east-a", change="fault") == 1


def test_names_with_quotes_and_line_ends_come_back_as_they_are(summary: Summary) -> None:
    text = 'a "b"\n\\c'
    expectation = ExpectationResult("errors", 1.0, "at most 0", True, text, "1")
    families = _families(replace(summary, expectations=(expectation,)))
    assert _value(families, "testbed_expectation_held", expectation=text) == 1


def test_the_page_has_every_metric_with_its_type_and_labels(summary: Summary) -> None:
    steady = PhaseLedger(by_right={"own": Traffic(1)})
    router = RouterStats(asked=1, questions=1, unrouted=0, p50_ms=1.0, p99_ms=1.0)
    with_cells = replace(
        summary,
        phases=tuple(replace(phase, router=router) for phase in summary.phases),
        same_cell_share_by_phase={"steady": 1.0},
        ledger=replace(summary.ledger, by_phase={**summary.ledger.by_phase, "steady": steady}),
    )
    written = {name: (kind, labels) for name, kind, labels in _rows(PAGE.read_text())}
    assert written == {
        name: (family.type, set().union(*(sample.labels for sample in family.samples)))
        for name, family in _families(with_cells).items()
    }


def _rows(page: str) -> Iterator[tuple[str, str, set[str]]]:
    for name, kind, labels in re.findall(r"^\| `(testbed_\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE):
        yield name, kind, set(re.findall(r"\w+", labels))


def test_on_the_command_line_it_is_all_of_standard_output(run_dir: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(run_dir), "--openmetrics"])
    assert result.exit_code == 0
    assert list(text_string_to_metric_families(result.stdout))
    both = CliRunner().invoke(app, ["report", str(run_dir), "--openmetrics", "--json"])
    assert (both.exit_code, both.stdout, both.stderr) == (2, "", "--json and --openmetrics: one of the two\n")
