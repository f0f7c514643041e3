"""Ready pods -> one EndpointSlice for every Service with a selector (Kubernetes' EndpointSlice controller).

Owns who may receive calls. How callers spread over them is `xds`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from testbed.control.messages import Command, RecordEvent
from testbed.control.store import Change, Store
from testbed.objects.cells import CELL
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.metadata import Labels, selects


def reconcile(store: Store, now: float) -> list[Command]:
    """Brings every slice up to date: ready, running pods with an address on nodes that are Ready, by pod name.

    Terminating pods are out at once, and so are pods of a node whose lease expired: long before they are evicted.
    """
    serving: dict[tuple[str, Labels], list[Endpoint]] = {}
    nodes = {node.name: node for node in store.list(Node)}
    for pod in store.list(Pod):
        if (endpoint := _endpoint(pod, nodes)) is not None:
            serving.setdefault((pod.namespace, pod.template.labels), []).append(endpoint)
    services = {service.host: service for service in store.list(Service) if service.selector}
    changes: list[Change[EndpointSlice] | None] = []
    for service in services.values():
        found = [
            endpoint
            for (namespace, labels), endpoints in serving.items()
            if namespace == service.namespace and selects(service.selector, labels)
            for endpoint in endpoints
        ]
        ordered = tuple(sorted(found, key=lambda endpoint: endpoint.pod))
        changes.append(store.put(EndpointSlice(service.name, ordered, service.namespace)))
    changes += [
        store.delete(EndpointSlice, each.service, each.namespace)
        for each in store.list(EndpointSlice)
        if each.host not in services
    ]
    return [command for change in changes if change is not None for command in _told(change)]


def _endpoint(pod: Pod, nodes: Mapping[str, Node]) -> Endpoint | None:
    """Where the pod takes calls; None while it does not."""
    if pod.node is None or pod.address is None or not pod.ready or pod.phase != "Running":
        return None
    node = nodes[pod.node]
    if node.ready != "True":
        return None
    at = pod.address.app if pod.template.mesh_mode == "none" else pod.address.inbound
    labels = pod.template.extra_labels
    # A pod in a cell lies in a sub-zone of its own, whichever node it shares with pods of others.
    cell = dict(labels).get(CELL, node.locality.subzone)
    return Endpoint(pod.name, node.name, replace(node.locality, subzone=cell), at, labels)


def _told(change: Change[EndpointSlice]) -> list[Command]:
    before = [endpoint.pod for endpoint in change.old.endpoints] if change.old else []
    after = [endpoint.pod for endpoint in change.new.endpoints] if change.new else []
    if not before and not after:
        return []
    host = (change.new or change.old).host  # type: ignore[union-attr]
    details = {
        "service": host,
        "added": [pod for pod in after if pod not in before],
        "removed": [pod for pod in before if pod not in after],
        "ready": len(after),
    }
    return [RecordEvent("EndpointSlice", host, "EndpointsChanged", details)]
