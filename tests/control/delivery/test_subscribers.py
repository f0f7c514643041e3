from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from testbed.control.delivery.discovery import Discovery
from testbed.control.messages import Command, ConfigAcked, ConfigRejected, ProxyConnected, PushConfig, RecordEvent
from testbed.control.store import Store
from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from testbed.control.views.envoy.xds import PUSH_ORDER
from testbed.control.views.kube_proxy import ENDPOINT_SLICE
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.places import Locality
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment, MeshMode, PodTemplate

NODE = Node("a", Locality("east", "east-a"), ready="True")
TIMINGS = Timings(push_debounce_s=0.1, push_debounce_max_s=1.0)
ADDRESS = PodAddress(*(SocketAddress("127.20.1.3", port) for port in (8080, 15006, 15001)))
WEB_1 = Pod("web-1", "web", PodTemplate("web", None), "a", "Running", address=ADDRESS)


class World:
    """A discovery server, its store with two started pods, and the number of the last change of endpoints."""

    def __init__(self, mesh_mode: MeshMode = "sidecar") -> None:
        self.store = Store()
        self.discovery = Discovery(TIMINGS, mesh_mode)
        self.changes = 0
        self.store.put(NODE)
        self.store.put(Service("web"))
        self.store.put(EndpointSlice("web"))
        for name in ("web-1", "web-2"):
            self.store.put(replace(WEB_1, name=name))
        self.pushes(0.0)

    def change_endpoints(self) -> None:
        self.changes += 1
        address = SocketAddress(f"127.20.1.{self.changes}", 15006)
        self.store.put(EndpointSlice("web", (Endpoint("web-9", "a", NODE.locality, address),)))

    def connect(self, proxy: str) -> list[Command]:
        return self.discovery.connect(self.store, ProxyConnected(proxy))

    def not_in_sync(self, name: str) -> str | None:
        return self.discovery.streams(self.store).problems.get(name, "not connected")

    def pushes(self, now: float) -> list[tuple[str, str, str]]:
        commands = self.discovery.reconcile(self.store, now)
        return [(push.proxy, push.type_url, push.version) for push in commands if isinstance(push, PushConfig)]

    def connected(self) -> World:
        self.connect("web-1")
        self.connect("web-2")
        for proxy, type_url, version in self.pushes(0.0):
            self.discovery.acked(ConfigAcked(proxy, type_url, version))
        self.pushes(0.1)
        return self


def test_a_proxy_that_connects_gets_everything_at_once_in_push_order() -> None:
    world = World()
    assert world.connect("web-1") == [RecordEvent("Proxy", "web-1", "Connected")]
    assert world.pushes(0.05) == [("web-1", type_url, "1") for type_url in PUSH_ORDER]
    assert world.pushes(0.06) == []


def test_a_proxy_that_connects_before_its_pod_is_started_waits_for_the_address() -> None:
    world = World()
    world.store.put(replace(WEB_1, address=None))
    world.connect("web-1")
    assert world.pushes(0.0) == []
    assert world.not_in_sync("web-1") == "connected, nothing pushed yet"
    world.store.put(WEB_1)
    assert len(world.pushes(0.1)) == 4


def test_a_change_of_endpoints_is_pushed_to_all_after_the_quiet_time_and_only_as_endpoints() -> None:
    world = World().connected()
    world.change_endpoints()
    assert world.pushes(5.0) == []
    assert world.discovery.next_deadline() == 5.1
    assert world.pushes(5.1) == [("web-1", ENDPOINT_TYPE, "2"), ("web-2", ENDPOINT_TYPE, "2")]
    assert world.discovery.next_deadline() is None


def test_changes_that_never_pause_are_pushed_at_the_maximum_delay() -> None:
    world = World().connected()
    pushed_s = []
    for tick in range(100, 125):
        world.change_endpoints()
        pushed_s += [tick / 20] * bool(world.pushes(tick / 20))
    assert pushed_s == [6.0]


def test_a_change_that_is_undone_within_the_quiet_time_is_not_pushed() -> None:
    world = World().connected()
    world.change_endpoints()
    world.pushes(5.0)
    world.store.put(EndpointSlice("web"))
    assert world.pushes(5.05) == []
    assert world.pushes(5.2) == []


def test_leases_and_readiness_of_nodes_are_nothing_to_push() -> None:
    world = World().connected()
    world.store.put(replace(NODE, lease_renewed_s=5.0))
    world.store.put(replace(WEB_1, ready=True))
    assert (world.pushes(5.0), world.discovery.next_deadline()) == ([], None)
    world.store.put(replace(NODE, relays=(("b", SocketAddress("127.20.1.2", 9001)),)))
    world.pushes(6.0)
    assert world.discovery.next_deadline() == 6.1


def test_a_proxy_that_reconnects_gets_everything_again_under_new_versions() -> None:
    world = World().connected()
    world.connect("web-1")
    assert world.pushes(1.0) == [("web-1", type_url, "2") for type_url in PUSH_ORDER]


def test_a_proxy_is_in_sync_when_every_pushed_version_is_acknowledged() -> None:
    world = World().connected()
    assert world.not_in_sync("web-1") is None
    assert world.not_in_sync("web-9") == "not connected"
    world.change_endpoints()
    world.pushes(5.0)
    world.pushes(5.1)
    wanted = "not in sync: ClusterLoadAssignment version 2 pushed, 1 acknowledged"
    assert world.not_in_sync("web-1") == wanted
    world.discovery.acked(ConfigAcked("web-1", ENDPOINT_TYPE, "2"))
    assert world.not_in_sync("web-1") is None


