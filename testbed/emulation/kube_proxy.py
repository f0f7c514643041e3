"""The kube-proxy of one node: a virtual address for each service, and the endpoints behind it.

Each connection goes to an endpoint at random and stays there (Kubernetes, "Virtual IPs and service proxies"). Nothing
is known here of the health of endpoints but what the control plane says. Which ones a node is told is
`control.views.kube_proxy`'s, carrying the bytes the node's relay's.

Nobody at either end knows of the choice, so each is written down, as conntrack would know it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import IO

import orjson

from testbed.control.objects import SocketAddress
from testbed.control.views.kube_proxy import CALLER, CONNECTED, ENDPOINT, SERVICE, kube_proxy_name, read_endpoints
from testbed.network.backend import NetworkBackend
from testbed.network.relay import LinkRelay

CONNECTIONS_SUFFIX = ".connections.jsonl"

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
    """Serves `services`; `addresses` says where. With services, it keeps a file of connections in `log_dir`."""

    def __init__(self, node: str, services: Sequence[str], network: NetworkBackend, seed: int, log_dir: Path) -> None:
        self.name = kube_proxy_name(node)
        self._log_path = log_dir / f"{node}{CONNECTIONS_SUFFIX}"
        self._log: IO[bytes] | None = None
        self.addresses = {service: network.service_address(node, index) for index, service in enumerate(services)}
        self.rules = {service: ServiceRule(Random(f"{seed}/{self.name}/{service}")) for service in services}

    def listen(self, relay: LinkRelay) -> None:
        """Raises OSError when an address is taken."""
        if self.addresses:
            # Without a buffer: what is asked for later is who was behind a connection that nobody answered.
            self._log = self._log_path.open("ab", buffering=0)
        for service, address in self.addresses.items():
            relay.open_service(address, partial(self.connect, service))

    def connect(self, service: str, caller: SocketAddress) -> tuple[str, SocketAddress] | None:
        """Choose for a connection that has just come from `caller`, and write it down."""
        chosen = self.rules[service].choose()
        if self._log is not None:
            line = {
                CONNECTED: f"{time.time():.6f}",
                CALLER: str(caller),
                SERVICE: service,
                ENDPOINT: None if chosen is None else str(chosen[1]),
            }
            self._log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        return chosen

    def close(self) -> None:
        """Write no more; the relay must have stopped."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def take(self, resources: Iterable[bytes]) -> None:
        """New endpoints of all services, for the connections to come; open ones stay where they are."""
        for resource in resources:
            service, endpoints = read_endpoints(orjson.loads(resource))
            self.rules[service].endpoints = endpoints
