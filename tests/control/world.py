"""A small cluster in virtual time, with kubelets and proxies that do as they are told."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from testbed.control.messages import (
    Command,
    ConfigAcked,
    Delete,
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
from testbed.control.plane import ControlPlane
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cluster import ClusterSpec, Declared
from testbed.objects.core import Node, Pod, Service
from testbed.objects.mesh import Gateway, HttpRoute, VirtualService
from testbed.objects.metadata import selects
from testbed.objects.places import Locality
from testbed.objects.timings import Timings
from testbed.objects.workloads import BuiltinWorkload, Deployment, PodTemplate

ZONES = ("east-a", "east-b", "east-c")
WEB = PodTemplate("web", BuiltinWorkload(stages=(("orders",),)))
ORDERS = PodTemplate("orders", BuiltinWorkload())
GATEWAY = PodTemplate(
    "gateway",
    None,
    role="gateway",
    max_skew=None,
    zones=("east-a",),
    extra_labels=(("istio", "gateway"),),
)
CLUSTER = ClusterSpec(
    objects=(
        *(Node(f"{zone}-{number}", Locality("east", zone)) for zone in ZONES for number in (1, 2)),
        Deployment("gateway-east-a", 1, GATEWAY),
        Deployment("web", 3, replace(WEB, max_skew=2)),
        Deployment("orders", 3, ORDERS),
        Service("web", selector=(("app", "web"),)),
        Service("orders", selector=(("app", "orders"),)),
        Gateway("gateway", (("istio", "gateway"),)),
        VirtualService("gateway", ("*",), (HttpRoute("web"),), gateways=("gateway",)),
    ),
    timings=Timings(
        lease_renew_s=0.5,
        lease_grace_s=2.0,
        node_monitor_s=0.25,
        unreachable_toleration_s=15.0,
        eviction_rate_per_s=2.0,
    ),
)


def started(cluster: ClusterSpec = CLUSTER, clients: Sequence[str] = ()) -> ControlPlane:
    plane = ControlPlane(cluster.timings, cluster.mesh_mode, clients)
    plane.apply(cluster.objects, 0.0)
    return plane


def address(pod: str) -> PodAddress:
    ip = f"127.20.{len(pod)}.{sum(map(ord, pod)) % 250 + 1}"
    return PodAddress(SocketAddress(ip, 8080), SocketAddress(ip, 15006), SocketAddress(ip, 15001))


class World:
    """Well-behaved kubelets and proxies around a control plane, in virtual time.

    A cut-off node runs on; what it and the control plane say to each other arrives when it is back.
    """

    def __init__(self, cluster: ClusterSpec = CLUSTER, clients: Sequence[str] = ()) -> None:
        self.plane = started(cluster, clients)
        self.timings = cluster.timings
        self.now = 0.0
        self.commands: list[tuple[float, Command]] = []
        self.cut_off: tuple[str, ...] = ()
        self.mute: tuple[str, ...] = ()
        """Services whose new pods do not become ready."""
        self._held: list[tuple[str, Event | Command]] = []
        self._queue: list[tuple[float, int, str, Event | Command]] = []
        self._count = 0
        for node in cluster.nodes:
            self.boot(node.name)
        for name in clients:
            self.connect(name, name)

    def run(self, until_s: float) -> None:
        while True:
            deadline_s = self.plane.next_deadline()
            assert deadline_s is None or deadline_s >= self.now
            event_s = self._queue[0][0] if self._queue else until_s + 1
            step_s = event_s if deadline_s is None else min(deadline_s, event_s)
            if step_s > until_s:
                self.now = until_s
                return
            self.now = step_s
            if event_s > step_s:
                self._carry_out(self.plane.handle(None, self.now))
            else:
                _, _, node, message = heapq.heappop(self._queue)
                self._arrive(node, message)

    def apply(self, *objects: Declared) -> list[Command]:
        return self._carry_out(self.plane.apply(objects, self.now))

    def delete(self, kind: type[Declared] | type[Pod], name: str) -> list[Command]:
        return self._carry_out(self.plane.handle(Delete(kind, name), self.now))

    def boot(self, node: str) -> None:
        self._later(0.0, node, NodeRegistered(node))
        self._later(self.timings.lease_renew_s, node, LeaseRenewed(node))

    def connect(self, subscriber: str, place: str) -> None:
        self._later(0.1, place, ProxyConnected(subscriber))

    def heal(self) -> None:
        held, self._held, self.cut_off = self._held, [], ()
        for node, message in held:
            self._arrive(node, message)

    def _later(self, wait_s: float, node: str, message: Event | Command) -> None:
        self._count += 1
        heapq.heappush(self._queue, (round(self.now + wait_s, 6), self._count, node, message))

    def _arrive(self, node: str, message: Event | Command) -> None:
        if isinstance(message, LeaseRenewed):
            self._later(self.timings.lease_renew_s, node, message)
            if node in self.cut_off:
                return
        if node in self.cut_off:
            self._held.append((node, message))
        elif isinstance(message, StartPod | StopPod | PushConfig):
            self._obey(message)
        elif not isinstance(message, RecordEvent):
            self._carry_out(self.plane.handle(message, self.now))

    def _carry_out(self, commands: list[Command]) -> list[Command]:
        for command in commands:
            self.commands.append((self.now, command))
            if not isinstance(command, RecordEvent):
                place = command.place if isinstance(command, PushConfig) else command.node
                self._later(0.001, place, command)
        return commands

    def _obey(self, command: StartPod | StopPod | PushConfig) -> None:
        match command:
            case StartPod(node, pod):
                self._later(0.4, node, ProxyConnected(pod.name))
                self._later(0.5, node, PodStarted(node, pod.name, address(pod.name)))
                if pod.template.service not in self.mute:
                    self._later(0.6, node, PodReadinessChanged(node, pod.name, True))
            case StopPod(node, pod_name):
                self._later(0.1, node, PodStopped(node, pod_name))
            case PushConfig(place, proxy, type_url, version):
                self._later(0.002, place, ConfigAcked(proxy, type_url, version))


def check_invariants(plane: ControlPlane, bound: dict[str, str]) -> None:
    """What holds after every event, once pods were created at all; `bound` remembers where pods were seen."""
    pods = {pod.name: pod for pod in plane.pods()}
    nodes = {node.name: node for node in plane.nodes()}
    deployments = {each.name: each for each in plane.store.list(Deployment)}
    alive = [pod for pod in pods.values() if pod.phase != "Terminating"]
    assert {pod.deployment for pod in alive} <= set(deployments)
    for name, deployment in deployments.items():
        own = [pod for pod in alive if pod.deployment == name]
        if any(pod.template != deployment.template for pod in own):
            assert len(own) <= deployment.replicas + ceil(deployment.replicas / 4), "no more than the surge allows"
        else:
            assert len(own) == deployment.replicas
    for pod in pods.values():
        if pod.node is not None:
            assert bound.setdefault(pod.name, pod.node) == pod.node, "a pod never moves"
            assert pod.node in nodes
    services = {service.name: service for service in plane.store.list(Service)}
    slices = {each.service: each.endpoints for each in plane.endpoint_slices()}
    assert set(slices) == set(services)
    for name, endpoints in slices.items():
        for endpoint in endpoints:
            pod = pods[endpoint.pod]
            assert selects(services[name].selector, pod.template.labels)
            assert (pod.node, pod.ready, pod.phase) == (endpoint.node, True, "Running")
            assert nodes[endpoint.node].ready == "True"
        serving = [p for p in pods.values() if p.ready and selects(services[name].selector, p.template.labels)]
        assert len(endpoints) == len(serving)
    assert plane.all_ready() == (not plane.not_ready())


def up(cluster: ClusterSpec = CLUSTER) -> World:
    world = World(cluster)
    world.run(5.0)
    assert world.plane.all_ready(), world.plane.not_ready()
    return world
