"""A relay whose other end is on another machine: the silence of that machine, and what the way to it takes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic

import pytest

from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.network.wire.ingress import Ingress
from testbed.network.wire.tunnel import Tunnel
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import LinkQuality, Locality, Place, Topology
from tests.network.conftest import (
    DEADLINE_S,
    OPENED,
    TOKEN,
    head,
    is_silent,
    machine_ip,
    read_exactly,
    round_trips_s,
    wait_until,
)
from tests.network.relay_thread import RelayThread

BOTH_KINDS = pytest.mark.parametrize("quality", [LinkQuality(), LinkQuality(delay_s=0.001)], ids=["ideal", "1ms"])
UNDERLAY_S = 0.03
Open = Callable[..., "Far"]


class Far:
    """A relay of `a` whose tunnel to `b` leads to any address, with or without an ingress there."""

    def __init__(self, block: LoopbackBlock, quality: LinkQuality, tunnel: Tunnel, owned: ExitStack) -> None:
        network = far_network(block)
        places = tuple(Place(name, Locality("east", f"east-{name}")) for name in ("a", "b"))
        self.relay = RelayThread("a", Topology(places, same_region=quality), seed=7)
        owned.callback(self.relay.stop)
        self.owned = owned
        self.target = network.allocate_pod("b", 8080).app
        self.path, self.entry = network.relay_listener("a", "b"), network.client_entry("a", 0)
        self.relay.open_path("b", self.path, network.node_network("b"), tunnel)
        self.relay.open_forward("b", self.entry, self.target, tunnel)

    def ask(self) -> socket.socket:
        client = socket.create_connection((self.path.ip, self.path.port), timeout=DEADLINE_S)
        self.owned.enter_context(client).sendall(head(self.target))
        return client

    def enter(self) -> socket.socket:
        client = socket.create_connection((self.entry.ip, self.entry.port), timeout=DEADLINE_S)
        self.owned.enter_context(client).sendall(b"request")
        return client

    def openings(self) -> int:
        return self.relay.thread.call(lambda: len(self.relay.place.openings))

    def underlay_s(self) -> float:
        return self.relay.thread.call(lambda: self.relay.place.link("a", "b").underlay_s)


def far_network(block: LoopbackBlock) -> LoopbackNetwork:
    return LoopbackNetwork(block.second_octet, ("a", "b"))


@pytest.fixture
def owned() -> Iterator[ExitStack]:
    with ExitStack() as owned:
        yield owned


@pytest.fixture
def far(block: LoopbackBlock, owned: ExitStack) -> Open:
    def start(ingress: SocketAddress, quality: LinkQuality | None = None, token: str = TOKEN) -> Far:
        return Far(block, quality or LinkQuality(), Tunnel(ingress, token), owned)

    return start


def slow_way(owned: ExitStack, listen_ip: str, to: SocketAddress) -> SocketAddress:
    """A real network between two machines that takes UNDERLAY_S one way: a relay with a fixed target."""
    places = (Place("near", Locality("r", "z")), Place("far", Locality("r", "y")))
    wire = RelayThread("near", Topology(places, same_region=LinkQuality(delay_s=UNDERLAY_S)), seed=1)
    owned.callback(wire.stop)
    address = SocketAddress(listen_ip, 30000)
    wire.open_forward("far", address, to)
    return address


# --- a machine that does not answer --------------------------------------------------------------------------------


@BOTH_KINDS
def test_a_machine_that_accepts_nothing_is_silence(
    block: LoopbackBlock, owned: ExitStack, far: Open, quality: LinkQuality
) -> None:
    deaf = owned.enter_context(socket.create_server((machine_ip(block), 0), backlog=0))
    f = far(SocketAddress(*deaf.getsockname()), quality)
    clients = [f.ask(), f.enter(), f.ask(), f.enter()]
    assert all(is_silent(client) for client in clients)


@BOTH_KINDS
def test_a_machine_without_its_ingress_is_silence_and_no_refusal(
    block: LoopbackBlock, far: Open, quality: LinkQuality, caplog: pytest.LogCaptureFixture
) -> None:
    f = far(SocketAddress(machine_ip(block), 30000), quality)
    clients = [f.ask(), f.enter()]
    assert all(is_silent(client) for client in clients)
    wait_until(lambda: "a cannot reach b" in caplog.text)
    for client in clients:
        client.close()
    wait_until(lambda: f.openings() == 0)


def test_a_client_that_has_ended_before_the_silence_is_known_is_let_go(block: LoopbackBlock, far: Open) -> None:
    f = far(SocketAddress(machine_ip(block), 30000), LinkQuality(delay_s=0.5))
    f.ask().close()
    wait_until(lambda: f.openings() == 1)
    wait_until(lambda: f.openings() == 0)


def test_a_wrong_token_of_a_peer_is_a_refusal_and_logged(
    block: LoopbackBlock, owned: ExitStack, far: Open, caplog: pytest.LogCaptureFixture
) -> None:
    ingress = Ingress(TOKEN, [])
    address = ingress.start(machine_ip(block))
    owned.callback(ingress.stop)
    f = far(address, token="0" * 64)
    with pytest.raises(ConnectionResetError):
        f.ask().recv(1)
    wait_until(lambda: "407 Proxy Authentication Required" in caplog.text)
    assert "0" * 64 not in caplog.text


def test_open_connections_outlive_silence_of_the_machine(block: LoopbackBlock, owned: ExitStack, far: Open) -> None:
    network = far_network(block)
    ingress = Ingress(TOKEN, [network.node_network("b")])
    f = far(ingress.start(machine_ip(block)))
    owned.callback(ingress.stop)
    server = owned.enter_context(socket.create_server((f.target.ip, f.target.port)))
    client = f.ask()
    accepted = owned.enter_context(server.accept()[0])
    assert read_exactly(client, len(OPENED)) == OPENED
    frozen, thaw = threading.Event(), threading.Event()

    def freeze() -> None:
        frozen.set()
        thaw.wait(DEADLINE_S)

    ingress.thread.tasks.loop.call_soon_threadsafe(freeze)
    assert frozen.wait(DEADLINE_S)
    client.sendall(b"ping")
    late = f.ask()
    assert is_silent(client)
    assert is_silent(late)
    thaw.set()
    assert read_exactly(accepted, 4) == b"ping"
    assert read_exactly(late, len(OPENED)) == OPENED


# --- what the real network takes -----------------------------------------------------------------------------------


def slow_far(block: LoopbackBlock, owned: ExitStack, far: Open, delay_s: float) -> tuple[Far, Ingress]:
    ingress = Ingress(TOKEN, [far_network(block).node_network("b")])
    there = ingress.start(machine_ip(block))
    owned.callback(ingress.stop)
    f = far(slow_way(owned, machine_ip(block, 2), there), LinkQuality(delay_s=delay_s))
    wait_until(lambda: 0 < f.underlay_s() < 1.2 * UNDERLAY_S)
    return f, ingress


def test_the_underlay_is_part_of_the_declared_delay(block: LoopbackBlock, owned: ExitStack, far: Open) -> None:
    f, _ = slow_far(block, owned, far, 5 * UNDERLAY_S)
    server = owned.enter_context(socket.create_server((f.target.ip, f.target.port)))
    opened_s = []
    for _ in range(3):
        started_s = monotonic()
        client = f.ask()
        accepted = owned.enter_context(server.accept()[0])
        assert read_exactly(client, len(OPENED)) == OPENED
        opened_s.append(monotonic() - started_s)
    round_trip_s = 10 * UNDERLAY_S
    # Without correction, four more ways over the underlay for the handshake and two for each round trip.
    assert round_trip_s - 0.005 < min(opened_s) < round_trip_s + 2 * UNDERLAY_S
    assert round_trip_s - 0.005 < min(round_trips_s(client, accepted, 3)) < round_trip_s + UNDERLAY_S
    f.relay.stop()
    samples = f.relay.drain_samples()
    for source in ("a", "b"):
        # A second with few chunks may have been one in which the machine was busy with something else.
        achieved_ms, declared_ms = min((s.achieved_p50_ms, s.declared_ms) for s in samples if s.source == source)
        assert achieved_ms == pytest.approx(declared_ms, abs=0.5e3 * UNDERLAY_S)


def test_an_underlay_slower_than_declared_shows(block: LoopbackBlock, owned: ExitStack, far: Open) -> None:
    f, _ = slow_far(block, owned, far, 0.001)
    server = owned.enter_context(socket.create_server((f.target.ip, f.target.port)))
    client = f.ask()
    accepted = owned.enter_context(server.accept()[0])
    read_exactly(client, len(OPENED))
    round_trips_s(client, accepted, 3)
    f.relay.stop()
    samples = f.relay.drain_samples()
    assert samples
    assert all(sample.declared_ms == pytest.approx(1) for sample in samples)
    assert all(sample.achieved_p50_ms > 0.9e3 * UNDERLAY_S for sample in samples)


def test_the_last_estimate_stays_when_the_machine_is_gone(block: LoopbackBlock, owned: ExitStack, far: Open) -> None:
    f, ingress = slow_far(block, owned, far, 5 * UNDERLAY_S)
    estimate_s = f.underlay_s()
    ingress.stop()
    later_s = monotonic() + 1.5  # time for a question that nobody answers
    wait_until(lambda: monotonic() > later_s)
    assert f.underlay_s() == pytest.approx(estimate_s, rel=0.5)
