"""The rules of a node's kube-proxy: an endpoint at random for each connection, as the control plane last said."""

from __future__ import annotations

import time
from collections import Counter
from math import sqrt
from pathlib import Path
from random import Random
from typing import cast

import orjson

from testbed.control.views.kube_proxy import CALLER, CONNECTED, ENDPOINT, SERVICE
from testbed.emulation.processes.kube_proxy import CONNECTIONS_SUFFIX, KubeProxy, ServiceRule
from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.network.wire.relay import Choice, LinkRelay
from testbed.objects.addresses import SocketAddress

ENDPOINTS = tuple((f"east-{zone}-1", SocketAddress(f"127.1.{host}.2", 8080)) for host, zone in enumerate("abc"))


def test_every_endpoint_is_chosen_as_often_as_any_other() -> None:
    rule = ServiceRule(Random(1))
    rule.endpoints = ENDPOINTS
    count = 3000
    chosen = Counter(rule.choose() for _ in range(count))
    assert set(chosen) == set(ENDPOINTS)
    for times in chosen.values():
        assert abs(times / count - 1 / 3) <= 3 * sqrt(1 / 3 * 2 / 3 / count)


def test_the_same_seed_chooses_the_same_endpoints_and_another_node_others(tmp_path: Path) -> None:
    def choices(node: str) -> list[object]:
        proxy = KubeProxy(node, ["web"], LoopbackNetwork(1, ["a", "b"]), 7, tmp_path)
        proxy.take([_told("web")])
        return [proxy.rules["web"].choose() for _ in range(20)]

    assert choices("a") == choices("a") != choices("b")


def test_there_is_no_choice_without_endpoints_and_new_ones_replace_the_old(tmp_path: Path) -> None:
    proxy = KubeProxy("a", ["web", "orders"], LoopbackNetwork(1, ["a", "b"]), 7, tmp_path)
    assert proxy.rules["web"].choose() is None
    proxy.take([_told("web"), _told("orders", 1)])
    assert proxy.rules["web"].endpoints == ENDPOINTS
    assert proxy.rules["orders"].choose() == ENDPOINTS[0]
    proxy.take([_told("web", 2), _told("orders", 0)])
    assert proxy.rules["orders"].choose() is None
    assert proxy.rules["web"].endpoints == ENDPOINTS[:2]


class _Services:
    """Takes the part of a relay: where services listen, and how their connections are led."""

    def __init__(self) -> None:
        self.opened: dict[SocketAddress, Choice] = {}

    def open_service(self, listen: SocketAddress, choose: Choice) -> None:
        self.opened[listen] = choose


def test_every_connection_is_written_down_with_where_it_was_led(tmp_path: Path) -> None:
    relay, caller = _Services(), SocketAddress("127.1.0.9", 40001)
    proxy = KubeProxy("a", ["web", "orders"], LoopbackNetwork(1, ["a", "b"]), 7, tmp_path)
    proxy.listen(cast(LinkRelay, relay))
    proxy.take([_told("web", 1), _told("orders", 0)])
    before_s = time.time()
    assert relay.opened[proxy.addresses["web"]](caller) == ENDPOINTS[0]
    assert relay.opened[proxy.addresses["orders"]](caller) is None
    proxy.close()
    lines = [orjson.loads(line) for line in (tmp_path / f"a{CONNECTIONS_SUFFIX}").read_bytes().splitlines()]
    assert [(line[SERVICE], line[CALLER], line[ENDPOINT]) for line in lines] == [
        ("web", str(caller), str(ENDPOINTS[0][1])),
        ("orders", str(caller), None),
    ]
    assert all(before_s - 0.01 <= float(line[CONNECTED]) <= time.time() for line in lines)


def test_a_service_that_comes_later_gets_an_address_and_one_that_is_gone_has_no_endpoints(tmp_path: Path) -> None:
    relay, caller = _Services(), SocketAddress("127.1.0.9", 40001)
    proxy = KubeProxy("a", ["web"], LoopbackNetwork(1, ["a", "b"]), 7, tmp_path)
    proxy.listen(cast(LinkRelay, relay))
    proxy.take([_told("web", 1), _told("stock", 1)])
    assert list(relay.opened) == [proxy.addresses["web"], proxy.addresses["stock"]]
    stock = relay.opened[proxy.addresses["stock"]]
    assert stock(caller) == ENDPOINTS[0]
    proxy.take([_told("web", 1)])
    assert stock(caller) is None
    proxy.take([_told("web", 1), _told("stock", 1)])
    assert stock(caller) == ENDPOINTS[0]
    assert len(relay.opened) == 2
    proxy.close()


def test_a_node_in_a_mesh_keeps_no_file_of_connections(tmp_path: Path) -> None:
    proxy = KubeProxy("a", [], LoopbackNetwork(1, ["a", "b"]), 7, tmp_path)
    proxy.listen(cast(LinkRelay, _Services()))
    proxy.close()
    assert list(tmp_path.iterdir()) == []


def test_every_service_has_an_address_of_its_own_in_the_block_of_the_node(tmp_path: Path) -> None:
    network = LoopbackNetwork(1, ["a", "b"])
    addresses = KubeProxy("b", ["web", "orders"], network, 7, tmp_path).addresses
    assert len({str(address) for address in addresses.values()}) == 2
    assert {address.ip for address in addresses.values()} == {network.relay_listener("b", "a").ip}


def _told(service: str, count: int = 3) -> bytes:
    endpoints = [{"pod": "p", "node": node, "ip": at.ip, "port": at.port} for node, at in ENDPOINTS[:count]]
    return orjson.dumps({"@type": "EndpointSlice", "service": service, "endpoints": endpoints})
