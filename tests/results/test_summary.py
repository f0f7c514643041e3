from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import orjson
import pyarrow.compute as pc
import pytest

from testbed.results.judge.undeclared import Undeclared
from testbed.results.judge.verdict import EXIT_CODES
from testbed.results.measure.outcomes import Errors
from testbed.results.show.report import render
from testbed.results.show.summarize import summarize
from testbed.results.show.summary import RecoveryBaseline, RequestCounts, Summary
from testbed.results.tables.facts import AppliedFault, LocustCount, RunFacts, UnreadLines
from testbed.results.tables.writer import TableWriter, read_table
from testbed.scenario import Expectation


def _printed(summary: Summary) -> str:
    return "\n".join(line.plain for line in render(summary, Path("runs/r"), 100))


def _change(run_dir: Path, **changes: object) -> None:
    replace(RunFacts.load(run_dir), **changes).save(run_dir)  # type: ignore[arg-type]


def test_facts_survive_their_file(run_dir: Path) -> None:
    facts = replace(RunFacts.load(run_dir), killed_proxies=(("web-1", 6.0),), locust={"a": LocustCount(3, 1)})
    facts.save(run_dir)
    assert RunFacts.load(run_dir) == facts


def test_sums_agree_exactly_with_the_table_and_with_locust(run_dir: Path) -> None:
    summary = summarize(run_dir)
    counts = summary.requests
    rows = read_table(run_dir, "requests")
    assert counts.sent == rows.num_rows == summary.locust.requests
    assert counts.sent == counts.ok + counts.failed + counts.unknown
    assert counts.unknown == pc.sum(pc.equal(rows["outcome"], "unknown")).as_py()
    assert summary.locust.failures == counts.failed + counts.unknown
    parts = [phase for phase in summary.phases if phase.name != "all"]
    for count in ("sent", "ok", "failed", "unknown"):
        assert sum(getattr(phase, count) for phase in parts) == getattr(counts, count)


def test_the_summary_says_what_clients_suffered_and_how_the_control_plane_followed(run_dir: Path) -> None:
    summary = summarize(run_dir)
    (fault,) = summary.faults
    assert fault.errors == Errors(failed=20, unknown=20)
    assert fault.time_to_recover_s == pytest.approx(0.78, abs=0.02)
    assert fault.heal is not None
    assert fault.heal.time_to_recover_s == 0.0
    steps = fault.control_path
    assert steps.detected_s < steps.decided_s < steps.pushed_s < steps.propagated_s
    assert summary.same_zone_share == 1.0
    assert summary.call_matrix["east-a"] == {"east-a": 200}
    assert [phase.name for phase in summary.phases] == [
        "warmup",
        "steady",
        "during lose-east-a",
        "after lose-east-a",
        "all",
    ]


def test_errors_of_the_steady_phase_stand_beside_those_of_a_fault(run_dir: Path) -> None:
    assert summarize(run_dir).recovery_baseline.steady_not_ok_share == 0.0
    _change(run_dir, faults=(AppliedFault("late", 8.0, 8.0, instant=True),))
    summary = summarize(run_dir)
    # What was lost from 6 s to 6.8 s is now of the steady phase, from 2 s to 8 s.
    share = 40 / (6 * 150)
    assert summary.recovery_baseline == RecoveryBaseline(
        steady_not_ok_share=share,
        steady_below_target=True,
        steady_below_target_by={"origin": ("east-a",), "service": ("web",)},
        target_success_rate=0.99,
        window_s=1.0,
        relative_to_steady=True,
    )
    assert summary.faults[0].errors_as_in_steady == pytest.approx(10 * 150 * share)
    printed = _printed(summary)
    assert "95.55 % of the steady phase was ok: recovered means no worse" in printed
    warning = "steady itself is below the 99 % that recovery asks for: 95.55 % of all requests were ok"
    assert f"{warning}; below it are clients of east-a" in " ".join(printed.split())
    assert "as steady" in printed


def test_the_summary_can_be_made_again_from_the_folder_alone(run_dir: Path) -> None:
    first = summarize(run_dir)
    content = (run_dir / "summary.json").read_bytes()
    assert summarize(run_dir) == first
    assert (run_dir / "summary.json").read_bytes() == content == first.json()
    assert list(orjson.loads(content)) == [field.name for field in fields(Summary)]


