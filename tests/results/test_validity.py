from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from testbed.results.judge.lateness import Late
from testbed.results.judge.undeclared import Undeclared
from testbed.results.judge.validity import invalid_reasons
from testbed.results.measure.calls import Completeness
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import AppliedFault, LocustCount, MachineFacts, RunFacts, UnreadLines
from testbed.results.tables.schemas import SCHEMAS
from testbed.scenario import LoadSource

FACTS = RunFacts(
    name="r",
    seed=0,
    profile="fast",
    warmup_s=1.0,
    end_s=11.0,
    ready_s=1.0,
    sources=(LoadSource("a", 100.0, "constant"),),
    faults=(AppliedFault("f", 6.0, 6.01),),
    locust={"a": LocustCount(1100, 0)},
)


def _reasons(
    facts: RunFacts = FACTS,
    lag_s: float = 0.001,
    late_from: int = 0,
    sent: int = 1100,
    links: list[dict[str, Any]] | None = None,
    cpu_percent: list[float] | None = None,
    completeness: Completeness | None = None,
    unexplained: Sequence[Undeclared] = (),
    unread: Sequence[UnreadLines] = (),
    late: Sequence[Late] = (),
) -> tuple[str, ...]:
    rows = [
        {
            "origin_zone": "a",
            "intended_s": number / 100,
            "sent_s": number / 100 + (lag_s if number >= late_from else 0.0),
            "outcome": "ok",
        }
        for number in range(sent)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["requests"])
    samples = [
        {"t_s": 1.0 + n, "machine": "m1", "cpu_percent": cpu}
        for n, cpu in enumerate([20.0] * 10 if cpu_percent is None else cpu_percent)
    ]
    return invalid_reasons(
        facts,
        table,
        Requests.of(table),
        pa.Table.from_pylist(links or [], schema=SCHEMAS["links"]),
        pa.Table.from_pylist(samples, schema=SCHEMAS["machines"]),
        completeness or Completeness(0, 0),
        unexplained,
        unread,
        late,
    )


def _link(declared_ms: float, achieved_ms: float | None, expected_ms: float | None = None) -> dict[str, Any]:
    return {
        "source": "n1",
        "destination": "n2",
        "declared_ms": declared_ms,
        "expected_p50_ms": declared_ms if expected_ms is None else expected_ms,
        "achieved_p50_ms": achieved_ms,
    }


def test_a_sound_run_is_valid() -> None:
    links = [_link(1.0, 1.4), _link(10.0, 10.9), _link(1.0, None), _link(0.5, 8.9, expected_ms=8.5)]
    assert _reasons(links=links, cpu_percent=[99.0] + [20.0] * 9) == ()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"lag_s": 0.006}, "load generator lag: p99 6.0 ms in the steady phase, at most 5 ms"),
        (
            {"lag_s": 0.06, "late_from": 600},
            "load generator lag: p99 60.0 ms outside the steady phase, at most 50 ms",
        ),
        (
            {"sent": 1040, "facts": replace(FACTS, locust={"a": LocustCount(1040, 0)})},
            "achieved rate of a: 94.0/s of 100/s declared (94.0%, at least 95%)",
        ),
        ({"cpu_percent": [99.0] * 2 + [20.0] * 8}, "CPU of machine m1 above 95 % in 20% of samples, at most 10%"),
        (
            {"links": [_link(10.0, 11.2)] * 3},
            "latency of 1 links is off, worst: n1 -> n2 has 11.20 ms instead of 10.00 ms (median)",
        ),
        (
            {"links": [_link(0.5, 9.1, expected_ms=8.5)] * 3},
            "latency of 1 links is off, worst: n1 -> n2 has 9.10 ms instead of 8.50 ms (median)",
        ),
        (
            {"facts": replace(FACTS, locust={"a": LocustCount(1101, 1)})},
            "lost records: Locust in a counts 1101 requests and 1 failures, recorded are 1100 and 0",
        ),
        (
            {"facts": replace(FACTS, locust={"a": LocustCount(1150, 5, 50, 4)})},
            "lost records: Locust in a counts 1150 requests and 5 failures (50 and 4 the locustfile's own), "
            "recorded are 1100 and 0",
        ),
        (
            {"facts": replace(FACTS, locust={})},
            "lost records: Locust in a ended without its counts, 1100 requests are recorded",
        ),
        (
            {"completeness": Completeness(5, 2)},
            "lost records: 3 ok requests have no hops (2 more are explained by killed proxies)",
        ),
        (
            {"facts": replace(FACTS, machines=(MachineFacts("m1", epoch_step_s=0.02),))},
            "clock of machine m1 stepped by +20.0 ms during the run, at most 5 ms",
        ),
        (
            {"facts": replace(FACTS, machines=(MachineFacts("m1", clock_error_s=0.0061),))},
            "clock of machine m1 is known to 6.1 ms only, at most 5 ms",
        ),
        (
            {"facts": replace(FACTS, machines=(MachineFacts("m1"), MachineFacts("m2")))},
            "CPU of machine m2 was not sampled",
        ),
        (
            {"facts": replace(FACTS, faults=(AppliedFault("f", 6.0, 6.01, 8.1, 8.0),))},
            "the heal of fault f came 100 ms after its time, at most 50 ms",
        ),
        (
            {"facts": replace(FACTS, machines=(MachineFacts("m2", ("b-1", "clients/b"), lost_s=7.25),))},
            "machine m2 was lost at 7.2 s, which no fault declares; there: b-1, clients/b",
        ),
        (
            {"facts": replace(FACTS, faults=(AppliedFault("f", 6.0, 6.01, hit_nothing="pod web-9 was not running"),))},
            "fault f hit nothing: pod web-9 was not running",
        ),
        (
            {"facts": replace(FACTS, broken="m2 still answers")},
            "m2 still answers",
        ),
        (
            {"facts": replace(FACTS, faults=(AppliedFault("f", 6.0, 6.2),))},
            "fault f came 200 ms after its time, at most 50 ms",
        ),
    ],
)
def test_each_way_to_be_invalid_has_its_reason_with_figures(what: dict[str, Any], reason: str) -> None:
    assert _reasons(**what) == (reason,)


