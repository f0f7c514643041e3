"""The control plane as a whole. Run as a program, this file prints the story that the golden file holds."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import testbed
from testbed.control.messages import (
    Command,
    ConfigAcked,
    ConfigRejected,
    Event,
    LeaseRenewed,
    NodeRegistered,
    PodReadinessChanged,
    PodStarted,
    PodStopped,
    ProxyConnected,
    PushConfig,
    RecordEvent,
    StartPod,
    StopPod,
)
from tests.control.world import CLUSTER, World, address, check_invariants, started

NODES = tuple(node.name for node in CLUSTER.nodes)


def told(command: Command) -> str:
    match command:
        case StartPod(node, pod):
            return f"StartPod {pod.name} on {node}"
        case StopPod(node, name):
            return f"StopPod {name} on {node}"
        case PushConfig():
            return f"PushConfig {command.proxy} {command.type_url.rpartition('.')[2]} {command.version}"
        case RecordEvent(kind, name, reason, details):
            return f"{kind} {name} {reason} {dict(details)}"


def outage() -> str:
    """Bring-up; a zone is cut off and heals; it is cut off for good, its pods are evicted, and it heals again."""
    world = World()
    lines: list[str] = []

    def act(what: str, until_s: float) -> None:
        lines.append(f"--- {what}")
        told_before = len(world.commands)
        world.run(until_s)
        lines.extend(f"{at_s:8.3f} {told(command)}" for at_s, command in world.commands[told_before:])
        lines.extend(f"not ready: {line}" for line in map(str, world.plane.not_ready()))

    act("bring-up", 10.0)
    world.cut_off = ("east-a-1", "east-a-2")
    act("east-a is cut off", 15.0)
    world.heal()
    act("east-a is back", 20.0)
    world.cut_off = ("east-a-1", "east-a-2")
    act("east-a is cut off for longer than its pods tolerate", 45.0)
    world.heal()
    act("east-a is back", 50.0)
    return "\n".join(lines) + "\n"


def test_an_outage_with_eviction_goes_as_it_went(golden: Callable[[str, str], None]) -> None:
    golden("outage.txt", outage())


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_outage_is_the_same_under_any_hash_seed(seed: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(testbed.__file__).parents[1])}
    told_s = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    assert told_s.stdout == outage()


def test_a_cluster_comes_up_and_says_so() -> None:
    world = World()
    assert str(world.plane.not_ready()[0]) == "node east-a-1: not registered"
    assert "deployment web: 0 of 3 pods created" in [*map(str, world.plane.not_ready())]
    world.run(0.2)
    waiting = "pod web-1: waiting for node east-a-2 to start it: ContainerCreating"
    assert waiting in [*map(str, world.plane.not_ready())]
    world.run(0.55)
    assert any(
        line.startswith("pod web-1: started on east-a-2, not ready") for line in map(str, world.plane.not_ready())
    )
    world.run(5.0)
    assert world.plane.all_ready(), world.plane.not_ready()
    assert [len(each.endpoints) for each in world.plane.endpoint_slices()] == [3, 3]


def test_a_cluster_is_not_up_while_a_push_is_due() -> None:
    world = World()
    world.run(0.62)
    assert all(pod.ready for pod in world.plane.pods())
    assert [*map(str, world.plane.not_ready())] == ["push of what changed last: due as soon as things are quiet"]
    world.run(0.75)
    assert world.plane.all_ready()


def test_placement_does_not_depend_on_the_order_of_registration() -> None:
    placements = []
    for nodes in (NODES, NODES[::-1]):
        plane = started()
        for at_s, node in enumerate(nodes):
            assert plane.pods() == ()
            plane.handle(NodeRegistered(node), at_s / 10)
        placements.append([(pod.name, pod.node) for pod in plane.pods()])
    assert placements[0] == placements[1]


def test_a_pod_that_nobody_wants_is_stopped() -> None:
    plane = started()
    assert plane.handle(PodStarted("east-a-1", "web-9", address("web-9")), 0.0) == [StopPod("east-a-1", "web-9")]
    assert plane.handle(PodStopped("east-a-1", "web-9"), 0.1) == []


def test_a_node_that_nobody_declares_is_not_taken_in() -> None:
    plane = started()
    assert plane.handle(NodeRegistered("east-z-1"), 0.0) == plane.handle(LeaseRenewed("east-z-1"), 0.1) == []
    assert "east-z-1" not in [node.name for node in plane.nodes()]


@pytest.mark.parametrize(
    ("told_reason", "reason"),
    [
        ("Unhealthy: Readiness probe failed: HTTP 503", "Unhealthy"),
        ("CrashLoopBackOff: back-off 10s restarting failed app, last exit code 1", "BackOff"),
        ("Error: app exited with code 1", "ContainersNotReady"),
    ],
)
def test_why_a_pod_is_not_ready_becomes_an_event_and_is_shown(told_reason: str, reason: str) -> None:
    world = World()
    world.run(5.0)
    node = next(pod.node for pod in world.plane.pods() if pod.name == "web-1")
    assert node is not None
    commands = world.plane.handle(PodReadinessChanged(node, "web-1", False, told_reason), 5.0)
    assert commands[0] == RecordEvent("Pod", "web-1", reason, {"node": node, "message": told_reason})
    assert [command.reason for command in commands if isinstance(command, RecordEvent)][1:] == [
        "NotReady",
        "EndpointsChanged",
    ]
    assert [*map(str, world.plane.not_ready())] == [f"pod web-1: started on {node}, not ready: {told_reason}"]


def test_a_pod_that_is_still_coming_up_is_no_event() -> None:
    world = World()
    world.run(0.55)
    node = next(pod.node for pod in world.plane.pods() if pod.name == "web-1")
    assert node is not None
    told_reason = "ContainersNotReady: not probed yet"
    assert world.plane.handle(PodReadinessChanged(node, "web-1", False, told_reason), 0.55) == []
    assert any(told_reason in line for line in map(str, world.plane.not_ready()))


def test_a_rejected_configuration_keeps_the_cluster_from_being_ready() -> None:
    world = World()
    world.run(5.0)
    rejected = ConfigRejected("web-1", "type.googleapis.com/envoy.config.cluster.v3.Cluster", "1", "no such field")
    (command,) = world.plane.handle(rejected, 5.0)
    assert isinstance(command, RecordEvent)
    assert (command.kind, command.reason) == ("Proxy", "ConfigRejected")
    assert [*map(str, world.plane.not_ready())] == ["pod web-1: proxy rejected Cluster: no such field"]


def test_a_lease_renewal_makes_no_work() -> None:
    world = World()
    world.run(5.0)
    deadline_s = world.plane.next_deadline()
    assert world.plane.handle(LeaseRenewed("east-a-1"), 5.01) == []
    assert world.plane.next_deadline() == deadline_s


PODS = tuple(f"{deployment.name}-{number}" for deployment in CLUSTER.deployments for number in range(1, 6))
ANY_NODE, ANY_POD = st.sampled_from(NODES), st.sampled_from(PODS)
EVENTS: st.SearchStrategy[Event | None] = st.one_of(
    st.none(),
    st.builds(NodeRegistered, ANY_NODE),
    st.builds(LeaseRenewed, ANY_NODE),
    st.builds(lambda node, pod: PodStarted(node, pod, address(pod)), ANY_NODE, ANY_POD),
    st.builds(PodReadinessChanged, ANY_NODE, ANY_POD, st.booleans(), st.just("Unhealthy: no")),
    st.builds(PodStopped, ANY_NODE, ANY_POD),
    st.builds(ProxyConnected, ANY_POD),
    st.builds(ConfigAcked, ANY_POD, st.just("t.Cluster"), st.just("1")),
    st.builds(ConfigRejected, ANY_POD, st.just("t.Cluster"), st.just("1"), st.just("error")),
)


@settings(max_examples=60, deadline=None)
@given(
    own_node=st.booleans(),
    steps=st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 0.05, 0.3, 3.0, 16.0])), max_size=60),
)
def test_any_order_of_events_keeps_the_invariants(own_node: bool, steps: list[tuple[Event | None, float]]) -> None:
    plane = started()
    for node in NODES:
        plane.handle(NodeRegistered(node), 0.0)
    now = 0.0
    bound: dict[str, str] = {pod.name: pod.node for pod in plane.pods() if pod.node is not None}
    versions: Counter[tuple[str, str]] = Counter()
    for event, wait_s in steps:
        now += wait_s
        if own_node and isinstance(event, PodStarted | PodReadinessChanged | PodStopped) and event.pod in bound:
            event = replace(event, node=bound[event.pod])
        for command in plane.handle(event, now):
            if isinstance(command, PushConfig):
                versions[command.proxy, command.type_url] += 1
                assert command.version == str(versions[command.proxy, command.type_url])
        deadline_s = plane.next_deadline()
        assert deadline_s is not None
        assert deadline_s > now
        check_invariants(plane, bound)


if __name__ == "__main__":
    sys.stdout.write(outage())
