"""What each proxy is told, as golden files: type URL -> resources in the JSON form of their protobuf messages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from testbed.control.mesh.traffic import mesh_traffic
from testbed.control.store import Store
from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from testbed.control.views.envoy.xds import PUSH_ORDER, ConfigGenerator
from testbed.objects.core import EndpointSlice, Pod, Service
from testbed.objects.mesh import (
    ConnectionPool,
    DestinationRule,
    Gateway,
    HttpRoute,
    Ingress,
    IngressPath,
    LocalityDistribution,
    LocalityLoadBalancing,
    OutlierDetection,
    Retries,
    TrafficPolicy,
    VirtualService,
)
from tests.control.meshed import (
    GATEWAY_POD,
    NODE_PODS,
    NODE_PROXY,
    NODES,
    ORDERS,
    WEB_POD,
    as_text,
    cluster,
    named,
    part,
    resources,
)

Golden = Callable[[str, str], None]


def test_a_sidecar_has_inbound_and_outbound_listeners_and_knows_every_service(golden: Golden) -> None:
    golden("sidecar.json", as_text(resources(cluster())))


def test_a_gateway_routes_by_prefix_and_answers_readiness_itself(golden: Golden) -> None:
    routes = (HttpRoute("orders", "/orders", name="/orders"), HttpRoute("web"))
    golden("gateway.json", as_text(resources(cluster(routes=routes), GATEWAY_POD)))


def test_a_node_proxy_has_the_listeners_of_every_pod_of_its_node(golden: Golden) -> None:
    golden("node_proxy.json", as_text(resources(cluster(), NODE_PROXY)))


def test_a_node_proxy_serves_at_the_addresses_that_sidecars_would_have() -> None:
    def listening(told: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [listener["address"]["socket_address"] for listener in told[LISTENER_TYPE]]

    pods = [pod for pod in NODE_PODS if pod.name in ("web-1", "orders-1")]
    sidecars = [replace(pod, template=replace(pod.template, mesh_mode="sidecar")) for pod in pods]
    assert listening(resources(cluster(), NODE_PROXY)) == [
        at for pod in sidecars for at in listening(resources(cluster(), pod))
    ]


def test_a_node_proxy_without_pods_has_neither_listeners_nor_routes() -> None:
    told = resources(cluster(), replace(NODE_PROXY, node="n4"))
    assert (told[LISTENER_TYPE], told[ROUTE_TYPE]) == ((), ())
    assert [c["name"] for c in told[CLUSTER_TYPE]] == ["outbound|80||web", "outbound|8000||orders"]


POLICY = TrafficPolicy(outlier_detection=OutlierDetection())
ROUTE = HttpRoute("orders", timeout_s=1.5, retries=Retries(attempts=4))
INGRESS_POD = replace(GATEWAY_POD, template=replace(GATEWAY_POD.template, mesh_mode="none"))


def test_a_gateway_without_a_mesh_applies_no_policy(golden: Golden) -> None:
    spec = (*cluster(POLICY, route=ROUTE, routes=(ROUTE,)), Ingress("ingress", (IngressPath("/", "orders"),)))
    golden("gateway_without_mesh.json", as_text(resources(spec, INGRESS_POD)))


@pytest.mark.parametrize(
    ("distribution", "reached"),
    [
        (None, ["orders-1", "orders-2", "orders-3", "orders-4"]),
        ("PreferSameZone", ["orders-1", "orders-2"]),
        ("PreferSameNode", ["orders-1"]),
    ],
)
def test_a_gateway_without_a_mesh_knows_the_endpoints_that_kube_proxy_would(
    distribution: Any, reached: list[str]
) -> None:
    spec = cluster(service=Service("orders", 8000, distribution))
    told = next(r for r in resources(spec, INGRESS_POD)[ENDPOINT_TYPE] if "orders" in r["cluster_name"])
    assert {group["priority"] for group in told["endpoints"]} == {0}
    ips = [e["endpoint"]["address"]["socket_address"]["address"] for g in told["endpoints"] for e in g["lb_endpoints"]]
    assert ips == [e.address.ip for e in ORDERS.endpoints if e.pod in reached]


def test_what_did_not_change_is_the_same_object_for_every_proxy_of_a_node_and_from_time_to_time() -> None:
    store = Store()
    for each in cluster():
        store.put(each)
    generator = ConfigGenerator(mesh_traffic(store))
    slices = {"orders": ORDERS, "web": EndpointSlice("web")}
    before = generator.resources(WEB_POD, (WEB_POD,), NODES, slices)[ENDPOINT_TYPE]
    other = generator.resources(GATEWAY_POD, (GATEWAY_POD,), NODES, slices)[ENDPOINT_TYPE]
    assert all(a is b for a, b in zip(before, other, strict=True))
    slices["orders"] = EndpointSlice("orders", ORDERS.endpoints[1:])
    after = generator.resources(WEB_POD, (WEB_POD,), NODES, slices)[ENDPOINT_TYPE]
    assert [a is b for a, b in zip(before, after, strict=True)] == [True, False]
    assert len(after[1]["endpoints"]) == 3


def test_resources_come_in_the_order_in_which_they_are_pushed() -> None:
    assert tuple(resources(cluster())) == PUSH_ORDER


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("failover", TrafficPolicy(outlier_detection=OutlierDetection())),
        (
            "failover_region",
            TrafficPolicy(
                locality=LocalityLoadBalancing(failover=(("east", "west"),)), outlier_detection=OutlierDetection()
            ),
        ),
        (
            "failover_priority",
            TrafficPolicy(
                locality=LocalityLoadBalancing(failover_priority=("topology.kubernetes.io/zone",)),
                outlier_detection=OutlierDetection(),
            ),
        ),
        (
            "failover_within_priority",
            TrafficPolicy(
                locality=LocalityLoadBalancing(
                    failover=(("east", "west"),), failover_priority=("kubernetes.io/hostname",)
                ),
                outlier_detection=OutlierDetection(max_ejection_percent=0),
            ),
        ),
        (
            "distribute",
            TrafficPolicy(
                locality=LocalityLoadBalancing(
                    distribute=(LocalityDistribution("east/east-a/*", (("east/*", 80), ("west/*", 20))),)
                )
            ),
        ),
        (
            "outlier_and_pool",
            TrafficPolicy(
                load_balancer="ROUND_ROBIN",
                outlier_detection=OutlierDetection(3, 2, 1.0, 2.5, max_ejection_percent=100, min_health_percent=40),
                connection_pool=ConnectionPool(0.25, 10, 20, 30, 4, max_requests_per_connection=1, idle_timeout_s=60.0),
            ),
        ),
    ],
)
def test_a_traffic_policy_becomes_cluster_and_endpoints(golden: Golden, name: str, policy: TrafficPolicy) -> None:
    golden(f"{name}.json", part(cluster(policy), CLUSTER_TYPE, ENDPOINT_TYPE))


def test_prefer_same_zone_becomes_priorities(golden: Golden) -> None:
    spec = cluster(service=Service("orders", 8000, traffic_distribution="PreferSameZone"))
    golden("prefer_same_zone.json", part(spec, CLUSTER_TYPE, ENDPOINT_TYPE))


def test_a_locality_setting_without_any_key_of_its_own_overrides_the_traffic_distribution(golden: Golden) -> None:
    spec = cluster(
        TrafficPolicy(locality=LocalityLoadBalancing()),
        service=Service("orders", 8000, traffic_distribution="PreferSameZone"),
    )
    golden("locality_over_prefer_same_zone.json", part(spec, CLUSTER_TYPE, ENDPOINT_TYPE))


def test_a_max_ejection_percent_of_zero_leaves_envoys_default() -> None:
    policy = TrafficPolicy(outlier_detection=OutlierDetection(max_ejection_percent=0))
    assert "max_ejection_percent" not in named(cluster(policy), CLUSTER_TYPE)["outlier_detection"]


def test_a_service_without_a_slice_has_an_assignment_without_endpoints() -> None:
    assert named(cluster(), ENDPOINT_TYPE, "outbound|80||web")["endpoints"] == []


def _relay_of(lb_endpoint: dict[str, Any]) -> tuple[str, int] | None:
    metadata = lb_endpoint.get("metadata")
    if metadata is None:
        return None
    proxy = metadata["typed_filter_metadata"]["envoy.http11_proxy_transport_socket.proxy_address"]["socket_address"]
    return proxy["address"], proxy["port_value"]


def test_only_endpoints_on_other_nodes_are_reached_through_the_relay_of_the_callers_node() -> None:
    groups = named(cluster(), ENDPOINT_TYPE)["endpoints"]
    lb_endpoints = [lb_endpoint for group in groups for lb_endpoint in group["lb_endpoints"]]
    relays = {e["endpoint"]["address"]["socket_address"]["address"]: _relay_of(e) for e in lb_endpoints}
    assert relays == {
        "127.20.1.12": None,
        "127.20.2.12": ("127.20.1.1", 20002),
        "127.20.3.12": ("127.20.1.1", 20003),
        "127.20.4.12": ("127.20.1.1", 20004),
    }


def test_a_node_without_relays_reaches_every_endpoint_directly() -> None:
    told = resources((*cluster(), replace(NODES["n1"], relays=())))[ENDPOINT_TYPE]
    groups = [group for assignment in told for group in assignment["endpoints"]]
    assert [_relay_of(e) for group in groups for e in group["lb_endpoints"]] == [None] * 4


def _route(http: HttpRoute | None = None) -> dict[str, Any]:
    hosts = {host["name"]: host for host in named(cluster(route=http), ROUTE_TYPE, "outbound")["virtual_hosts"]}
    route: dict[str, Any] = hosts["orders:8000"]["routes"][0]["route"]
    return route


def test_zero_attempts_turn_retries_off() -> None:
    assert "retry_policy" in _route()
    assert _route(HttpRoute("orders", retries=Retries(attempts=0))) == {
        "cluster": "outbound|8000||orders",
        "timeout": "0s",
    }


def test_retries_and_timeouts_are_those_of_the_policy(golden: Golden) -> None:
    retries = Retries(attempts=4, per_try_timeout_s=0.3, retry_on="5xx", retriable_status_codes=())
    golden("retries.json", as_text(_route(HttpRoute("orders", timeout_s=1.5, retries=retries))))


def test_a_host_that_is_no_service_is_answered_502() -> None:
    hosts = named(cluster(), ROUTE_TYPE, "outbound")["virtual_hosts"]
    assert hosts[-1]["domains"] == ["*"]
    assert hosts[-1]["routes"][0]["direct_response"] == {"status": 502}


def test_the_first_matching_gateway_route_wins() -> None:
    routes = (HttpRoute("orders", "/a"), HttpRoute("web"), HttpRoute("orders", "/b"))
    told = resources(cluster(routes=routes), GATEWAY_POD)[ROUTE_TYPE][0]["virtual_hosts"][0]["routes"]
    assert [route["match"] for route in told] == [
        {"path": "/testbed/ready"},
        {"prefix": "/a"},
        {"prefix": "/"},
        {"prefix": "/b"},
    ]


def test_a_gateway_that_no_gateway_object_selects_takes_no_calls() -> None:
    told = resources((*cluster(), Gateway("gateway", (("istio", "other"),))), GATEWAY_POD)
    assert (told[LISTENER_TYPE], told[ROUTE_TYPE]) == ((), ())


def test_a_route_to_a_service_that_is_not_there_names_a_cluster_that_is_not_there() -> None:
    told = resources(cluster(routes=(HttpRoute("gone"),)), GATEWAY_POD)
    (_, route) = told[ROUTE_TYPE][0]["virtual_hosts"][0]["routes"]
    assert route["route"]["cluster"] == "outbound|80||gone"
    assert "outbound|80||gone" not in {each["name"] for each in told[CLUSTER_TYPE]}


def test_a_gateway_routes_by_host_where_a_virtual_service_names_one() -> None:
    shop = VirtualService("shop", ("shop.example",), (HttpRoute("orders", "/shop"),), gateways=("gateway",))
    told = resources((*cluster(routes=(HttpRoute("web"),)), shop), GATEWAY_POD)
    hosts = {host["name"]: host for host in told[ROUTE_TYPE][0]["virtual_hosts"]}
    assert {name: host["domains"] for name, host in hosts.items()} == {
        "gateway": ["*"],
        "shop.example": ["shop.example"],
    }
    assert [route["match"] for route in hosts["shop.example"]["routes"]] == [{"prefix": "/shop"}]


def test_of_several_rules_for_one_host_the_first_counts() -> None:
    second = DestinationRule("second", "orders", TrafficPolicy(load_balancer="RANDOM"))
    third = VirtualService("third", ("orders",), (ROUTE,))
    assert named((*cluster(), second, third), CLUSTER_TYPE)["lb_policy"] == "LEAST_REQUEST"


def test_a_service_of_another_namespace_is_called_by_its_full_name() -> None:
    labels = (("app", "stock"),)
    objects = (
        *cluster(),
        Service("stock", selector=labels, namespace="shop"),
        DestinationRule("stock", "stock", TrafficPolicy(load_balancer="RANDOM"), namespace="shop"),
    )
    assert named(objects, CLUSTER_TYPE, "outbound|80||stock.shop")["lb_policy"] == "RANDOM"

    def domains(proxy: Pod) -> dict[str, list[str]]:
        (routes,) = resources(objects, proxy)[ROUTE_TYPE]
        return {host["name"]: host["domains"] for host in routes["virtual_hosts"]}

    neighbour = replace(WEB_POD, namespace="shop")
    assert domains(WEB_POD)["stock.shop:80"][:2] == ["stock.shop", "stock.shop:80"]
    assert domains(neighbour)["stock.shop:80"][:3] == ["stock", "stock:80", "stock.shop"]
    assert domains(neighbour)["web:80"][:2] == ["web.default", "web.default:80"]


def test_a_gateway_has_no_listener_but_that_for_clients() -> None:
    assert [listener["name"] for listener in resources(cluster(), GATEWAY_POD)[LISTENER_TYPE]] == ["gateway"]


def test_the_same_bytes_come_out_under_any_hash_seed() -> None:
    program = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('test_xds', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "sys.stdout.write(module.as_text(module.resources(module.cluster())))\n"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", program, __file__],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1] == as_text(resources(cluster())).encode()
