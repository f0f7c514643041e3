"""What a scenario means: places, pods, timings, policies; and what it resolves to."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from testbed.faults.links import LinkFault
from testbed.faults.machines import MachinePowerOff
from testbed.faults.zones import ZoneCrash
from testbed.objects.cells import PartitionKey, PartitionRule
from testbed.objects.mesh import DestinationRule, LocalityLoadBalancing, VirtualService
from testbed.objects.places import Locality, Place
from testbed.objects.timings import Timings
from testbed.objects.workloads import (
    BuiltinWorkload,
    CommandWorkload,
    Probe,
    StoreGroup,
    StoreWorkload,
    WorkTime,
)
from testbed.scenario import Price, Prices, Scenario, ScenarioError, load_scenario
from testbed.scenario.defaults import profile_timings
from testbed.scenario.models.cluster import TimingsModel
from testbed.scenario.values import IdSpec, OperationKeys

SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
FIRST = """
apiVersion: testbed/v1
kind: Scenario
metadata: {name: first}
spec:
  topology:
    regions:
      east: {zones: {east-a: {nodes: 2}, east-b: {nodes: [{name: big, capacityPods: 4}, {}], capacityPods: 9}}}
      west: {zones: {west-a: {nodes: 1}}}
    links: {sameZone: {jitter: 1ms}, between: [{zones: [east-a, west-a], rtt: 10ms, loss: 1%, bandwidth: 1mbit}]}
  services:
    web: {replicas: 2, workload: {calls: [orders, [stock, prices]]}}
    orders: {trafficDistribution: PreferClose, zones: [east-a]}
    stock: {workload: {command: [server, --port, $(PORT)], env: {PORT: "8080"}}, topologySpread: {maxSkew: 2}}
    prices: {workload: {work: {distribution: uniform, mean: 2ms, spread: 1ms}, errorRate: 1%, responseSize: 2kB}}
  gateway: {routes: [{path: /, service: web}]}
  load: {sources: [{zone: east-a, rate: 10/s}]}
