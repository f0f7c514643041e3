"""How far calls went, what they carried and what that costs; every call once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.objects.places import DISTANCES
from testbed.results.measure.calls import calls_made
from testbed.results.measure.ledger import Ledger, PhaseLedger, Traffic, distances
from testbed.results.measure.phases import Phase
from testbed.results.show.summarize import summarize
from testbed.results.tables.facts import RunFacts
from testbed.results.tables.schemas import SCHEMAS
from testbed.scenario import Expectation, Price, Prices

PHASE = Phase("steady", 0.0, 10.0)
CITIES = {"a": "north", "b": "north", "c": "south"}
PLACES = {
    "a-1": ("a", "east"),
    "a-2": ("a", "east"),
    "b-1": ("b", "east"),
    "c-1": ("c", "east"),
    "d-1": ("d", "east"),
    "e-1": ("e", "east"),
    "x-1": ("x", "west"),
}
PRICES = Prices("EUR", Price(), Price(1.0, 0.5), Price(2.0, 0.0), Price(0.0, 9.0))


def _hop(source: str, destination: str | None, **fields: Any) -> dict[str, Any]:
    ends = {"source_node": source, "source_zone": PLACES[source][0], "source_region": PLACES[source][1]}
    if destination is not None:
        zone, region = PLACES[destination]
        ends |= {"destination_node": destination, "destination_zone": zone, "destination_region": region}
    carried = {"request_bytes": 100, "response_bytes": 900}
    named = {"source_service": "web", "destination_service": "orders"}
    return {"direction": "outbound", "start_s": 1.0, **carried, **named, **ends, **fields}


def _table(*hops: dict[str, Any]) -> pa.Table:
    return calls_made(pa.Table.from_pylist(list(hops), schema=SCHEMAS["hops"]))


def _ledger(*hops: dict[str, Any], cities: Mapping[str, str] = CITIES) -> PhaseLedger:
    return Ledger(_table(*hops), PRICES, cities).within(PHASE)


@pytest.mark.parametrize(
    ("source", "destination", "in_cities", "without"),
    [
        ("a-1", "a-1", "same_node", "same_node"),
        ("a-1", "a-2", "same_zone", "same_zone"),
        ("a-1", "b-1", "same_city", "same_region"),
        ("a-1", "c-1", "same_region", "same_region"),
        ("d-1", "e-1", "same_city", "same_region"),
        ("d-1", "a-1", "same_region", "same_region"),
        ("a-1", "x-1", "cross_region", "cross_region"),
        ("x-1", "d-1", "cross_region", "cross_region"),
    ],
)
def test_a_call_is_as_far_as_the_nearest_place_that_both_ends_share(
    source: str, destination: str, in_cities: str, without: str
) -> None:
    """Zones of a region without a city of their own are one city."""
    calls = _table(_hop(source, destination))
    assert [DISTANCES[code] for code in distances(calls, CITIES)] == [in_cities]
    assert [DISTANCES[code] for code in distances(calls, {})] == [without]


def test_a_call_is_counted_once_where_it_was_made_if_it_reached_somebody_known() -> None:
    got = _ledger(
        _hop("a-1", "b-1"),
        _hop("a-1", "b-1", direction="inbound"),
        _hop("a-1", None),
        _hop("a-1", "b-1", start_s=10.0),
    )
    assert got.all == got.cross_zone == Traffic(1, 100, 900, pytest.approx(1000 * 1.5e-9))
    assert got.by_distance == got.by_service["web"].by_distance == {"same_city": got.all}
    assert (got.by_right, got.by_cell, got.partition_local_share) == ({}, {}, None)


def test_each_distance_has_its_price_and_each_service_what_it_called() -> None:
    got = _ledger(
        _hop("a-1", "a-1"),
        _hop("a-1", "a-2"),
        _hop("a-1", "c-1", source_service="gateway"),
        _hop("x-1", "c-1", source_service="gateway", request_bytes=0, response_bytes=10**9),
    )
    assert {name: list(account.by_distance) for name, account in got.by_service.items()} == {
        "gateway": ["same_region", "cross_region"],
        "web": ["same_node", "same_zone"],
    }
    costs = {distance: traffic.cost for distance, traffic in got.by_distance.items()}
    assert costs == {
        "same_node": 0.0,
        "same_zone": 0.0,
        "same_region": pytest.approx(2e-6),
        "cross_region": pytest.approx(9.0),
    }
    assert (got.all.calls, got.cross_zone.calls, got.cross_zone.bytes) == (4, 2, 10**9 + 1000)
    assert got.all.cost == pytest.approx(9.000002)


def test_without_calls_nothing_is_carried_and_nothing_paid() -> None:
    assert _ledger() == PhaseLedger()


def test_what_an_earlier_version_did_not_record_is_not_taken_for_nothing() -> None:
    got = _ledger(_hop("a-1", "b-1"), _hop("a-1", "b-1", request_bytes=None, response_bytes=None))
    assert got.cross_zone == Traffic(2, None, None, None)
    assert got.cross_zone.bytes is None


PLACE = st.sampled_from(sorted(PLACES))


@given(st.lists(st.tuples(PLACE, PLACE, st.sampled_from(["web", "orders", "gateway"]), st.integers(0, 10**6))))
def test_parts_add_up_to_the_whole_whichever_way_calls_are_parted(calls: list[tuple[str, str, str, int]]) -> None:
    hops = [_hop(a, b, source_service=service, request_bytes=size) for a, b, service, size in calls]
    got = _ledger(*hops)
    assert (got.all.calls, got.all.request_bytes) == (len(calls), sum(size for *_, size in calls))
    assert got.all.calls == sum(account.all.calls for account in got.by_service.values())
    assert got.all.cost == pytest.approx(sum(part.cost or 0.0 for part in got.by_distance.values()))
    back = _ledger(*(_hop(b, a) for a, b, *_ in calls))
    assert {key: part.calls for key, part in back.by_distance.items()} == {
        key: part.calls for key, part in got.by_distance.items()
    }


def test_a_bound_on_what_leaves_zones_is_judged_by_phase(run_dir: Path) -> None:
    facts = RunFacts.load(run_dir)
    crossing = pa.Table.from_pylist(
        [{**_hop("a-1", "b-1"), "request_id": "east-a-1", "start_s": start_s} for start_s in (3.0, 7.0, 8.0)],
        schema=SCHEMAS["hops"],
    )
    pq.write_table(crossing, run_dir / "hops" / "more.parquet")
    bounds = (("steady", None, 1000.0), ("during", "lose-east-a", 1999.0), ("all", None, 3000.0))
    expectations = tuple(
        Expectation("cross_zone_bytes", when, fault, None, None, bound, "x")  # type: ignore[arg-type]
        for when, fault, bound in bounds
    )
    replace(facts, expectations=expectations).save(run_dir)
    summary = summarize(run_dir)
    assert [(each.held, each.measured, each.shown) for each in summary.expectations] == [
        (True, 1000.0, "1kB"),
        (False, 2000.0, "2kB"),
        (True, 3000.0, "3kB"),
    ]
    assert summary.ledger.by_phase["steady"].cross_zone == Traffic(1, 100, 900, pytest.approx(1000 * 0.02e-9))
