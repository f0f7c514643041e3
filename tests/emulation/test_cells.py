"""Cells on real Envoys: a gateway, and a pod of each cell with its sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from testbed.control.cells.ownership import Move, moved
from testbed.control.cells.partitions import partition_of
from testbed.control.cells.shards import workers_of
from testbed.control.cells.subsets import subsets_of
from testbed.control.store import Store
from testbed.control.views.envoy import access_log
from testbed.control.views.envoy.proxies import Proxies
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cells import CELL, WORKER, Cell, PartitionKey, PartitionMap, PartitionRule, ShuffleShards
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import DestinationRule, Gateway, HttpRoute, VirtualService
from testbed.objects.metadata import Labels
from testbed.objects.places import Locality
from testbed.objects.workloads import PodTemplate
from tests.emulation.test_envoy import application, connected, free_address, lines_of, running_envoy

DEADLINE_S = 30.0
GATEWAY_LABELS = (("istio", "gateway"),)
NODES = {cell: Node(f"{zone}-1", Locality("east", zone)) for cell, zone in (("rz01", "east-a"), ("rz02", "east-b"))}
MAP = PartitionMap(
    "cells",
    1,
    PartitionKey("header", "x-user-id"),
    PartitionRule("digits", digits=(3, 2)),
    tuple(Cell(name, (node.locality.zone,)) for name, node in NODES.items()),
    ("rz01",) * 50 + ("rz02",) * 50,
)
MOVED = moved(MAP, Move((0, 1, 2), "rz01", "rz02"))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def cookie(self) -> str | None:
        return self.headers.get("set-cookie")


async def ask(address: SocketAddress, url: str = "/", **headers: str) -> Answer:
    """One request on a connection of its own; waits for the listener."""
    reader, writer = await connected(address)
    lines = [f"GET {url} HTTP/1.1", "host: web", *(f"{name.replace('_', '-')}: {v}" for name, v in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        found = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(found.get("content-length", "0")))
    finally:
        writer.close()
    await writer.wait_closed()
    return Answer(int(head[0].split()[1]), found, body.decode())


@dataclass
class Place:
    """Two cells and a gateway that run. `heads` are the requests that the application of each cell got."""

    gateway: SocketAddress
    outbound: dict[str, SocketAddress]
    heads: dict[str, list[str]]
    logs: dict[str, Path]

    def served(self) -> list[str]:
        """The cells whose applications got something since the last question."""
        found = [cell for cell, heads in self.heads.items() for _ in heads]
        for heads in self.heads.values():
            heads.clear()
        return found


@asynccontextmanager
async def place(
    folder: Path,
    map_of: Callable[[str], PartitionMap] = lambda _: MAP,
    labels_of: Callable[[str], Labels] = lambda cell: ((CELL, cell),),
    ready: Collection[str] = tuple(NODES),
) -> AsyncIterator[Place]:
    """`map_of` says which map the gateway (`gateway`) and the pod of each cell have been told, `ready` which of these
    pods are endpoints. All first hits that are not the gateway's to decide go to rz01."""
    async with AsyncExitStack() as stack:
        heads, pods = {}, {}
        for cell, node in NODES.items():
            app, heads[cell] = await stack.enter_async_context(application())
            template = PodTemplate("web", None, extra_labels=labels_of(cell))
            address = PodAddress(app, free_address(), free_address())
            pods[cell] = Pod(f"web-{cell}-1", f"web-{cell}", template, node.name, "Running", True, address=address)
        template = PodTemplate("gateway", None, role="gateway", extra_labels=GATEWAY_LABELS)
        at = PodAddress(free_address(), free_address(), free_address())
        pods["gateway"] = Pod("gateway-1", "gateway", template, NODES["rz01"].name, "Running", True, address=at)
        logs = {}
        for name, pod in pods.items():
            (folder / name).mkdir()
            told = resources(map_of(name), pod, {cell: pods[cell] for cell in NODES if cell in ready})
            logs[name] = await stack.enter_async_context(running_envoy(folder / name, told))
        outbound = {cell: pods[cell].address.outbound for cell in NODES}  # type: ignore[union-attr]
        for address in (at.app, *outbound.values()):
            await ask(address, "http://nowhere/")
        for each in heads.values():
            each.clear()
        yield Place(at.app, outbound, heads, logs)