"""


NODE_NAMES = ["east-a-1", "east-a-2", "big", "east-b-2", "west-a-1"]


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(*overrides: str, text: str = FIRST) -> Scenario:
        path = tmp_path / "scenario.yaml"
        path.write_text(text)
        return load_scenario(path, overrides)

    return load


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_resolved_scenario_loads_to_an_equal_one(path: Path, tmp_path: Path) -> None:
    scenario = load_scenario(path, ["spec.load.warmup=1.5s"], seed=3)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(scenario.resolved_yaml())
    assert load_scenario(resolved) == scenario


def test_places_are_the_nodes_then_the_clients_of_each_zone_then_the_control_plane(load: Any) -> None:
    topology = load().topology
    assert [place.name for place in topology.places] == [
        *("east-a-1", "east-a-2", "big", "east-b-2", "west-a-1"),
        *("clients/east-a", "clients/east-b", "clients/west-a", "control-plane"),
    ]
    assert topology.place("clients/east-b") == Place("clients/east-b", Locality("east", "east-b"), "clients")


def test_a_control_plane_without_a_zone_is_in_the_first_region_and_outside_all_zones(load: Any) -> None:
    scenario = load()
    assert scenario.topology.place("control-plane").locality == Locality("east", "")
    assert scenario.topology.quality("control-plane", "east-a-1") == scenario.topology.same_region
    assert scenario.topology.quality("control-plane", "west-a-1") == scenario.topology.cross_region
    placed = load("spec.controlPlane.zone=east-b")
    assert placed.topology.place("control-plane").locality == Locality("east", "east-b")


def test_prices_are_by_distance_and_a_city_has_those_of_its_region_unless_it_has_its_own(load: Any) -> None:
    assert load().prices == Prices()
    prices = load("spec.prices.sameRegion.in=0/GB", "spec.prices.crossRegion.out=0.05/GB").prices
    assert (prices.same_region, prices.same_city) == (Price(0.01, 0.0), Price(0.01, 0.0))
    assert (prices.at("cross_region").per_byte, prices.at("same_node")) == (0.05e-9, Price())
    assert load("spec.prices.sameCity.in=0.001/GB").prices.same_city == Price(0.01, 0.001)


def test_links_have_half_the_round_trip_time_each_way_and_defaults_by_class(load: Any) -> None:
    topology = load().topology
    assert topology.same_zone.delay_s == 0.00015
    assert topology.same_zone.jitter_s == 0.001
    assert (topology.same_region.delay_s, topology.cross_region.delay_s) == (0.0005, 0.015)
    between = topology.quality("west-a-1", "east-a-2")
    assert (between.delay_s, between.loss, between.bandwidth_bits_per_s) == (0.005, 0.01, 1e6)


def test_nodes_have_the_capacity_of_their_zone_unless_they_say_otherwise(load: Any) -> None:
    assert [node.capacity_pods for node in load().cluster.nodes] == [110, 110, 4, 9, 110]


def test_each_zone_has_a_gateway_that_is_no_service(load: Any) -> None:
    cluster = load().cluster
    gateways = [d for d in cluster.deployments if d.template.role == "gateway"]
    assert [(d.name, d.replicas, d.template.zones, d.template.service, d.template.workload) for d in gateways] == [
        (f"gateway-{zone}", 1, (zone,), "gateway", None) for zone in ("east-a", "east-b", "west-a")
    ]
    assert [service.name for service in cluster.services] == ["web", "orders", "stock", "prices"]


def test_the_mesh_mode_holds_for_every_pod_and_node_proxies_exist_in_theirs_only(load: Any) -> None:
    for mode, proxies in (("sidecar", []), ("none", []), ("node", [f"node-proxy-{node}" for node in NODE_NAMES])):
        cluster = load(f"spec.mesh.mode={mode}").cluster
        assert cluster.mesh_mode == mode
        assert {deployment.template.mesh_mode for deployment in cluster.deployments} == {mode}
        pinned = [(d.name, d.template.node) for d in cluster.deployments if d.template.role == "node-proxy"]
        assert pinned == list(zip(proxies, NODE_NAMES, strict=False))


@pytest.mark.parametrize("kill", ["pod: node-proxy-big-1", "service: node-proxy"])
def test_a_node_proxy_can_be_killed_where_there_is_one(load: Any, kill: str) -> None:
    fault = f"spec.faults=[{{name: f, at: 1s, kill: {{{kill}}}}}]"
    assert load(fault, "spec.mesh.mode=node").faults
    with pytest.raises(ScenarioError, match="node-proxy"):
        load(fault)


def test_node_proxies_take_a_place_on_their_node(load: Any) -> None:
    tight = "spec.topology.regions.west.zones.west-a.capacityPods=2"
    only_there = ("spec.services.orders.zones=[west-a]", tight)
    assert load(*only_there)
    with pytest.raises(ScenarioError, match="west-a can hold 0 pods"):
        load(*only_there, "spec.mesh.mode=node")


def test_policies_are_accepted_where_nobody_applies_them(load: Any) -> None:
    policy = "spec.mesh.policies=[{service: '*', timeout: 1s, retries: {attempts: 3}}]"
    assert load(policy, "spec.mesh.mode=none")


def test_workloads_become_call_graph_nodes_or_commands(load: Any) -> None:
    web, orders, stock, prices = load("spec.seed=5").cluster.deployments[:4]
    assert web.template.workload == BuiltinWorkload(WorkTime(seed=5), (("orders",), ("stock", "prices")))
    assert orders.template.zones == ("east-a",)
    assert stock.template.workload == CommandWorkload(("server", "--port", "$(PORT)"), (("PORT", "8080"),))
    assert stock.template.max_skew == 2
    work = WorkTime("uniform", 0.002, 0.001, 5)
    assert prices.template.workload == BuiltinWorkload(work, response_bytes=2000, error_rate=0.01)


def test_replicas_of_a_store_take_turns_over_the_zones_that_it_names_and_their_nodes(load: Any) -> None:
    store = "spec.services.data={replicas: 5, zones: [east-b, east-a], workload: {store: {primaryZone: east-a}}}"
    other = "spec.services.more={replicas: 2, workload: {store: {electionTimeout: 300ms}}}"
    by_name = {each.name: each for each in load(store, other).cluster.deployments}
    replicas = [by_name[f"data-r{number}"] for number in range(1, 6)]
    assert [each.template.node for each in replicas] == ["big", "east-a-1", "east-b-2", "east-a-2", "big"]
    workloads = [each.template.workload for each in replicas]
    assert [each.replica for each in workloads] == ["data-r1", "data-r2", "data-r3", "data-r4", "data-r5"]
    assert workloads[0].groups == (StoreGroup(0, 1, ("data-r2", "data-r4")),)
    assert len({each.replicas for each in workloads}) == 1
    more = by_name["more-r1"].template.workload
    assert (more.election_timeout_s, more.heartbeat_s) == (0.3, 0.03)
    numbers = [each.number for each in (*workloads[0].replicas, *more.replicas)]
    assert len(set(numbers)) == len(numbers), "replicas of two stores on a node would listen at one address"


def test_groups_of_a_store_share_its_partitions_and_replicas_take_turns_to_lead(load: Any) -> None:
    def groups(*overrides: str, name: str = "data") -> Any:
        deployments = load("spec.services.data.replicas=3", *overrides).cluster.deployments
        return next(each for each in deployments if each.name == f"{name}-r1").template.workload

    found = groups("spec.services.data.workload.store={groups: 3, partitions: 10}")
    one, two, three = "data-r1", "data-r2", "data-r3"
    assert found.groups == (
        StoreGroup(0, 3, (one, two, three)),
        StoreGroup(3, 6, (two, three, one)),
        StoreGroup(6, 10, (three, one, two)),
    )
    assert (found.rule, found.partitions) == (PartitionRule("hash"), 10)
    assert groups("spec.services.data.workload.store={}").groups == (StoreGroup(0, 1),)


def test_with_cells_a_store_has_their_partitions_by_their_rule_and_its_keys_are_ids() -> None:
    path = Path(__file__).parents[2] / "scenarios" / "cells-move-partitions.yaml"
    store = "spec.services.data={workload: {store: {groups: 10}}}"
    load = "spec.load={sources: [{zone: east-a, users: 2}], operations: {keys: 1000}, duration: 30s}"
    scenario = load_scenario(path, [store, load])
    by_name = {each.name: each for each in scenario.cluster.deployments}
    workload = by_name["data-r1"].template.workload
    assert isinstance(workload, StoreWorkload)
    assert workload.groups[3].start == 30
    assert (workload.rule, workload.partitions) == (PartitionRule("digits", digits=(3, 2)), 100)
    assert scenario.load.ids == IdSpec(PartitionKey("header", "x-user-id"), session=1, count=1000)
    with pytest.raises(ScenarioError, match=r"its partitions are the 100 of spec\.cells; remove it"):
        load_scenario(path, ["spec.services.data={workload: {store: {partitions: 10}}}"])


def test_operations_with_a_share_are_sent_beside_requests_and_leave_ids_to_these() -> None:
    path = Path(__file__).parents[2] / "scenarios" / "cells-move-partitions.yaml"
    overrides = [
        "spec.services.data={workload: {store: {}}}",
        "spec.gateway.routes=[{path: /data, service: data}, {path: /, service: web}]",
        "spec.load.requests=[{path: /a, weight: 3}, {path: /b}]",
        "spec.load.operations={keys: 9, share: 20%, writes: 75%, path: /data}",
    ]
    found = load_scenario(path, overrides).load
    weights = {(each.method, each.path): each.weight for each in found.requests}
    whole = sum(weights.values())
    assert {kind: weight / whole for kind, weight in weights.items()} == pytest.approx(
        {("GET", "/a"): 0.6, ("GET", "/b"): 0.2, ("PUT", "/data/{key}"): 0.15, ("GET", "/data/{key}"): 0.05}
    )
    assert (found.operations, found.ids and found.ids.session) == (OperationKeys(9, ""), 10)
    assert load_scenario(path, [*overrides[:2], overrides[3]]).load.requests[0].path == "/"


def test_readiness_asks_the_built_in_workload_by_http_and_a_command_by_tcp(load: Any) -> None:
    web, _, stock, _ = load("spec.controlPlane.profile=kubernetes").cluster.deployments[:4]
    assert web.template.readiness == Probe("httpGet", "/healthz")
    assert stock.template.readiness == Probe("tcpSocket")


def test_scheduling_anyway_leaves_the_skew_to_preference(load: Any) -> None:
    web = load("spec.services.web.topologySpread.whenUnsatisfiable=ScheduleAnyway").cluster.deployments[0]
    assert web.template.max_skew is None


def test_the_kubernetes_profile_has_kubernetes_timings_and_the_fast_one_a_twentieth(load: Any) -> None:
    assert load("spec.controlPlane.profile=kubernetes").cluster.timings == Timings()
    fast = load().cluster.timings
    assert (fast.lease_renew_s, fast.lease_grace_s, fast.node_monitor_s) == (0.5, 2.0, 0.25)
    assert (fast.unreachable_toleration_s, fast.eviction_rate_per_s) == (15.0, 2.0)
    assert (fast.push_debounce_s, fast.entry_check_timeout_s, fast.entry_failure_threshold) == (0.1, 0.2, 3)
    assert load("spec.controlPlane.timings.leaseGrace=5s").cluster.timings.lease_grace_s == 5.0


def test_every_timing_of_the_control_plane_can_be_set() -> None:
    assert list(TimingsModel.model_fields) == list(profile_timings(fast=True))
    assert len(TimingsModel.model_fields) == len(fields(Timings))


def test_the_policy_that_names_a_service_wins_whole_over_the_one_for_all(load: Any) -> None:
    policies = (
        "[{service: '*', timeout: 1s, retries: {attempts: 0}}, {service: orders, trafficDistribution: PreferSameNode}]"
    )
    cluster = load(f"spec.mesh.policies={policies}").cluster
    found = {each.name: each.http[0] for each in cluster.of(VirtualService)}
    assert (found["web"].timeout_s, found["web"].retries.attempts) == (1.0, 0)
    assert (found["orders"].timeout_s, found["orders"].retries.attempts) == (None, 2)
    assert [service.traffic_distribution for service in cluster.services][:2] == [None, "PreferSameNode"]
    assert load().cluster.services[1].traffic_distribution == "PreferSameZone"


def test_routes_are_named_by_their_path_at_gateways_and_by_their_service_in_the_mesh(load: Any) -> None:
    cluster = load("spec.gateway.routes=[{path: /orders, service: orders}, {path: /, service: web}]").cluster
    named = {each.name: [route.name for route in each.http] for each in cluster.of(VirtualService)}
    assert named.pop("testbed-gateway") == ["/orders", "/"]
    assert named == {service: [service] for service in named}


def test_status_codes_are_retried_only_where_retry_on_names_them(load: Any) -> None:
    assert load().cluster.of(VirtualService)[0].http[0].retries.retriable_status_codes == ()
    cluster = load("spec.mesh.policies=[{service: web, retries: {retryOn: 'connect-failure, 502'}}]").cluster
    retries = cluster.of(VirtualService)[0].http[0].retries
    assert retries.retry_on == "connect-failure,retriable-status-codes"
    assert retries.retriable_status_codes == (502,)


SETTING = "spec.mesh.policies=[{service: web, trafficPolicy: {loadBalancer: {localityLbSetting: %s}}}]"


@pytest.mark.parametrize(
    "setting",
    [
        "{distribute: [{from: east/east-a/*, to: {east/*: 90, west/*: 10}}, {from: east/*, to: {'*': 100}}]}",
        "{distribute: [{from: west, to: {east/east-a: 60, east/east-b/*: 40}}, {from: '*', to: {west: 100}}]}",
        "{failover: [{from: east, to: west}], failoverPriority: [topology.istio.io/network, kubernetes.io/hostname]}",
        "{failoverPriority: [topology.kubernetes.io/region, topology.kubernetes.io/zone, topology.istio.io/subzone]}",
        "{enabled: false, failover: [{from: east, to: west}, {from: west, to: east}]}",
    ],
)
def test_locality_settings_that_istio_takes_are_taken(load: Any, setting: str) -> None:
    assert load(SETTING % setting).cluster.of(DestinationRule)[0].traffic_policy.locality is not None


@pytest.mark.parametrize(("setting", "given"), [("{}", True), ("{enabled: true}", True), ("", False)])
def test_a_locality_setting_is_given_or_not_also_once_it_is_resolved(load: Any, setting: str, given: bool) -> None:
    scenario = load(SETTING % setting)
    for found in (scenario, load(text=scenario.resolved_yaml())):
        policy = found.cluster.of(DestinationRule)[0].traffic_policy
        assert policy.locality == (LocalityLoadBalancing() if given else None)


def test_a_locustfile_is_found_beside_the_scenario_and_resolved_to_its_full_path(load: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from locust import HttpUser\nclass Mine(HttpUser): ...\n")
    scenario = load("spec.load.locustfile=mine.py", "spec.load.sources=[{zone: east-a, users: 5}]")
    assert scenario.load.locustfile == (tmp_path / "mine.py").resolve()
    assert scenario.load.requests == ()
    assert load(text=scenario.resolved_yaml()) == scenario


def test_faults_and_expectations_are_values_in_seconds_and_shares() -> None:
    outage, partition = (load_scenario(p) for p in SHIPPED if p.stem in ("zone-outage", "one-way-partition"))
    if outage.name != "zone-outage":
        outage, partition = partition, outage
    fault = outage.faults[0]
    assert (fault.name, fault.at_s, fault.for_s, fault.fault) == ("lose-east-a", 12.0, 13.0, ZoneCrash("east-a"))
    one_way = partition.faults[0].fault
    assert isinstance(one_way, LinkFault)
    assert one_way.pairs(partition.topology) == (("east-a-1", "east-b-1"),)
    assert [(e.metric, e.when, e.at_least, e.at_most) for e in outage.expectations][:3] == [
        ("success_rate", "all", 0.95, None),
        ("success_rate", "steady", 0.999, None),
        ("time_to_recover", "all", None, 6.0),
    ]
    assert outage.expectations[1].text == "success_rate steady at least 99.9%"


def test_a_machine_is_powered_off_by_the_lab_or_by_a_command_of_the_user(load: Any) -> None:
    scenario = load(
        "spec.faults=[{name: a, at: 2s, machine: m2, powerOff: {}},"
        " {name: b, at: 3s, machine: 10.0.0.7, powerOff: {command: [aws, ec2, stop-instances]}}]"
    )
    assert [(fault.at_s, fault.for_s, fault.fault) for fault in scenario.faults] == [
        (2.0, None, MachinePowerOff("m2", ("testbed", "lab", "kill", "m2"))),
        (3.0, None, MachinePowerOff("10.0.0.7", ("aws", "ec2", "stop-instances"))),
    ]
    assert load(text=scenario.resolved_yaml()) == scenario


def test_words_that_older_yaml_takes_for_booleans_times_or_dates_stay_text(load: Any) -> None:
    env = "{A: on, B: no, C: 12:30, D: 2024-01-01, E: 1_000, F: 0x1F, G: '1'}"
    scenario = load(f"spec.services.stock.workload.env={env}")
    values = [value for _, value in scenario.cluster.deployments[2].template.workload.env]
    assert values == ["on", "no", "12:30", "2024-01-01", "1_000", "0x1F", "1"]
    assert load(text=scenario.resolved_yaml()) == scenario


def test_a_null_counts_as_not_written(load: Any) -> None:
    assert load("spec.faults=", "spec.services.web.port=null") == load()
    with pytest.raises(ScenarioError, match=r"spec.gateway: is required but not written"):
        load("spec.gateway=")


def test_receiving_a_scenario_does_not_load_pydantic_or_yaml() -> None:
    program = "import sys, testbed.scenario; sys.exit(any(m in sys.modules for m in ('pydantic', 'yaml')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False).returncode == 0
