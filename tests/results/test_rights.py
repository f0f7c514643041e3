"""By which right calls went to the cell that they went to, and what of that expectations and reports say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from testbed.results.measure.calls import calls_made
from testbed.results.measure.expected import Compared
from testbed.results.measure.ledger import Ledger, PhaseLedger
from testbed.results.measure.phases import Phase
from testbed.results.measure.rights import RIGHTS, rights
from testbed.results.show.report import render
from testbed.results.show.summarize import summarize
from testbed.results.tables.facts import RunFacts
from testbed.results.tables.schemas import SCHEMAS
from testbed.scenario import Expectation, ExpectedShares, Prices

BACKUPS = {"rz01": "rz02", "rz02": "rz01"}
CELLS = ("rz01", "rz02", "rz03")
ZONES = {"": "east-a", "rz01": "east-a", "rz02": "east-b", "rz03": "east-c"}


def _hop(here: str, there: str, route: str | None, owner: str | None = None, **fields: Any) -> dict[str, Any]:
    services = {"source_service": "web", "destination_service": "orders"}
    zones = {"source_zone": ZONES[here], "destination_zone": ZONES[there]}
    places = {f"{end}_node": f"{ZONES[cell]}-1" for end, cell in (("source", here), ("destination", there))}
    places |= {"source_region": "east", "destination_region": "east"}
    cells = {"source_cell": here, "destination_cell": there, "owner_cell": owner}
    carried = {"start_s": 3.0, "bytes": 40, "request_bytes": 10, "response_bytes": 90, "map_version": 1}
    return {"direction": "outbound", "route": route, **services, **zones, **places, **cells, **carried, **fields}


def _table(*hops: dict[str, Any]) -> pa.Table:
    return calls_made(pa.Table.from_pylist(list(hops), schema=SCHEMAS["hops"]))


GATEWAY = {"source_service": "gateway"}


@pytest.mark.parametrize(
    ("hop", "right"),
    [
        (_hop("", "rz01", "first-hit", **GATEWAY), "entry"),
        (_hop("", "rz01", "cookie", "rz01", **GATEWAY), "entry"),
        (_hop("", "rz01", "owner", "rz01", **GATEWAY), "entry"),
        (_hop("", "", "global", **GATEWAY), "entry"),
        (_hop("rz01", "rz01", "own", "rz01"), "own"),
        (_hop("", "rz01", "owner", "rz01"), "own"),
        (_hop("rz01", "", "global"), "by_class"),
        (_hop("rz01", "", "per-city"), "by_class"),
        (_hop("rz01", "rz03", "cross-cell", "rz03"), "cross_cell"),
        (_hop("rz01", "rz03", "first-hit", "rz03"), "first_hit"),
        (_hop("rz01", "rz03", "stale-cookie", "rz03"), "stale_cookie"),
        (_hop("rz01", "rz03", "stale-map", "rz03"), "stale_map"),
        (_hop("rz01", "rz03", "unkeyed"), "unkeyed"),
        (_hop("rz01", "rz02", "own", "rz01"), "failover"),
        (_hop("", "rz02", "cookie", "rz01", **GATEWAY), "failover"),
        (_hop("rz02", "rz01", "first-hit", "rz02"), "failover"),
        (_hop("rz01", "rz03", "own", "rz01"), "leak"),
        (_hop("", "rz03", "cookie", "rz01", **GATEWAY), "leak"),
        (_hop("rz01", "rz01", "first-hit", "rz03"), "leak"),
        (_hop("rz03", "rz01", "own", "rz01"), "leak"),
        (_hop("rz03", "", "own", "rz03"), "leak"),
        (_hop("rz01", "rz03", None), "leak"),
        (_hop("rz01", "rz01", None), "own"),
    ],
)
def test_a_right_is_what_the_proxy_says_if_the_call_really_went_there(hop: dict[str, Any], right: str) -> None:
    calls = _table(hop, _hop("rz01", "rz01", "own", "rz01"))
    assert [RIGHTS[code] for code in rights(calls, BACKUPS)] == [right, "own"]


def test_calls_from_cell_to_cell_go_by_a_declared_rule_or_are_leaks_where_there_are_rules() -> None:
    transfer = _hop("rz01", "rz03", "cross-cell", "rz03")
    back = _hop("rz03", "rz01", "cross-cell", "rz01", source_service="orders", destination_service="web")
    local, elsewhere = _hop("rz01", "rz01", "own", "rz01"), _hop("rz01", "rz02", "cross-cell", "rz03")
    calls, rules = _table(transfer, back, local, elsewhere), {"refund": ("stock", "web"), "transfer": ("web", "orders")}
    got = Ledger(calls, Prices(), {}, {}, rules).within(Phase("steady", 0.0, 10.0))
    assert {right: traffic.calls for right, traffic in got.by_right.items()} == {"own": 1, "declared": 1, "leak": 2}
    assert {rule: account.all.calls for rule, account in got.by_rule.items()} == {"transfer": 1}
    assert [RIGHTS[code] for code in rights(calls, {}, {})] == ["leak", "leak", "own", "leak"]
    assert [RIGHTS[code] for code in rights(calls, {})] == ["cross_cell", "cross_cell", "own", "leak"]


def test_what_another_cell_has_on_loan_goes_there_by_failover_as_long_as_the_map_says_so() -> None:
    versions = {3: (7, 8), 4: (), 5: (7,)}
    hops = [
        _hop("rz02", "rz02", "own", "rz02", partition=partition, map_version=version)
        for version, partition in ((2, "7"), (3, "7"), (3, "9"), (4, "7"), (5, "7"), (5, "8"), (3, None))
    ]
    found = [RIGHTS[code] for code in rights(_table(*hops), BACKUPS, None, versions)]
    assert found == ["own", "failover", "own", "own", "failover", "own", "own"]


def test_without_cells_nothing_has_a_right() -> None:
    calls = [_hop("", "", route, map_version=None) for route in ("web", None)]
    assert rights(_table(*calls), {}).tolist() == [-1, -1]
    assert rights(_table(), BACKUPS).tolist() == []


def test_a_forwarded_call_is_two_calls_and_its_second_one_is_the_forward() -> None:
    """Three rows of one call of a gateway: its own, and both of the cell that forwarded."""
    got = _ledger(
        _hop("", "rz01", "first-hit", **GATEWAY, destination_service="web"),
        _hop("", "rz01", "first-hit", "rz03", direction="inbound"),
        _hop("rz01", "rz03", "first-hit", "rz03", destination_service="web"),
    )
    assert {right: traffic.calls for right, traffic in got.by_right.items()} == {"entry": 1, "first_hit": 1}
    assert (got.between_pods, got.partition_local_share) == (1, 0.0)


def _ledger(*hops: dict[str, Any]) -> PhaseLedger:
    return Ledger(_table(*hops), Prices(), {}, BACKUPS).within(Phase("steady", 0.0, 10.0))


def test_the_share_of_local_calls_is_of_those_between_pods_by_callee_and_by_calling_cell() -> None:
    got = _ledger(
        _hop("", "rz01", "cookie", "rz01", **GATEWAY, destination_service="web"),
        _hop("rz01", "rz01", "own", "rz01"),
        _hop("rz01", "rz01", "own", "rz01"),
        _hop("rz02", "rz03", "stale-map", "rz03"),
        _hop("rz02", "", "global", destination_service="rates"),
    )
    assert (got.between_pods, got.partition_local_share) == (4, 0.5)
    assert got.partition_local_share_by_service == {"orders": 2 / 3, "rates": 0.0}
    assert {cell: (account.between_pods, account.own_share) for cell, account in got.by_cell.items()} == {
        "rz01": (2, 1.0),
        "rz02": (2, 0.0),
    }
    assert got.by_cell["rz02"].by_right["stale_map"].bytes == 100


def _with_cells(run_dir: Path, **changes: Any) -> None:
    """60 calls a second between pods from 2 s on: a tenth are forwarded, two leak while the fault lasts."""
    rows = []
    for number in range(60 * 16):
        start_s, cell = 2.002 + number / 60, CELLS[number % 3]
        other = CELLS[(number + 1) % 3]
        hop = _hop(cell, cell, "own", cell)
        if number % 10 == 0:
            hop = _hop(cell, other, "first-hit", other)
        elif number % 10 == 5:
            hop = _hop(cell, "", "per-city", destination_service="rates")
        elif number in (301, 302):
            hop = _hop("rz02", "rz03", "own", "rz02")
        rows.append({**hop, "request_id": f"east-b-{number % 900}", "start_s": start_s})
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["hops"]), run_dir / "hops" / "cells.parquet")
    replace(RunFacts.load(run_dir), backups=BACKUPS, **changes).save(run_dir)


def test_calls_for_another_key_are_said_to_be_no_leaks_where_there_are_no_rules(run_dir: Path) -> None:
    rows = [{**_hop("rz01", "rz03", "cross-cell", "rz03"), "request_id": f"east-b-{n}"} for n in range(150, 157)]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["hops"]), run_dir / "hops" / "cells.parquet")
    facts = RunFacts.load(run_dir)
    expectations = (Expectation("leaks", "all", None, None, None, 0.0, "x"),)

    def shown(rules: dict[str, tuple[str, str]] | None) -> tuple[str, bool | None]:
        replace(facts, cross_cell=rules, expectations=expectations).save(run_dir)
        summary = summarize(run_dir)
        return "\n".join(map(str, render(summary, run_dir, 200))), summary.expectations[0].held

    text, held = shown(None)
    assert "7 calls for another key are no leaks, as cells.crossCell has no rules; with `crossCell: {}` all are" in text
    assert held
    text, held = shown({})
    assert "are no leaks" not in text
    assert held is False


def test_expectations_of_cells_are_judged_by_phase(run_dir: Path) -> None:
    def bound(metric: str, when: Any, low: float | None, high: float | None, service: str | None = None) -> Expectation:
        return Expectation(metric, when, "lose-east-a" if when == "during" else None, service, low, high, "x")

    expectations = (
        bound("leaks", "steady", None, 0.0),
        bound("leaks", "during", None, 1.0),
        bound("partition_local_share", "steady", 0.8, None),
        bound("partition_local_share", "steady", 0.9, None, "orders"),
        bound("partition_local_share", "steady", 0.9, None, "nobody"),
        bound("forwards", "steady", None, 0.04),
    )
    _with_cells(run_dir, expectations=expectations)
    assert [(each.held, each.shown) for each in summarize(run_dir).expectations] == [
        (True, "0"),
        (False, "2"),
        (True, "80%"),
        (False, "88.889%"),
        (False, "nothing to measure: no such calls"),
        (True, "4%"),
    ]


def test_without_cells_there_is_nothing_to_measure_of_them(run_dir: Path) -> None:
    metrics = ("leaks", "forwards", "partition_local_share")
    expectations = tuple(Expectation(metric, "all", None, None, None, 1.0, "x") for metric in metrics)
    replace(RunFacts.load(run_dir), expectations=expectations).save(run_dir)
    shown = [(each.held, each.shown) for each in summarize(run_dir).expectations]
    assert shown == [(False, "nothing to measure: no such calls")] * 3


def test_what_was_measured_stands_beside_what_was_to_be_expected_and_chance_is_told_from_a_difference(
    run_dir: Path,
) -> None:
    _with_cells(run_dir, expected=ExpectedShares(0.82, 0.08))
    local, forwards = summarize(run_dir).ledger.as_expected
    assert (local.what, local.expected, local.measured, local.by_chance) == ("partition_local_share", 0.82, 0.8, True)
    assert local.tolerance == pytest.approx(3 * (0.82 * 0.18 / 240) ** 0.5)
    assert (forwards.what, forwards.measured, forwards.by_chance) == ("forwards", 24 / 600, False)
    _with_cells(run_dir, expected=ExpectedShares(1.0, 0.0))
    assert [(each.tolerance, each.by_chance) for each in summarize(run_dir).ledger.as_expected] == [(0.0, False)] * 2
    _with_cells(run_dir, expected=None)
    assert summarize(run_dir).ledger.as_expected == ()


def test_calls_out_of_their_zone_and_what_bodies_cost_are_compared_as_well(run_dir: Path) -> None:
    def beside(out_of_zone: float, cost_per_request: float) -> tuple[Compared, Compared]:
        expected = ExpectedShares(0.8, 0.04, None, out_of_zone, cost_per_request, session=10)
        _with_cells(run_dir, expected=expected)
        _, _, crossing, cost = summarize(run_dir).ledger.as_expected
        return crossing, cost

    # Of 840 calls in 4 s, 24 are forwarded and 16 go to the city of another zone, for 600 requests in 60 sessions.
    per_request = 40 / 600 * 40 * 0.02e-9
    crossing, cost = beside(0.05, per_request)
    assert (crossing.what, crossing.measured, crossing.by_chance) == ("out_of_zone", pytest.approx(40 / 840), True)
    assert crossing.tolerance == pytest.approx(3 * (0.05 * 0.95 / 60) ** 0.5)
    a_month = per_request * 150 * 30 * 86400
    assert (cost.what, cost.measured, cost.expected) == (
        "bodies_cost_per_month",
        *[pytest.approx(a_month, rel=1e-3)] * 2,
    )
    assert cost.by_chance
    assert [each.by_chance for each in beside(0.5, 20 * per_request)] == [False, False]
    text = "\n".join(line.plain for line in render(summarize(run_dir), run_dir, 200))
    assert "calls out of their zone in the steady phase: 4.76 %, expected 50.00 %: chance explains 19.36 % only" in text
    assert "money for bodies, a month, in the steady phase: 0.02 USD, expected 0.41 USD" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_of_a_run_with_cells(run_dir: Path, width: int, golden: Callable[[str, str], None]) -> None:
    _with_cells(run_dir)
    replace(RunFacts.load(run_dir), expected=ExpectedShares(0.8213, 0.075)).save(run_dir)
    lines = [line.plain for line in render(summarize(run_dir), Path("runs/cells-1"), width)]
    assert max(map(len, lines)) <= width
    golden(f"report-cells-{width}.txt", "\n".join(lines) + "\n")
