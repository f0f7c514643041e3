from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from testbed.control.kubernetes import scheduler
from testbed.control.messages import RecordEvent, StartPod
from testbed.control.store import Store
from testbed.objects.core import Node, Pod
from testbed.objects.places import Locality
from testbed.objects.workloads import Deployment, PodTemplate

ZONES = ("east-a", "east-b", "east-c")
WEB = Deployment("web", 3, PodTemplate("web", None))


def changed(replicas: int = 3, **fields: Any) -> Deployment:
    """WEB with these fields of its template."""
    return replace(WEB, replicas=replicas, template=replace(WEB.template, **fields))


def cluster(deployment: Deployment = WEB, nodes_per_zone: int = 2, pods: int = 0) -> Store:
    store = Store()
    store.put(deployment)
    for zone in ZONES:
        for number in range(1, nodes_per_zone + 1):
            store.put(Node(f"{zone}-{number}", Locality("east", zone), ready="True"))
    add_pods(store, deployment, pods)
    return store


def add_pods(store: Store, deployment: Deployment, count: int) -> None:
    for _ in range(count):
        store.put(Pod(store.generate_name(f"{deployment.name}-"), deployment.name, deployment.template))


def where(store: Store) -> dict[str, str | None]:
    return {pod.name: pod.node for pod in store.list(Pod)}


def lose(store: Store, *names: str) -> None:
    for name in names:
        store.put(replace(store.get(Node, name), ready="Unknown", unreachable_since_s=0.0))


def test_pods_spread_over_zones_then_nodes() -> None:
    store = cluster(pods=4)
    scheduler.schedule(store, 0.0)
    assert list(where(store).values()) == ["east-a-1", "east-b-1", "east-c-1", "east-a-2"]


def test_a_bound_pod_is_started_on_its_node() -> None:
    store = cluster(pods=1)
    commands = scheduler.schedule(store, 0.0)
    pod = store.get(Pod, "web-1")
    assert commands == [RecordEvent("Pod", "web-1", "Scheduled", {"node": "east-a-1"}), StartPod("east-a-1", pod)]
    assert scheduler.schedule(store, 1.0) == []


def test_a_dead_zone_still_counts_as_a_domain_so_that_replacements_wait_for_it() -> None:
    store = cluster(pods=3)
    scheduler.schedule(store, 0.0)
    lose(store, "east-a-1", "east-a-2")
    store.put(replace(store.get(Pod, "web-1"), phase="Terminating"))
    add_pods(store, WEB, 1)
    (command,) = scheduler.schedule(store, 1.0)
    reason = (
        "0/6 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, "
        "4 node(s) didn't match pod topology spread constraints."
    )
    assert command == RecordEvent("Pod", "web-4", "FailedScheduling", {"message": reason})
    assert store.get(Pod, "web-4").reason == reason
    assert scheduler.schedule(store, 2.0) == [], "said once"


def test_two_pods_in_one_zone_force_the_next_into_the_other() -> None:
    """kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints: counts [2, 1], maxSkew 1."""
    deployment = changed(zones=("east-a", "east-b"))
    store = cluster(deployment, pods=3)
    scheduler.schedule(store, 0.0)
    store.put(replace(store.get(Node, "east-b-1"), capacity_pods=1))
    store.put(replace(store.get(Node, "east-b-2"), capacity_pods=0))
    add_pods(store, deployment, 1)
    scheduler.schedule(store, 1.0)
    assert store.get(Pod, "web-4").reason == (
        "0/6 nodes are available: 2 Too many pods, 2 node(s) didn't match Pod's node affinity/selector, "
        "2 node(s) didn't match pod topology spread constraints."
    )


def test_without_max_skew_a_pod_goes_wherever_there_is_room() -> None:
    store = cluster(changed(max_skew=None), pods=2)
    lose(store, "east-b-1", "east-b-2", "east-c-1", "east-c-2")
    scheduler.schedule(store, 0.0)
    assert where(store) == {"web-1": "east-a-1", "web-2": "east-a-2"}


def test_unregistered_nodes_are_refused_as_not_ready() -> None:
    store = cluster(pods=1)
    for node in store.list(Node):
        store.put(replace(node, ready="False"))
    scheduler.schedule(store, 0.0)
    assert store.get(Pod, "web-1").reason == (
        "0/6 nodes are available: 6 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
    )


def test_a_cordoned_node_gets_no_pods_and_keeps_those_that_it_has() -> None:
    store = cluster(changed(max_skew=None), pods=1)
    scheduler.schedule(store, 0.0)
    for name in ("east-a-1", "east-a-2"):
        store.put(replace(store.get(Node, name), unschedulable=True))
    add_pods(store, WEB, 2)
    scheduler.schedule(store, 1.0)
    assert where(store) == {"web-1": "east-a-1", "web-2": "east-b-1", "web-3": "east-c-1"}
    add_pods(store, changed(zones=("east-a",)), 1)
    scheduler.schedule(store, 2.0)
    assert store.get(Pod, "web-4").reason.startswith(f"0/6 nodes are available: 2 {scheduler.UNSCHEDULABLE}")


def test_two_deployments_of_one_service_avoid_each_other() -> None:
    blue, green = (Deployment(name, 1, PodTemplate("web", None)) for name in ("blue", "green"))
    store = cluster(blue, pods=1)
    store.put(green)
    add_pods(store, green, 1)
    scheduler.schedule(store, 0.0)
    assert where(store) == {"blue-1": "east-a-1", "green-1": "east-b-1"}


@given(
    pods=st.integers(0, 20),
    max_skew=st.integers(1, 3),
    lost=st.lists(st.sampled_from([f"{zone}-{n}" for zone in ZONES for n in (1, 2)]), max_size=5),
    capacity=st.integers(1, 4),
)
def test_no_placement_breaks_capacity_or_skew(pods: int, max_skew: int, lost: list[str], capacity: int) -> None:
    store = cluster(changed(max_skew=max_skew), pods=pods)
    for node in store.list(Node):
        store.put(replace(node, capacity_pods=capacity))
    lose(store, *lost)
    scheduler.schedule(store, 0.0)
    bound = [pod.node for pod in store.list(Pod) if pod.node is not None]
    per_zone = Counter(store.get(Node, node).locality.zone for node in bound)
    assert all(count <= capacity for count in Counter(bound).values())
    assert not set(bound) & set(lost)
    assert max(per_zone.values(), default=0) - min(per_zone[zone] for zone in ZONES) <= max_skew
    assert all(pod.reason.startswith("0/6 nodes are available: ") for pod in store.list(Pod) if pod.node is None)


def test_a_deployment_pinned_to_a_node_is_placed_there_or_nowhere() -> None:
    store = cluster(changed(1, node="east-b-2"), pods=1)
    scheduler.schedule(store, 0.0)
    assert where(store) == {"web-1": "east-b-2"}
    lost = cluster(changed(1, node="east-b-2"), pods=1)
    lose(lost, "east-b-2")
    scheduler.schedule(lost, 0.0)
    assert where(lost) == {"web-1": None}
    reason = lost.get(Pod, "web-1").reason
    assert f"5 {scheduler.WRONG_NODE}" in reason
    assert f"1 {scheduler.UNREACHABLE}" in reason
