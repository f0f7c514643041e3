"""Addresses of one machine: disjoint, deterministic, bounded."""

from __future__ import annotations

import pickle
from ipaddress import IPv4Address
from itertools import combinations

import pytest

from testbed.network.addresses.backend import AddressesExhausted, NetworkBackend
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.objects.addresses import SocketAddress

PLACES = ("node-a", "node-b", "clients-a")


def test_two_runs_never_share_a_block() -> None:
    with LoopbackBlock.reserve() as one, LoopbackBlock.reserve() as other:
        assert one.second_octet != other.second_octet
        assert {one.second_octet, other.second_octet} <= set(range(1, 255))


def test_a_released_block_can_be_taken_again() -> None:
    first = LoopbackBlock.reserve()
    first.release()
    with LoopbackBlock.reserve() as second:
        assert second.second_octet == first.second_octet


def test_every_place_has_its_own_network_and_pods_lie_in_it() -> None:
    backend: NetworkBackend = LoopbackNetwork(77, PLACES)
    networks = [backend.node_network(place) for place in PLACES]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    pod = backend.allocate_pod("node-b", 8080)
    assert pod.app == SocketAddress("127.77.1.2", 8080)
    assert pod.inbound == SocketAddress("127.77.1.2", 15006)
    assert pod.outbound == SocketAddress("127.77.1.2", 15001)
    assert IPv4Address(pod.app.ip) in networks[1]


def test_listeners_follow_from_the_names_alone() -> None:
    here = LoopbackNetwork(77, PLACES)
    here.allocate_pod("node-a", 8080)
    there = pickle.loads(pickle.dumps(LoopbackNetwork(77, PLACES)))
    for network in (here, there):
        assert network.relay_listener("node-b", "node-a") == SocketAddress("127.77.1.1", 20000)
        assert network.relay_listener("node-a", "node-b") == SocketAddress("127.77.0.1", 20001)
        assert network.client_entry("clients-a", 0) != network.client_entry("clients-a", 1)
        assert network.client_entry("clients-a", 0).ip == "127.77.2.1"


def test_pod_addresses_are_never_given_twice() -> None:
    network = LoopbackNetwork(77, PLACES)
    ips = [network.allocate_pod("node-a", 8080).app.ip for _ in range(249)]
    assert len(set(ips)) == 249
    assert ips[0] == "127.77.0.2"
    assert ips[-1] == "127.77.0.250"
    with pytest.raises(AddressesExhausted, match="node-a has started 249 pods"):
        network.allocate_pod("node-a", 8080)
    assert network.allocate_pod("node-b", 8080).app.ip == "127.77.1.2"


@pytest.mark.parametrize("port", [15001, 15006])
def test_an_application_cannot_have_a_port_of_its_sidecar(port: int) -> None:
    with pytest.raises(ValueError, match=rf"port {port} .* give the service another `port`"):
        LoopbackNetwork(77, PLACES).allocate_pod("node-a", port)


def test_too_many_places_are_refused_with_the_limit() -> None:
    LoopbackNetwork(77, [f"node-{i}" for i in range(250)])
    with pytest.raises(AddressesExhausted, match="at most 250"):
        LoopbackNetwork(77, [f"node-{i}" for i in range(251)])


def test_an_unknown_place_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        LoopbackNetwork(77, PLACES).relay_listener("node-a", "nowhere")
