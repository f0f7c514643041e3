"""What clients know of gateways, and of routers where there are any: where each of them listens, ready or not.

What registers the targets of a load balancer or of DNS would tell it. Which of them are healthy is found out by checks
from outside, in `control.entry`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from testbed.control.delivery.subscribers import Resources, Subscriber
from testbed.control.store import Store
from testbed.control.views.kube_proxy import ENDPOINT_SLICE, told_endpoints
from testbed.objects.core import Endpoint, Node, Pod
from testbed.objects.places import CLIENTS
from testbed.objects.workloads import GATEWAY, ROUTER

_ROLES = {"gateway": GATEWAY, "router": ROUTER}
"""Those of pods that clients call, and the service that each is told as."""


class EntryTables:
    """The clients of some zones, each at its place `clients/<zone>`, whose name it has as well."""

    prefix = CLIENTS

    def __init__(self, clients: Iterable[str]) -> None:
        self._clients = tuple(clients)

    def subscribers(self, store: Store) -> Iterable[Subscriber]:
        return (Subscriber(name, name) for name in self._clients)

    def revision(self, store: Store) -> Hashable:
        return tuple(_of_role(store, role) for role in _ROLES)

    def resources(self, store: Store, subscriber: Subscriber) -> Resources:
        # Slices that are read with `kube_proxy.read_endpoints`.
        found = {service: _of_role(store, role) for role, service in _ROLES.items()}
        slices = (told_endpoints(name, endpoints) for name, endpoints in found.items() if endpoints or name == GATEWAY)
        return {ENDPOINT_SLICE: tuple(slices)}


def _of_role(store: Store, role: str) -> tuple[Endpoint, ...]:
    """In the order of their creation. Also those that are not ready (publishNotReadyAddresses)."""
    return tuple(
        Endpoint(pod.name, node.name, node.locality, pod.address.app)
        for pod in store.list(Pod)
        if pod.template.role == role and pod.address is not None and pod.node is not None
        for node in [store.get(Node, pod.node)]
    )
