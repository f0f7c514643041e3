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

from testbed.control.views.kube_proxy import CALLER, CONNECTED, ENDPOINT, SERVICE, kube_proxy_name, read_endpoints
from testbed.network.addresses.backend import NetworkBackend
from testbed.network.wire.relay import LinkRelay
from testbed.objects.addresses import SocketAddress

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
    """Serves `services`, and those that it is told of later; `addresses` says where.

    With services, it keeps a file of connections in `log_dir`.
    """

    def __init__(self, node: str, services: Sequence[str], network: NetworkBackend, seed: int, log_dir: Path) -> None:
        self.name = kube_proxy_name(node)
        self._log_path = log_dir / f"{node}{CONNECTIONS_SUFFIX}"
        self._log: IO[bytes] | None = None
        self._node, self._network, self._seed = node, network, seed
        self._relay: LinkRelay | None = None
        self.addresses: dict[str, SocketAddress] = {}
        self.rules: dict[str, ServiceRule] = {}
        for service in services:
            self._add(service)

    def listen(self, relay: LinkRelay) -> None:
        """Raises OSError when an address is taken."""
        if self.addresses:
            # Without a buffer: what is asked for later is who was behind a connection that nobody answered.
            self._log = self._log_path.open("ab", buffering=0)
        self._relay = relay
        for service in self.addresses:
            self._open(service)

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
        """All services with their endpoints, for the connections to come; open ones stay where they are.

        A service that is there no longer has no endpoints, and has its address again if it comes back. Raises OSError
        when the address of a new one is taken.
        """
        told = dict(read_endpoints(orjson.loads(resource)) for resource in resources)
        for service in told:
            if service not in self.rules:
                self._add(service)
                self._open(service)
        for service, rule in self.rules.items():
            rule.endpoints = told.get(service, ())

    def _add(self, service: str) -> None:
        self.addresses[service] = self._network.service_address(self._node, len(self.addresses))
        self.rules[service] = ServiceRule(Random(f"{self._seed}/{self.name}/{service}"))

    def _open(self, service: str) -> None:
        if self._relay is not None:
            self._relay.open_service(self.addresses[service], partial(self.connect, service))
