"""The rules of a node's kube-proxy: an endpoint at random for each connection, as the control plane last said."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from random import Random

import orjson

from testbed.control.objects import SocketAddress
from testbed.emulation.kube_proxy import KubeProxy, ServiceRule
from testbed.network.loopback import LoopbackNetwork

ENDPOINTS = tuple((f"east-{zone}-1", SocketAddress(f"127.1.{host}.2", 8080)) for host, zone in enumerate("abc"))


def test_every_endpoint_is_chosen_as_often_as_any_other() -> None:
    rule = ServiceRule(Random(1))
    rule.endpoints = ENDPOINTS
    count = 3000
    chosen = Counter(rule.choose() for _ in range(count))
    assert set(chosen) == set(ENDPOINTS)
    for times in chosen.values():
        assert abs(times / count - 1 / 3) <= 3 * sqrt(1 / 3 * 2 / 3 / count)


def test_the_same_seed_chooses_the_same_endpoints_and_another_node_others() -> None:
    def choices(node: str) -> list[object]:
        proxy = KubeProxy(node, ["web"], LoopbackNetwork(1, ["a", "b"]), seed=7)
        proxy.take([_told("web")])
        return [proxy.rules["web"].choose() for _ in range(20)]

    assert choices("a") == choices("a") != choices("b")


def test_there_is_no_choice_without_endpoints_and_new_ones_replace_the_old() -> None:
    proxy = KubeProxy("a", ["web", "orders"], LoopbackNetwork(1, ["a", "b"]), seed=7)
    assert proxy.rules["web"].choose() is None
    proxy.take([_told("web"), _told("orders", 1)])
    assert proxy.rules["web"].endpoints == ENDPOINTS
    assert proxy.rules["orders"].choose() == ENDPOINTS[0]
    proxy.take([_told("orders", 0)])
    assert proxy.rules["orders"].choose() is None
    assert proxy.rules["web"].choose() is not None


def test_every_service_has_an_address_of_its_own_in_the_block_of_the_node() -> None:
    network = LoopbackNetwork(1, ["a", "b"])
    addresses = KubeProxy("b", ["web", "orders"], network, seed=7).addresses
    assert len({str(address) for address in addresses.values()}) == 2
    assert {address.ip for address in addresses.values()} == {network.relay_listener("b", "a").ip}


def _told(service: str, count: int = 3) -> bytes:
    endpoints = [{"pod": "p", "node": node, "ip": at.ip, "port": at.port} for node, at in ENDPOINTS[:count]]
    return orjson.dumps({"@type": "EndpointSlice", "service": service, "endpoints": endpoints})
