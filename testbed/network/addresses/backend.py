"""What the rest of the testbed asks of addressing, whatever carries the packets."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Protocol

from testbed.network.wire.tunnel import Tunnel
from testbed.objects.addresses import PodAddress, SocketAddress


class NetworkBackend(Protocol):
    """Where everything listens.

    Apart from `allocate_pod`, answers depend only on how the backend was constructed, so that equal backends in
    different processes agree without talking. Every method raises KeyError for an unknown place.
    """

    def node_network(self, node: str) -> IPv4Network:
        """The block that holds all pod addresses of a node: all that a relay may connect to for it."""
        ...

    def allocate_pod(self, node: str, app_port: int) -> PodAddress:
        """Addresses for one more pod on a node; only the node's own agent asks.

        Raises ValueError for a port that a pod cannot use and AddressesExhausted when the node has no address left.
        """
        ...

    def relay_listener(self, source: str, destination: str) -> SocketAddress:
        """Where the relay of `source` takes connections to the node `destination`."""
        ...

    def service_address(self, node: str, service_index: int) -> SocketAddress:
        """The virtual address of service number `service_index` (from 0) as the pods of a node see it."""
        ...

    def replica_address(self, node: str, number: int) -> SocketAddress:
        """Where replica number `number` (from 0) of all stores, at home on that node, listens for other replicas: at
        the node's own address, as with a hostPort, so that it is known before anything runs."""
        ...

    def client_entry(self, clients_place: str, gateway_index: int) -> SocketAddress:
        """Where the relay of a clients' place takes connections to gateway number `gateway_index` (from 0)."""
        ...

    def tunnel(self, source: str, destination: str) -> Tunnel | None:
        """How the relay of `source` gets to the machine of `destination`; None where it is the same machine."""
        ...


class AddressesExhausted(Exception):
    """There are more places, pods or runs than addresses."""