def resources(cell_map: PartitionMap, proxy: Pod, pods: Mapping[str, Pod]) -> Any:
    store = Store()
    endpoints = tuple(
        Endpoint(pod.name, pod.node or "", NODES[cell].locality, pod.address.inbound, pod.template.extra_labels)
        for cell, pod in pods.items()
        if pod.address is not None
    )
    for each in (
        *NODES.values(),
        proxy,
        Service("web", traffic_distribution="PreferSameZone", selector=(("app", "web"),), service_class="sharded"),
        EndpointSlice("web", endpoints),
        DestinationRule("web", "web", subsets=subsets_of(cell_map, "sharded")),
        Gateway("gateway", GATEWAY_LABELS),
        VirtualService("gateway", ("*",), (HttpRoute("web"),), gateways=("gateway",)),
        cell_map,
    ):
        store.put(each)
    view = Proxies()
    (subscriber,) = (each for each in view.subscribers(store) if each.name == proxy.name)
    return view.resources(store, subscriber)


def tried(body: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(body(), DEADLINE_S))


def routes(log: Path, kind: str) -> list[tuple[Any, ...]]:
    """Partition, owner, version and reason of its calls with a key. A proxy without Lua writes the key."""
    found = []
    for line in lines_of(log)[kind]:
        partition = line.get(access_log.PARTITION)
        if (key := line.get(access_log.PARTITION_KEY)) is not None:
            made = partition_of(MAP.rule, len(MAP.owners), key)
            partition = None if made is None else str(made)
        if partition is not None:
            known = (access_log.OWNER_CELL, access_log.MAP_VERSION, access_log.ROUTE)
            found.append((partition, *(line[field] for field in known)))
    return found


def test_a_first_hit_is_forwarded_once_and_later_requests_go_straight(tmp_path: Path) -> None:
    async def body() -> Place:
        async with place(tmp_path) as there:
            first = await ask(there.gateway, x_user_id="2088000000770")
            assert (first.status, there.served(), first.cookie) == (200, ["rz02"], "cell=rz02; path=/; httponly")
            later = await ask(there.gateway, x_user_id="2088000000770", cookie="a=b; cell=rz02")
            assert (later.status, there.served(), later.cookie) == (200, ["rz02"], None)
            at_home = await ask(there.gateway, x_user_id="2088000000120")
            assert (at_home.status, there.served(), at_home.cookie) == (200, ["rz01"], "cell=rz01; path=/; httponly")
            stale = await ask(there.gateway, x_user_id="2088000000120", cookie="cell=rz02")
            assert (stale.status, there.served(), stale.cookie) == (200, ["rz01"], "cell=rz01; path=/; httponly")
            gone = await ask(there.gateway, x_user_id="2088000000120", cookie="cell=rz09")
            assert (gone.status, there.served(), gone.cookie) == (200, ["rz01"], "cell=rz01; path=/; httponly")
            nobody = await ask(there.gateway, x_partition="12", x_cell="rz01")
            assert (nobody.status, there.served(), nobody.body) == (400, [], "no key: x-user-id\n")
        return there

    there = tried(body)
    assert routes(there.logs["gateway"], "gateway") == [
        ("77", None, 1, "first-hit"),
        ("77", "rz02", 1, "cookie"),
        ("12", None, 1, "first-hit"),
        ("12", "rz02", 1, "cookie"),
        ("12", None, 1, "first-hit"),
    ]
    assert routes(there.logs["rz01"], "inbound") == [
        ("77", "rz02", 1, "first-hit"),
        ("12", "rz01", 1, "own"),
        ("12", "rz01", 1, "own"),
        ("12", "rz01", 1, "own"),
    ]
    assert routes(there.logs["rz02"], "inbound") == [
        ("77", "rz02", 1, "own"),
        ("77", "rz02", 1, "own"),
        ("12", "rz01", 1, "stale-cookie"),
    ]
    peers = [line[access_log.PEER] for line in lines_of(there.logs["rz02"])["inbound"]]
    assert peers == ["web-rz01-1", "gateway-1", "gateway-1"]


