"""Translation of cluster objects into what Envoy understands, for one proxy at a time.

Owns the shape of every route, cluster and endpoint that a proxy gets, as the pilot of Istio 1.32 would write it
(pilot/pkg/networking/core). Which rules hold is `mesh.traffic`, preferences among endpoints are `locality`, listeners
`listeners`, log lines `access_log`; when to push is `delivery`, and protobuf is `emulation`: here resources are the
JSON form of the protobuf messages, each with `@type`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from testbed.control.cells.shards import partitions_by_worker, shards_of
from testbed.control.mesh.locality import LocalityRule, prioritised
from testbed.control.mesh.traffic import ServiceTraffic, Traffic
from testbed.control.views.envoy.access_log import GATEWAY, INBOUND, OUTBOUND, PARTITION_HEADER, PEER_HEADER
from testbed.control.views.envoy.cells import CellRoutes
from testbed.control.views.envoy.envoy_api import (
    ADS,
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    TYPES,
    Resource,
    address,
    duration,
    header,
)
from testbed.control.views.envoy.listeners import (
    READY_PATH,
    address_of,
    gateway_listener,
    inbound_action,
    inbound_cluster_name,
    inbound_listener,
    named,
    outbound_listener,
    router_listener,
)
from testbed.control.views.envoy.routes import domains, inbound_routes, outbound_routes, route_action
from testbed.control.views.envoy.shards import DIVIDED, served_partitions
from testbed.control.views.envoy.tcp import inbound_tcp_listener, outbound_tcp_listener
from testbed.control.views.kube_proxy import reachable
from testbed.objects.addresses import SocketAddress
from testbed.objects.cells import CELL, ENTRY_PARTITION_HEADER, Layer, PartitionMap
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import HttpRoute, OutlierDetection, Subset, TrafficPolicy
from testbed.objects.metadata import selects
from testbed.objects.workloads import ROUTER

PUSH_ORDER: Final = (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE)
"""Make before break: nothing is named before it exists. Source: Envoy, xds_protocol, eventual consistency."""

ENTRY_ZONE_HEADER: Final = "x-testbed-entry-zone"
"""Names in every answer that a gateway routed the zone of the gateway."""

_READY: Final[Mapping[str, Any]] = {"match": {"path": READY_PATH}, "direct_response": {"status": 200}}

ALL: Final = Subset("", ())
"""All endpoints of a service."""

_NO_LIMIT: Final = 2**32 - 1


def served_pods(proxy: Pod, pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """Those of `pods` whose calls a proxy carries and that have an address: its own pod, or all of its node."""
    if proxy.template.role != "node-proxy":
        return (proxy,) if proxy.address is not None else ()
    return tuple(
        pod
        for pod in pods
        if pod.node == proxy.node
        and pod.address is not None
        and pod.template.role == "service"
        and pod.template.mesh_mode == "node"
    )


class ConfigGenerator:
    """Makes the resources of every proxy that goes by the same traffic rules (Istio's ConfigGenerator, its XdsCache).

    What several proxies are told alike is the same object for all of them, also from call to call as long as nothing
    of it changes: clusters everywhere, endpoints on one node.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._called = tuple((each, subset) for each in traffic.services for subset in (ALL, *each.subsets))
        cells = traffic.cells
        self._by_worker = {
            each.service.host: partitions_by_worker(shards, len(cells.owners))
            for each in traffic.services
            if cells is not None and (shards := shards_of(cells, each.service.name)) is not None
        }
        self._clusters = tuple(
            _outbound_cluster(each, subset.name, divided=each.service.host in self._by_worker)
            for each, subset in self._called
        )
        self._services = {each.service.host: each.service for each in traffic.services}
        self._hosts: dict[tuple[str, str, str], tuple[Resource, ...]] = {}
        self._routes_made: dict[tuple[object, ...], Resource] = {}
        self._assignments: dict[tuple[str, str, str], tuple[tuple[object, ...], Resource]] = {}

    def resources(
        self, proxy: Pod, served: tuple[Pod, ...], nodes: Mapping[str, Node], slices: Mapping[str, EndpointSlice]
    ) -> dict[str, tuple[Resource, ...]]:
        """All resources of one proxy: type URL -> resources, in `PUSH_ORDER`.

        `served` are its `served_pods`; `nodes` by name and `slices` by host are the present state. A service without a
        slice has no endpoints. The proxy's pod must be bound to a node.
        """
        assert proxy.node is not None, f"pod {proxy.name} has a proxy but no node"
        node = nodes[proxy.node]
        if proxy.template.role == "router":
            return self._of_router(proxy, node)
        endpoints = tuple(self._load_assignment(each, subset, slices, node) for each, subset in self._called)
        if proxy.template.role == "gateway":
            cells = self._cells_of("gateways")
            routes = self._traffic.routes_at(proxy)
            return {
                CLUSTER_TYPE: self._clusters,
                ENDPOINT_TYPE: endpoints,
                LISTENER_TYPE: () if routes is None else (gateway_listener(proxy, cells),),
                ROUTE_TYPE: () if routes is None else (self._gateway_routes(routes, proxy, node),),
            }
        return {
            CLUSTER_TYPE: (*(self._inbound_cluster(proxy, pod) for pod in served), *self._clusters),
            ENDPOINT_TYPE: endpoints,
            LISTENER_TYPE: tuple(each for pod in served for each in self._listeners(proxy, pod)),
            ROUTE_TYPE: tuple(each for pod in served for each in self._pod_routes(proxy, pod, node)),
        }

    def _of_router(self, router: Pod, node: Node) -> dict[str, tuple[Resource, ...]]:
        """It answers all by itself, and calls nobody: Envoy never asks for endpoints then, and would not acknowledge
        any."""
        cells = self._cell_routes(node, router)
        if cells is None:
            return {CLUSTER_TYPE: (), LISTENER_TYPE: (), ROUTE_TYPE: ()}
        listener = router_listener(router, cells.cell_map)
        routes = inbound_routes(ROUTER, [_READY, *cells.asked()])
        return {CLUSTER_TYPE: (), LISTENER_TYPE: (listener,), ROUTE_TYPE: (routes,)}

    def _listeners(self, proxy: Pod, pod: Pod) -> Iterable[Resource]:
        cells = self._cells_of("sidecars")
        if any(each.service.app_protocol == "tcp" for each in self._of(pod)):
            yield inbound_tcp_listener(proxy, pod)
        else:
            yield inbound_listener(proxy, pod, None if self._sharded(pod) is None else cells)
        yield outbound_listener(proxy, pod, cells)
        for each in self._traffic.services:
            if each.service.app_protocol == "tcp":
                cluster = cluster_name(each.service.host, each.service.port)
                yield outbound_tcp_listener(proxy, pod, each.service, cluster)

    def _pod_routes(self, proxy: Pod, pod: Pod, node: Node) -> Iterable[Resource]:
        """Outbound, and for a pod in a cell inbound as well. With cells they are the same for all that are alike."""
        cells = self._cell_routes(node, pod)
        outbound, inbound = named(OUTBOUND, proxy, pod), named(INBOUND, proxy, pod)
        hosts = self._hosts_for(pod.namespace, node, cells)
        if cells is None:
            yield outbound_routes(outbound, hosts, pod.name)
            return
        where = (pod.namespace, cells.cell, cells.zone)
        if (traffic := self._sharded(pod)) is not None:
            host = traffic.service.host
            route, local = next(iter(traffic.http), HttpRoute(host)), inbound_action(proxy, pod)
            received = partial(cells.received, local, partial(self._action, route))
            key = (inbound, *where, host, pod.template.port)
            yield self._shared(key, lambda: inbound_routes(inbound, received()))
        yield self._shared((outbound, *where), lambda: outbound_routes(outbound, hosts, None))

    def _shared(self, key: tuple[object, ...], make: Callable[[], Resource]) -> Resource:
        if key not in self._routes_made:
            self._routes_made[key] = make()
        return self._routes_made[key]

    def _cell_routes(self, node: Node, pod: Pod) -> CellRoutes | None:
        cells = self._cells_of("gateways" if pod.template.is_entered else "sidecars")
        if cells is None:
            return None
        return CellRoutes(cells, node.locality.zone, dict(pod.template.extra_labels).get(CELL, ""))

    def _cells_of(self, layer: Layer) -> PartitionMap | None:
        return None if self._traffic.cells is None else self._traffic.cells.seen_by(layer)

    def _sharded(self, pod: Pod) -> ServiceTraffic | None:
        """The service of a pod in a cell, if it is spread over cells."""
        if self._traffic.cells is None or CELL not in dict(pod.template.extra_labels):
            return None
        return next((each for each in self._of(pod) if each.service.service_class == "sharded"), None)

    def _of(self, pod: Pod) -> Iterable[ServiceTraffic]:
        """The services that select a pod."""
        return (
            each
            for each in self._traffic.services
            if each.service.namespace == pod.namespace and selects(each.service.selector, pod.template.labels)
        )

    def _inbound_cluster(self, proxy: Pod, pod: Pod) -> Resource:
        return _inbound_cluster(proxy, pod, next((each.policy for each in self._of(pod)), TrafficPolicy()))

    def _load_assignment(
        self, traffic: ServiceTraffic, subset: Subset, slices: Mapping[str, EndpointSlice], node: Node
    ) -> Resource:
        service = traffic.service
        endpoints = slices[service.host].endpoints if service.host in slices else ()
        made_from = (endpoints, node.relays)
        key = (service.host, subset.name, node.name)
        if key not in self._assignments or self._assignments[key][0] != made_from:
            usable = endpoints if self._traffic.meshed else reachable(endpoints, node, service.traffic_distribution)
            by_worker = self._by_worker.get(service.host)
            assignment = _load_assignment(service, subset, traffic.rule, usable, node, by_worker)
            self._assignments[key] = (made_from, assignment)
        return self._assignments[key][1]

    def _hosts_for(self, namespace: str, node: Node, cells: CellRoutes | None) -> tuple[Resource, ...]:
        """The virtual hosts of all services as the pods of a namespace call them, with cells from where they are."""
        key = (namespace, "", "") if cells is None else (namespace, cells.cell, cells.zone)
        if key not in self._hosts:
            self._hosts[key] = tuple(
                {
                    "name": f"{each.service.host}:{each.service.port}",
                    "domains": domains(each.service, namespace),
                    "routes": [found for route in each.http for found in self._routes(route, cells)],
                }
                for each in self._traffic.services
                if each.service.app_protocol == "http"
            )
        return self._hosts[key]

    def _gateway_routes(
        self, routes: Iterable[tuple[tuple[str, ...], HttpRoute]], gateway: Pod, node: Node
    ) -> Resource:
        by_hosts: dict[tuple[str, ...], list[Any]] = {("*",): [dict(_READY)]}
        for hosts, route in routes:
            by_hosts.setdefault(hosts, []).extend(self._routes(route, self._cell_routes(node, gateway), entering=True))
        with_cells = self._traffic.cells is not None
        partition = [header(ENTRY_PARTITION_HEADER, f"%REQ({PARTITION_HEADER})%")] if with_cells else []
        return {
            "@type": ROUTE_TYPE,
            "name": GATEWAY,
            "validate_clusters": False,
            "virtual_hosts": [
                {"name": GATEWAY if hosts == ("*",) else hosts[0], "domains": list(hosts), "routes": found}
                for hosts, found in by_hosts.items()
            ],
            "request_headers_to_add": [header(PEER_HEADER, gateway.name)],
            "response_headers_to_add": [header(ENTRY_ZONE_HEADER, node.locality.zone), *partition],
        }

    def _routes(self, route: HttpRoute, cells: CellRoutes | None, *, entering: bool = False) -> list[dict[str, Any]]:
        """What becomes of one HTTPRoute: with cells, a route for each place that its calls can go to."""
        match, to = {"prefix": route.prefix}, partial(self._action, route)
        if cells is None:
            return [{**({"name": route.name} if route.name else {}), "match": match, "route": to("")}]
        service = self._services.get(route.destination)
        choose = cells.entered if entering else cells.called
        return choose("global" if service is None else service.service_class, match, to)

    def _action(self, route: HttpRoute, subset: str) -> dict[str, Any]:
        # Istio does not look whether a destination exists either: Envoy answers 503 where there is no such cluster.
        service = self._services.get(route.destination)
        return route_action(route, cluster_name(route.destination, 80 if service is None else service.port, subset))


def cluster_name(host: str, port: int, subset: str = "") -> str:
    """Name of the Envoy cluster for calls to a service, or a subset of it: `outbound|<port>|<subset>|<host>`."""
    return f"outbound|{port}|{subset}|{host}"


# --- clusters ----------------------------------------------------------------------------------------------------


def _outbound_cluster(traffic: ServiceTraffic, subset: str, *, divided: bool) -> Resource:
    service, policy, rule = traffic.service, traffic.policy, traffic.rule
    pool, outliers = policy.connection_pool, policy.outlier_detection
    name = cluster_name(service.host, service.port, subset)
    balancing: dict[str, Any] = {}
    if outliers is not None:
        balancing["healthy_panic_threshold"] = {"value": outliers.min_health_percent}
    if rule.weighted:
        balancing["locality_weighted_lb_config"] = {}
    http: dict[str, Any] = {"explicit_http_config": {"http_protocol_options": {}}}
    connections: dict[str, Any] = {}
    if pool.idle_timeout_s is not None:
        connections["idle_timeout"] = duration(pool.idle_timeout_s)
    if pool.max_requests_per_connection is not None:
        connections["max_requests_per_connection"] = pool.max_requests_per_connection
    if connections:
        http["common_http_protocol_options"] = connections
    resource: Resource = {
        "@type": CLUSTER_TYPE,
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": dict(ADS), "service_name": name},
        "connect_timeout": duration(pool.connect_timeout_s),
        "lb_policy": policy.load_balancer,
        "common_lb_config": balancing,
        "circuit_breakers": _circuit_breakers(policy),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPES + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                **http,
            }
        },
        "transport_socket": _RELAYED_TRANSPORT,
    }
    if outliers is not None:
        resource["outlier_detection"] = _outlier_detection(outliers)
    if divided:
        resource["lb_subset_config"] = {**DIVIDED, **({"locality_weight_aware": True} if rule.weighted else {})}
    return resource


