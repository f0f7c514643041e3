"""Translation of cluster objects into what Envoy understands, for one proxy at a time.

Owns the shape of every route, cluster and endpoint that a proxy gets, as the pilot of Istio 1.32 would write it
(pilot/pkg/networking/core). Which rules hold is `mesh.traffic`, preferences among endpoints are `locality`, listeners
`listeners`, log lines `access_log`; when to push is `delivery`, and protobuf is `emulation`: here resources are the
JSON form of the protobuf messages, each with `@type`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from testbed.control.mesh.locality import LocalityRule, prioritised
from testbed.control.mesh.traffic import ServiceTraffic, Traffic
from testbed.control.views.envoy.access_log import GATEWAY, OUTBOUND, PEER_HEADER
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
    inbound_cluster_name,
    inbound_listener,
    named,
    outbound_listener,
)
from testbed.control.views.kube_proxy import reachable
from testbed.objects.addresses import SocketAddress
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import HttpRoute, OutlierDetection, Retries, TrafficPolicy
from testbed.objects.metadata import selects

PUSH_ORDER: Final = (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE)
"""Make before break: nothing is named before it exists. Source: Envoy, xds_protocol, eventual consistency."""

ENTRY_ZONE_HEADER: Final = "x-testbed-entry-zone"
"""Names in every answer that a gateway routed the zone of the gateway."""

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
        self._clusters = tuple(_outbound_cluster(each.service, each.policy, each.rule) for each in traffic.services)
        self._ports = {each.service.host: each.service.port for each in traffic.services}
        self._hosts: dict[str, tuple[Resource, ...]] = {}
        self._assignments: dict[tuple[str, str], tuple[tuple[object, ...], Resource]] = {}

    def resources(
        self, proxy: Pod, served: tuple[Pod, ...], nodes: Mapping[str, Node], slices: Mapping[str, EndpointSlice]
    ) -> dict[str, tuple[Resource, ...]]:
        """All resources of one proxy: type URL -> resources, in `PUSH_ORDER`.

        `served` are its `served_pods`; `nodes` by name and `slices` by host are the present state. A service without a
        slice has no endpoints. The proxy's pod must be bound to a node.
        """
        assert proxy.node is not None, f"pod {proxy.name} has a proxy but no node"
        node = nodes[proxy.node]
        endpoints = tuple(self._load_assignment(each, slices, node) for each in self._traffic.services)
        if proxy.template.role == "gateway":
            routes = self._traffic.routes_at(proxy)
            return {
                CLUSTER_TYPE: self._clusters,
                ENDPOINT_TYPE: endpoints,
                LISTENER_TYPE: () if routes is None else (gateway_listener(proxy),),
                ROUTE_TYPE: () if routes is None else (self._gateway_routes(routes, proxy, node),),
            }
        return {
            CLUSTER_TYPE: (*(self._inbound_cluster(proxy, pod) for pod in served), *self._clusters),
            ENDPOINT_TYPE: endpoints,
            LISTENER_TYPE: tuple(make(proxy, pod) for pod in served for make in (inbound_listener, outbound_listener)),
            ROUTE_TYPE: tuple(_outbound_routes(self._hosts_for(pod.namespace), proxy, pod) for pod in served),
        }

    def _inbound_cluster(self, proxy: Pod, pod: Pod) -> Resource:
        policies = (
            each.policy
            for each in self._traffic.services
            if each.service.namespace == pod.namespace and selects(each.service.selector, pod.template.labels)
        )
        return _inbound_cluster(proxy, pod, next(policies, TrafficPolicy()))

    def _load_assignment(self, traffic: ServiceTraffic, slices: Mapping[str, EndpointSlice], node: Node) -> Resource:
        service = traffic.service
        endpoints = slices[service.host].endpoints if service.host in slices else ()
        made_from = (endpoints, node.relays)
        key = (service.host, node.name)
        if key not in self._assignments or self._assignments[key][0] != made_from:
            usable = endpoints if self._traffic.meshed else reachable(endpoints, node, service.traffic_distribution)
            self._assignments[key] = (made_from, _load_assignment(service, traffic.rule, usable, node))
        return self._assignments[key][1]

    def _hosts_for(self, namespace: str) -> tuple[Resource, ...]:
        """The virtual hosts of all services as the pods of a namespace call them."""
        if namespace not in self._hosts:
            self._hosts[namespace] = tuple(
                {
                    "name": f"{each.service.host}:{each.service.port}",
                    "domains": _domains(each.service, namespace),
                    "routes": [self._route(route) for route in each.http],
                }
                for each in self._traffic.services
            )
        return self._hosts[namespace]

    def _gateway_routes(
        self, routes: Iterable[tuple[tuple[str, ...], HttpRoute]], gateway: Pod, node: Node
    ) -> Resource:
        by_hosts: dict[tuple[str, ...], list[Any]] = {
            ("*",): [{"match": {"path": READY_PATH}, "direct_response": {"status": 200}}]
        }
        for hosts, route in routes:
            by_hosts.setdefault(hosts, []).append(self._route(route))
        return {
            "@type": ROUTE_TYPE,
            "name": GATEWAY,
            "validate_clusters": False,
            "virtual_hosts": [
                {"name": GATEWAY if hosts == ("*",) else hosts[0], "domains": list(hosts), "routes": found}
                for hosts, found in by_hosts.items()
            ],
            "request_headers_to_add": [header(PEER_HEADER, gateway.name)],
            "response_headers_to_add": [header(ENTRY_ZONE_HEADER, node.locality.zone)],
        }

    def _route(self, route: HttpRoute) -> dict[str, Any]:
        # Istio does not look whether a destination exists either: Envoy answers 503 where there is no such cluster.
        cluster = cluster_name(route.destination, self._ports.get(route.destination, 80))
        return {"match": {"prefix": route.prefix}, "route": _route_action(route, cluster)}


def cluster_name(host: str, port: int) -> str:
    """Name of the Envoy cluster for calls to a service: `outbound|<port>||<host>`."""
    return f"outbound|{port}||{host}"


# --- clusters ----------------------------------------------------------------------------------------------------


def _outbound_cluster(service: Service, policy: TrafficPolicy, rule: LocalityRule) -> Resource:
    pool, outliers = policy.connection_pool, policy.outlier_detection
    name = cluster_name(service.host, service.port)
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


def _load_assignment(service: Service, rule: LocalityRule, endpoints: Sequence[Endpoint], node: Node) -> Resource:
    relays = dict(node.relays)
    return {
        "@type": ENDPOINT_TYPE,
        "cluster_name": cluster_name(service.host, service.port),
        "endpoints": [
            {
                "locality": {
                    "region": group.locality.region,
                    "zone": group.locality.zone,
                    "sub_zone": group.locality.subzone,
                },
                "priority": group.priority,
                "load_balancing_weight": group.weight,
                "lb_endpoints": [_lb_endpoint(endpoint, node, relays) for endpoint in group.endpoints],
            }
            for group in prioritised(endpoints, node, rule)
        ],
    }


def _lb_endpoint(endpoint: Endpoint, node: Node, relays: Mapping[str, SocketAddress]) -> dict[str, Any]:
    """An endpoint keeps its true address; on another node it names the relay that every byte must cross."""
    resource: dict[str, Any] = {"endpoint": {"address": address(endpoint.address)}}
    if endpoint.node != node.name and relays:
        assert endpoint.node in relays, f"node {node.name} has relays, but none to node {endpoint.node}"
        resource["metadata"] = {
            "typed_filter_metadata": {
                "envoy.http11_proxy_transport_socket.proxy_address": {
                    "@type": TYPES + "envoy.config.core.v3.Address",
                    **address(relays[endpoint.node]),
                }
            }
        }
    return resource


# --- routes ------------------------------------------------------------------------------------------------------


def _outbound_routes(hosts: Sequence[Mapping[str, Any]], proxy: Pod, pod: Pod) -> Resource:
    # Istio's outboundTrafficPolicy REGISTRY_ONLY: calls to anything but a service are answered 502.
    blocked = {
        "name": "block_all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 502}}],
    }
    return {
        "@type": ROUTE_TYPE,
        "name": named(OUTBOUND, proxy, pod),
        "validate_clusters": False,
        "virtual_hosts": [*hosts, blocked],
        "request_headers_to_add": [header(PEER_HEADER, pod.name)],
    }


def _domains(service: Service, namespace: str) -> list[str]:
    """Every name by which a pod of a namespace can call a service, with and without port."""
    qualified = f".{service.namespace}"
    suffixes = (qualified, f"{qualified}.svc", f"{qualified}.svc.cluster.local")
    names = ("", *suffixes) if namespace == service.namespace else suffixes
    return [f"{service.name}{suffix}{port}" for suffix in names for port in ("", f":{service.port}")]


def _route_action(route: HttpRoute, cluster: str) -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": cluster, "timeout": duration(route.timeout_s or 0.0)}
    if route.retries.attempts > 0:
        action["retry_policy"] = _retry_policy(route.retries)
    return action


def _retry_policy(retries: Retries) -> dict[str, Any]:
    """Source: Istio 1.32, pilot/pkg/networking/core/route/retry/retry.go. Back-off is Envoy's default, written out.

    Until 1.23 Istio also retried 503 (EXCLUDE_UNSAFE_503_FROM_DEFAULT_RETRY): an answer, after which the work may be
    done. Now only a policy that names 503 or `gateway-error` has that.
    """
    policy: dict[str, Any] = {
        "retry_on": retries.retry_on,
        "num_retries": retries.attempts,
        "retriable_status_codes": list(retries.retriable_status_codes),
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": TYPES + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
    if retries.per_try_timeout_s is not None:
        policy["per_try_timeout"] = duration(retries.per_try_timeout_s)
    return policy