def test_met_expectations_exit_0(run_dir: Path) -> None:
    summary = summarize(run_dir)
    assert (summary.verdict, EXIT_CODES[summary.verdict]) == ("passed", 0)


@pytest.mark.parametrize(
    ("expectation", "shown"),
    [
        (Expectation("success_rate", "all", None, None, 0.999, None, "x"), "98.333%"),
        (Expectation("errors", "during", "lose-east-a", None, None, 10.0, "x"), "40"),
        (Expectation("latency_p99", "steady", None, None, None, 0.001, "x"), "3.9ms"),
        (Expectation("request_rate", "all", None, None, 200.0, None, "x"), "150/s"),
        (Expectation("time_to_recover", "all", "none", None, None, 1.0, "x"), "fault none was never applied"),
        (Expectation("same_zone_share", "all", None, "nobody", 0.1, None, "x"), "nothing to measure: no such calls"),
    ],
)
def test_a_missed_expectation_exits_1_and_shows_what_was_measured(
    run_dir: Path, expectation: Expectation, shown: str
) -> None:
    _change(run_dir, expectations=(expectation,))
    summary = summarize(run_dir)
    assert (summary.verdict, EXIT_CODES[summary.verdict]) == ("failed", 1)
    assert summary.expectations[0].shown == shown


def test_no_expectation_about_a_fault_that_hit_nothing_holds(run_dir: Path) -> None:
    expectations = tuple(
        Expectation(metric, when, "lose-east-a", None, low, high, "x")
        for metric, when, low, high in (
            ("time_to_recover", "all", None, 9.0),
            ("success_rate", "during", 0.1, None),
            ("errors", "after", None, 999.0),
        )
    )
    nobody = AppliedFault("lose-east-a", 6.0, 6.0, 12.0, victims=(), hit_nothing="its machine was off already")
    _change(run_dir, expectations=expectations, faults=(nobody,))
    summary = summarize(run_dir)
    assert summary.verdict == "invalid"
    shown = "fault lose-east-a hit nothing: its machine was off already"
    assert [(result.held, result.shown) for result in summary.expectations] == [(None, shown)] * 3


def test_a_time_to_recover_after_a_fault_that_was_never_healed_does_not_hold(run_dir: Path) -> None:
    expectation = Expectation("time_to_recover", "after", "lose-east-a", None, None, 9.0, "x")
    _change(run_dir, expectations=(expectation,), faults=(AppliedFault("lose-east-a", 6.0, 6.0),))
    (result,) = summarize(run_dir).expectations
    assert (result.held, result.measured) == (False, None)
    assert result.shown == "fault lose-east-a was never healed"


def test_a_fault_that_came_with_another_is_judged_by_what_both_cost_and_says_so(run_dir: Path) -> None:
    expectation = Expectation("time_to_recover", "all", "kill", None, None, 0.5, "x")
    kill = AppliedFault("kill", 6.0, 5.999, instant=True)
    _change(run_dir, expectations=(expectation,), faults=(kill, AppliedFault("lose-east-a", 6.0, 6.001, 12.0)))
    summary = summarize(run_dir)
    (result,) = summary.expectations
    assert (result.held, result.shown) == (False, "781ms (shared with lose-east-a)")
    assert [fault.errors for fault in summary.faults] == [Errors(failed=20, unknown=20)] * 2
    assert [fault.shared_with for fault in summary.faults] == [("lose-east-a",), ("kill",)]
    printed = _printed(summary)
    assert "kill, lose-east-a came together: each has the figures of all of them" in printed


def test_an_invalid_run_exits_3_whatever_its_expectations(run_dir: Path) -> None:
    _change(run_dir, locust={})
    summary = summarize(run_dir)
    assert (summary.verdict, EXIT_CODES[summary.verdict]) == ("invalid", 3)
    assert not summary.valid
    assert len(summary.invalid_reasons) == 3


def test_an_interrupted_run_exits_130_and_keeps_its_results(run_dir: Path) -> None:
    _change(run_dir, interrupted=True)
    summary = summarize(run_dir)
    assert (summary.verdict, EXIT_CODES[summary.verdict]) == ("interrupted", 130)
    assert summary.requests.sent == 2700


