"""How far calls are expected to go, and what their bodies cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.control.store import Store
from testbed.scenario import Scenario, load_scenario
from testbed.scenario.call_plan import Unknown, call_lines, carried, with_calls
from testbed.scenario.cell_plan import expected_shares
from tests.scenario.test_cells import FIRST_HIT, POISON, dry_run

TEN_KB = "spec.services.web.workload.responseSize=10kB"


def loaded(*overrides: str, path: Path = FIRST_HIT) -> tuple[Store, Scenario]:
    scenario = load_scenario(path, overrides)
    return dry_run(scenario).store, scenario


def test_calls_are_followed_from_gateways_over_forwards_to_the_last_pod() -> None:
    found = carried(*loaded())
    # A tenth of the requests go to the nearest cell; of those, and of all others, three quarters to an owner elsewhere.
    assert sum(found.calls.values()) == pytest.approx(4 + 0.075)
    elsewhere = 0.9 * 0.75 + 0.1 * 0.75
    # One of the three other cells is in the caller's city. `rates` has a pod a city, in one of its two zones.
    assert found.calls["cross_region"] == pytest.approx(elsewhere * 2 / 3)
    assert found.calls["same_city"] == pytest.approx(elsewhere / 3 + 0.5)


def test_bodies_cost_by_how_far_they_go() -> None:
    prices = "spec.prices={sameCity: {out: 1/GB, in: 0/GB}, crossRegion: {out: 4/GB, in: 0/GB}}"
    request = "spec.load.requests=[{path: /, method: POST, body: abcd}]"
    store, scenario = loaded(prices, request, TEN_KB)
    found = carried(store, scenario)
    assert found.bytes["cross_region"] == pytest.approx(0.5 * 10_004)
    assert found.cost(scenario.prices) == pytest.approx((0.25 * 10_004 * 1 + 0.5 * 10_004 * 4) / 1e9)


def test_a_gateway_that_computes_the_owner_goes_straight_to_it() -> None:
    found = carried(*loaded("spec.cells.firstHit=owner"))
    assert sum(found.calls.values()) == pytest.approx(4)


def test_the_plan_is_told_in_words() -> None:
    assert list(call_lines(*loaded(TEN_KB))) == [
        "  a request makes 4.08 calls, gateways' too, of which 30.67% leave their zone",
        "  30 days at 120 requests/s: 1,267,488,000 calls, 2,332.8 GB of bodies out of zone, 46.66 USD for bodies",
        "  headers come on top: they are the proxies', about 0.5 kB a call",
    ]
    (_, month, _) = call_lines(*loaded(TEN_KB, "spec.load.sources=[{zone: east-a, users: 3, thinkTime: 1s}]"))
    assert month.startswith("  a million requests: 4,07")
    assert "calls, 7.5 GB of bodies out of zone, 0.15 USD for bodies" in month
    assert list(call_lines(*loaded()))[1:] == [
        "  30 days at 120 requests/s: 1,267,488,000 calls; no bodies are declared, so only headers cost anything"
    ]


@pytest.mark.parametrize(
    ("overrides", "path", "why"),
    [
        ((), POISON, "with shuffle shards chance has dealt out the workers"),
        (("spec.services.stock.workload={command: [python3]}",), FIRST_HIT, "stock runs a program"),
        (("spec.cells.entry=directed",), FIRST_HIT, "clients are directed"),
    ],
)
def test_what_nobody_can_tell_is_said_and_compared_with_nothing(
    overrides: tuple[str, ...], path: Path, why: str
) -> None:
    store, scenario = loaded(*overrides, path=path)
    with pytest.raises(Unknown, match=why):
        carried(store, scenario)
    assert next(call_lines(store, scenario)).startswith(f"  nobody can tell how far calls go: {why}")
    expected = expected_shares(store, scenario.load)
    assert with_calls(expected, store, scenario) == expected
