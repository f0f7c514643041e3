"""The listeners of services that speak no HTTP: whole connections go to an endpoint, whatever they carry.

As Istio has it for `appProtocol: tcp` (pilot/pkg/networking/core, listener_builder.go and tcp_proxy): a filter
`tcp_proxy` to the same clusters as calls have, so that locality, outlier detection (a connection that cannot be opened
counts as a 5xx) and connection pools hold, and retries, time-outs and routes do not.
"""

from __future__ import annotations

from typing import Any

from testbed.control.views.envoy.access_log import INBOUND, connection_log
from testbed.control.views.envoy.envoy_api import LISTENER_TYPE, TYPES, Resource, address
from testbed.control.views.envoy.listeners import address_of, inbound_cluster_name, named
from testbed.objects.addresses import SocketAddress
from testbed.objects.core import Pod, Service


def outbound_tcp_listener(proxy: Pod, pod: Pod, service: Service, cluster: str) -> Resource:
    """Where a pod connects to reach the service. Each connection is logged when it ends."""
    assert service.capture_port is not None, f"service {service.name} speaks TCP and has no port in the mesh"
    at = SocketAddress(address_of(pod).app.ip, service.capture_port)
    forward = {"stat_prefix": cluster, "cluster": cluster, "access_log": [connection_log(pod.name)]}
    return _listener(named(cluster, proxy, pod), "OUTBOUND", at, forward)


def inbound_tcp_listener(proxy: Pod, pod: Pod) -> Resource:
    cluster = inbound_cluster_name(proxy, pod)
    forward = {"stat_prefix": cluster, "cluster": cluster}
    return _listener(named(INBOUND, proxy, pod), "INBOUND", address_of(pod).inbound, forward)


def _listener(name: str, direction: str, at: SocketAddress, forward: dict[str, Any]) -> Resource:
    tcp_proxy = {"@type": TYPES + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", **forward}
    return {
        "@type": LISTENER_TYPE,
        "name": name,
        "address": address(at),
        "traffic_direction": direction,
        # As of the listeners for HTTP: two proxies on one address must not share its connections.
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp_proxy}]}],
    }