def test_a_run_that_left_nothing_but_facts_has_a_summary(tmp_path: Path) -> None:
    RunFacts("empty", 0, "fast", 1.0, 0.0, 0.0, interrupted=True).save(tmp_path)
    assert summarize(tmp_path).requests == RequestCounts(sent=0, ok=0, failed=0, unknown=0)


def test_what_went_down_outside_of_faults_is_in_the_summary_and_named_first(run_dir: Path) -> None:
    with TableWriter(run_dir, "events", "other") as events:
        for pod in range(5):
            for t_s in (4.0, 4.5):
                row = {"t_s": t_s + pod / 100, "source": "gateway", "kind": "Endpoint", "object": f"web-{pod}"}
                events.append({**row, "reason": "Ejected", "details": "{}"})
        row = {"t_s": 3.0, "source": "east-a-1", "kind": "Pod", "object": "job-1", "reason": "ProcessExited"}
        events.append({**row, "details": '{"process": "app", "code": 1, "program": "command", "by": null}'})
    summary = summarize(run_dir)
    assert summary.verdict == "passed"
    assert len(summary.undeclared) == 11
    assert summary.undeclared[0] == Undeclared(3.0, "death", "job-1", "app ended with code 1")
    printed = _printed(summary)
    lines = printed.splitlines()
    assert lines[2] == "  processes ended, by no fault: job-1 at 3.00 s (app ended with code 1)"
    assert lines[3].startswith(
        "  ejected, by no fault: web-0 at 4.00 s, 2 times (by gateway); web-1 at 4.01 s, 2 times"
    )
    assert "and 2 more" in " ".join(lines[3:5])


def test_requests_that_no_client_sent_are_told_and_in_no_figure(run_dir: Path) -> None:
    without = summarize(run_dir)
    with TableWriter(run_dir, "hops", "stranger") as hops:
        for number in range(100):
            hops.append(
                {
                    "request_id": f"stranger-{number}",
                    "direction": "outbound",
                    "source_service": "gateway",
                    "source_zone": "east-a",
                    "destination_service": "web",
                    "destination_zone": "east-c",
                    "start_s": 3.0,
                }
            )
    summary = summarize(run_dir)
    assert (summary.hops.requests_of_strangers, summary.hops.calls_of_strangers) == (100, 100)
    assert summary.hops.calls == without.hops.calls
    assert replace(summary, hops=without.hops) == without
    printed = _printed(summary)
    assert "100 requests came in that no client of this run sent; no figure counts them" in printed


def test_lines_that_ingest_could_not_read_make_a_run_invalid_unless_their_writer_died(run_dir: Path) -> None:
    pod = {"pod": "web-1", "service": "web", "node": "east-a-1", "zone": "east-a"}
    with TableWriter(run_dir, "pods", "other") as pods:
        pods.append(pod)
    torn = UnreadLines("web-1.access.jsonl", unreadable=1)
    _change(run_dir, unread=(torn,), faults=(AppliedFault("lose-east-a", 6.0, 6.0, 12.0, victims=("east-a-1",)),))
    summary = summarize(run_dir)
    assert (summary.verdict, summary.unread_lines.unexplained) == ("passed", ())
    assert summary.unread_lines.all[0].unreadable == 1
    _change(run_dir, unread=(torn, UnreadLines("east-b.requests.jsonl", orphans=1)))
    summary = summarize(run_dir)
    assert summary.invalid_reasons == (
        "lost records: 1 lines of logs are in no table: east-b.requests.jsonl (1 finish what was never sent)",
    )


def test_nacks_and_errors_are_shown(run_dir: Path) -> None:
    with TableWriter(run_dir, "pushes", "other") as pushes:
        pushes.append({"proxy": "web-1", "type": "x.Cluster", "version": "3", "sent_s": 1.0, "error": "no such field"})
    summary = summarize(run_dir)
    assert summary.nacks.count == 1
    assert summary.nacks.first[0].error == "no such field"
    assert [(row.outcome, row.count) for row in summary.errors] == [("failed", 20), ("unknown", 20)]
