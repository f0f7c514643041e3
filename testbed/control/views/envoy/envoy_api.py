"""Small parts that many of Envoy's messages share, in the JSON form of protobuf. What is made of them is `xds`'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from testbed.objects.addresses import SocketAddress

Resource = dict[str, Any]

TYPES: Final = "type.googleapis.com/"
CLUSTER_TYPE: Final = TYPES + "envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE: Final = TYPES + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER_TYPE: Final = TYPES + "envoy.config.listener.v3.Listener"
ROUTE_TYPE: Final = TYPES + "envoy.config.route.v3.RouteConfiguration"

ADS: Final[Mapping[str, Any]] = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
"""The `ConfigSource` of whatever comes over the proxy's one stream."""


def address(at: SocketAddress) -> dict[str, Any]:
    return {"socket_address": {"address": at.ip, "port_value": at.port}}


def header(key: str, value: str) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def duration(seconds: float) -> str:
    """A google.protobuf.Duration in JSON form: `0.25s`."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
