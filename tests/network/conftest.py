"""Two places on real loopback sockets: `a` with its relay, `b` with a server behind it, here or on another machine."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic

import pytest

from testbed.faults.effects import LinkEffect
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.network.wire.ingress import Ingress
from testbed.network.wire.tunnel import Tunnel
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import LinkQuality, Locality, Place, Topology
from tests.network.relay_thread import RelayThread

DEADLINE_S = 30.0
FORWARD = (("a", "b"),)
BACKWARD = (("b", "a"),)
BOTH = FORWARD + BACKWARD
CUT = LinkEffect(cut=True)


@dataclass
class World:
    """`path` takes CONNECT for all of b, `entry` leads to the server on b."""

    relay: RelayThread
    network: LoopbackNetwork
    server: socket.socket
    target: SocketAddress
    path: SocketAddress
    entry: SocketAddress
    owned: ExitStack
    tunnel: Tunnel | None

    def own(self, connection: socket.socket) -> socket.socket:
        connection.settimeout(DEADLINE_S)
        return self.owned.enter_context(connection)

    def dial(self, address: SocketAddress) -> socket.socket:
        client = self.own(socket.create_connection((address.ip, address.port), timeout=DEADLINE_S))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def accept(self) -> socket.socket:
        connection = self.own(self.server.accept()[0])
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, request: bytes) -> socket.socket:
        client = self.dial(self.path)
        client.sendall(request)
        return client

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """An open connection by CONNECT: the client's end and the server's."""
        client = self.ask(head(self.target))
        server = self.accept()
        assert read_exactly(client, len(OPENED)) == OPENED
        return client, server


Start = Callable[..., World]
ONE_MS = LinkQuality(delay_s=0.001)
IDEAL = LinkQuality()
BOTH_KINDS = pytest.mark.parametrize("quality", [IDEAL, ONE_MS], ids=["ideal", "1ms"])
OPENED = b"HTTP/1.1 200 OK\r\n\r\n"
TOKEN = "5eed" * 16


def machine_ip(block: LoopbackBlock, number: int = 1) -> str:
    """An address in the part of the block that no place has: it stands for a machine's own."""
    return f"127.{block.second_octet}.251.{number}"


def head(target: SocketAddress) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def read_exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = connection.recv(size - len(received))
        assert data, f"the connection ended after {len(received)} of {size} bytes"
        received += data
    return bytes(received)


def is_silent(connection: socket.socket, seconds: float = 0.15) -> bool:
    """True when neither data nor an end nor a reset arrives for a while."""
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    except ConnectionError:
        return False
    finally:
        connection.settimeout(DEADLINE_S)
    return False


def reset(connection: socket.socket) -> None:
    """What the kernel does to the connections of a killed process that had not read everything."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + DEADLINE_S
    while not condition():
        assert monotonic() < deadline, "the condition did not become true in time"


def round_trips_s(client: socket.socket, server: socket.socket, count: int) -> list[float]:
    """Times of a byte to the server and back, both ends in this thread."""
    times = []
    for _ in range(count):
        started = monotonic()
        client.sendall(b"x")
        server.sendall(read_exactly(server, 1))
        read_exactly(client, 1)
        times.append(monotonic() - started)
    return times


@pytest.fixture
def block() -> Iterator[LoopbackBlock]:
    with LoopbackBlock.reserve() as block:
        yield block


@pytest.fixture(params=["one machine", "two machines"])
def world(request: pytest.FixtureRequest, block: LoopbackBlock) -> Iterator[Start]:
    """`world(quality, head_timeout_s=...)` starts the relay over links of that quality, with `b` here or elsewhere."""
    with ExitStack() as owned:

        def start(quality: LinkQuality | None = None, *, head_timeout_s: float = 5.0) -> World:
            network = LoopbackNetwork(block.second_octet, ("a", "b", "c"))
            topology = Topology(
                places=tuple(Place(name, Locality("east", f"east-{name}")) for name in ("a", "b", "c")),
                same_region=quality or LinkQuality(),
            )
            tunnel = None
            if request.param == "two machines":
                ingress = Ingress(TOKEN, [network.node_network("b")])
                tunnel = Tunnel(ingress.start(machine_ip(block)), TOKEN)
                owned.callback(ingress.stop)
            relay = RelayThread("a", topology, seed=7, head_timeout_s=head_timeout_s)
            owned.callback(relay.stop)
            target = network.allocate_pod("b", 8080).app
            server = owned.enter_context(socket.create_server((target.ip, target.port)))
            server.settimeout(DEADLINE_S)
            path, entry = network.relay_listener("a", "b"), network.client_entry("a", 0)
            relay.open_path("b", path, network.node_network("b"), tunnel)
            relay.open_forward("b", entry, target, tunnel)
            return World(relay, network, server, target, path, entry, owned, tunnel)

        yield start
