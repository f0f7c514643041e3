"""Declared against achieved round trip time of the link relay, by ping-pong over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from statistics import median

from benchmarks.row import Row
from testbed.control.objects import SocketAddress
from testbed.control.topology import LinkQuality, Locality, Place, Topology
from testbed.network.links import LinkTable
from testbed.network.loopback import LoopbackBlock, LoopbackNetwork
from testbed.network.relay import LinkRelay

PINGS = 400


def measure() -> Iterator[Row]:
    for rtt_ms in (0.3, 2.0, 30.0):
        # What two sockets cost without any delay, on cores that slept as long, is not the link's.
        floor_ms = median(_round_trips_ms(0.0, pause_s=rtt_ms / 1e3))
        errors = sorted(abs(achieved - floor_ms - rtt_ms) for achieved in _round_trips_ms(rtt_ms))
        p99 = errors[int(len(errors) * 0.99)]
        yield Row(
            f"link of {rtt_ms:g} ms RTT",
            f"median error {median(errors):.3f} ms, p99 {p99:.3f} ms",
            f"{PINGS} pings; {floor_ms:.3f} ms without delay",
            f"{median(errors):.3f} / {p99:.3f} ms",
            "<= 0.2 / 1 ms",
        )


def _round_trips_ms(rtt_ms: float, pause_s: float = 0.0) -> list[float]:
    here, there = Place("here", Locality("r", "a")), Place("there", Locality("r", "b"))
    topology = Topology((here, there), same_region=LinkQuality(delay_s=rtt_ms / 2e3))
    with LoopbackBlock.reserve() as block:
        network = LoopbackNetwork(block.second_octet, ["here", "there"])
        target = network.allocate_pod("there", 8080).app
        listener = network.relay_listener("here", "there")
        relay = LinkRelay("here", LinkTable(topology), seed=1)
        relay.start()
        try:
            with _echo_server(target):
                relay.open_forward("there", listener, target)
                return _ping(listener, pause_s)
        finally:
            relay.stop()


def _ping(address: SocketAddress, pause_s: float) -> list[float]:
    with socket.create_connection((address.ip, address.port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times = []
        for _ in range(PINGS + 20):
            time.sleep(pause_s)
            sent_s = time.perf_counter()
            connection.sendall(b"ping")
            connection.recv(4)
            times.append((time.perf_counter() - sent_s) * 1e3)
        return times[20:]


def _echo_server(address: SocketAddress) -> socket.socket:
    """Echoes one connection in a thread of its own, which ends with the connection."""
    listener = socket.create_server((address.ip, address.port))

    def echo() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(ConnectionResetError):
            while data := connection.recv(64):
                connection.sendall(data)

    threading.Thread(target=echo, daemon=True).start()
    return listener
