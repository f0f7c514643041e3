"""A control plane that is lost and made anew, of what its log holds and of what nodes list again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.control.messages import (
    Command,
    ConfigAcked,
    Event,
    LeaseRenewed,
    NodeRegistered,
    PodListed,
    PodReadinessChanged,
    PodStarted,
    PodStopped,
    ProxyConnected,
    PushConfig,
    RecordEvent,
    StartPod,
    StopPod,
)
from testbed.control.plane import ControlPlane
from testbed.control.store import Store, Writes
from testbed.objects.core import Node, Pod
from testbed.objects.workloads import Deployment
from tests.control.world import CLUSTER, WEB, World, address, check_invariants

GRACE_S = CLUSTER.timings.lease_grace_s


class Losing(World):
    """A world whose control plane can be lost. Its nodes remember what they run and were told, as real ones do."""

    def __init__(self) -> None:
        self.log: list[Writes] = []
        self.lost = False
        self.there: dict[str, dict[str, PodListed]] = {node.name: {} for node in CLUSTER.nodes}
        self.held: set[str] = set()
        self.streams: dict[tuple[str, str], dict[str, int]] = {}
        """By node and proxy, the versions that it was sent last."""
        super().__init__()
        self.log.append(self.plane.store.take_writes())

    def lose(self) -> None:
        """What it has said is on its way; what is said to it is lost."""
        self.lost = True

    def recover(self) -> list[Command]:
        """From the log; then every node lists what is there. Returns what follows from that."""
        store = Store()
        for writes in self.log:
            store.redo(writes)
        self.lost = False
        self.plane = ControlPlane(self.timings, CLUSTER.mesh_mode, (), store)
        told = self._carry_out(self.plane.resume(self.now))
        for node in self.there:
            if node not in self.cut_off:
                told += self.list_again(node)
        return told

    def list_again(self, node: str) -> list[Command]:
        pods = tuple(self.there[node].values())
        told = self._say(NodeRegistered(node, pods=pods, booted=False))
        for (at, proxy), versions in self.streams.items():
            if at == node:
                told += self._say(ProxyConnected(proxy, tuple(versions.items())))
        return told

    def run(self, until_s: float) -> None:
        if not self.lost:
            return super().run(until_s)
        # A dead control plane has no deadlines.
        plane, self.plane = self.plane, _Dead(self.plane)  # type: ignore[assignment]
        try:
            super().run(until_s)
        finally:
            self.plane = plane

    def _say(self, event: Event) -> list[Command]:
        return self._carry_out(self.plane.handle(event, self.now))

    def _arrive(self, node: str, message: Event | Command) -> None:
        self._note(node, message)
        super()._arrive(node, message)

    def _carry_out(self, commands: list[Command]) -> list[Command]:
        self.log.append(self.plane.store.take_writes())
        return super()._carry_out(commands)

    def _note(self, place: str, message: Event | Command) -> None:
        match message:
            case PodStarted(node, pod, at, restarts):
                self.there[node][pod] = PodListed(pod, at, restarts, False)
            case PodReadinessChanged(node, pod, ready, reason) if pod in self.there[node]:
                self.there[node][pod] = replace(self.there[node][pod], ready=ready, reason=reason)
            case PodStopped(node, pod):
                self.there[node].pop(pod, None)
                self.streams.pop((node, pod), None)
            case ProxyConnected(proxy):
                self.streams.setdefault((place, proxy), {})
            case PushConfig(_, proxy, type_url, version) if (place, proxy) in self.streams:
                self.streams[place, proxy][type_url] = int(version)

    def _obey(self, command: StartPod | StopPod | PushConfig) -> None:
        if isinstance(command, StartPod):
            if command.pod.name in self.held:
                return
            self.held.add(command.pod.name)
        super()._obey(command)


class _Dead:
    def __init__(self, plane: ControlPlane) -> None:
        self.store = plane.store

    def next_deadline(self) -> None:
        return None

    def handle(self, event: Event | None, now: float) -> list[Command]:
        return []


def state(plane: ControlPlane) -> Any:
    """All that is in its store, but for when leases were renewed."""
    writes = plane.store.everything()
    return [
        (key, replace(each, lease_renewed_s=0.0) if isinstance(each, Node) else each) for _, key, each in writes.objects
    ], dict(writes.generated)


def events(commands: list[Command]) -> list[str]:
    return [f"{each.kind} {each.object} {each.reason}" for each in commands if isinstance(each, RecordEvent)]


def last_pushed(commands: list[tuple[float, Command]]) -> Mapping[tuple[str, str], PushConfig]:
    pushes = (each for _, each in commands if isinstance(each, PushConfig))
    return {(each.proxy, each.type_url): each for each in pushes}


def up() -> Losing:
    world = Losing()
    world.run(10.0)
    assert world.plane.all_ready()
    return world


def test_a_control_plane_that_is_made_of_its_log_and_of_what_nodes_list_is_the_one_that_was_lost() -> None:
    world = up()
    before, pushed = state(world.plane), last_pushed(world.commands)
    world.lose()
    world.run(11.0)
    told_before = len(world.commands)
    told = world.recover()
    assert state(world.plane) == before
    assert events(told) == [f"Proxy {pod.name} Connected" for node in world.there for pod in world.there[node].values()]
    world.run(13.0)
    assert state(world.plane) == before
    assert world.plane.all_ready(), world.plane.not_ready()
    again = last_pushed(world.commands[told_before:])
    assert again.keys() == pushed.keys(), "proxies are told everything again, as by istiod"
    for what, push in again.items():
        assert push.resources == pushed[what].resources
        assert int(push.version) == int(pushed[what].version) + 1


def test_no_node_is_given_up_before_it_had_its_time_to_report_again() -> None:
    world = up()
    world.lose()
    world.run(10.0 + 10 * GRACE_S)
    world.recover()
    world.run(world.now + 10.0)
    assert not [each for _, each in world.commands if isinstance(each, RecordEvent) and "NotReady" in each.reason]
    assert world.plane.all_ready()


def test_a_node_that_was_lost_meanwhile_is_given_up_a_lease_after_the_control_plane_is_back() -> None:
    world = up()
    world.lose()
    world.cut_off = ("east-a-1",)
    world.run(10.0 + 10 * GRACE_S)
    recovered_s = world.now
    world.recover()
    world.run(recovered_s + GRACE_S)
    assert world.plane.all_ready() or all(node.ready == "True" for node in world.plane.nodes())
    world.run(recovered_s + GRACE_S + 2 * world.timings.node_monitor_s)
    assert [node.name for node in world.plane.nodes() if node.ready != "True"] == ["east-a-1"]


def test_what_changed_on_nodes_while_nobody_listened_is_in_what_they_list() -> None:
    world = up()
    world.lose()
    (node, ill), *_ = [(node, name) for node, pods in world.there.items() for name in pods if name.startswith("web")]
    world.there[node][ill] = replace(world.there[node][ill], ready=False, reason="Unhealthy: HTTP 503", restarts=2)
    told = world.recover()
    pod = world.plane.store.get(Pod, ill)
    assert (pod.ready, pod.restarts, pod.phase, pod.reason) == (False, 2, "Running", "Unhealthy: HTTP 503")
    assert "EndpointSlice web EndpointsChanged" in " ".join(events(told)).replace(".default.svc.cluster.local", "")


def test_a_pod_that_its_node_does_not_list_does_not_run_and_one_that_nobody_knows_is_stopped() -> None:
    world = up()
    (node, gone), *_ = [(node, name) for node, pods in world.there.items() for name in pods if name.startswith("web")]
    unknown = PodListed("web-77", address("web-77"), 0, True)
    pods = (*(pod for name, pod in world.there[node].items() if name != gone), unknown)
    told = world.plane.handle(NodeRegistered(node, pods=pods, booted=False), world.now)
    assert StopPod(node, "web-77") in told
    pod = world.plane.store.get(Pod, gone)
    assert (pod.phase, pod.ready, pod.address) == ("Pending", False, None)
    assert StartPod(node, replace(pod, containers_ready=False)) in told


@settings(max_examples=20, deadline=None)
@given(
    lost_s=st.floats(0.0, 12.0),
    down_s=st.floats(0.0, 6.0),
    scaled=st.sampled_from([None, 1, 5]),
)
def test_whenever_it_is_lost_what_it_has_decided_stays_decided_and_all_comes_up(
    lost_s: float, down_s: float, scaled: int | None
) -> None:
    world = Losing()
    world.run(max(0.0, lost_s - 0.3))
    if scaled is not None:
        world.apply(Deployment("web", scaled, replace(WEB, max_skew=2)))
    world.run(lost_s)
    named = {pod.name: pod.node for pod in world.plane.pods()}
    before = state(world.plane)
    world.lose()
    world.run(world.now + down_s)
    world.recover()
    assert {pod.name for pod in world.plane.pods()} >= {name for name in named if named[name] is None}
    for pod in world.plane.pods():
        assert named.get(pod.name) in (None, pod.node), "a pod never moves"
    assert state(world.plane)[1].keys() >= before[1].keys()
    world.run(world.now + 25.0)
    check_invariants(world.plane, {})
    assert world.plane.all_ready(), world.plane.not_ready()
    started = [each.pod.name for _, each in world.commands if isinstance(each, StartPod)]
    assert len({name.partition("-")[0] for name in started}) == 3


@pytest.mark.parametrize("event", [LeaseRenewed("east-a-1"), ConfigAcked("web-1", "type", "1")])
def test_heartbeats_and_acknowledgements_are_not_in_the_log(event: Event) -> None:
    world = up()
    world.plane.store.take_writes()
    world.plane.handle(event, world.now)
    assert not world.plane.store.take_writes()