def test_a_sidecar_calls_the_owner_of_the_key(tmp_path: Path) -> None:
    async def body() -> Place:
        async with place(tmp_path) as there:
            for cell, key, owner in (("rz01", "120", "rz01"), ("rz01", "990", "rz02"), ("rz02", "990", "rz02")):
                answer = await ask(there.outbound[cell], "http://web/", x_user_id=key)
                assert (answer.status, there.served(), answer.cookie) == (200, [owner], None)
        return there

    there = tried(body)
    assert routes(there.logs["rz01"], "outbound") == [("12", "rz01", 1, "own"), ("99", "rz02", 1, "cross-cell")]
    assert routes(there.logs["rz02"], "outbound") == [("99", "rz02", 1, "own")]


@pytest.mark.parametrize("misdirected", ["forward", "refuse"])
def test_who_is_asked_by_a_stale_map_forwards_or_refuses_with_both_versions(misdirected: str, tmp_path: Path) -> None:
    def map_of(name: str) -> PartitionMap:
        by = {"gateway": replace(MAP, first_hit="owner")}.get(name, MOVED)
        return replace(by, misdirected=misdirected)  # type: ignore[arg-type]

    async def body() -> Place:
        async with place(tmp_path, map_of) as there:
            answer = await ask(there.gateway, x_user_id="10")
            assert answer.cookie == "cell=rz02; path=/; httponly"
            if misdirected == "forward":
                assert (answer.status, there.served()) == (200, ["rz02"])
            else:
                told = "misdirected: owner rz02, this is rz01, map version 2, caller's map version 1\n"
                assert (answer.status, there.served(), answer.body) == (421, [], told)
        return there

    there = tried(body)
    assert routes(there.logs["gateway"], "gateway") == [("1", "rz01", 1, "owner")]
    reason = "stale-map" if misdirected == "forward" else "misdirected"
    assert routes(there.logs["rz01"], "inbound") == [("1", "rz02", 2, reason)]


def test_two_cells_that_each_take_the_other_for_the_owner_do_not_send_a_request_round(tmp_path: Path) -> None:
    async def body() -> Place:
        async with place(tmp_path, lambda name: MAP if name == "rz02" else MOVED) as there:
            answer = await ask(there.gateway, x_user_id="10")
            told = "misdirected: owner rz01, this is rz02, map version 1, caller's map version 2\n"
            assert (answer.status, there.served(), answer.body) == (421, [], told)
        return there

    tried(body)


@pytest.mark.parametrize("ready", [("rz01", "rz02"), ("rz01",)], ids=["all-up", "one-down"])
def test_only_the_shard_of_a_partition_serves_it_and_nobody_does_when_it_is_down(
    ready: tuple[str, ...], tmp_path: Path
) -> None:
    """One cell of two workers, which the pods of rz01 and rz02 are, with shards of one."""
    shards = ShuffleShards("web", workers=2, size=1, seed=1)
    whole = Cell("all", ("east-a", "east-b"))
    by = replace(MAP, cells=(whole,), owners=("all",) * 100, first_hit="owner", unkeyed="all", shards=(shards,))
    workers = list(NODES)

    async def body() -> None:
        labels = {name: ((CELL, "all"), (WORKER, str(number))) for number, name in enumerate(workers)}
        async with place(tmp_path, lambda _: by, labels.__getitem__, ready) as there:
            for partition in range(20):
                (worker,) = workers_of(shards, partition)
                expected = (200, [workers[worker]]) if workers[worker] in ready else (503, [])
                of_client = await ask(there.gateway, x_user_id=f"{partition}0")
                assert (of_client.status, there.served()) == expected, partition
                of_pod = await ask(there.outbound["rz01"], "http://web/", x_user_id=f"{partition}0")
                assert (of_pod.status, there.served()) == expected, partition
            unkeyed = await ask(there.gateway)
            assert (unkeyed.status, there.served()) == (200, ["rz01"]), "any worker does, the nearest first"

    assert {workers[worker] for partition in range(20) for worker in workers_of(shards, partition)} == set(workers)
    tried(body)


