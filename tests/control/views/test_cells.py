"""What proxies are told of cells, as golden files: type URL -> resources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from testbed.control.cells.ownership import Move, moved
from testbed.control.cells.subsets import subsets_of
from testbed.control.store import Store
from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from testbed.control.views.envoy.proxies import Proxies
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cells import (
    CELL,
    CITY,
    GROUP,
    WORKER,
    Cell,
    City,
    DeploymentGroup,
    Layer,
    PartitionKey,
    PartitionMap,
    PartitionRule,
    Rollout,
    ShuffleShards,
)
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import DestinationRule, Gateway, HttpRoute, VirtualService
from testbed.objects.metadata import Labels
from testbed.objects.places import Locality
from testbed.objects.workloads import PodTemplate

Golden = Callable[[str, str], None]
Told = Mapping[str, tuple[Mapping[str, Any], ...]]

ZONES = ("east-a", "east-b", "west-a")
NODES = {zone: Node(f"{zone}-1", Locality(zone[:4], zone), ready="True") for zone in ZONES}
GATEWAY_LABELS = (("istio", "gateway"),)
MAP = PartitionMap(
    "cells",
    7,
    PartitionKey("header", "X-User-Id"),
    PartitionRule("digits", digits=(2,)),
    (
        Cell("rz01", ("east-a",), (DeploymentGroup("blue", 90), DeploymentGroup("green", 10)), backup="rz02"),
        Cell("rz02", ("east-b",)),
        Cell("rz03", ("west-a",), elastic=True),
    ),
    ("rz01",) * 4 + ("rz02",) * 6,
    (City("east", ("east-a", "east-b")), City("west", ("west-a",))),
    unkeyed="nearest",
)

NEW = moved(MAP, Move((0, 1), "rz01", "rz02"))


def pod(name: str, service: str, zone: str, host: int, *labels: tuple[str, str], role: Any = "service") -> Pod:
    address = PodAddress(*(SocketAddress(f"127.20.1.{host}", port) for port in (8080, 15006, 15001)))
    template = PodTemplate(service, None, role=role, extra_labels=labels)
    return Pod(name, service, template, NODES[zone].name, "Running", True, address=address)


PODS = (
    pod("web-rz01-blue-1", "web", "east-a", 11, (CELL, "rz01"), (GROUP, "blue")),
    pod("web-rz01-green-1", "web", "east-a", 12, (CELL, "rz01"), (GROUP, "green")),
    pod("web-rz02-1", "web", "east-b", 13, (CELL, "rz02")),
    pod("web-rz02-2", "web", "east-a", 14, (CELL, "rz02")),
    pod("catalog-east-1", "catalog", "east-a", 15, (CITY, "east")),
    pod("catalog-west-1", "catalog", "west-a", 16, (CITY, "west")),
    pod("audit-1", "audit", "west-a", 17),
)
GATEWAY = pod("gateway-1", "gateway", "east-a", 21, *GATEWAY_LABELS, role="gateway")
ROUTER = pod("router-1", "router", "east-b", 22, role="router")
CLASSES: dict[str, Any] = {"web": "sharded", "catalog": "perCity", "audit": "global"}


def store_with(cell_map: PartitionMap) -> Store:
    store = Store()
    for node in NODES.values():
        store.put(node)
    for each in (*PODS, GATEWAY, ROUTER):
        store.put(each)
    for name, service_class in CLASSES.items():
        own = [each for each in PODS if each.template.service == name]
        store.put(Service(name, selector=(("app", name),), service_class=service_class))
        store.put(DestinationRule(name, name, subsets=subsets_of(cell_map, service_class)))
        store.put(EndpointSlice(name, tuple(map(endpoint, own))))
    store.put(Gateway("gateway", GATEWAY_LABELS))
    routes = tuple(HttpRoute(name, f"/{name}", timeout_s=2.0) for name in CLASSES)
    store.put(VirtualService("gateway", ("*",), routes, gateways=("gateway",)))
    store.put(cell_map)
    return store


def endpoint(of: Pod) -> Endpoint:
    assert of.address is not None
    labels: Labels = of.template.extra_labels
    zone = next(zone for zone, node in NODES.items() if node.name == of.node)
    at = replace(NODES[zone].locality, subzone=dict(labels).get(CELL, ""))
    return Endpoint(of.name, of.node or "", at, of.address.inbound, labels)


def told(proxy: Pod, cell_map: PartitionMap = MAP) -> Told:
    store, view = store_with(cell_map), Proxies()
    return view.resources(store, next(each for each in view.subscribers(store) if each.name == proxy.name))


def as_text(resources: Mapping[str, Any]) -> str:
    return orjson.dumps(resources, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def test_a_gateway_goes_by_the_cookie_and_hands_first_hits_to_the_nearest_cell(golden: Golden) -> None:
    golden("cells_gateway.json", as_text(told(GATEWAY)))


def test_a_pod_of_a_cell_calls_owners_and_forwards_what_it_does_not_own(golden: Golden) -> None:
    golden("cells_sidecar.json", as_text(told(PODS[0])))


DIRECTED = replace(MAP, entry="directed", answer_ttl_s=30, first_hit="owner")


def test_a_router_answers_with_the_owner_as_a_cookie_that_expires(golden: Golden) -> None:
    golden("cells_router.json", as_text(told(ROUTER, DIRECTED)))


def test_of_a_map_for_gateways_first_the_router_is_among_them() -> None:
    rolling = replace(DIRECTED, version=8, owners=NEW.owners, rollout=Rollout("gateways", DIRECTED))
    assert told(ROUTER, rolling) == told(ROUTER, replace(rolling, rollout=None)) != told(ROUTER, DIRECTED)


def test_nobody_but_the_router_tells_directed_clients_their_cell() -> None:
    for proxy in (GATEWAY, *PODS):
        assert "set-cookie" not in as_text(told(proxy, DIRECTED))


@pytest.mark.parametrize(("layer", "gateway", "sidecar"), [("gateways", NEW, MAP), ("sidecars", MAP, NEW)])
def test_of_a_map_that_is_for_one_layer_yet_the_other_one_is_told_the_previous_one(
    layer: Layer, gateway: PartitionMap, sidecar: PartitionMap
) -> None:
    rolling = replace(NEW, rollout=Rollout(layer, MAP))
    assert told(GATEWAY, rolling) == told(GATEWAY, gateway)
    assert told(PODS[0], rolling) == told(PODS[0], sidecar)


OTHERWISE = {
    "directed": DIRECTED,
    "owner-and-refuse": replace(MAP, first_hit="owner", misdirected="refuse", unkeyed="refuse"),
    "path-and-hash": replace(
        MAP, key=PartitionKey("path", "/u/([0-9]+)/.*"), rule=PartitionRule("hash"), unkeyed="rz02"
    ),
    "query-and-modulo": replace(MAP, key=PartitionKey("query", "user"), rule=PartitionRule("modulo")),
    "cookie-and-ranges": replace(
        MAP, key=PartitionKey("cookie", "user"), rule=PartitionRule("ranges", bounds=tuple(range(0, 100, 10)))
    ),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_another_declaration_gives_other_filters_and_routes(name: str, golden: Golden) -> None:
    def kept(resources: Told) -> dict[str, Any]:
        filters = [
            each
            for listener in resources[LISTENER_TYPE]
            for each in listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][:-1]
        ]
        scripts = [
            each["typed_config"].get("default_source_code", {}).get("inline_string", "").splitlines()
            or each["typed_config"]
            for each in filters
        ]
        routes = [
            {key: route[key] for key in ("name", "match", "direct_response", "response_headers_to_add") if key in route}
            for configuration in resources[ROUTE_TYPE]
            for host in configuration["virtual_hosts"]
            for route in host["routes"]
        ]
        return {"filters": scripts, "routes": routes}

    by = OTHERWISE[name]
    parts = {each.name: kept(told(each, by)) for each in (GATEWAY, PODS[0])}
    golden(f"parts/cells-{name}.json", as_text(parts))


def test_a_service_with_shuffle_shards_is_divided_by_the_partitions_that_its_workers_serve(golden: Golden) -> None:
    by = replace(MAP, shards=(ShuffleShards("web", workers=2, size=1, seed=1),))
    workers = {pod.name: (WORKER, str(number % 2)) for number, pod in enumerate(PODS)}
    store, view = store_with(by), Proxies()
    own = [endpoint(each) for each in PODS if each.template.service == "web"]
    labelled = (replace(each, labels=(*each.labels, workers[each.pod])) for each in own)
    store.put(EndpointSlice("web", tuple(labelled)))
    for proxy in (GATEWAY, PODS[0]):
        resources = view.resources(store, next(each for each in view.subscribers(store) if each.name == proxy.name))
        divided = {each["name"]: each.get("lb_subset_config") for each in resources[CLUSTER_TYPE]}
        assert {bool(config) == name.endswith("|web") for name, config in divided.items()} == {True}
    parts = {
        "cluster": next(each for each in divided.values() if each),
        "endpoints": [each for each in resources[ENDPOINT_TYPE] if each["cluster_name"].endswith("|rz02|web")],
        "filter": resources[LISTENER_TYPE][1]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0],
    }
    golden("parts/cells-shuffle-shards.json", as_text(parts))


def test_a_new_map_changes_routes_only() -> None:
    later = moved(MAP, Move((3,), "rz01", "rz03"))
    for proxy in (GATEWAY, *PODS):
        before, after = told(proxy), told(proxy, later)
        same = {type_url for type_url in before if before[type_url] == after[type_url]}
        assert same == {CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE}, proxy.name


def test_every_partition_is_routed_to_one_owner_by_everybody() -> None:
    for proxy in (GATEWAY, *PODS):
        resources = told(proxy, replace(MAP, first_hit="owner"))
        for configuration in resources[ROUTE_TYPE]:
            for host in configuration["virtual_hosts"]:
                owned: dict[tuple[str, str], list[int]] = {}
                for route in host["routes"]:
                    owner = route.get("metadata", {}).get("filter_metadata", {}).get("testbed.cells", {})
                    ranges = [
                        each["range_match"] for each in route["match"].get("headers", ()) if "range_match" in each
                    ]
                    entry = [each for each in route["match"].get("headers", ()) if "range_match" not in each]
                    if ranges and not entry:
                        key = (route["match"]["prefix"], owner["owner_cell"])
                        owned.setdefault(key, []).extend(range(ranges[0]["start"], ranges[0]["end"]))
                for prefix in {prefix for prefix, _ in owned}:
                    assert {cell: numbers for (at, cell), numbers in owned.items() if at == prefix} == {
                        "rz01": [0, 1, 2, 3],
                        "rz02": [4, 5, 6, 7, 8, 9],
                    }


def test_a_node_proxy_has_the_routes_of_every_pod_of_its_node() -> None:
    store = store_with(MAP)
    for each in store.list(Pod):
        if each.template.role == "service":
            store.put(replace(each, template=replace(each.template, mesh_mode="node")))
    template = PodTemplate("node-proxy", None, role="node-proxy", mesh_mode="node")
    proxy = replace(PODS[0], name="node-proxy-1", template=template)
    store.put(proxy)
    view = Proxies()
    resources = view.resources(store, next(each for each in view.subscribers(store) if each.name == proxy.name))
    names = ["web-rz01-blue-1", "web-rz01-green-1", "web-rz02-2", "catalog-east-1"]
    assert [each["name"] for each in resources[ROUTE_TYPE]] == [
        *(f"{kind}|{name}" for name in names[:-1] for kind in ("inbound", "outbound")),
        "outbound|catalog-east-1",
    ]
    cells = {
        route["request_headers_to_add"][1]["header"]["value"]
        for configuration in resources[ROUTE_TYPE]
        for host in configuration["virtual_hosts"]
        for route in host["routes"]
        if route.get("name") == "stale-map"
    }
    assert cells == {"rz01", "rz02"}


def test_pods_that_are_alike_have_the_same_routes_so_that_they_are_encoded_once() -> None:
    store, view = store_with(MAP), Proxies()
    alike = [replace(PODS[2], name=f"web-rz02-{number}") for number in (1, 3)]
    for each in alike:
        store.put(each)
    found = {each.name: each for each in view.subscribers(store)}
    first, second = (view.resources(store, found[each.name])[ROUTE_TYPE] for each in alike)
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, True]
