from dataclasses import replace

import pytest

from testbed.control.kubernetes.node_health import NodeHealth, zone_state
from testbed.control.messages import Command, LeaseRenewed, NodeRegistered, RecordEvent, StartPod, StopPod
from testbed.control.store import Store
from testbed.objects.core import Node, Pod
from testbed.objects.places import Locality
from testbed.objects.timings import Timings
from testbed.objects.workloads import PodTemplate

TIMINGS = Timings()


class World:
    """The controller under test with a ready pod on every node; `run` renews leases and meets every deadline."""

    def __init__(self, zones: dict[str, int]) -> None:
        self.store = Store()
        self.health = NodeHealth(TIMINGS)
        self.now = 0.0
        self.silent: set[str] = set()
        self.commands: list[tuple[float, Command]] = []
        for zone, count in zones.items():
            for number in range(1, count + 1):
                name = f"{zone}{number}"
                self.store.put(Node(name, Locality("east", zone)))
                self.health.register(self.store, NodeRegistered(name), 0.0)
                self.store.put(
                    Pod(f"web-{name}", "web", PodTemplate("web", None), name, "Running", True, containers_ready=True)
                )

    def run(self, until_s: float) -> None:
        while True:
            renewal_s = (self.now // TIMINGS.lease_renew_s + 1) * TIMINGS.lease_renew_s
            deadline_s = self.health.next_deadline(self.store)
            assert deadline_s is not None
            assert deadline_s > self.now or self.now == 0.0
            step_s = min(renewal_s, deadline_s)
            if step_s > until_s:
                return
            self.now = step_s
            if step_s == renewal_s:
                for node in self.store.list(Node):
                    if node.name not in self.silent:
                        self.renew(node.name)
            self.reconcile()

    def reconcile(self) -> None:
        self.commands += [(self.now, each) for each in self.health.reconcile(self.store, self.now)]

    def renew(self, node: str) -> None:
        self.commands += [(self.now, each) for each in self.health.renew(self.store, LeaseRenewed(node), self.now)]

    def times(self, kind: str, reason: str) -> list[tuple[float, str]]:
        return [
            (at_s, command.object)
            for at_s, command in self.commands
            if isinstance(command, RecordEvent) and (command.kind, command.reason) == (kind, reason)
        ]

    def node(self, name: str) -> Node:
        return self.store.get(Node, name)

    def pod(self, name: str) -> Pod:
        return self.store.get(Pod, name)


def test_a_node_without_lease_turns_unknown_at_the_first_check_after_the_grace_period() -> None:
    world = World({"a": 1, "b": 1})
    world.run(10)
    world.silent = {"a1"}
    world.run(54.9)
    assert world.node("a1").ready == "True", "a lease of 10 s is not yet older than 40 s at the check of 50 s"
    world.run(55)
    assert world.node("a1").ready == "Unknown"
    assert world.times("Node", "NodeNotReady") == [(55.0, "a1")]
    assert world.node("b1").ready == "True"


def test_pods_of_an_unknown_node_turn_unready_and_what_their_kubelet_said_holds_again_when_it_is_back() -> None:
    world = World({"a": 2, "b": 1})
    world.store.put(replace(world.pod("web-a2"), containers_ready=False))
    world.silent = {"a1", "a2"}
    world.run(60)
    assert not world.pod("web-a1").ready
    world.silent.clear()
    world.run(70)
    assert (world.node("a1").ready, world.node("a1").unreachable_since_s) == ("True", None)
    assert (world.pod("web-a1").ready, world.pod("web-a2").ready) == (True, False)
    assert world.times("Pod", "TaintManagerEviction") == []


def test_a_dead_zone_beside_a_living_one_is_evicted_after_the_toleration_one_node_every_ten_seconds() -> None:
    world = World({"a": 3, "b": 1})
    world.silent = {"a1", "a2", "a3"}
    world.run(400)
    unknown_s = 45.0
    assert world.times("Node", "NodeNotReady") == [(unknown_s, name) for name in ("a1", "a2", "a3")]
    assert world.times("Pod", "TaintManagerEviction") == [
        (unknown_s + 300, "web-a1"),
        (unknown_s + 310, "web-a2"),
        (unknown_s + 320, "web-a3"),
    ]
    assert (345.0, StopPod("a1", "web-a1")) in world.commands
    assert world.pod("web-a1").phase == "Terminating"


def test_a_small_zone_that_is_partly_dead_is_not_evicted() -> None:
    world = World({"a": 5, "b": 1})
    world.silent = {"a1", "a2", "a3"}
    world.run(1000)
    assert world.times("Pod", "TaintManagerEviction") == []
    assert world.times("Zone", "ZoneStateChanged") == [(45.0, "a")]


def test_a_large_zone_that_is_partly_dead_is_evicted_slowly() -> None:
    world = World({"a": 52, "b": 1})
    world.silent = {f"a{number}" for number in range(1, 31)}
    world.run(560)
    assert world.times("Pod", "TaintManagerEviction") == [(345.0, "web-a1"), (445.0, "web-a2"), (545.0, "web-a3")]


def test_nothing_is_evicted_while_all_zones_are_dead_nor_for_taints_put_on_before() -> None:
    world = World({"a": 1, "b": 1})
    world.silent = {"a1"}
    world.run(100)
    assert world.node("a1").unreachable_since_s == 45.0
    world.silent = {"a1", "b1"}
    world.run(1000)
    assert world.times("Pod", "TaintManagerEviction") == []
    assert world.node("a1").unreachable_since_s is None
    world.silent = {"a1"}
    world.run(1400)
    tainted_s = 1010.0 + 10.0
    assert world.times("Pod", "TaintManagerEviction") == [(tainted_s + 300.0, "web-a1")], "the rate starts drained"


def test_a_reboot_takes_pods_down_until_they_start_and_tells_the_kubelet_again() -> None:
    world = World({"a": 1, "b": 1})
    world.store.put(replace(world.pod("web-a1"), name="web-9", phase="Terminating"))
    commands = world.health.register(world.store, NodeRegistered("a1"), 5.0)
    pod = world.pod("web-a1")
    assert (pod.phase, pod.ready, pod.containers_ready, pod.address) == ("Pending", False, False, None)
    assert commands == [
        RecordEvent("Node", "a1", "NodeReady", {"rebooted": True}),
        StartPod("a1", pod),
        StopPod("a1", "web-9"),
    ]


def test_a_lease_before_the_registration_is_ignored() -> None:
    store = Store()
    store.put(Node("a1", Locality("east", "a")))
    health = NodeHealth(TIMINGS)
    assert health.renew(store, LeaseRenewed("a1"), 1.0) == []
    assert store.get(Node, "a1").ready == "False"
    assert health.next_deadline(store) is None


@pytest.mark.parametrize(
    ("ready", "not_ready", "state"),
    [
        (1, 0, "Normal"),
        (0, 1, "FullDisruption"),
        (1, 2, "Normal"),
        (2, 3, "PartialDisruption"),
        (3, 3, "Normal"),
        (9, 11, "PartialDisruption"),
        (10, 10, "Normal"),
    ],
)
def test_zone_states_are_those_of_compute_zone_state(ready: int, not_ready: int, state: str) -> None:
    node = Node("n", Locality("east", "a"), ready="True")
    assert zone_state([node] * ready + [replace(node, ready="Unknown")] * not_ready) == state


def test_the_proxy_of_a_node_is_not_evicted_from_it() -> None:
    world = World({"a": 1, "b": 1})
    proxy = PodTemplate("node-proxy", None, role="node-proxy")
    world.store.put(Pod("node-proxy-a1-1", "node-proxy-a1", proxy, "a1", "Running", True, containers_ready=True))
    world.silent = {"a1"}
    world.run(400)
    assert [name for _, name in world.times("Pod", "TaintManagerEviction")] == ["web-a1"]
    assert world.pod("node-proxy-a1-1").phase == "Running"
    assert not world.pod("node-proxy-a1-1").ready