def _inbound_cluster(proxy: Pod, pod: Pod, policy: TrafficPolicy) -> Resource:
    name = inbound_cluster_name(proxy, pod)
    return {
        "@type": CLUSTER_TYPE,
        "name": name,
        "type": "STATIC",
        "connect_timeout": duration(policy.connection_pool.connect_timeout_s),
        "circuit_breakers": _circuit_breakers(TrafficPolicy()),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(address_of(pod).app)}}]}],
        },
    }


def _circuit_breakers(policy: TrafficPolicy) -> dict[str, Any]:
    """Istio lifts Envoy's limits of 1024 and 3 retries unless the connection pool sets some."""
    pool = policy.connection_pool
    limits = {
        "max_connections": pool.max_connections,
        "max_pending_requests": pool.http1_max_pending_requests,
        "max_requests": pool.http2_max_requests,
        "max_retries": pool.max_retries,
    }
    return {"thresholds": [{name: _NO_LIMIT if limit is None else limit for name, limit in limits.items()}]}


def _outlier_detection(outliers: OutlierDetection) -> dict[str, Any]:
    """Source: Istio, cluster_traffic_policy.go, applyOutlierDetection.

    A count of 0 turns its detector off, a max_ejection_percent of 0 is left to Envoy.
    """
    detection: dict[str, Any] = {
        "consecutive_5xx": outliers.consecutive_5xx_errors,
        "enforcing_consecutive_5xx": 100 if outliers.consecutive_5xx_errors > 0 else 0,
        "enforcing_success_rate": 0,
        "interval": duration(outliers.interval_s),
        "base_ejection_time": duration(outliers.base_ejection_time_s),
    }
    if outliers.max_ejection_percent > 0:
        detection["max_ejection_percent"] = outliers.max_ejection_percent
    if outliers.consecutive_gateway_errors is not None:
        detection["consecutive_gateway_failure"] = outliers.consecutive_gateway_errors
        detection["enforcing_consecutive_gateway_failure"] = 100 if outliers.consecutive_gateway_errors > 0 else 0
    return detection


