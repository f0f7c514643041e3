"""The kube-proxy of one node: a virtual address for each service, and the endpoints behind it.

Nothing is known here of the health of endpoints but what the control plane says. Which ones a node is told is
`control.views.kube_proxy`'s, choosing among them and carrying the bytes the node's relay's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import orjson

from testbed.control.views.kube_proxy import kube_proxy_name, read_endpoints
from testbed.network.addresses.backend import NetworkBackend
from testbed.objects.addresses import SocketAddress

CONNECTIONS_SUFFIX = ".connections.jsonl"


class Card(Protocol):
    """Of the node's network card, what a kube-proxy needs."""

    async def open_services(self, name: str, log: Path, listeners: Mapping[str, SocketAddress]) -> None: ...

    async def lead(self, endpoints: Mapping[str, tuple[tuple[str, SocketAddress], ...]]) -> None: ...


class KubeProxy:
    """Serves `services`, and those that it is told of later; `addresses` says where.

    With services, connections are written down in `log_dir`.
    """

    def __init__(self, node: str, services: Sequence[str], network: NetworkBackend, card: Card, log_dir: Path) -> None:
        self.name = kube_proxy_name(node)
        self._log = log_dir / f"{node}{CONNECTIONS_SUFFIX}"
        self._node, self._network, self._card = node, network, card
        self.addresses: dict[str, SocketAddress] = {}
        self._taking = asyncio.Lock()
        for service in services:
            self._add(service)

    async def listen(self) -> None:
        """Raises OSError when an address is taken."""
        await self._card.open_services(self.name, self._log, self.addresses)

    async def take(self, resources: Iterable[bytes]) -> None:
        """All services with their endpoints, for the connections to come; open ones stay where they are.

        A service that is there no longer has no endpoints, and has its address again if it comes back. Raises OSError
        when the address of a new one is taken.
        """
        told = dict(read_endpoints(orjson.loads(resource)) for resource in resources)
        async with self._taking:
            new = {service: self._add(service) for service in told if service not in self.addresses}
            await self._card.open_services(self.name, self._log, new)
            await self._card.lead(told)

    def _add(self, service: str) -> SocketAddress:
        self.addresses[service] = self._network.service_address(self._node, len(self.addresses))
        return self.addresses[service]
