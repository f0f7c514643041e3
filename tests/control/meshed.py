"""Two services in a mesh on four nodes, and what each proxy is told there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from testbed.control.store import Store
from testbed.control.views.envoy.proxies import Proxies
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cluster import Declared
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import (
    DestinationRule,
    Gateway,
    HttpRoute,
    TrafficPolicy,
    VirtualService,
)
from testbed.objects.places import Locality
from testbed.objects.workloads import BuiltinWorkload, PodTemplate

LOCALITIES = {
    "n1": Locality("east", "east-a", "cell-1"),
    "n2": Locality("east", "east-a", "cell-2"),
    "n3": Locality("east", "east-b"),
    "n4": Locality("west", "west-a"),
}
NODES = {
    name: Node(
        name,
        locality,
        ready="True",
        relays=tuple(
            (other, SocketAddress(f"127.20.{here}.1", 20000 + there))
            for there, other in enumerate(LOCALITIES, 1)
            if other != name
        ),
    )
    for here, (name, locality) in enumerate(LOCALITIES.items(), 1)
}
ORDERS = EndpointSlice(
    "orders",
    tuple(
        Endpoint(f"orders-{i}", node, LOCALITIES[node], SocketAddress(f"127.20.{i}.12", 15006))
        for i, node in enumerate(LOCALITIES, 1)
    ),
)
WEB_POD = Pod(
    "web-1",
    "web",
    PodTemplate("web", BuiltinWorkload(stages=(("orders",),))),
    node="n1",
    phase="Running",
    ready=True,
    address=PodAddress(
        SocketAddress("127.20.1.11", 8080), SocketAddress("127.20.1.11", 15006), SocketAddress("127.20.1.11", 15001)
    ),
)
GATEWAY_LABELS = (("istio", "gateway"),)
GATEWAY = PodTemplate("gateway", None, role="gateway", extra_labels=GATEWAY_LABELS)
GATEWAY_POD = replace(WEB_POD, name="gateway-1", template=GATEWAY)
NODE_PROXY = replace(WEB_POD, name="node-proxy-n1-1", template=PodTemplate("node-proxy", None, role="node-proxy"))


def pod_on(node: str | None, name: str, host: int, template: PodTemplate) -> Pod:
    address = PodAddress(*(SocketAddress(f"127.20.1.{host}", port) for port in (template.port, 15006, 15001)))
    return replace(WEB_POD, name=name, node=node, template=template, address=address)


_WEB = PodTemplate("web", BuiltinWorkload(), mesh_mode="node")
NODE_PODS = (
    NODE_PROXY,
    GATEWAY_POD,
    pod_on("n1", "web-1", 11, _WEB),
    pod_on("n2", "web-2", 12, _WEB),
    pod_on("n1", "orders-1", 13, PodTemplate("orders", BuiltinWorkload(), port=9000, mesh_mode="node")),
    replace(pod_on("n1", "orders-2", 14, _WEB), address=None),
)


def cluster(
    orders: TrafficPolicy | None = None,
    service: Service | None = None,
    route: HttpRoute | None = None,
    routes: tuple[HttpRoute, ...] = (),
) -> tuple[Declared, ...]:
    """Two services in a mesh; `route` is how pods call orders, `routes` are those of the gateway."""
    return (
        *NODES.values(),
        Service("web", selector=(("app", "web"),)),
        service or Service("orders", 8000, selector=(("app", "orders"),)),
        DestinationRule("orders", "orders", orders or TrafficPolicy()),
        VirtualService("orders", ("orders",), (route or HttpRoute("orders"),)),
        Gateway("gateway", GATEWAY_LABELS),
        VirtualService("gateway", ("*",), routes, gateways=("gateway",)),
    )


def resources(objects: tuple[Declared, ...], proxy: Pod = WEB_POD) -> Mapping[str, tuple[Mapping[str, Any], ...]]:
    store = Store()
    for each in (*objects, ORDERS, *NODE_PODS, proxy):
        store.put(each)
    view = Proxies()
    subscriber = next(each for each in view.subscribers(store) if each.name == proxy.name)
    return view.resources(store, subscriber)


def named(spec: tuple[Declared, ...], type_url: str, name: str = "outbound|8000||orders") -> Mapping[str, Any]:
    return next(r for r in resources(spec)[type_url] if name in (r.get("name"), r.get("cluster_name")))


def as_text(told: Mapping[str, Any]) -> str:
    return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def part(spec: tuple[Declared, ...], *types: str) -> str:
    """The golden text of the resources of some types, for calls to `orders` only."""
    return as_text({type_url: [named(spec, type_url)] for type_url in types})