_RELAYED_TRANSPORT: Final[Mapping[str, Any]] = {
    "name": "envoy.transport_sockets.http_11_proxy",
    "typed_config": {
        "@type": TYPES + "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport",
        "transport_socket": {
            "name": "envoy.transport_sockets.raw_buffer",
            "typed_config": {"@type": TYPES + "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
        },
    },
}
"""Connects by CONNECT through the proxy that an endpoint carries in its metadata, and directly where it has none."""


# --- endpoints ---------------------------------------------------------------------------------------------------


def _load_assignment(
    service: Service,
    subset: Subset,
    rule: LocalityRule,
    endpoints: Sequence[Endpoint],
    node: Node,
    by_worker: tuple[tuple[int, ...], ...] | None,
) -> Resource:
    """`by_worker`: the partitions that each worker serves; None where all endpoints serve all."""
    relays = dict(node.relays)
    labels = dict(subset.labels)
    chosen = [each for each in endpoints if labels.items() <= dict(each.labels).items()]
    # Within one cell no endpoint is in another sub-zone than any caller should prefer: zone and node decide.
    caller = replace(node, locality=replace(node.locality, subzone=labels.get(CELL, node.locality.subzone)))
    return {
        "@type": ENDPOINT_TYPE,
        "cluster_name": cluster_name(service.host, service.port, subset.name),
        "endpoints": [
            {
                "locality": {
                    "region": group.locality.region,
                    "zone": group.locality.zone,
                    "sub_zone": group.locality.subzone,
                },
                "priority": group.priority,
                "load_balancing_weight": group.weight,
                "lb_endpoints": [_lb_endpoint(endpoint, node, relays, by_worker) for endpoint in group.endpoints],
            }
            for group in prioritised(chosen, caller, rule)
        ],
    }


def _lb_endpoint(
    endpoint: Endpoint,
    node: Node,
    relays: Mapping[str, SocketAddress],
    by_worker: tuple[tuple[int, ...], ...] | None,
) -> dict[str, Any]:
    """An endpoint keeps its true address; on another node it names the relay that every byte must cross."""
    resource: dict[str, Any] = {"endpoint": {"address": address(endpoint.address)}}
    metadata: dict[str, Any] = {}
    if by_worker is not None:
        metadata["filter_metadata"] = served_partitions(endpoint, by_worker)
    if endpoint.node != node.name and relays:
        assert endpoint.node in relays, f"node {node.name} has relays, but none to node {endpoint.node}"
        metadata["typed_filter_metadata"] = {
            "envoy.http11_proxy_transport_socket.proxy_address": {
                "@type": TYPES + "envoy.config.core.v3.Address",
                **address(relays[endpoint.node]),
            }
        }
    if metadata:
        resource["metadata"] = metadata
    return resource
