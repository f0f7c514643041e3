"""Ready pods -> one EndpointSlice for every Service (Kubernetes' EndpointSlice controller).

Owns who may receive calls. How callers spread over them is `xds`'.
"""

from __future__ import annotations

from testbed.control.messages import Command, RecordEvent
from testbed.control.objects import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.control.store import Store


def reconcile(store: Store, now: float) -> list[Command]:
    """Brings every slice up to date: ready, running pods with an address on nodes that are Ready, by pod name.

    Terminating pods are out at once, and so are pods of a node whose lease expired: long before they are evicted.
    """
    nodes = {node.name: node for node in store.list(Node)}
    endpoints: dict[str, list[Endpoint]] = {service.name: [] for service in store.list(Service)}
    for pod in store.list(Pod):
        service = pod.template.service
        if service not in endpoints or pod.node is None or pod.address is None:
            continue
        node = nodes[pod.node]
        if pod.ready and pod.phase == "Running" and node.ready == "True":
            at = pod.address.app if pod.template.mesh_mode == "none" else pod.address.inbound
            endpoints[service].append(Endpoint(pod.name, node.name, node.locality, at))
    commands: list[Command] = []
    for service, found in endpoints.items():
        change = store.put(EndpointSlice(service, tuple(sorted(found, key=lambda endpoint: endpoint.pod))))
        if change is None:
            continue
        before = [endpoint.pod for endpoint in change.old.endpoints] if change.old else []
        after = [endpoint.pod for endpoint in change.new.endpoints] if change.new else []
        details = {
            "service": service,
            "added": [pod for pod in after if pod not in before],
            "removed": [pod for pod in before if pod not in after],
            "ready": len(after),
        }
        if before or after:
            commands.append(RecordEvent("EndpointSlice", service, "EndpointsChanged", details))
    return commands
