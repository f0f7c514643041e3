"""A cluster in which everything comes up at once: what the control plane decides when nothing goes wrong.

Owns playing the nodes' part, without processes and without time. For what can be known of a scenario before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from testbed.control.kube_proxy import kube_proxy_name, service_endpoints
from testbed.control.manifests import manifests
from testbed.control.messages import Command, Event, NodeRegistered, PodReadinessChanged, PodStarted, StartPod
from testbed.control.objects import ClusterSpec, Pod, PodAddress, SocketAddress
from testbed.control.plane import ControlPlane
from testbed.control.xds import ConfigGenerator, served_pods

AllocatePod = Callable[[str, int], PodAddress]
"""Node and application port -> addresses of one more pod there."""
RelayListener = Callable[[str, str], SocketAddress]
"""Source and destination node -> where the relay between them listens."""


def scheduled_pods(cluster: ClusterSpec) -> tuple[Pod, ...]:
    """Every pod once all nodes have registered and none is started yet: bound to a node, or with the reason why not.

    Where pods go is decided at that moment; that some become ready changes nothing of it.
    """
    plane = ControlPlane(cluster)
    for node in cluster.nodes:
        plane.handle(NodeRegistered(node.name, ()), now=0.0)
    return plane.pods()


class UnknownProxy(Exception):
    """There is no pod of that name with a proxy, and no kube-proxy."""


class DryRun:
    """The control plane's state once every pod that found a node is ready. Pods without a node stay Pending."""

    def __init__(self, cluster: ClusterSpec, allocate_pod: AllocatePod, relay_listener: RelayListener) -> None:
        self._cluster = cluster
        self._plane = ControlPlane(cluster)
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

    def manifests(self) -> list[dict[str, Any]]:
        """Every object, in Kubernetes' and Istio's form."""
        plane = self._plane
        return manifests(self._cluster, plane.pods(), plane.nodes(), plane.endpoint_slices())

    def proxy_resources(self, name: str) -> list[Mapping[str, Any]]:
        """What one proxy is told, in push order: the Envoy of a pod, or `kube-proxy/<node>`. Raises UnknownProxy."""
        pods = {pod.name: pod for pod in self.pods() if pod.address is not None and pod.template.has_proxy}
        nodes = {node.name: node for node in self._plane.nodes()}
        slices = {each.service: each for each in self._plane.endpoint_slices()}
        kube_proxies = [kube_proxy_name(node) for node in nodes] if self._cluster.mesh_mode == "none" else []
        if name in kube_proxies:
            by_type = service_endpoints(self._cluster, nodes[name.removeprefix(kube_proxy_name(""))], slices)
        elif name in pods:
            proxy = pods[name]
            by_type = ConfigGenerator(self._cluster).resources(proxy, served_pods(proxy, self.pods()), nodes, slices)
        else:
            known = ", ".join((*pods, *kube_proxies)) or "none"
            raise UnknownProxy(f"there is no pod {name!r} with a proxy; there are {known}")
        return [resource for resources in by_type.values() for resource in resources]


def _answers(command: Command, allocate_pod: AllocatePod) -> list[Event]:
    match command:
        case StartPod(node, pod):
            address = allocate_pod(node, pod.template.port)
            return [PodStarted(node, pod.name, address), PodReadinessChanged(node, pod.name, True)]
        case _:
            return []
