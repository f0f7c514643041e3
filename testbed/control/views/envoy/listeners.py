"""The listeners of a proxy: where it takes calls, and which of them it logs.

A pod in the mesh has an inbound listener in front of its application and an outbound one that is an HTTP forward
proxy (applications set HTTP_PROXY). They have the same addresses whether a sidecar serves them or the proxy of the
node. A gateway has one listener for clients, and so has a router. Where calls go from there is `xds`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from testbed.control.mesh.traffic import DEFAULT_ROUTE
from testbed.control.views.envoy.access_log import (
    COMPUTED_FORMAT,
    GATEWAY,
    INBOUND,
    OUTBOUND,
    CallKind,
    attempt_log,
    call_log,
    key_format,
)
from testbed.control.views.envoy.envoy_api import ADS, LISTENER_TYPE, TYPES, Resource, address
from testbed.control.views.envoy.partition_filter import computes, header_mutation, partition_filters
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cells import PartitionMap
from testbed.objects.core import Pod
from testbed.objects.workloads import ROUTER

READY_PATH: Final = "/testbed/ready"
"""A gateway or router that has its configuration answers 200 here, itself; such calls are not logged."""


def named(what: str, proxy: Pod, pod: Pod) -> str:
    """The name of what a proxy has for each of its pods. A sidecar has only one."""
    return what if proxy.name == pod.name else f"{what}|{pod.name}"


def inbound_cluster_name(proxy: Pod, pod: Pod) -> str:
    return f"inbound|{pod.template.port}||" + ("" if proxy.name == pod.name else pod.name)


_INBOUND_RETRIES: Final = {"retry_on": "reset-before-request", "num_retries": 2}
"""Istio 1.32, route.go, BuildDefaultHTTPInboundRoute: what the application has not seen is sent to it again."""


def inbound_action(proxy: Pod, pod: Pod) -> dict[str, Any]:
    """What a route does with a call for the pod's own application."""
    return {"cluster": inbound_cluster_name(proxy, pod), "timeout": "0s", "retry_policy": dict(_INBOUND_RETRIES)}


def inbound_listener(proxy: Pod, pod: Pod, cells: PartitionMap | None = None) -> Resource:
    """With cells its routes are the map's, and come apart from it: a change of those must not drain connections."""
    if cells is not None:
        log = call_log(INBOUND, pod.name, cells=_told_of(cells, INBOUND))
        http = {"rds": _rds(named(INBOUND, proxy, pod)), "access_log": [log]}
        return _listener(INBOUND, proxy, pod, address_of(pod).inbound, http, cells)
    route_config = {
        "name": INBOUND,
        "validate_clusters": False,
        "virtual_hosts": [
            {
                "name": INBOUND,
                "domains": ["*"],
                "routes": [{"name": DEFAULT_ROUTE, "match": {"prefix": "/"}, "route": inbound_action(proxy, pod)}],
            }
        ],
    }
    http = {"route_config": route_config, "access_log": [call_log(INBOUND, pod.name)]}
    return _listener(INBOUND, proxy, pod, address_of(pod).inbound, http)


def outbound_listener(proxy: Pod, pod: Pod, cells: PartitionMap | None = None) -> Resource:
    log = call_log(OUTBOUND, pod.name, cells=_told_of(cells, OUTBOUND))
    http = {"rds": _rds(named(OUTBOUND, proxy, pod)), "access_log": [log]}
    return _listener(OUTBOUND, proxy, pod, address_of(pod).outbound, http, cells)


def gateway_listener(gateway: Pod, cells: PartitionMap | None = None) -> Resource:
    http = {
        "rds": _rds(GATEWAY),
        "access_log": [call_log(GATEWAY, gateway.name, unlogged_path=READY_PATH, cells=_told_of(cells, GATEWAY))],
        "always_set_request_id_in_response": True,
        "use_remote_address": True,
    }
    return _listener(GATEWAY, gateway, gateway, address_of(gateway).app, http, cells)


def router_listener(router: Pod, cells: PartitionMap) -> Resource:
    """It finds out the key as a gateway does, and answers by itself. To others its calls are calls to it."""
    http = {
        "rds": _rds(ROUTER),
        "access_log": [call_log(INBOUND, router.name, unlogged_path=READY_PATH, cells=_told_of(cells, GATEWAY))],
        "use_remote_address": True,
    }
    return _listener(GATEWAY, router, router, address_of(router).app, http, cells)


def address_of(pod: Pod) -> PodAddress:
    assert pod.address is not None, f"pod {pod.name} has a proxy but no address"
    return pod.address


def _told_of(cells: PartitionMap | None, kind: CallKind) -> Mapping[str, str] | None:
    """What the log of a listener of that kind says of cells."""
    if cells is None:
        return None
    return COMPUTED_FORMAT if computes(cells, kind) else key_format(cells.key.header)


def _listener(
    kind: CallKind,
    proxy: Pod,
    pod: Pod,
    at: SocketAddress,
    http: Mapping[str, Any],
    cells: PartitionMap | None = None,
) -> Resource:
    """A listener whose only filter is an HTTP connection manager. `http` is what sets it apart from the others, `cells`
    those by whose map it routes."""
    router: dict[str, Any] = {
        "@type": TYPES + "envoy.extensions.filters.http.router.v3.Router",
        "dynamic_stats": False,
        "suppress_envoy_headers": True,
    }
    filters: list[dict[str, Any]] = [{"name": "envoy.filters.http.router", "typed_config": router}]
    early: dict[str, Any] = {}
    if cells is not None:
        filters = [*partition_filters(cells, kind), *filters]
        early["early_header_mutation_extensions"] = [header_mutation(cells, kind, pod.name)]
    if kind != INBOUND:
        router["upstream_log"] = [attempt_log(pod.name)]
    return {
        "@type": LISTENER_TYPE,
        "name": named(kind, proxy, pod),
        "address": address(at),
        "traffic_direction": "INBOUND" if kind == INBOUND else "OUTBOUND",
        # Two proxies on one address would silently share its connections: fail to bind instead.
        "enable_reuse_port": False,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": TYPES + "envoy.extensions.filters.network.http_connection_manager.v3."
                            "HttpConnectionManager",
                            "stat_prefix": kind,
                            "server_name": "testbed-envoy",
                            "server_header_transformation": "OVERWRITE" if kind == GATEWAY else "PASS_THROUGH",
                            "normalize_path": True,
                            "stream_idle_timeout": "0s",
                            "use_remote_address": False,
                            "generate_request_id": True,
                            "preserve_external_request_id": True,
                            **early,
                            "http_filters": filters,
                            **http,
                        },
                    }
                ]
            }
        ],
    }


def _rds(name: str) -> dict[str, Any]:
    return {"config_source": dict(ADS), "route_config_name": name}
