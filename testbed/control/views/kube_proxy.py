"""What kube-proxy knows on a node: for every service, the endpoints that its connections may go to.

Owns which endpoints those are, the form in which a node is told, and the names in the lines that a kube-proxy writes
about connections. It keeps no health of its own and repeats nothing; the choice among the endpoints, at random for
each connection, is `emulation.processes.kube_proxy`'s.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Final

from testbed.control.delivery.subscribers import Resources, Subscriber
from testbed.control.store import Store
from testbed.control.views.envoy.envoy_api import TYPES
from testbed.objects.addresses import SocketAddress
from testbed.objects.core import Endpoint, EndpointSlice, Node, Service

ENDPOINT_SLICE: Final = TYPES + "k8s.io.api.discovery.v1.EndpointSlice"

CONNECTED: Final = "connected"
"""A line for each connection: when it came, in seconds since the epoch as a string."""
CALLER: Final = "caller"
"""Where it came from, `ip:port`: what `access_log.CALLER` has of the calls that it carried."""
SERVICE: Final = "service"
ENDPOINT: Final = "endpoint"
"""Where it was led, `ip:port`; null where the service had no endpoint."""

_PREFIX: Final = "kube-proxy/"


def kube_proxy_name(node: str) -> str:
    return _PREFIX + node


def node_of_kube_proxy(name: str) -> str:
    """Empty for any other name."""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""


class KubeProxies:
    """The kube-proxies of all nodes. Of every service they are told one resource, also of one without endpoints."""

    prefix = _PREFIX

    def subscribers(self, store: Store) -> Iterable[Subscriber]:
        return (Subscriber(kube_proxy_name(node.name), node.name) for node in store.list(Node))

    def revision(self, store: Store) -> Hashable:
        return store.kind_version(Service), store.kind_version(EndpointSlice)

    def resources(self, store: Store, subscriber: Subscriber) -> Resources:
        node = store.get(Node, subscriber.place)
        return {ENDPOINT_SLICE: tuple(self._told(store, service, node) for service in store.list(Service))}

    def _told(self, store: Store, service: Service, node: Node) -> dict[str, Any]:
        found = store.find(EndpointSlice, service.name, service.namespace)
        endpoints = () if found is None else found.endpoints
        return told_endpoints(service.host, reachable(endpoints, node, service.traffic_distribution))


def reachable(endpoints: Sequence[Endpoint], node: Node, distribution: str | None) -> tuple[Endpoint, ...]:
    """The endpoints that a node's connections to a service are spread over.

    PreferSameNode keeps to the node, then to the zone; PreferSameZone to the zone; where there is no endpoint, all of
    them serve. Source: Kubernetes, pkg/proxy/topology.go (CategorizeEndpoints), and the hints of
    k8s.io/endpointslice/trafficdist.
    """
    on_node = tuple(endpoint for endpoint in endpoints if endpoint.node == node.name)
    in_zone = tuple(endpoint for endpoint in endpoints if endpoint.locality.zone == node.locality.zone)
    if distribution == "PreferSameNode" and on_node:
        return on_node
    if distribution is not None and in_zone:
        return in_zone
    return tuple(endpoints)


def read_endpoints(resource: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, SocketAddress], ...]]:
    """One of these resources: the service, and for each endpoint its node and where to connect."""
    endpoints = ((each["node"], SocketAddress(each["ip"], each["port"])) for each in resource["endpoints"])
    return resource["service"], tuple(endpoints)


def told_endpoints(service: str, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The resource that `read_endpoints` reads."""
    return {
        "@type": ENDPOINT_SLICE,
        "service": service,
        "endpoints": [
            {"pod": each.pod, "node": each.node, "ip": each.address.ip, "port": each.address.port} for each in endpoints
        ],
    }
