"""Objects that are applied, changed, deleted and reported in any order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.control.api_server import Refused
from testbed.control.messages import (
    Apply,
    Delete,
    Event,
    LeaseRenewed,
    NodeRegistered,
    PodReadinessChanged,
    PodStarted,
    PodStopped,
    StartPod,
)
from testbed.control.plane import ControlPlane
from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE
from testbed.control.views.envoy.proxies import Proxies
from testbed.objects.cluster import Declared
from testbed.objects.core import Pod, Service
from testbed.objects.mesh import (
    DestinationRule,
    Gateway,
    HttpRoute,
    Retries,
    TrafficPolicy,
    VirtualService,
)
from testbed.objects.workloads import Deployment, PodTemplate
from tests.control.world import CLUSTER, World, address, check_invariants, up

WEB = CLUSTER.deployments[1]
GATEWAY_POD = "gateway-east-a-1"
MORE: tuple[Declared, ...] = (
    DestinationRule("orders", "orders", TrafficPolicy(load_balancer="RANDOM")),
    VirtualService("orders", ("orders",), (HttpRoute("orders", retries=Retries(attempts=0)),)),
    Service("stock", 9000, selector=(("app", "orders"),)),
    Deployment("stock", 2, PodTemplate("stock", None)),
)
EVERYTHING = (*CLUSTER.objects, *MORE)
CHANGED: tuple[Declared, ...] = (
    replace(WEB, replicas=1),
    replace(WEB, replicas=5, template=replace(WEB.template, port=9090)),
    Deployment("stock", 4, PodTemplate("stock", None, max_skew=None)),
    Service("stock", 9001, selector=(("app", "web"),)),
    *(replace(node, unschedulable=True) for node in CLUSTER.nodes[:2]),
    Gateway("gateway", (("istio", "other"),)),
)


@pytest.fixture(scope="module")
def resting() -> World:
    """All of it is applied, and has come up."""
    return up(replace(CLUSTER, objects=EVERYTHING))


@given(st.sampled_from(EVERYTHING), st.integers(0, 3))
@settings(deadline=None)
def test_an_object_that_is_applied_again_as_it_is_does_nothing(resting: World, again: Declared, tenths: int) -> None:
    version = resting.plane.store.version
    assert resting.plane.handle(Apply(again), resting.now + tenths / 100) == []
    assert resting.plane.store.version == version


def outcome(world: World) -> dict[str, Any]:
    """What must not depend on the order in which things were applied: all but where pods are, their numbers, and the
    order of resources."""
    store, view = world.plane.store, Proxies()
    gateway = next(each for each in view.subscribers(store) if each.name == GATEWAY_POD)
    resources = view.resources(store, gateway)
    return {
        "pods": Counter((pod.deployment, pod.template, pod.ready) for pod in world.plane.pods()),
        "endpoints": {each.host: len(each.endpoints) for each in world.plane.endpoint_slices()},
        "clusters": {each["name"]: each for each in resources[CLUSTER_TYPE]},
        "assignments": {each["cluster_name"] for each in resources[ENDPOINT_TYPE]},
        "routes": resources[ROUTE_TYPE],
        "not ready": [*map(str, world.plane.not_ready())],
    }


@given(order=st.permutations(EVERYTHING), waits=st.lists(st.sampled_from([0.0, 0.3]), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_what_follows_does_not_depend_on_the_order_of_application(
    resting: World, order: list[Declared], waits: list[float]
) -> None:
    world = World(replace(CLUSTER, objects=()))
    third = len(order) // 3 + 1
    for part, wait_s in enumerate(waits):
        world.apply(*order[part * third : (part + 1) * third])
        world.run(world.now + wait_s)
    for node in CLUSTER.nodes:
        world.boot(node.name)
    world.run(world.now + 10)
    assert outcome(world) == outcome(resting)


NODES = tuple(node.name for node in CLUSTER.nodes)
PODS = tuple(f"{name}-{n}" for name in ("gateway-east-a", "web", "orders", "stock") for n in range(1, 7))
ANY_NODE, ANY_POD = st.sampled_from(NODES), st.sampled_from(PODS)
STEPS: st.SearchStrategy[Event | None] = st.one_of(
    st.builds(Apply, st.sampled_from((*EVERYTHING, *CHANGED))),
    st.builds(lambda each: Delete(type(each), each.name), st.sampled_from(EVERYTHING)),
    st.builds(Delete, st.just(Pod), ANY_POD),
    st.none(),
    st.builds(NodeRegistered, ANY_NODE),
    st.builds(LeaseRenewed, ANY_NODE),
    st.builds(lambda pod: PodStarted("", pod, address(pod)), ANY_POD),
    st.builds(PodReadinessChanged, st.just(""), ANY_POD, st.booleans(), st.just("Unhealthy: no")),
    st.builds(PodStopped, st.just(""), ANY_POD),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(STEPS, st.sampled_from([0.0, 0.05, 0.3, 3.0, 16.0])), max_size=60))
def test_any_order_of_applying_deleting_and_reporting_keeps_the_invariants(
    steps: list[tuple[Event | None, float]],
) -> None:
    plane = ControlPlane(CLUSTER.timings, CLUSTER.mesh_mode)
    plane.apply(EVERYTHING, 0.0)
    for node in NODES:
        plane.handle(NodeRegistered(node), 0.0)
    now = 0.0
    bound: dict[str, str] = {}
    check_invariants(plane, bound)
    for event, wait_s in steps:
        now += wait_s
        if isinstance(event, PodStarted | PodReadinessChanged | PodStopped):
            event = replace(event, node=bound.get(event.pod, NODES[0]))
        try:
            commands = plane.handle(event, now)
        except Refused:
            assert isinstance(event, Delete)
            continue
        assert all(command.pod.node == command.node for command in commands if isinstance(command, StartPod))
        deadline_s = plane.next_deadline()
        assert deadline_s is None or deadline_s > now
        check_invariants(plane, bound)
