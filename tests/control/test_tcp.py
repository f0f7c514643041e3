"""What proxies are told of services that speak TCP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from testbed.objects.cluster import Declared
from testbed.objects.core import Pod, Service
from testbed.objects.mesh import (
    OutlierDetection,
    TrafficPolicy,
)
from testbed.objects.workloads import BuiltinWorkload, PodTemplate
from tests.control.meshed import NODE_PROXY, as_text, cluster, named, pod_on, resources

Golden = Callable[[str, str], None]

CACHE = Service("orders", 6379, selector=(("app", "orders"),), app_protocol="tcp", capture_port=24000)
CACHE_POD = pod_on("n1", "orders-1", 13, PodTemplate("orders", BuiltinWorkload(), port=6379))


def listeners(objects: tuple[Declared, ...], proxy: Pod) -> dict[str, tuple[str, int, list[str]]]:
    """Of each listener: its address, and its filters."""
    return {
        each["name"]: (
            each["address"]["socket_address"]["address"],
            each["address"]["socket_address"]["port_value"],
            [found["name"].rpartition(".")[2] for chain in each["filter_chains"] for found in chain["filters"]],
        )
        for each in resources(objects, proxy)[LISTENER_TYPE]
    }


def test_connections_to_a_service_that_speaks_tcp_have_a_listener_of_their_own(golden: Golden) -> None:
    golden("tcp.json", as_text(resources(cluster(service=CACHE), CACHE_POD)))


def test_a_pod_that_speaks_tcp_is_given_connections_and_may_call_others_by_http() -> None:
    assert listeners(cluster(service=CACHE), CACHE_POD) == {
        "inbound": ("127.20.1.13", 15006, ["tcp_proxy"]),
        "outbound": ("127.20.1.13", 15001, ["http_connection_manager"]),
        "outbound|6379||orders": ("127.20.1.13", 24000, ["tcp_proxy"]),
    }


def test_a_node_proxy_has_a_listener_for_each_of_its_pods_and_each_service_that_speaks_tcp() -> None:
    found = listeners(cluster(service=CACHE), NODE_PROXY)
    assert found["outbound|6379||orders|web-1"] == ("127.20.1.11", 24000, ["tcp_proxy"])
    assert found["outbound|6379||orders|orders-1"] == ("127.20.1.13", 24000, ["tcp_proxy"])
    assert found["inbound|web-1"][2] == ["http_connection_manager"]
    assert found["inbound|orders-1"][2] == ["tcp_proxy"]


def test_connections_go_to_the_same_cluster_and_endpoints_as_calls_would() -> None:
    policy = TrafficPolicy(outlier_detection=OutlierDetection())
    for type_url in (CLUSTER_TYPE, ENDPOINT_TYPE):
        connections = named(cluster(policy, service=CACHE), type_url, "outbound|6379||orders")
        calls = named(cluster(policy, service=replace(CACHE, app_protocol="http")), type_url, "outbound|6379||orders")
        assert connections == calls


def test_a_service_that_speaks_tcp_cannot_be_called_by_http() -> None:
    hosts = named(cluster(service=CACHE), ROUTE_TYPE, "outbound")["virtual_hosts"]
    assert [host["name"] for host in hosts] == ["web:80", "block_all"]
