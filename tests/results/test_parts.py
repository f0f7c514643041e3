"""Requests by what they have in common, and recovery of each part by its own steady phase."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from testbed.results.measure.parts import By, combined, divided
from testbed.results.show.remarks import warnings
from testbed.results.show.summarize import summarize
from testbed.results.tables.facts import AppliedFault, RunFacts
from testbed.results.tables.schemas import SCHEMAS
from testbed.scenario import Expectation, RecoveryRule
from tests.results.conftest import FACTS, write_run

FACTS_ONLY = RunFacts("x", 0, "fast", 0.0, 9.0, 1.0)


def _requests(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([{"entry_zone": "a", **row} for row in rows], schema=SCHEMAS["requests"])


def _names(by: By, table: pa.Table, facts: RunFacts = FACTS_ONLY, hops: pa.Table | None = None) -> list[str | None]:
    parts = divided(by, table, SCHEMAS["hops"].empty_table() if hops is None else hops, facts)
    return [None if number < 0 else parts.names[number] for number in parts.numbers.tolist()]


def test_a_request_is_for_the_service_of_the_first_route_that_takes_its_path() -> None:
    paths = ["/api/1", "/ap", "/", "/apiary?x=/web", "http://elsewhere/api", None]
    table = _requests(*({"path": path} for path in paths))
    routes = (("/api/", "api"), ("/ap", "other"), ("/api", "nobody"), ("/", "web"))
    by_path = replace(FACTS_ONLY, routes=routes)
    assert _names("service", table, by_path) == ["api", "other", "web", "other", None, None]
    every = replace(FACTS_ONLY, routes=(("/", "web"), ("/api", "api")))
    assert not every.has_routes_by_path
    assert _names("service", _requests({}, {"entry_zone": None}), every) == ["web", None]
    assert _names("service", table, FACTS_ONLY) == [None] * 6


def test_a_request_is_of_the_cell_for_which_its_gateway_routed_it() -> None:
    table = _requests(*({"request_id": each} for each in ("a", "b", "never-came", "unkeyed")))
    gateway = {"direction": "outbound", "source_service": "gateway"}
    hops = pa.Table.from_pylist(
        [
            {"request_id": "b", **gateway, "owner_cell": "two"},
            {"request_id": "a", **gateway, "owner_cell": "one"},
            {"request_id": "never-came", "direction": "outbound", "source_service": "web", "owner_cell": "one"},
            {"request_id": "unkeyed", **gateway},
            {"request_id": "stranger", **gateway, "owner_cell": "two"},
        ],
        schema=SCHEMAS["hops"],
    )
    assert _names("cell", table, hops=hops) == ["one", "two", None, None]
    assert _names("cell", table) == [None] * 4


def test_parts_can_be_combined() -> None:
    table = _requests({"origin_zone": "a", "name": "x"}, {"origin_zone": "b", "name": "y"}, {"origin_zone": "a"})
    both = combined([divided(by, table, SCHEMAS["hops"].empty_table(), FACTS_ONLY) for by in ("origin", "name")])
    assert [name for name, _ in both.masks()] == ["a, x", "b, y"]
    assert both.numbers.tolist()[2] == -1


def test_recovery_is_told_for_every_zone_and_service_and_each_is_judged_by_its_own_steady_phase(run_dir: Path) -> None:
    summary = summarize(run_dir)
    (fault,) = summary.faults
    origins = fault.by["origin"]
    assert {zone: part.errors.all for zone, part in origins.items()} == {"east-a": 40, "east-b": 0, "east-c": 0}
    assert origins["east-a"].first_error_seen_s == fault.first_error_seen_s == 7.0
    assert [origins[zone].time_to_recover_s for zone in ("east-b", "east-c")] == [0.0, 0.0]
    assert list(fault.by) == ["origin", "service"]
    assert fault.by["service"]["web"].time_to_recover_s == fault.time_to_recover_s
    assert fault.heal is not None
    assert {part.time_to_recover_s for part in fault.heal.by["origin"].values()} == {0.0}


def test_a_part_that_was_ill_before_any_fault_is_warned_of_though_the_whole_was_not(tmp_path: Path) -> None:
    late = AppliedFault("late", 8.0, 8.0, instant=True)
    summary = summarize(write_run(tmp_path / "run", replace(FACTS, faults=(late,), recovery=RecoveryRule(0.95))))
    baseline = summary.recovery_baseline
    assert not baseline.steady_below_target
    assert baseline.steady_below_target_by == {"origin": ("east-a",), "service": ()}
    warning = "steady itself is below the 95 % that recovery asks for: 95.55 % of all requests were ok; below it are"
    assert f"{warning} clients of east-a: recovered is no worse than that" in warnings(summary)


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"origin": "east-a"}, "799ms"),
        ({"origin": "east-b"}, "0s"),
        ({"service": "web"}, "779ms"),
        ({"cell": "one"}, "nothing to measure: no such requests"),
    ],
)
def test_a_time_to_recover_can_be_that_of_a_part(tmp_path: Path, part: dict[str, str], shown: str) -> None:
    whole = Expectation("time_to_recover", "all", "lose-east-a", None, None, 0.5, "x")
    facts = replace(FACTS, expectations=(replace(whole, **part),))  # type: ignore[arg-type]
    (result,) = summarize(write_run(tmp_path / "run", facts)).expectations
    assert (result.shown, result.held) == (shown, shown == "0s")


def test_the_rule_of_the_scenario_decides_when_clients_are_well(tmp_path: Path) -> None:
    """From 6 s to 6.8 s one of three requests fails."""

    def judged(name: str, rule: RecoveryRule) -> float | None:
        summary = summarize(write_run(tmp_path / name, replace(FACTS, recovery=rule)))
        assert summary.recovery_baseline.window_s == rule.window_s
        return summary.faults[0].time_to_recover_s

    assert judged("strict", RecoveryRule()) == pytest.approx(0.779, abs=0.001)
    assert judged("lenient", RecoveryRule(at_least=0.6)) == 0.0
    # 40 of 600 requests in 4 s.
    assert judged("patient", RecoveryRule(at_least=0.93, window_s=4.0)) == 0.0
    assert judged("not patient enough", RecoveryRule(at_least=0.94, window_s=4.0)) == pytest.approx(0.3, abs=0.3)
