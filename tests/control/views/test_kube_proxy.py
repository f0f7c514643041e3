"""Which endpoints the connections of a node are spread over, and the form in which the node is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.control.store import Store
from testbed.control.views.kube_proxy import (
    ENDPOINT_SLICE,
    KubeProxies,
    kube_proxy_name,
    reachable,
    read_endpoints,
)
from testbed.objects.addresses import SocketAddress
from testbed.objects.core import Endpoint, EndpointSlice, Node, Service
from testbed.objects.places import Locality

NODES = {
    name: Node(name, Locality("east" if name != "w1" else "west", zone))
    for name, zone in (("a1", "east-a"), ("a2", "east-a"), ("b1", "east-b"), ("w1", "west-a"))
}


def endpoint(pod: str, node: str) -> Endpoint:
    return Endpoint(pod, node, NODES[node].locality, SocketAddress(f"127.1.0.{len(pod)}", 8080))


ALL = (endpoint("p", "a1"), endpoint("pp", "a2"), endpoint("ppp", "b1"))


@pytest.mark.parametrize(
    ("node", "distribution", "pods"),
    [
        ("a1", None, ["p", "pp", "ppp"]),
        ("a1", "PreferSameZone", ["p", "pp"]),
        ("b1", "PreferSameZone", ["ppp"]),
        ("w1", "PreferSameZone", ["p", "pp", "ppp"]),
        ("a1", "PreferSameNode", ["p"]),
        ("w1", "PreferSameNode", ["p", "pp", "ppp"]),
    ],
)
def test_traffic_distribution_narrows_the_endpoints_where_it_can(
    node: str, distribution: str | None, pods: list[str]
) -> None:
    assert [each.pod for each in reachable(ALL, NODES[node], distribution)] == pods


def test_prefer_same_node_keeps_to_the_zone_when_the_node_has_none() -> None:
    assert [each.pod for each in reachable(ALL[1:], NODES["a1"], "PreferSameNode")] == ["pp"]


def test_a_node_is_told_of_every_service_also_of_one_without_endpoints() -> None:
    store, view = Store(), KubeProxies()
    for node in NODES.values():
        store.put(node)
    for service in (Service("web", traffic_distribution="PreferSameZone"), Service("orders")):
        store.put(service)
    store.put(EndpointSlice("web", ALL))
    b1 = next(each for each in view.subscribers(store) if each.place == "b1")
    assert b1.name == kube_proxy_name("b1")
    told = view.resources(store, b1)
    assert list(told) == [ENDPOINT_SLICE]
    assert dict(map(read_endpoints, told[ENDPOINT_SLICE])) == {"web": (("b1", ALL[2].address),), "orders": ()}
    revision = view.revision(store)
    store.put(EndpointSlice("web", (replace(ALL[2], address=SocketAddress("127.1.0.9", 8080)),)))
    assert view.revision(store) != revision
    assert view.resources(store, b1) != told
