"""A node's kube-proxy: an endpoint at random for each connection, as the control plane last said."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from math import sqrt
from pathlib import Path

import orjson

from testbed.control.views.kube_proxy import CALLER, CONNECTED, ENDPOINT, SERVICE
from testbed.emulation.processes.kube_proxy import CONNECTIONS_SUFFIX, KubeProxy
from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.network.wire.services import Endpoints, ServiceRules
from testbed.objects.addresses import SocketAddress

ENDPOINTS = tuple((f"east-{zone}-1", SocketAddress(f"127.1.{host}.2", 8080)) for host, zone in enumerate("abc"))
CALLS_FROM = SocketAddress("127.1.0.9", 40001)
NETWORK = LoopbackNetwork(1, ["a", "b"])


def test_every_endpoint_is_chosen_as_often_as_any_other(tmp_path: Path) -> None:
    rules = ServiceRules("kube-proxy-a", 1, tmp_path / "log")
    rules.lead({"web": ENDPOINTS})
    count = 3000
    chosen = Counter(rules.choose("web", CALLS_FROM) for _ in range(count))
    assert set(chosen) == set(ENDPOINTS)
    for times in chosen.values():
        assert abs(times / count - 1 / 3) <= 3 * sqrt(1 / 3 * 2 / 3 / count)
    rules.close()


def test_the_same_seed_chooses_the_same_endpoints_and_another_node_others(tmp_path: Path) -> None:
    def choices(node: str) -> list[object]:
        rules = ServiceRules(f"kube-proxy-{node}", 7, tmp_path / node)
        rules.lead({"web": ENDPOINTS})
        chosen = [rules.choose("web", CALLS_FROM) for _ in range(20)]
        rules.close()
        return chosen

    assert choices("a") == choices("a") != choices("b")


def test_there_is_no_choice_without_endpoints_and_new_ones_replace_the_old(tmp_path: Path) -> None:
    rules = ServiceRules("kube-proxy-a", 7, tmp_path / "log")
    assert rules.choose("web", CALLS_FROM) is None
    rules.lead({"web": ENDPOINTS, "orders": ENDPOINTS[:1]})
    assert rules.choose("orders", CALLS_FROM) == ENDPOINTS[0]
    rules.lead({"web": ENDPOINTS[1:2], "orders": ()})
    assert rules.choose("orders", CALLS_FROM) is None
    assert rules.choose("web", CALLS_FROM) == ENDPOINTS[1]
    rules.lead({"web": ENDPOINTS})
    assert {rules.choose("web", CALLS_FROM) for _ in range(100)} == set(ENDPOINTS)
    rules.close()


def test_every_connection_is_written_down_with_where_it_was_led(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rules = ServiceRules("kube-proxy-a", 7, log)
    rules.lead({"web": ENDPOINTS[:1]})
    before_s = time.time()
    assert rules.choose("web", CALLS_FROM) == ENDPOINTS[0]
    assert rules.choose("orders", CALLS_FROM) is None
    rules.close()
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert [(line[SERVICE], line[CALLER], line[ENDPOINT]) for line in lines] == [
        ("web", str(CALLS_FROM), str(ENDPOINTS[0][1])),
        ("orders", str(CALLS_FROM), None),
    ]
    assert all(before_s - 0.01 <= float(line[CONNECTED]) <= time.time() for line in lines)


class _Card:
    """Takes down what a kube-proxy wants of its node's network card."""

    def __init__(self) -> None:
        self.opened: list[SocketAddress] = []
        self.led: list[dict[str, Endpoints]] = []
        self.logs: set[Path] = set()

    async def open_services(self, name: str, log: Path, listeners: Mapping[str, SocketAddress]) -> None:
        await asyncio.sleep(0.01 * len(listeners))
        self.opened += listeners.values()
        self.logs.add(log)

    async def lead(self, endpoints: Mapping[str, Endpoints]) -> None:
        self.led.append(dict(endpoints))


async def test_a_service_that_comes_later_gets_an_address_and_keeps_it_while_it_is_gone(tmp_path: Path) -> None:
    card = _Card()
    proxy = KubeProxy("a", ["web"], NETWORK, card, tmp_path)
    await proxy.listen()
    await proxy.take([_told("web", 1), _told("stock", 1)])
    assert card.opened == [proxy.addresses["web"], proxy.addresses["stock"]]
    await proxy.take([_told("web", 1)])
    await proxy.take([_told("web", 1), _told("stock", 2)])
    assert len(card.opened) == 2
    assert [led.get("stock") for led in card.led] == [ENDPOINTS[:1], None, ENDPOINTS[:2]]
    assert card.logs == {tmp_path / f"a{CONNECTIONS_SUFFIX}"}


async def test_what_is_told_last_holds_however_long_listening_takes(tmp_path: Path) -> None:
    card = _Card()
    proxy = KubeProxy("a", [], NETWORK, card, tmp_path)
    await asyncio.gather(proxy.take([_told("web", 1)]), proxy.take([_told("web", 3)]))
    assert [led["web"] for led in card.led] == [ENDPOINTS[:1], ENDPOINTS]


def test_every_service_has_an_address_of_its_own_in_the_block_of_the_node(tmp_path: Path) -> None:
    addresses = KubeProxy("b", ["web", "orders"], NETWORK, _Card(), tmp_path).addresses
    assert len({str(address) for address in addresses.values()}) == 2
    assert {address.ip for address in addresses.values()} == {NETWORK.relay_listener("b", "a").ip}


def _told(service: str, count: int = 3) -> bytes:
    endpoints = [{"pod": "p", "node": node, "ip": at.ip, "port": at.port} for node, at in ENDPOINTS[:count]]
    return orjson.dumps({"@type": "EndpointSlice", "service": service, "endpoints": endpoints})
