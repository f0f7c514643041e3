"""Objects of every kind, applied, changed and deleted while a control plane runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from testbed.control.api_server import Refused
from testbed.control.messages import (
    NodeRegistered,
    PushConfig,
    RecordEvent,
    StopPod,
)
from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE
from testbed.control.views.kube_proxy import ENDPOINT_SLICE, read_endpoints
from testbed.objects.cluster import ClusterSpec, Declared
from testbed.objects.core import EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import (
    DestinationRule,
    Gateway,
    HttpRoute,
    Ingress,
    IngressPath,
    TrafficPolicy,
    VirtualService,
)
from testbed.objects.places import Locality
from testbed.objects.workloads import GATEWAY, Deployment, PodTemplate
from tests.control.world import CLUSTER, ORDERS, ZONES, World, up

WEB = CLUSTER.deployments[1]
GATEWAY_POD = "gateway-east-a-1"


def settled(world: World, wait_s: float = 10.0) -> list[tuple[str, str]]:
    """Let it come to rest; who was pushed which type meanwhile, in order."""
    before = len(world.commands)
    world.run(world.now + wait_s)
    assert world.plane.all_ready(), world.plane.not_ready()
    pushes = [command for _, command in world.commands[before:] if isinstance(command, PushConfig)]
    return [(push.proxy, push.type_url) for push in pushes]


def told(world: World, proxy: str = GATEWAY_POD) -> dict[str, list[Mapping[str, Any]]]:
    """What a subscriber was pushed last, by type."""
    pushes = [command for _, command in world.commands if isinstance(command, PushConfig) and command.proxy == proxy]
    return {push.type_url: list(push.resources) for push in pushes}


def clusters(world: World) -> dict[str, Mapping[str, Any]]:
    return {each["name"]: each for each in told(world)[CLUSTER_TYPE]}


def running(world: World, deployment: str) -> list[str]:
    return [pod.name for pod in world.plane.pods() if pod.deployment == deployment and pod.phase == "Running"]


def endpoints(world: World, service: str) -> list[str]:
    return [each.pod for each in world.plane.store.get(EndpointSlice, service).endpoints]


# --- each kind -----------------------------------------------------------------------------------------------------


def test_a_deployment_that_is_applied_scaled_and_deleted_has_the_pods_it_asks_for() -> None:
    world = up()
    created = world.apply(replace(WEB, name="canary", replicas=2))
    assert created[0] == RecordEvent("Deployment", "canary", "Created", {"namespace": "default"})
    settled(world)
    assert endpoints(world, "web") == ["canary-1", "canary-2", "web-1", "web-2", "web-3"]
    assert world.apply(replace(WEB, name="canary", replicas=1))[0] == (
        RecordEvent("Deployment", "canary", "Configured", {"namespace": "default"})
    )
    settled(world)
    assert running(world, "canary") == ["canary-1"]
    commands = world.delete(Deployment, "canary")
    assert StopPod(world.plane.store.get(Pod, "canary-1").node or "", "canary-1") in commands
    settled(world)
    assert (running(world, "canary"), endpoints(world, "web")) == ([], ["web-1", "web-2", "web-3"])


def test_a_changed_template_is_rolled_out_within_surge_and_availability() -> None:
    world = up()
    world.apply(replace(WEB, replicas=8))
    settled(world)
    template = replace(WEB.template, port=9090)
    world.apply(replace(WEB, replicas=8, template=template))
    alive, ready = [], []
    for _ in range(200):
        world.run(world.now + 0.02)
        pods = [pod for pod in world.plane.pods() if pod.deployment == "web" and pod.phase != "Terminating"]
        alive.append(len(pods))
        ready.append(sum(pod.ready for pod in pods))
    assert (max(alive), min(ready)) == (10, 6), "8 + 25 %, 8 - 25 %"
    assert {pod.template for pod in world.plane.pods() if pod.deployment == "web"} == {template}
    assert world.plane.all_ready()


def test_a_rollout_whose_new_pods_do_not_become_ready_stops_and_can_be_taken_back() -> None:
    world = up()
    world.mute = ("web",)
    world.apply(replace(WEB, replicas=3, template=replace(WEB.template, port=9090)))
    world.run(world.now + 20)
    assert endpoints(world, "web") == ["web-1", "web-2", "web-3"]
    assert "deployment web: 4 of 3 pods created" in [*map(str, world.plane.not_ready())]
    world.mute = ()
    world.apply(WEB)
    settled(world)
    assert endpoints(world, "web") == ["web-1", "web-2", "web-3"]


def test_fewer_replicas_in_the_middle_of_a_rollout_leave_no_more_than_the_surge_allows_at_once() -> None:
    world = World()
    world.run(0.1)  # pods are there, and none is ready

    def ports() -> Counter[int]:
        pods = world.plane.pods()
        return Counter(pod.template.port for pod in pods if pod.deployment == "web" and pod.phase != "Terminating")

    world.apply(replace(WEB, replicas=5, template=replace(WEB.template, port=9090)))
    assert ports() == {8080: 3, 9090: 4}, "5 + 25 %, of which 3 were there"
    world.apply(WEB)
    assert ports() == {8080: 2, 9090: 2}, "3 + 25 %, as 3 is to 4"
    settled(world)
    assert ports() == {8080: 3}


def test_a_pod_that_is_pinned_to_its_node_leaves_before_its_successor_comes() -> None:
    world = up()
    pinned = Deployment("agent", 1, PodTemplate("agent", None, node="east-b-1"))
    world.apply(pinned)
    settled(world)
    world.apply(replace(pinned, template=replace(pinned.template, port=9090)))
    most = 0
    for _ in range(100):
        world.run(world.now + 0.02)
        most = max(most, len(running(world, "agent")))
    assert (most, running(world, "agent")) == (1, ["agent-2"])


def test_a_service_is_known_to_proxies_from_when_it_is_applied_until_it_is_deleted() -> None:
    world = up()
    stock = Service("stock", 9000, selector=(("app", "orders"),))
    world.apply(stock)
    settled(world)
    assert "outbound|9000||stock" in clusters(world)
    assert endpoints(world, "stock") == endpoints(world, "orders") == ["orders-1", "orders-2", "orders-3"]
    world.apply(replace(stock, port=9001, selector=(("app", "web"),)))
    settled(world)
    assert endpoints(world, "stock") == ["web-1", "web-2", "web-3"]
    assert set(clusters(world)) == {"outbound|80||web", "outbound|80||orders", "outbound|9001||stock"}
    (_, deleted) = world.delete(Service, "stock")
    assert isinstance(deleted, RecordEvent)
    assert (deleted.reason, deleted.details["removed"]) == ("EndpointsChanged", ["web-1", "web-2", "web-3"])
    settled(world)
    assert set(clusters(world)) == {"outbound|80||web", "outbound|80||orders"}
    assert world.plane.store.find(EndpointSlice, "stock") is None


def test_a_destination_rule_holds_while_it_is_there_and_changes_clusters_alone() -> None:
    world = up()
    rule = DestinationRule("orders", "orders", TrafficPolicy(load_balancer="ROUND_ROBIN"))
    for policy in ("ROUND_ROBIN", "RANDOM"):
        world.apply(replace(rule, traffic_policy=TrafficPolicy(load_balancer=policy)))
        pushes = settled(world)
        assert {type_url for _, type_url in pushes} == {CLUSTER_TYPE}
        assert len(pushes) == 7, "every proxy once"
        assert clusters(world)["outbound|80||orders"]["lb_policy"] == policy
    world.delete(DestinationRule, "orders")
    settled(world)
    assert clusters(world)["outbound|80||orders"]["lb_policy"] == "LEAST_REQUEST"


def test_a_virtual_service_holds_while_it_is_there_and_changes_routes_of_pods_alone() -> None:
    world = up()

    def timeout() -> str:
        (routes,) = told(world, "web-1")[ROUTE_TYPE]
        hosts = {host["name"]: host for host in routes["virtual_hosts"]}
        found: str = hosts["orders:80"]["routes"][0]["route"]["timeout"]
        return found

    route = VirtualService("orders", ("orders",), (HttpRoute("orders", timeout_s=1.5),))
    world.apply(route)
    pushes = settled(world)
    assert {type_url for _, type_url in pushes} == {ROUTE_TYPE}
    assert GATEWAY_POD not in {proxy for proxy, _ in pushes}
    assert timeout() == "1.5s"
    world.apply(replace(route, http=(HttpRoute("orders", timeout_s=2.5),)))
    settled(world)
    assert timeout() == "2.5s"
    world.delete(VirtualService, "orders")
    settled(world)
    assert timeout() == "0s"


def test_gateways_take_calls_while_a_gateway_object_selects_them_and_route_as_its_virtual_services_say() -> None:
    world = up()

    def prefixes() -> list[str]:
        (routes,) = told(world)[ROUTE_TYPE]
        return [route["match"].get("prefix") for route in routes["virtual_hosts"][0]["routes"][1:]]

    assert prefixes() == ["/"]
    routes = (HttpRoute("orders", "/orders"), HttpRoute("web"))
    world.apply(VirtualService("gateway", ("*",), routes, gateways=("gateway",)))
    assert settled(world) == [(GATEWAY_POD, ROUTE_TYPE)]
    assert prefixes() == ["/orders", "/"]
    world.delete(Gateway, "gateway")
    assert settled(world) == [(GATEWAY_POD, LISTENER_TYPE)]
    assert told(world)[LISTENER_TYPE] == []
    world.apply(Gateway("gateway", (("app", "gateway"),)))
    settled(world)
    assert [each["name"] for each in told(world)[LISTENER_TYPE]] == ["gateway"]


def test_an_ingress_is_what_gateways_route_without_a_mesh() -> None:
    template = replace(CLUSTER.deployments[0].template, mesh_mode="none")
    objects = [each for each in CLUSTER.objects if not isinstance(each, Gateway | VirtualService)]
    without = [replace(each, template=template) if each == CLUSTER.deployments[0] else each for each in objects]
    world = World(ClusterSpec(tuple(without), CLUSTER.timings, "none"))
    for node in world.plane.nodes():
        world.connect(f"kube-proxy/{node.name}", node.name)
    world.run(5.0)
    assert world.plane.all_ready(), world.plane.not_ready()

    def prefixes() -> list[str]:
        (routes,) = told(world)[ROUTE_TYPE]
        return [route["match"].get("prefix") for route in routes["virtual_hosts"][0]["routes"][1:]]

    assert prefixes() == []
    for paths in (("/",), ("/a", "/b")):
        world.apply(Ingress("all", tuple(IngressPath(path, "web") for path in paths)))
        settled(world)
        assert prefixes() == list(paths)
    world.delete(Ingress, "all")
    settled(world)
    assert prefixes() == []
    world.delete(Service, "orders")
    settled(world)
    assert [each["service"] for each in told(world, "kube-proxy/east-b-1")[ENDPOINT_SLICE]] == ["web"]


def test_a_node_that_is_applied_later_takes_pods_once_it_has_registered() -> None:
    world = up()
    world.apply(Node("east-d-1", Locality("east", "east-d")))
    assert "node east-d-1: not registered" in [*map(str, world.plane.not_ready())]
    world.boot("east-d-1")
    settled(world)
    world.apply(replace(WEB, replicas=4))
    settled(world)
    assert world.plane.store.get(Pod, "web-4").node == "east-d-1"
    world.apply(Node("east-d-1", Locality("east", "east-d"), unschedulable=True))
    node = world.plane.store.get(Node, "east-d-1")
    assert (node.unschedulable, node.ready) == (True, "True"), "what it is asked for changes, its status does not"
    world.apply(replace(WEB, replicas=5, template=replace(WEB.template, max_skew=None)))
    settled(world)
    assert "east-d-1" not in {pod.node for pod in world.plane.pods() if pod.deployment == "web"}


def test_the_pods_of_a_deleted_node_are_replaced_elsewhere_and_its_kubelet_is_told_to_stop_them() -> None:
    world = up()
    node = world.plane.store.get(Pod, "orders-1").node
    assert node is not None
    here = [pod.name for pod in world.plane.pods() if pod.node == node]
    commands = world.delete(Node, node)
    assert {command.pod for command in commands if isinstance(command, StopPod)} == set(here)
    settled(world)
    assert not {pod.node for pod in world.plane.pods()} & {node}
    assert len(endpoints(world, "orders")) == 3
    assert world.plane.handle(NodeRegistered(node), world.now) == [], "its kubelet does not know"
    zone = next(zone for zone in ZONES if node.startswith(zone))
    world.apply(Node(node, Locality("east", zone)))
    world.run(world.now + 5)
    assert f"node {node}: not registered" in [*map(str, world.plane.not_ready())], "a lease is not enough"
    world.boot(node)
    settled(world)


def test_a_deleted_pod_is_stopped_and_replaced() -> None:
    world = up()
    world.delete(Pod, "web-2")
    settled(world)
    assert endpoints(world, "web") == ["web-1", "web-3", "web-4"]


def test_objects_of_two_namespaces_do_not_meet() -> None:
    world = up()
    selector = (("app", "orders"),)
    world.apply(
        Deployment("orders", 2, ORDERS, namespace="shop"), Service("orders", selector=selector, namespace="shop")
    )
    settled(world)
    assert endpoints(world, "orders") == ["orders-1", "orders-2", "orders-3"]
    there = world.plane.store.get(EndpointSlice, "orders", "shop").endpoints
    assert [each.pod for each in there] == ["orders-4", "orders-5"]
    assert {"outbound|80||orders", "outbound|80||orders.shop"} <= set(clusters(world))


def test_clients_are_told_of_gateways_as_they_come_and_go_and_for_as_long_as_they_are_cut_off_of_none() -> None:
    clients = ("clients/east-a", "clients/east-b")
    world = World(CLUSTER, clients)
    assert "zone east-b: its clients' list of gateways not connected" in [*map(str, world.plane.not_ready())]
    world.run(5.0)
    assert world.plane.all_ready(), world.plane.not_ready()

    def gateways(client: str) -> list[str]:
        (told_last,) = told(world, client)[ENDPOINT_SLICE]
        assert read_endpoints(told_last)[0] == GATEWAY
        return [each["pod"] for each in told_last["endpoints"]]

    assert {client: gateways(client) for client in clients} == {client: [GATEWAY_POD] for client in clients}
    template = replace(CLUSTER.deployments[0].template, zones=("east-b",))
    world.apply(Deployment("gateway-east-b", 1, template))
    settled(world)
    both = [GATEWAY_POD, "gateway-east-b-1"]
    assert {client: gateways(client) for client in clients} == dict.fromkeys(clients, both)
    world.cut_off = ("clients/east-b",)
    world.delete(Deployment, "gateway-east-b")
    world.run(world.now + 5)
    version = "its clients' list of gateways not in sync: EndpointSlice version 4 pushed, 3 acknowledged"
    assert [*map(str, world.plane.not_ready())] == [f"zone east-b: {version}"]
    world.heal()
    settled(world)
    assert gateways("clients/east-b") == [GATEWAY_POD]


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Service("Web"), "name 'Web' is no DNS label"),
        (Service("web", namespace=""), "namespace '' is no DNS label"),
        (Service("web", 0), "port must be 1 to 65535, and is 0"),
        (replace(WEB, replicas=-1), "Deployment 'web': replicas must not be negative, and are -1"),
        (replace(WEB, template=ORDERS), "field is immutable"),
        (Node("east-a-1", Locality("east", "east-b")), "a node stays where it is: in east/east-a"),
        (VirtualService("web", ("web",), ()), "it needs a host and a route"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name_and_nothing_changes(wrong: Declared, why: str) -> None:
    world = up()
    version = world.plane.store.version
    with pytest.raises(Refused, match=why):
        world.apply(Service("stock"), wrong)
    assert world.plane.store.version == version


def test_what_is_not_there_cannot_be_deleted() -> None:
    with pytest.raises(Refused, match="Service 'stock': not found in namespace default"):
        up().delete(Service, "stock")
