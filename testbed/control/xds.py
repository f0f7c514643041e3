"""Translation of cluster objects into what Envoy understands, for one proxy at a time.

Owns the shape of every listener, route, cluster and endpoint that a proxy gets, as Istio's pilot would write it
(pilot/pkg/networking/core). Preferences among endpoints are `locality`, log lines `access_log`; when to push is
`plane`, and protobuf is `emulation`: here resources are the JSON form of the protobuf messages, each with `@type`.

A sidecar has an inbound listener in front of its application and an outbound one that is an HTTP forward proxy
(applications set HTTP_PROXY). A gateway has one listener for clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from testbed.control.access_log import GATEWAY, INBOUND, OUTBOUND, PEER_HEADER, CallKind, attempt_log, call_log
from testbed.control.locality import LocalityRule, locality_rule, prioritised
from testbed.control.objects import (
    ClusterSpec,
    Endpoint,
    EndpointSlice,
    GatewayRoute,
    Node,
    OutlierDetection,
    Pod,
    Retries,
    Service,
    SocketAddress,
    TrafficPolicy,
)

Resource = dict[str, Any]

_TYPES: Final = "type.googleapis.com/"
CLUSTER_TYPE: Final = _TYPES + "envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE: Final = _TYPES + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER_TYPE: Final = _TYPES + "envoy.config.listener.v3.Listener"
ROUTE_TYPE: Final = _TYPES + "envoy.config.route.v3.RouteConfiguration"

PUSH_ORDER: Final = (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE)
"""Make before break: nothing is named before it exists. Source: Envoy, xds_protocol, eventual consistency."""

READY_PATH: Final = "/testbed/ready"
"""A gateway that has its configuration answers 200 here, itself; such calls are not logged."""
ENTRY_ZONE_HEADER: Final = "x-testbed-entry-zone"
"""Names in every answer that a gateway routed the zone of the gateway."""

_NO_LIMIT: Final = 2**32 - 1
_ADS: Final[Mapping[str, Any]] = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}


def proxy_resources(
    cluster: ClusterSpec, proxy: Pod, nodes: Mapping[str, Node], slices: Mapping[str, EndpointSlice]
) -> dict[str, tuple[Resource, ...]]:
    """All resources of the proxy of one pod: type URL -> resources, in `PUSH_ORDER`.

    `nodes` by name and `slices` by service are the present state; a service without a slice has no endpoints. The
    pod must be bound to a node and have an address.
    """
    assert proxy.node is not None, f"pod {proxy.name} has a proxy but no node"
    node = nodes[proxy.node]
    policies = dict(cluster.policies)
    services = [(service, policies.get(service.name, TrafficPolicy())) for service in cluster.services]
    rules = [(service, policy, locality_rule(service, policy)) for service, policy in services]

    clusters = [_outbound_cluster(service, policy, rule) for service, policy, rule in rules]
    endpoints = [
        _load_assignment(service, rule, slices.get(service.name, EndpointSlice(service.name)), node)
        for service, _, rule in rules
    ]
    if proxy.template.role == "gateway":
        listeners = [_gateway_listener(proxy)]
        routes = [_gateway_routes(cluster.gateway.routes, services, proxy, node)]
    else:
        clusters.insert(0, _inbound_cluster(proxy, policies.get(proxy.template.service, TrafficPolicy())))
        listeners = [_inbound_listener(proxy), _outbound_listener(proxy)]
        routes = [_outbound_routes(services, proxy)]
    return dict(zip(PUSH_ORDER, map(tuple, (clusters, endpoints, listeners, routes)), strict=True))


def outbound_cluster_name(service: Service) -> str:
    """Name of the Envoy cluster for calls to a service: `outbound|<port>||<service>`."""
    return f"outbound|{service.port}||{service.name}"


# --- clusters ----------------------------------------------------------------------------------------------------


def _outbound_cluster(service: Service, policy: TrafficPolicy, rule: LocalityRule) -> Resource:
    pool, outliers = policy.connection_pool, policy.outlier_detection
    name = outbound_cluster_name(service)
    balancing: dict[str, Any] = {}
    if outliers is not None:
        balancing["healthy_panic_threshold"] = {"value": outliers.min_health_percent}
    if rule.weighted:
        balancing["locality_weighted_lb_config"] = {}
    http: dict[str, Any] = {"explicit_http_config": {"http_protocol_options": {}}}
    connections: dict[str, Any] = {}
    if pool.idle_timeout_s is not None:
        connections["idle_timeout"] = _duration(pool.idle_timeout_s)
    if pool.max_requests_per_connection is not None:
        connections["max_requests_per_connection"] = pool.max_requests_per_connection
    if connections:
        http["common_http_protocol_options"] = connections
    resource: Resource = {
        "@type": CLUSTER_TYPE,
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": dict(_ADS), "service_name": name},
        "connect_timeout": _duration(pool.connect_timeout_s),
        "lb_policy": policy.load_balancer,
        "common_lb_config": balancing,
        "circuit_breakers": _circuit_breakers(policy),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPES + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                **http,
            }
        },
        "transport_socket": _RELAYED_TRANSPORT,
    }
    if outliers is not None:
        resource["outlier_detection"] = _outlier_detection(outliers)
    return resource


def _inbound_cluster(proxy: Pod, policy: TrafficPolicy) -> Resource:
    assert proxy.address is not None, f"pod {proxy.name} has a proxy but no address"
    name = _inbound_cluster_name(proxy)
    return {
        "@type": CLUSTER_TYPE,
        "name": name,
        "type": "STATIC",
        "connect_timeout": _duration(policy.connection_pool.connect_timeout_s),
        "circuit_breakers": _circuit_breakers(TrafficPolicy()),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(proxy.address.app)}}]}],
        },
    }


def _inbound_cluster_name(proxy: Pod) -> str:
    return f"inbound|{proxy.template.port}||"


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
    """Source: Istio, cluster_traffic_policy.go, applyOutlierDetection: a count of 0 turns its detector off."""
    detection: dict[str, Any] = {
        "consecutive_5xx": outliers.consecutive_5xx_errors,
        "enforcing_consecutive_5xx": 100 if outliers.consecutive_5xx_errors > 0 else 0,
        "enforcing_success_rate": 0,
        "interval": _duration(outliers.interval_s),
        "base_ejection_time": _duration(outliers.base_ejection_time_s),
        "max_ejection_percent": outliers.max_ejection_percent,
    }
    if outliers.consecutive_gateway_errors is not None:
        detection["consecutive_gateway_failure"] = outliers.consecutive_gateway_errors
        detection["enforcing_consecutive_gateway_failure"] = 100 if outliers.consecutive_gateway_errors > 0 else 0
    return detection


_RELAYED_TRANSPORT: Final[Mapping[str, Any]] = {
    "name": "envoy.transport_sockets.http_11_proxy",
    "typed_config": {
        "@type": _TYPES + "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport",
        "transport_socket": {
            "name": "envoy.transport_sockets.raw_buffer",
            "typed_config": {"@type": _TYPES + "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
        },
    },
}
"""Connects by CONNECT through the proxy that an endpoint carries in its metadata, and directly where it has none."""


# --- endpoints ---------------------------------------------------------------------------------------------------


def _load_assignment(service: Service, rule: LocalityRule, slice_: EndpointSlice, node: Node) -> Resource:
    relays = dict(node.relays)
    return {
        "@type": ENDPOINT_TYPE,
        "cluster_name": outbound_cluster_name(service),
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
            for group in prioritised(slice_.endpoints, node, rule)
        ],
    }


def _lb_endpoint(endpoint: Endpoint, node: Node, relays: Mapping[str, SocketAddress]) -> dict[str, Any]:
    """An endpoint keeps its true address; on another node it names the relay that every byte must cross."""
    resource: dict[str, Any] = {"endpoint": {"address": _address(endpoint.address)}}
    if endpoint.node != node.name and relays:
        assert endpoint.node in relays, f"node {node.name} has relays, but none to node {endpoint.node}"
        resource["metadata"] = {
            "typed_filter_metadata": {
                "envoy.http11_proxy_transport_socket.proxy_address": {
                    "@type": _TYPES + "envoy.config.core.v3.Address",
                    **_address(relays[endpoint.node]),
                }
            }
        }
    return resource


# --- listeners ---------------------------------------------------------------------------------------------------


def _inbound_listener(proxy: Pod) -> Resource:
    assert proxy.address is not None, f"pod {proxy.name} has a proxy but no address"
    route_config = {
        "name": INBOUND,
        "validate_clusters": False,
        "virtual_hosts": [
            {
                "name": INBOUND,
                "domains": ["*"],
                "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": _inbound_cluster_name(proxy), "timeout": "0s"}}
                ],
            }
        ],
    }
    return _listener(INBOUND, proxy.address.inbound, {"route_config": route_config, "access_log": [call_log(INBOUND)]})


def _outbound_listener(proxy: Pod) -> Resource:
    assert proxy.address is not None, f"pod {proxy.name} has a proxy but no address"
    http = {"rds": _rds(OUTBOUND), "access_log": [call_log(OUTBOUND)]}
    return _listener(OUTBOUND, proxy.address.outbound, http)


def _gateway_listener(proxy: Pod) -> Resource:
    assert proxy.address is not None, f"pod {proxy.name} has a proxy but no address"
    http = {
        "rds": _rds(GATEWAY),
        "access_log": [call_log(GATEWAY, unlogged_path=READY_PATH)],
        "always_set_request_id_in_response": True,
        "use_remote_address": True,
    }
    return _listener(GATEWAY, proxy.address.app, http)


def _listener(kind: CallKind, address: SocketAddress, http: Mapping[str, Any]) -> Resource:
    """A listener whose only filter is an HTTP connection manager. `http` is what sets it apart from the others."""
    router: dict[str, Any] = {
        "@type": _TYPES + "envoy.extensions.filters.http.router.v3.Router",
        "dynamic_stats": False,
        "suppress_envoy_headers": True,
    }
    if kind != INBOUND:
        router["upstream_log"] = [attempt_log()]
    return {
        "@type": LISTENER_TYPE,
        "name": kind,
        "address": _address(address),
        "traffic_direction": "INBOUND" if kind == INBOUND else "OUTBOUND",
        # Two proxies on one address would silently share its connections: fail to bind instead.
        "enable_reuse_port": False,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": _TYPES + "envoy.extensions.filters.network.http_connection_manager.v3."
                            "HttpConnectionManager",
                            "stat_prefix": kind,
                            "server_name": "testbed-envoy",
                            "server_header_transformation": "OVERWRITE" if kind == GATEWAY else "PASS_THROUGH",
                            "normalize_path": True,
                            "stream_idle_timeout": "0s",
                            "use_remote_address": False,
                            "generate_request_id": True,
                            "preserve_external_request_id": True,
                            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
                            **http,
                        },
                    }
                ]
            }
        ],
    }


def _rds(name: str) -> dict[str, Any]:
    return {"config_source": dict(_ADS), "route_config_name": name}


# --- routes ------------------------------------------------------------------------------------------------------


def _outbound_routes(services: list[tuple[Service, TrafficPolicy]], proxy: Pod) -> Resource:
    hosts = [
        {
            "name": f"{service.name}:{service.port}",
            "domains": _domains(service),
            "routes": [{"match": {"prefix": "/"}, "route": _route_action(service, policy)}],
        }
        for service, policy in services
    ]
    # Istio's outboundTrafficPolicy REGISTRY_ONLY: calls to anything but a service are answered 502.
    blocked = {
        "name": "block_all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 502}}],
    }
    return {
        "@type": ROUTE_TYPE,
        "name": OUTBOUND,
        "validate_clusters": False,
        "virtual_hosts": [*hosts, blocked],
        "request_headers_to_add": [_header(PEER_HEADER, proxy.name)],
    }


def _gateway_routes(
    routes: tuple[GatewayRoute, ...], services: list[tuple[Service, TrafficPolicy]], proxy: Pod, node: Node
) -> Resource:
    by_name = {service.name: (service, policy) for service, policy in services}
    return {
        "@type": ROUTE_TYPE,
        "name": GATEWAY,
        "validate_clusters": False,
        "virtual_hosts": [
            {
                "name": GATEWAY,
                "domains": ["*"],
                "routes": [
                    {"match": {"path": READY_PATH}, "direct_response": {"status": 200}},
                    *(
                        {"match": {"prefix": route.path}, "route": _route_action(*by_name[route.service])}
                        for route in routes
                    ),
                ],
            }
        ],
        "request_headers_to_add": [_header(PEER_HEADER, proxy.name)],
        "response_headers_to_add": [_header(ENTRY_ZONE_HEADER, node.locality.zone)],
    }


def _domains(service: Service) -> list[str]:
    """Every name by which a pod of the default namespace can call a service, with and without port."""
    suffixes = ("", ".default", ".default.svc", ".default.svc.cluster.local")
    return [f"{service.name}{suffix}{port}" for suffix in suffixes for port in ("", f":{service.port}")]


def _route_action(service: Service, policy: TrafficPolicy) -> dict[str, Any]:
    action: dict[str, Any] = {
        "cluster": outbound_cluster_name(service),
        "timeout": _duration(policy.timeout_s or 0.0),
    }
    if policy.retries.attempts > 0:
        action["retry_policy"] = _retry_policy(policy.retries)
    return action


def _retry_policy(retries: Retries) -> dict[str, Any]:
    """Source: Istio, pilot/pkg/networking/core/route/retry/retry.go. Back-off is Envoy's default, written out."""
    policy: dict[str, Any] = {
        "retry_on": retries.retry_on,
        "num_retries": retries.attempts,
        "retriable_status_codes": list(retries.retriable_status_codes),
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": _TYPES + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
    if retries.per_try_timeout_s is not None:
        policy["per_try_timeout"] = _duration(retries.per_try_timeout_s)
    return policy


# --- small messages ----------------------------------------------------------------------------------------------


def _address(address: SocketAddress) -> dict[str, Any]:
    return {"socket_address": {"address": address.ip, "port_value": address.port}}


def _header(key: str, value: str) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _duration(seconds: float) -> str:
    """A google.protobuf.Duration in JSON form: `0.25s`."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