def test_a_rejection_is_recorded_and_shown_until_a_later_version_is_accepted() -> None:
    world = World().connected()
    rejected = ConfigRejected("web-1", CLUSTER_TYPE, "1", "unknown field")
    details = {"type_url": CLUSTER_TYPE, "version": "1", "error": "unknown field"}
    assert world.discovery.rejected(rejected) == [RecordEvent("Proxy", "web-1", "ConfigRejected", details)]
    assert world.not_in_sync("web-1") == "rejected Cluster: unknown field"
    world.discovery.acked(ConfigAcked("web-1", CLUSTER_TYPE, "1"))
    assert world.not_in_sync("web-1") is None


def node_a_loses_its_power(world: World) -> None:
    world.discovery.disconnect(world.store, "a")
    world.connect("web-2")
    world.pushes(1.0)


def web_1_is_gone(world: World) -> None:
    world.store.delete(Pod, "web-1")
    world.pushes(1.0)


@pytest.mark.parametrize(("leave", "version"), [(node_a_loses_its_power, "3"), (web_1_is_gone, "2")])
def test_nothing_is_pushed_to_a_proxy_that_is_gone(leave: Callable[[World], None], version: str) -> None:
    world = World().connected()
    leave(world)
    world.change_endpoints()
    world.pushes(5.0)
    assert world.pushes(5.1) == [("web-2", ENDPOINT_TYPE, version)]
    world.discovery.acked(ConfigAcked("web-1", ENDPOINT_TYPE, "1"))
    assert world.not_in_sync("web-1") == "not connected"


# --- one proxy a node ----------------------------------------------------------------------------------------------

NODE_PROXY = replace(WEB_1, name="node-proxy-a-1", template=PodTemplate("node-proxy", None, role="node-proxy"))
ON_A = replace(WEB_1, template=PodTemplate("web", None, mesh_mode="node"))


def node_world(*pods: Pod) -> World:
    """A connected node proxy that has acknowledged everything, on a node with these pods."""
    world = World("node")
    for name in ("web-1", "web-2"):
        world.store.delete(Pod, name)
    for pod in (NODE_PROXY, *pods):
        world.store.put(pod)
    world.connect(NODE_PROXY.name)
    world.pushes(0.0)
    world.pushes(0.1)
    return world


def test_a_pod_that_comes_or_goes_changes_its_nodes_proxy_at_once() -> None:
    world = node_world(ON_A)
    changed = [(NODE_PROXY.name, type_url, "2") for type_url in (CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE)]
    world.store.put(replace(ON_A, name="web-2"))
    assert world.pushes(5.0) == changed
    world.store.put(replace(ON_A, name="web-3", node="b"))
    assert world.pushes(6.0) == []
    world.store.delete(Pod, "web-1")
    assert [version for _, _, version in world.pushes(7.0)] == ["3", "3", "3"]


def test_a_node_proxy_without_pods_is_in_sync_without_routes() -> None:
    world = node_world()
    for type_url in (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE):
        world.discovery.acked(ConfigAcked(NODE_PROXY.name, type_url, "1"))
    assert world.not_in_sync(NODE_PROXY.name) is None
    world.store.put(ON_A)
    assert (NODE_PROXY.name, ROUTE_TYPE, "1") in world.pushes(5.0)


# --- no mesh -------------------------------------------------------------------------------------------------------


def test_a_kube_proxy_is_told_of_endpoints_at_once_and_of_changes_after_the_quiet_time() -> None:
    world = World("none")
    world.connect("kube-proxy/a")
    assert world.pushes(0.05) == [("kube-proxy/a", ENDPOINT_SLICE, "1")]
    world.pushes(0.2)
    world.change_endpoints()
    assert world.pushes(5.0) == []
    assert world.pushes(5.1) == [("kube-proxy/a", ENDPOINT_SLICE, "2")]
    assert world.not_in_sync("kube-proxy/a") == ("not in sync: EndpointSlice version 2 pushed, none acknowledged")
    world.discovery.acked(ConfigAcked("kube-proxy/a", ENDPOINT_SLICE, "2"))
    assert world.not_in_sync("kube-proxy/a") is None


def test_while_a_cluster_comes_up_many_are_told_less_often_and_as_usual_once_it_is_up() -> None:
    world = World()
    world.discovery = Discovery(TIMINGS, "sidecar")
    world.discovery.reconcile(Store(), -1.0)
    world.store.put(Deployment("web", 17, WEB_1.template))
    names = [f"web-{number}" for number in range(1, 18)]
    for name in names:
        world.store.put(replace(WEB_1, name=name))
        world.connect(name)
    for now in (0.0, 1.0):
        world.discovery.reconcile(world.store, now)
    pushed_s = []
    for tick in range(100, 125):
        world.change_endpoints()
        if world.discovery.reconcile(world.store, tick / 20):
            pushed_s.append(tick / 20)
    assert pushed_s == [5.35, 5.75, 6.15]  # 0.34 s after the first change of which they know nothing
    for name in names:
        world.store.put(replace(WEB_1, name=name, ready=True))
    assert world.discovery.reconcile(world.store, 6.2) == []
    assert world.discovery.next_deadline() == 6.3
    assert len(world.pushes(6.3)) == len(names)
