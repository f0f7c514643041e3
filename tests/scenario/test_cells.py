"""Cells of a scenario: the map, the Deployments, and what they let expect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from testbed.control.cells.ownership import partitions_of
from testbed.control.dry_run import DryRun
from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.objects.cells import CELL, CITY, GROUP, WORKER, PartitionKey, PartitionMap, ShuffleShards
from testbed.objects.core import EndpointSlice, Pod
from testbed.objects.mesh import DestinationRule
from testbed.objects.workloads import BuiltinWorkload
from testbed.scenario import ExpectedShares, Scenario, load_scenario
from testbed.scenario.cell_plan import CellPlan, cell_plan, expected_shares, lines_of
from testbed.scenario.values import IdSpec

ROOT = Path(__file__).parents[2]
FIRST_HIT = ROOT / "scenarios" / "cells-first-hit.yaml"
POISON = ROOT / "scenarios" / "shuffle-shard-poison.yaml"
DOUBTFUL = ROOT / "tests" / "scenario" / "doubtful" / "cells.yaml"


def dry_run(scenario: Scenario) -> DryRun:
    network = LoopbackNetwork(1, [place.name for place in scenario.topology.places])
    return DryRun(scenario.cluster, network.allocate_pod, network.relay_listener)


def plan_of(*overrides: str, path: Path = FIRST_HIT) -> CellPlan:
    scenario = load_scenario(path, overrides)
    plan = cell_plan(dry_run(scenario).store, scenario.load)
    assert plan is not None
    return plan


def test_what_no_cell_declares_is_shared_out_evenly_and_written_out() -> None:
    scenario = load_scenario(FIRST_HIT)
    (cell_map,) = scenario.cluster.of(PartitionMap)
    assert {cell.name: len(partitions_of(cell_map, cell.name)) for cell in cell_map.cells} == {
        "rz01": 25,
        "rz02": 25,
        "rz03": 25,
        "rz04": 25,
    }
    assert "partitions:\n        - 25-49\n" in scenario.resolved_yaml()


def test_a_sharded_service_has_a_deployment_for_each_cell_or_group_and_one_of_cities_for_each_city() -> None:
    cluster = load_scenario(DOUBTFUL).cluster
    found = {each.name: (each.template.zones, each.template.extra_labels) for each in cluster.deployments}
    assert {name: found[name] for name in found if name.startswith(("web", "rates"))} == {
        "web-rz01-blue": (("east-a",), ((CELL, "rz01"), (GROUP, "blue"))),
        "web-rz02": (("east-b", "east-a"), ((CELL, "rz02"),)),
        "web-rz03": (("east-b",), ((CELL, "rz03"),)),
        "rates-east": (("east-a", "east-b"), ((CITY, "east"),)),
    }
    assert {each.template.service for each in cluster.deployments} == {"web", "rates", "carts", "gateway"}
    rules = {rule.name: [subset.name for subset in rule.subsets] for rule in cluster.of(DestinationRule)}
    assert rules == {"web": ["rz01-blue", "rz02", "rz03"], "carts": ["rz01-blue", "rz02", "rz03"], "rates": ["east"]}


def test_workers_of_shuffle_shards_are_deployments_of_one_pod_which_the_map_knows() -> None:
    scenario = load_scenario(POISON, ["spec.seed=5"])
    (cell_map,) = scenario.cluster.of(PartitionMap)
    assert cell_map.shards == (ShuffleShards("web", workers=8, size=2, seed=5),)
    found = [(each.name, each.replicas, each.template.extra_labels) for each in scenario.cluster.deployments]
    assert [each for each in found if each[0].startswith("web")] == [
        (f"web-all-w{number}", 1, ((CELL, "all"), (WORKER, str(number)))) for number in range(8)
    ]
    zones = [pod.node for pod in dry_run(scenario).store.list(Pod) if pod.template.service == "web"]
    assert {zone: zones.count(zone) for zone in zones} == {"a-1": 2, "a-2": 2, "b-1": 2, "b-2": 2}
    plan = cell_plan(dry_run(scenario).store, scenario.load)
    assert plan is not None
    assert [line for line in lines_of(plan, scenario.load) if line.startswith("shuffle")] == [
        "shuffle shards of web: 2 of 8 workers in each cell; with the workers of one partition, others' "
        "53.57% share none, 42.86% share 1, 3.57% all"
    ]


def test_workloads_pass_on_the_header_of_the_key_and_clients_send_it() -> None:
    for path, header in ((FIRST_HIT, "x-user-id"), (DOUBTFUL, "x-partition-key")):
        for each in load_scenario(path).cluster.deployments:
            if isinstance(each.template.workload, BuiltinWorkload):
                assert each.template.workload.passed_on == (header,)
    assert load_scenario(FIRST_HIT).load.ids == IdSpec(PartitionKey("header", "x-user-id"), 10, count=1_000_000)
    key = PartitionKey("path", "/u/([0-9]+)/?")
    assert load_scenario(DOUBTFUL).load.ids == IdSpec(key, 10, "zipf", 1000, 2.0)


def test_a_file_of_ids_is_found_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("17\n42\n")
    scenario = tmp_path / "s.yaml"
    scenario.write_text(FIRST_HIT.read_text().replace("ids: {session: 10}", "ids: {file: ids.txt}"))
    ids = load_scenario(scenario).load.ids
    assert ids is not None
    assert ids.file == tmp_path / "ids.txt"
    plan = plan_of(path=scenario)
    assert plan.requests == {"rz01": 1.0, "rz02": 0.0, "rz03": 0.0, "rz04": 0.0}


def test_pods_of_a_cell_lie_in_a_sub_zone_of_its_name() -> None:
    store = dry_run(load_scenario(FIRST_HIT)).store
    (web,) = (each for each in store.list(EndpointSlice) if each.service == "web")
    assert {(each.locality.zone, each.locality.subzone) for each in web.endpoints} == {
        ("east-a", "rz01"),
        ("east-b", "rz02"),
        ("west-a", "rz03"),
        ("west-b", "rz04"),
    }


def test_first_hits_are_forwarded_as_often_as_another_cell_owns_them() -> None:
    plan = plan_of()
    assert plan.forwards == pytest.approx(3 / 4 / 10)
    assert plan.calls == {"web": 1, "orders": 1, "rates": 1, "stock": 1}
    assert plan.local_share == pytest.approx(2 / 3.075)
    assert plan.cross_cell_share == pytest.approx(0.075 / 3.075)


def test_a_gateway_that_computes_the_owner_has_nothing_forwarded() -> None:
    assert plan_of("spec.cells.firstHit=owner").forwards == 0


def test_ids_that_are_drawn_unequally_make_cells_unequal() -> None:
    plan = plan_of("spec.load.ids.distribution=zipf", "spec.load.ids.count=1000")
    harmonic = [1 / (number + 1) for number in range(1000)]
    assert plan.requests["rz01"] == pytest.approx(sum(harmonic[:250]) / sum(harmonic))
    in_east_a, in_west_a = 1 - plan.requests["rz01"], 1 - plan.requests["rz03"]
    assert plan.forwards == pytest.approx((in_east_a + in_west_a) / 2 / 10)


def test_the_map_is_told_in_words() -> None:
    scenario = load_scenario(DOUBTFUL)
    text = "\n".join(lines_of(plan_of(path=DOUBTFUL), scenario.load))
    assert "rz01  east-a          0-3, 9         5" in text
    assert "none, elastic" in text
    assert "blue 100 %" in text


def test_what_a_run_is_compared_with_is_the_plan_unless_the_ids_are_a_locustfiles_own() -> None:
    scenario = load_scenario(FIRST_HIT)
    store = dry_run(scenario).store
    plan = plan_of()
    assert expected_shares(store, scenario.load) == ExpectedShares(plan.local_share, plan.forwards)
    assert expected_shares(store, replace(scenario.load, ids=None)) is None
    without_cells = load_scenario(ROOT / "scenarios" / "zone-outage.yaml")
    assert expected_shares(dry_run(without_cells).store, without_cells.load) is None
