"""Addresses of a run on one machine, without root: every run has a /16 of 127.0.0.0/8, every place a /24 of that.

Owns the numbering and the lock on a block. Nothing here moves a byte.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network
from types import TracebackType

from testbed.network.addresses.backend import AddressesExhausted
from testbed.network.wire.tunnel import Tunnel
from testbed.objects.addresses import PodAddress, SocketAddress

# Istio's ports for captured traffic.
INBOUND_PORT = 15006
OUTBOUND_PORT = 15001

# Below the ephemeral ports (32768 and up), which the kernel may give to any connection on these addresses.
_RELAY_PORT = 20000
_CLIENT_ENTRY_PORT = 22000
_SERVICE_PORT = 24000
_REPLICA_PORT = 26000
_LOCK_PORT = 15999
_PLACES_MAX = 250
_GATEWAYS_MAX = 1000
_SERVICES_MAX = 1000
_REPLICAS_MAX = 1000
_FIRST_POD, _LAST_POD = 2, 250


NO_FREE_BLOCK = (
    f"no free block 127.X.0.0/16: each of 127.1.255.254:{_LOCK_PORT} .. 127.254.255.254:{_LOCK_PORT} is taken, "
    "by other runs or by a program that listens on this port on all addresses"
)


def candidates() -> list[int]:
    """Second octets in the order in which a run should try them."""
    # 127.0.0.0/16 belongs to localhost. Starting by pid makes parallel runs meet rarely.
    return [1 + (os.getpid() + offset) % 254 for offset in range(254)]


class LoopbackBlock:
    """127.X.0.0/16, held for one run against all others on the machine for as long as this process lives."""

    def __init__(self, second_octet: int, lock: socket.socket) -> None:
        self.second_octet = second_octet
        self._lock = lock

    @classmethod
    def take(cls, second_octet: int) -> LoopbackBlock | None:
        """This very block, or None when it is taken."""
        lock = socket.socket()
        try:
            lock.bind((f"127.{second_octet}.255.254", _LOCK_PORT))
        except OSError:
            lock.close()
            return None
        return cls(second_octet, lock)

    @classmethod
    def reserve(cls) -> LoopbackBlock:
        """Take a free block. Raises AddressesExhausted when 254 runs hold one each."""
        for second_octet in candidates():
            block = cls.take(second_octet)
            if block is not None:
                return block
        raise AddressesExhausted(NO_FREE_BLOCK)

    def release(self) -> None:
        """Let others have the block. May be called twice."""
        self._lock.close()

    def __enter__(self) -> LoopbackBlock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class LoopbackNetwork:
    """The NetworkBackend of one machine: place number i has 127.X.i.0/24, its relay .1 and its pods .2 to .250.

    Picklable and a function of its arguments: agents in other processes construct the same. Raises
    AddressesExhausted for more than 250 places.
    """

    def __init__(self, second_octet: int, places: Iterable[str]) -> None:
        self._second_octet = second_octet
        self._index = {place: index for index, place in enumerate(places)}
        self._next_pod = dict.fromkeys(self._index, _FIRST_POD)
        if len(self._index) > _PLACES_MAX:
            raise AddressesExhausted(
                f"{len(self._index)} places (nodes, client zones and control planes) on one machine: "
                f"at most {_PLACES_MAX} fit, one /24 of 127.{second_octet}.0.0/16 each"
            )

    def node_network(self, node: str) -> IPv4Network:
        return IPv4Network(self._address(node, 0) + "/24")

    def allocate_pod(self, node: str, app_port: int) -> PodAddress:
        if app_port in (INBOUND_PORT, OUTBOUND_PORT):
            raise ValueError(
                f"port {app_port} of a service is the sidecar's own "
                f"({INBOUND_PORT} inbound, {OUTBOUND_PORT} outbound): give the service another `port`"
            )
        host = self._next_pod[node]
        if host > _LAST_POD:
            raise AddressesExhausted(
                f"node {node} has started {_LAST_POD - _FIRST_POD + 1} pods, all that {self.node_network(node)} has "
                "addresses for (none is given twice): use more nodes or fewer pods"
            )
        self._next_pod[node] = host + 1
        ip = self._address(node, host)
        return PodAddress(
            app=SocketAddress(ip, app_port),
            inbound=SocketAddress(ip, INBOUND_PORT),
            outbound=SocketAddress(ip, OUTBOUND_PORT),
        )

    def relay_listener(self, source: str, destination: str) -> SocketAddress:
        return SocketAddress(self._address(source, 1), _RELAY_PORT + self._index[destination])

    def service_address(self, node: str, service_index: int) -> SocketAddress:
        if not 0 <= service_index < _SERVICES_MAX:
            raise AddressesExhausted(f"service number {service_index}: 0 to {_SERVICES_MAX - 1} have an address")
        return SocketAddress(self._address(node, 1), _SERVICE_PORT + service_index)

    def replica_address(self, node: str, number: int) -> SocketAddress:
        if not 0 <= number < _REPLICAS_MAX:
            raise AddressesExhausted(f"replica number {number} of a store: 0 to {_REPLICAS_MAX - 1} have an address")
        return SocketAddress(self._address(node, 1), _REPLICA_PORT + number)

    def client_entry(self, clients_place: str, gateway_index: int) -> SocketAddress:
        if not 0 <= gateway_index < _GATEWAYS_MAX:
            raise AddressesExhausted(f"gateway number {gateway_index}: 0 to {_GATEWAYS_MAX - 1} have an address")
        return SocketAddress(self._address(clients_place, 1), _CLIENT_ENTRY_PORT + gateway_index)

    def tunnel(self, source: str, destination: str) -> Tunnel | None:
        return None

    def _address(self, place: str, host: int) -> str:
        return f"127.{self._second_octet}.{self._index[place]}.{host}"
