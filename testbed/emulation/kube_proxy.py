"""The kube-proxy of one node: a virtual address for each service, and the endpoints behind it.

Each connection goes to an endpoint at random and stays there (Kubernetes, "Virtual IPs and service proxies"). Nothing
is known here of the health of endpoints but what the control plane says. Which ones a node is told is
`control.kube_proxy`'s, carrying the bytes the node's relay's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import orjson

from testbed.control.kube_proxy import kube_proxy_name, read_endpoints
from testbed.control.objects import SocketAddress
from testbed.network.backend import NetworkBackend
from testbed.network.relay import LinkRelay

Endpoints = tuple[tuple[str, SocketAddress], ...]


class ServiceRule:
    """What becomes of connections to one service. Endpoints may be replaced from another thread."""

    def __init__(self, random: Random) -> None:
        self.endpoints: Endpoints = ()
        self._random = random

    def choose(self) -> tuple[str, SocketAddress] | None:
        """Node and address for one connection; None while the service has no endpoint."""
        endpoints = self.endpoints
        return self._random.choice(endpoints) if endpoints else None


class KubeProxy:
    """Serves `services`; `addresses` says where."""

    def __init__(self, node: str, services: Sequence[str], network: NetworkBackend, seed: int) -> None:
        self.name = kube_proxy_name(node)
        self.addresses = {service: network.service_address(node, index) for index, service in enumerate(services)}
        self.rules = {service: ServiceRule(Random(f"{seed}/{self.name}/{service}")) for service in services}

    def listen(self, relay: LinkRelay) -> None:
        """Raises OSError when an address is taken."""
        for service, address in self.addresses.items():
            relay.open_service(address, self.rules[service].choose)

    def take(self, resources: Iterable[bytes]) -> None:
        """New endpoints of all services, for the connections to come; open ones stay where they are."""
        for resource in resources:
            service, endpoints = read_endpoints(orjson.loads(resource))
            self.rules[service].endpoints = endpoints
