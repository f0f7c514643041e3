"""Clients that are directed: what a scenario says of routers, and how often they are asked, held against clients."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from loadgen.sessions import IdDraw, Sessions
from loadgen.settings import Ids
from testbed.objects.cells import PartitionMap
from testbed.objects.workloads import Deployment
from testbed.scenario import LoadSource, LoadSpec, load_scenario
from testbed.scenario.question_plan import asking_share, question_lines
from testbed.scenario.values import DirectedSpec, IdSpec, Scenario
from tests.scenario.test_cells import dry_run

ROUTER_DOWN = Path(__file__).parents[2] / "scenarios" / "router-down.yaml"
FIRST_HIT = ROUTER_DOWN.with_name("cells-first-hit.yaml")


def routers(scenario: Scenario) -> list[Deployment]:
    return [each for each in scenario.cluster.deployments if each.template.role == "router"]


def test_each_zone_has_a_router_unless_some_are_named_and_none_where_gateways_are_the_entry() -> None:
    (only,) = routers(load_scenario(ROUTER_DOWN))
    assert (only.name, only.template.zones, only.template.has_proxy) == ("router-edge", ("edge",), True)
    everywhere = load_scenario(ROUTER_DOWN, ["spec.cells.router=null", "spec.faults=[]", "spec.expect=[]"])
    assert [each.name for each in routers(everywhere)] == [
        f"router-{zone}" for zone in ("east-a", "east-b", "edge", "west-a", "west-b")
    ]
    assert everywhere.load.directed is not None
    assert everywhere.load.directed.ttl_s == 30
    assert routers(load_scenario(FIRST_HIT)) == []


def test_clients_know_the_zones_of_cells_and_the_map_that_there_are_no_first_hits() -> None:
    scenario = load_scenario(ROUTER_DOWN)
    (cell_map,) = scenario.cluster.of(PartitionMap)
    assert (cell_map.entry, cell_map.first_hit, cell_map.answer_ttl_s) == ("directed", "owner", 10)
    assert scenario.load.directed == DirectedSpec(
        "cell", 10, ("edge",), {"rz01": ("east-a",), "rz02": ("east-b",), "rz03": ("west-a",), "rz04": ("west-b",)}
    )
    assert load_scenario(FIRST_HIT).load.directed is None


def test_what_a_router_is_told_can_be_shown() -> None:
    cluster = dry_run(load_scenario(ROUTER_DOWN))
    told = str(list(cluster.proxy_resources("router-edge-1")))
    assert all(f"cell=rz0{number}; Path=/; HttpOnly; Max-Age=10" in told for number in (1, 2, 3, 4))


def asked_by_clients(load: LoadSpec, until_s: float, seed: int) -> tuple[int, int]:
    """How many requests asked, and how many were sent, in the window: by real sessions that are answered soon."""
    (source,), ids, directed = load.sources, load.ids, load.directed
    assert source.rate_per_s is not None
    assert ids is not None
    assert directed is not None
    random = Random(seed)
    settings = Ids("header", "x", ids.session, count=1000)
    sessions = Sessions(settings, IdDraw(settings), random, at_once=max(1, -int(-source.rate_per_s // 1)))
    now, asked, sent = 0.0, 0, 0
    while True:
        now += random.expovariate(source.rate_per_s) if source.arrival == "poisson" else 1 / source.rate_per_s
        if now >= until_s:
            return asked, sent
        session = sessions.next()
        session.drop_expired(now)
        asks = "cell" not in session.cookies
        if asks:
            session.take([f"cell=rz01; Max-Age={directed.ttl_s}"], now + 0.001)
        if now >= load.warmup_s:
            asked, sent = asked + asks, sent + 1


@pytest.mark.parametrize("arrival", ["poisson", "constant"])
@pytest.mark.parametrize(("session", "ttl_s"), [(1, 30), (10, 30), (10, 3), (40, 5), (200, 20), (200, 1)])
@pytest.mark.parametrize("rate_per_s", [0.7, 12.5, 60.0])
def test_as_many_requests_ask_as_expected(arrival: str, session: int, ttl_s: int, rate_per_s: float) -> None:
    load = LoadSpec(
        (LoadSource("a", rate_per_s, arrival),),  # type: ignore[arg-type]
        3.0,
        60.0,
        (),
        1.0,
        1.0,
        ids=IdSpec(load_scenario(FIRST_HIT).cluster.of(PartitionMap)[0].key, session),
        directed=DirectedSpec("cell", ttl_s, ("a",), {}),
    )
    expected = asking_share(load, 43.5)
    if ttl_s == 1 and arrival == "poisson":
        assert expected is None
        return
    assert expected is not None
    runs = [asked_by_clients(load, 43.5, seed) for seed in range(40 if rate_per_s < 50 else 8)]
    asked, sent = (sum(column) for column in zip(*runs, strict=True))
    # The last turns of few clients are cut off anywhere: a turn more or less in forty.
    tolerance = 3 * (expected * (1 - expected) / sent) ** 0.5 + expected / 40
    assert asked / sent == pytest.approx(expected, abs=tolerance)


def test_nobody_can_tell_of_users_who_wait_or_where_nobody_asks() -> None:
    users = load_scenario(ROUTER_DOWN, ["spec.load.sources=[{zone: east-a, users: 5}]"])
    assert asking_share(users.load) is None
    assert list(question_lines(users)) == [
        "  nobody can tell how many requests ask a router first, in the steady phase: answers are kept for 10 s"
    ]
    assert list(question_lines(load_scenario(FIRST_HIT))) == []


def test_the_steady_phase_ends_with_the_first_change() -> None:
    assert load_scenario(ROUTER_DOWN).first_change_s == 12.0
    (line,) = question_lines(load_scenario(ROUTER_DOWN))
    assert line.startswith("  10.0")