KEYS = ("7", "42", "2088001234567", "9" * 15, "9" * 16, "alice", "Zoë", "-1", "+7", "0", "007", "0" * 16, "1,2")
RULES = (
    PartitionRule("digits", digits=(3, 2)),
    PartitionRule("modulo"),
    PartitionRule("hash"),
    PartitionRule("ranges", bounds=tuple(range(5, 10**12, 10**10))),
)
IN_TURNS = ("rz01", "rz02") * 50


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("kind", ["header", "cookie", "query", "path"])
def test_proxies_make_the_same_partitions_of_keys_as_everybody_else(
    rule: PartitionRule, kind: Any, tmp_path: Path
) -> None:
    key = PartitionKey(kind, "/users/([^/]+)/.*" if kind == "path" else "x-user-id")
    cell_map = replace(MAP, key=key, rule=rule, unkeyed="rz01")

    async def body() -> None:
        async with place(tmp_path, lambda _: cell_map) as there:
            for each in (key for key in KEYS if key.isascii() or kind in ("header", "cookie")):
                if kind == "path":
                    answer = await ask(there.gateway, f"/users/{each}/cart?x=1")
                elif kind == "query":
                    answer = await ask(there.gateway, f"/cart?a=1&x-user-id={each}&b=2")
                else:
                    written = each if kind == "header" else f"theme=dark; x-user-id={each}"
                    answer = await ask(there.gateway, **{"x-user-id" if kind == "header" else "cookie": written})
                expected = partition_of(rule, 100, each)
                assert answer.headers.get("x-testbed-partition") == (None if expected is None else str(expected)), each
            if kind == "path":
                answer = await ask(there.gateway, "/carts/7/x")
                assert "x-testbed-partition" not in answer.headers

    tried(body)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_pods_call_the_owner_of_the_partition_that_everybody_else_makes_of_the_key(
    rule: PartitionRule, tmp_path: Path
) -> None:
    """By what their proxies compute, or match without that; and the one who is called goes by the same."""
    cell_map = replace(MAP, rule=rule, owners=IN_TURNS, misdirected="refuse")

    async def body() -> None:
        async with place(tmp_path, lambda _: cell_map) as there:
            for each in KEYS:
                partition = partition_of(rule, 100, each)
                owner = None if partition is None else IN_TURNS[partition]
                answer = await ask(there.outbound["rz01"], "http://web/", x_user_id=each)
                assert (answer.status, there.served()) == ((400, []) if owner is None else (200, [owner])), each

    tried(body)


DIRECTED = replace(MAP, entry="directed", answer_ttl_s=7, first_hit="owner")


def test_a_router_tells_who_asks_the_owner_of_the_key_for_a_while(tmp_path: Path) -> None:
    at = PodAddress(free_address(), free_address(), free_address())
    template = PodTemplate("router", None, role="router")
    pod = Pod("router-1", "router", template, NODES["rz01"].name, "Running", True, address=at)

    async def body() -> None:
        async with running_envoy(tmp_path, resources(DIRECTED, pod, {})) as log:
            assert (await ask(at.app, "/testbed/ready")).status == 200
            for key, cell in (("12", "rz01"), ("7999", "rz02")):
                # Of a cell that the client names itself it knows nothing.
                answer = await ask(at.app, "/cart?a=1", x_user_id=key, cookie="cell=rz09")
                assert (answer.status, answer.body) == (200, "")
                assert answer.cookie == f"cell={cell}; path=/; httponly; max-age=7"
                assert answer.headers["x-cell-map"] == "1"
            answer = await ask(at.app)
            assert (answer.status, answer.cookie) == (400, None)
        directed = access_log.DIRECTED
        assert routes(log, "inbound") == [("1", "rz01", 1, directed), ("99", "rz02", 1, directed)]
        assert {line[access_log.PEER] for line in lines_of(log)["inbound"]} == {None}

    tried(body)


def test_who_is_directed_goes_to_the_cell_that_it_holds_and_is_forwarded_from_there_without_being_told(
    tmp_path: Path,
) -> None:
    moved_on = moved(DIRECTED, Move((0, 1, 2), "rz01", "rz02"))

    async def body() -> None:
        async with place(tmp_path, lambda _: moved_on) as there:
            for cookie, key, served in (("rz02", "999", "rz02"), ("rz01", "17", "rz02"), ("rz09", "999", "rz02")):
                answer = await ask(there.gateway, cookie=f"cell={cookie}", x_user_id=key)
                assert (answer.status, answer.cookie, there.served()) == (200, None, [served])
        assert [route for *_, route in routes(there.logs["rz01"], "inbound")] == [access_log.STALE_COOKIE]

    tried(body)