def test_a_death_of_the_testbeds_own_that_no_fault_declares_is_a_reason_and_others_are_none() -> None:
    crash = Undeclared(2.0, "death", "job-1", "app ended with code 1")
    envoy = Undeclared(3.0, "death", "web-1", "Envoy ended by signal 9", invalidates=True)
    workload = Undeclared(4.0, "death", "web-2", "built-in workload ended by signal 11", invalidates=True)
    assert _reasons(unexplained=[crash]) == ()
    assert _reasons(unexplained=[crash, envoy, workload]) == (
        "pod web-1: Envoy ended by signal 9 at 3.00 s, which no fault declares (the kernel does that when memory is "
        "short), and 1 more processes",
    )


def test_who_was_held_up_for_too_long_is_a_reason_with_the_longest_time_and_how_often_it_was() -> None:
    lates = [Late("the control plane", 4.0, 2.5, 1.5), Late("the agent of node n1", 7.0, 1.6, 1.5)]
    reason = "the control plane was held up for 2.50 s at 4.00 s, others wait 1.5 s for it"
    assert _reasons(late=lates[:1]) == (reason,)
    assert _reasons(late=lates) == (f"{reason}; 1 more times, by 2 processes",)


def test_lines_that_are_in_no_table_are_a_reason_with_their_number_and_their_logs() -> None:
    logs = [UnreadLines("a.requests.jsonl", 2, 3), UnreadLines("web-1.access.jsonl", unknown=7)]
    assert _reasons(unread=logs) == (
        "lost records: 12 lines of logs are in no table: a.requests.jsonl (2 cannot be read, 3 finish what was never "
        "sent); web-1.access.jsonl (7 are of a pod that nobody knew)",
    )
    many = [UnreadLines(f"web-{n}.access.jsonl", 1) for n in range(5)]
    assert _reasons(unread=many)[0].endswith("web-2.access.jsonl (1 cannot be read); and 2 more logs")


def test_a_shortfall_that_chance_explains_is_no_reason() -> None:
    poisson = replace(FACTS, sources=(LoadSource("a", 100.0, "poisson"),), locust={"a": LocustCount(1040, 0)})
    assert _reasons(poisson, sent=1040) == ()


def test_clients_on_a_machine_that_a_fault_powered_off_owe_their_rate_until_then_and_no_count() -> None:
    off = MachineFacts("m2", ("clients/a",), lost_s=6.0, records_until_s=5.8, powered_off=True)
    facts = replace(FACTS, machines=(off,), locust={})
    assert _reasons(facts, sent=580) == ()
    assert _reasons(facts, sent=400)[0].startswith("achieved rate of a: 62.5/s of 100/s declared")


def test_the_time_of_a_fault_that_a_command_carries_out_is_the_commands() -> None:
    assert _reasons(replace(FACTS, faults=(AppliedFault("f", 6.0, 6.4, by_command=True),))) == ()


def test_a_closed_load_has_no_rate_to_keep() -> None:
    closed = replace(FACTS, sources=(LoadSource("a", None, users=3),), locust={"a": LocustCount(10, 0)})
    assert _reasons(closed, sent=10) == ()


def test_a_proxy_free_mesh_leaves_no_hops_to_miss() -> None:
    assert _reasons(replace(FACTS, logs_hops=False), completeness=Completeness(5, 0)) == ()


def test_events_that_the_locustfile_fired_itself_are_no_lost_records() -> None:
    assert _reasons(replace(FACTS, locust={"a": LocustCount(1150, 5, 50, 5)})) == ()
