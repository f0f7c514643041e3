"""A cluster in which everything comes up at once: what the control plane decides when nothing goes wrong.

Owns playing the nodes' part, without processes and without time. For what can be known of a scenario before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from testbed.control.delivery.discovery import KINDS
from testbed.control.manifests import manifests
from testbed.control.messages import Command, Event, NodeRegistered, PodReadinessChanged, PodStarted, StartPod
from testbed.control.plane import ControlPlane
from testbed.control.store import Store
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cluster import ClusterSpec
from testbed.objects.core import Pod

AllocatePod = Callable[[str, int], PodAddress]
"""Node and application port -> addresses of one more pod there."""
RelayListener = Callable[[str, str], SocketAddress]
"""Source and destination node -> where the relay between them listens."""


def scheduled_pods(cluster: ClusterSpec) -> tuple[Pod, ...]:
    """Every pod once all nodes have registered and none is started yet: bound to a node, or with the reason why not.

    Where pods go is decided at that moment; that some become ready changes nothing of it.
    """
    plane = _started(cluster)
    for node in cluster.nodes:
        plane.handle(NodeRegistered(node.name, ()), now=0.0)
    return plane.pods()


class UnknownProxy(Exception):
    """There is no pod of that name with a proxy, and no kube-proxy."""


class DryRun:
    """The control plane's state once every pod that found a node is ready. Pods without a node stay Pending."""

    def __init__(self, cluster: ClusterSpec, allocate_pod: AllocatePod, relay_listener: RelayListener) -> None:
        self._plane = _started(cluster)
        self._views = tuple(view() for view in KINDS[cluster.mesh_mode])
        names = [node.name for node in cluster.nodes]
        waiting: list[Event] = [
            NodeRegistered(name, tuple((peer, relay_listener(name, peer)) for peer in names if peer != name))
            for name in names
        ]
        while waiting:
            for command in self._plane.handle(waiting.pop(0), now=0.0):
                waiting += _answers(command, allocate_pod)

    def pods(self) -> tuple[Pod, ...]:
        return self._plane.pods()

    @property
    def store(self) -> Store:
        """For reading."""
        return self._plane.store

    def manifests(self) -> list[dict[str, Any]]:
        """Every object, in Kubernetes' and Istio's form."""
        return manifests(self._plane.store)

    def proxy_resources(self, name: str) -> list[Mapping[str, Any]]:
        """What one subscriber is told, in push order: the Envoy of a pod, or `kube-proxy/<node>`. Raises
        UnknownProxy."""
        store = self._plane.store
        known = {
            subscriber.name: (view, subscriber)
            for view in self._views
            for subscriber in view.subscribers(store)
            if subscriber.own is not None
        }
        if name not in known:
            raise UnknownProxy(f"there is no pod {name!r} with a proxy; there are {', '.join(known) or 'none'}")
        view, subscriber = known[name]
        return [resource for resources in view.resources(store, subscriber).values() for resource in resources]


def _started(cluster: ClusterSpec) -> ControlPlane:
    plane = ControlPlane(cluster.timings, cluster.mesh_mode)
    plane.apply(cluster.objects, now=0.0)
    return plane


def _answers(command: Command, allocate_pod: AllocatePod) -> list[Event]:
    match command:
        case StartPod(node, pod):
            address = allocate_pod(node, pod.template.port)
            return [PodStarted(node, pod.name, address), PodReadinessChanged(node, pod.name, True)]
        case _:
            return []
