"""The cluster as Kubernetes and Istio manifests, as a golden file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml

from testbed.control.manifests import manifests
from testbed.control.store import Store
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cluster import Declared
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
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
from testbed.objects.places import Locality
from testbed.objects.workloads import BuiltinWorkload, CommandWorkload, Deployment, PodTemplate, Probe, WorkTime

NODES = (
    Node(
        "n1", Locality("east", "east-a", "cell-1"), ready="True", relays=(("n2", SocketAddress("127.20.1.1", 20002)),)
    ),
    Node("n2", Locality("east", "east-b"), ready="Unknown", lease_renewed_s=12.5, unreachable_since_s=52.5),
)
WEB = PodTemplate(
    "web",
    BuiltinWorkload(WorkTime("lognormal", 0.001, 0.0005, seed=7), (("orders", "stock"), ("audit",)), 2000, 0.01),
    readiness=Probe(path="/healthz", period_s=0.5, timeout_s=0.05),
)
STOCK = PodTemplate(
    "stock", CommandWorkload(("stock", "--port", "$(PORT)"), (("MODE", "fast"),)), liveness=Probe("tcpSocket")
)
STOCK_IN_EAST_A = replace(STOCK, max_skew=None, zones=("east-a",))
GATEWAY_LABELS = (("istio", "testbed-gateway"),)
GATEWAY = PodTemplate("gateway", None, role="gateway", extra_labels=GATEWAY_LABELS)
DEPLOYMENTS = (Deployment("web", 2, WEB), Deployment("stock", 1, STOCK_IN_EAST_A), Deployment("gateway", 1, GATEWAY))
SERVICES = (
    Service("web", traffic_distribution="PreferSameZone", selector=(("app", "web"),)),
    Service("stock", port=9000, selector=(("app", "stock"),)),
)
MESH: tuple[Declared, ...] = (
    DestinationRule("web", "web"),
    DestinationRule(
        "stock",
        "stock",
        TrafficPolicy(
            load_balancer="RANDOM",
            locality=LocalityLoadBalancing(
                distribute=(LocalityDistribution("east/*", (("east/east-a/*", 100),)),),
            ),
            connection_pool=ConnectionPool(0.25, max_connections=10, idle_timeout_s=60.0),
            outlier_detection=OutlierDetection(max_ejection_percent=100),
        ),
    ),
    VirtualService("web", ("web",), (HttpRoute("web", timeout_s=2.0, name="web"),)),
    VirtualService("stock", ("stock",), (HttpRoute("stock", retries=Retries(attempts=0)),)),
    Gateway("testbed-gateway", GATEWAY_LABELS),
    VirtualService("testbed-gateway", ("*",), (HttpRoute("web", timeout_s=2.0),), gateways=("testbed-gateway",)),
)
ADDRESS = PodAddress(*(SocketAddress("127.20.1.11", port) for port in (8080, 15006, 15001)))
PODS = (
    Pod("web-1", "web", WEB, node="n1", phase="Running", ready=True, address=ADDRESS, restarts=1),
    Pod("web-2", "web", WEB, reason="0/2 nodes are available: 2 node(s) didn't match"),
    Pod("stock-1", "stock", STOCK, node="n2", phase="Terminating"),
    Pod("gateway-1", "gateway", GATEWAY, node="n1", phase="Running", ready=True),
)
SLICES = (
    EndpointSlice("web", (Endpoint("web-1", "n1", NODES[0].locality, ADDRESS.inbound),)),
    EndpointSlice("stock"),
)


def manifests_of(*objects: Declared | Pod | EndpointSlice) -> list[dict[str, Any]]:
    store = Store()
    for each in objects:
        store.put(each)
    return manifests(store)


def rendered() -> list[dict[str, Any]]:
    return manifests_of(*NODES, *SERVICES, *DEPLOYMENTS, *PODS, *SLICES, *MESH)


def test_a_cluster_becomes_manifests(golden: Callable[[str, str], None]) -> None:
    golden("manifests.yaml", yaml.safe_dump_all(rendered(), sort_keys=False))


def test_every_manifest_says_what_it_is_and_each_name_is_there_once() -> None:
    names = [(m["apiVersion"], m["kind"], m["metadata"]["name"]) for m in rendered()]
    assert len(set(names)) == len(names)


def test_annotations_and_labels_are_strings() -> None:
    for manifest in rendered():
        metadata = manifest["metadata"]
        values = [*metadata.get("labels", {}).values(), *metadata.get("annotations", {}).values()]
        assert all(isinstance(value, str) for value in values), manifest


def test_nothing_declared_is_nothing_to_show() -> None:
    assert manifests_of() == []


def test_namespaces_labels_and_a_cordon_are_shown_where_they_are_not_the_default() -> None:
    labels = (("team", "shop"),)
    node, service = manifests_of(
        replace(NODES[0], unschedulable=True), Service("stock", 80, None, labels, "shop", labels)
    )
    assert node["spec"] == {"unschedulable": True}
    assert service["metadata"] == {"name": "stock", "namespace": "shop", "labels": {"team": "shop"}}
    assert "namespace" not in rendered()[2]["metadata"]


def test_node_proxies_are_one_daemon_set() -> None:
    proxy = PodTemplate("node-proxy", None, role="node-proxy", mesh_mode="node")
    pinned = tuple(Deployment(f"node-proxy-{node.name}", 1, replace(proxy, node=node.name)) for node in NODES)
    found = manifests_of(*pinned, *DEPLOYMENTS)
    assert [m["metadata"]["name"] for m in found if m["kind"] == "DaemonSet"] == ["node-proxy"]
    assert [m["metadata"]["name"] for m in found if m["kind"] == "Deployment"] == ["web", "stock", "gateway"]


def test_without_a_mesh_an_ingress_takes_the_place_of_istios_objects(golden: Callable[[str, str], None]) -> None:
    pod = replace(PODS[0], template=replace(PODS[0].template, mesh_mode="none"))
    ingress = Ingress("testbed-gateway", (IngressPath("/", "web"),))
    found = manifests_of(*SERVICES, *DEPLOYMENTS, pod, ingress)
    golden("manifests_without_mesh.yaml", yaml.safe_dump_all(found[2:], sort_keys=False))
