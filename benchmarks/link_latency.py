"""Declared against achieved round trip time of the link relay, by ping-pong over real sockets.

Measured is what the relay answers for, in each direction: from the moment at which one end is about to send until the
kernel has put the bytes into the other end's socket (its receive timestamp, SO_TIMESTAMPNS of socket(7)). The cost of
sending, the relay's own wake-ups and its forwarding count, and nothing is subtracted. What does not count is how long
an end then takes to wake up: it would after any real network as well. The ends are one process beside the relay's, as
in a run. What they see with their wake-ups, two in each round trip, is shown next to it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median

from benchmarks.row import Row
from benchmarks.testbed_run import temporary_folder
from testbed.emulation.actors.network_card import NetworkCard
from testbed.emulation.processes.relay import Relays
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.network.wire.scheduling import ask_to_be_punctual
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import LinkQuality, Locality, Place, Topology

PINGS = 400
WARM_UP_PINGS = 100
"""So many until the relay has learned how long this machine takes to wake up."""

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
_TIMESPEC = struct.Struct("qq")


def measure() -> Iterator[Row]:
    for rtt_ms in (0.3, 2.0, 30.0):
        pings = asyncio.run(_through_a_relay(rtt_ms))
        errors = sorted(abs(between_kernels_ms - rtt_ms) for between_kernels_ms, _ in pings)
        p99 = errors[int(len(errors) * 0.99)]
        yield Row(
            f"link of {rtt_ms:g} ms RTT",
            f"median error {median(errors):.3f} ms, p99 {p99:.3f} ms",
            f"{PINGS} pings; median {median(seen_ms for _, seen_ms in pings):.3f} ms as the ends see it",
            f"{median(errors):.3f} / {p99:.3f} ms",
            "<= 0.2 / 1 ms",
        )


async def _through_a_relay(rtt_ms: float) -> list[tuple[float, float]]:
    here, there = Place("here", Locality("r", "a")), Place("there", Locality("r", "b"))
    topology = Topology((here, there), same_region=LinkQuality(delay_s=rtt_ms / 2e3))
    folder, lost = temporary_folder(), list[str]()
    relays = Relays("the link relay", folder / "relay.log", lost.append)
    with LoopbackBlock.reserve() as block, ProcessPoolExecutor(1, get_context("spawn")) as ends:
        network = LoopbackNetwork(block.second_octet, ["here", "there"])
        target = network.allocate_pod("there", 8080).app
        entry = network.relay_listener("here", "there")
        await relays.start(folder, os.environ, topology)
        try:
            card = NetworkCard("here", topology, network, folder, seed=1)
            await card.open_forward("there", entry, target)
            pings = asyncio.get_running_loop().run_in_executor(ends, _ping, entry, target)
            return await asyncio.wait_for(pings, 120)
        finally:
            await relays.stop()


def _ping(entry: SocketAddress, target: SocketAddress) -> list[tuple[float, float]]:
    """Both ends, one after the other. Round trips in ms: until the kernels had them, and until the ends woke up."""
    ask_to_be_punctual()
    round_trips = []
    with (
        socket.create_server((target.ip, target.port)) as listener,
        socket.create_connection((entry.ip, entry.port), timeout=5) as near,
        listener.accept()[0] as far,
    ):
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        for _ in range(WARM_UP_PINGS + PINGS):
            started_ns = time.time_ns()
            there_ns = _one_way_ns(near, far)
            back_ns = _one_way_ns(far, near)
            round_trips.append(((there_ns + back_ns) / 1e6, (time.time_ns() - started_ns) / 1e6))
    return round_trips[WARM_UP_PINGS:]


def _one_way_ns(source: socket.socket, destination: socket.socket) -> int:
    sent_ns = time.time_ns()
    source.sendall(b"ping")
    _, stamps, _, _ = destination.recvmsg(64, socket.CMSG_SPACE(_TIMESPEC.size))
    if not stamps:  # The kernel begins to stamp shortly after it was asked to.
        return time.time_ns() - sent_ns
    seconds, nanoseconds = _TIMESPEC.unpack(stamps[0][2])
    return int(seconds * 1_000_000_000 + nanoseconds) - sent_ns
