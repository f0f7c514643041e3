"""What Envoys know: the proxies of pods, of nodes and of gateways.

Owns who they are, whose calls each of them carries, and which rules it goes by. The form is `xds`'.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from testbed.control.delivery.subscribers import Resources, Subscriber
from testbed.control.mesh.traffic import ingress_traffic, mesh_traffic
from testbed.control.store import Store
from testbed.control.views.envoy.xds import ConfigGenerator, served_pods
from testbed.objects.cells import PartitionMap
from testbed.objects.cluster import Declared
from testbed.objects.core import EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import DestinationRule, Gateway, Ingress, VirtualService

_TRAFFIC: Final[tuple[type[Declared], ...]] = (Service, DestinationRule, VirtualService, Gateway, Ingress, PartitionMap)
"""The kinds of objects that `mesh.traffic` reads."""


class Proxies:
    """All pods with a proxy, each by the name of its pod. A gateway without a mesh goes by Ingresses."""

    prefix = ""

    def __init__(self) -> None:
        self._generators: dict[bool, tuple[tuple[object, ...], ConfigGenerator]] = {}

    def subscribers(self, store: Store) -> Iterable[Subscriber]:
        pods = store.list(Pod)
        on_node: dict[str, list[Pod]] = {}
        for pod in pods:
            if pod.node is not None and pod.template.mesh_mode == "node":
                on_node.setdefault(pod.node, []).append(pod)
        for pod in pods:
            if pod.node is None or not pod.template.has_proxy:
                continue
            own: Hashable | None = pod.address
            if own is not None and pod.template.role == "node-proxy":
                own = tuple((each.name, each.address) for each in served_pods(pod, on_node.get(pod.node, ())))
            yield Subscriber(pod.name, pod.node, own)

    def revision(self, store: Store) -> Hashable:
        """Leases and readiness alone change nothing that a proxy is told."""
        relays = tuple(node.relays for node in store.list(Node))
        return store.kind_version(EndpointSlice), relays, *map(store.kind_version, _TRAFFIC)

    def resources(self, store: Store, subscriber: Subscriber) -> Resources:
        proxy = store.get(Pod, subscriber.name)
        served = served_pods(proxy, store.list(Pod))
        nodes = {each.name: each for each in store.list(Node)}
        slices = {each.host: each for each in store.list(EndpointSlice)}
        return self._generator(store, meshed=proxy.template.mesh_mode != "none").resources(proxy, served, nodes, slices)

    def _generator(self, store: Store, *, meshed: bool) -> ConfigGenerator:
        """The last one as long as it is the right one, for all that it has made already."""
        made_from = tuple(store.list(kind) for kind in _TRAFFIC)
        if meshed not in self._generators or self._generators[meshed][0] != made_from:
            traffic = mesh_traffic(store) if meshed else ingress_traffic(store)
            self._generators[meshed] = made_from, ConfigGenerator(traffic)
        return self._generators[meshed][1]
