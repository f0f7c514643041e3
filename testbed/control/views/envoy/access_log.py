"""The lines that a proxy writes about calls: formats for Envoy, and the names of their fields for whoever reads them.

Owns field names, kinds and the Envoy access log configuration. Reading the lines and turning them into the `hops`
table is `results`; where standard output goes is `emulation`.

A line is one JSON object. Every *call* through a proxy is one line of kind `outbound`, `inbound` or `gateway`. Every
upstream *try* that failed is one more line of kind `attempt`: a retry that succeeds would hide it otherwise. All lines
of one request share its `x-request-id`. Each names the pod whose call it is, which may be another than the proxy's own.

A try that its call ended (the route's time-out, a caller that left) has neither a status nor flags in Envoy's upstream
log: only the line of the call says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from testbed.control.cells.partitions import MAX_DIGITS
from testbed.control.views.envoy.envoy_api import TYPES

OUTBOUND: Final = "outbound"
INBOUND: Final = "inbound"
GATEWAY: Final = "gateway"
ATTEMPT: Final = "attempt"
CONNECTION: Final = "connection"
"""Of a pod, through its proxy, to a service that speaks no HTTP. Its line is written when it has ended."""

CallKind = Literal["outbound", "inbound", "gateway"]

KIND: Final = "kind"
POD: Final = "pod"
"""The pod that made the call, or received an inbound one."""
REQUEST_ID: Final = "request_id"
START: Final = "start"
"""Seconds since the epoch with microseconds, as a string: a double in JSON would be rounded by some readers."""
DURATION_US: Final = "duration_us"
"""Calls: from the first byte received from the caller to the last byte sent to it, in microseconds; null when the
caller left before."""
DURATION_MS: Final = "duration_ms"
"""From the start of the call or try to its end, whatever ended it, in milliseconds."""
PEER: Final = "peer"
"""The pod whose proxy sent the call; null when no proxy did (clients, probes)."""
UPSTREAM_HOST: Final = "upstream_host"
UPSTREAM_CLUSTER: Final = "upstream_cluster"
"""Whom the call was for, also where no host was found; see `called_service`."""
CALLER: Final = "caller"
"""The caller's end of the connection, `ip:port`. Only without a mesh, where `kube_proxy` says who is at the other."""
STATUS: Final = "status"
FLAGS: Final = "flags"
"""Envoy's response flags, comma separated; `-` or null when there are none."""
NO_UPSTREAM: Final = "UH"
UPSTREAM_CLOSED: Final = "UC"
DOWNSTREAM_CLOSED: Final = "DC"
FAILED_STATUS: Final = 500
"""From this status on the try of a call has failed, as outlier detection counts it."""
ATTEMPTS: Final = "attempts"
BYTES_RECEIVED: Final = "bytes_received"
BYTES_SENT: Final = "bytes_sent"
"""Both of bodies."""
REQUEST_BYTES: Final = "request_bytes"
RESPONSE_BYTES: Final = "response_bytes"
"""Both of the whole message as HTTP sends it, to who was called in the last try and from there."""
PARTITION: Final = "partition"
PARTITION_KEY: Final = "partition_key"
"""Of a proxy that matched the key itself: the id, cut where it is too long to be one. In the place of the partition."""
OWNER_CELL: Final = "owner_cell"
"""The cell that the call was routed for, by the map of its proxy; null where it goes to none in particular."""
MAP_VERSION: Final = "map_version"
"""These three are there where there are cells."""
ROUTE: Final = "route"
"""The name of the route by which the call went; with cells it is why it went there."""

OWN: Final = "own"
"""The caller's cell, or that of the pod itself, owns the partition."""
OWNER: Final = "owner"
"""From outside of all cells to the cell that owns it."""
CROSS_CELL: Final = "cross-cell"
"""From one cell to another that owns it: the application called for another key than it was called for, or was called
for what its cell does not own."""
NAMED_BY_COOKIE: Final = "cookie"
"""At a gateway: to the cell that the client's cookie names."""
FIRST_HIT: Final = "first-hit"
"""At a gateway: to any cell, as there is no cookie; at a cell: on from there to the owner."""
STALE_COOKIE: Final = "stale-cookie"
"""At a cell: on to the owner, which is another than the client's cookie names."""
STALE_MAP: Final = "stale-map"
"""At a cell: on to the owner, which is another by its map than by the caller's."""
DIRECTED: Final = "directed"
"""At a router: answered with the cell that owns the key."""
REFUSED: Final = "misdirected"
"""At a cell: answered 421, as it does not own the partition."""
UNKEYED: Final = "unkeyed"
GLOBAL: Final = "global"
PER_CITY: Final = "per-city"

PEER_HEADER: Final = "x-envoy-peer-metadata-id"
REQUEST_ID_HEADER: Final = "x-request-id"
PARTITION_HEADER: Final = "x-partition"
CALLER_HEADER: Final = "x-testbed-caller"
"""What `PEER_HEADER` was when an inbound call came, where there are cells: a call that goes on names the pod itself."""
CELLS_METADATA: Final = "testbed.cells"
"""The namespace of what routes and filters know about cells."""

CALL_FORMAT: Final[Mapping[str, str]] = {
    REQUEST_ID: f"%REQ({REQUEST_ID_HEADER})%",
    START: "%START_TIME(%s.%6f)%",
    DURATION_US: "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    DURATION_MS: "%DURATION%",
    PEER: f"%REQ({PEER_HEADER})%",
    UPSTREAM_HOST: "%UPSTREAM_HOST%",
    UPSTREAM_CLUSTER: "%UPSTREAM_CLUSTER%",
    STATUS: "%RESPONSE_CODE%",
    FLAGS: "%RESPONSE_FLAGS%",
    ROUTE: "%ROUTE_NAME%",
    ATTEMPTS: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    BYTES_RECEIVED: "%BYTES_RECEIVED%",
    BYTES_SENT: "%BYTES_SENT%",
    REQUEST_BYTES: "%UPSTREAM_WIRE_BYTES_SENT%",
    RESPONSE_BYTES: "%UPSTREAM_WIRE_BYTES_RECEIVED%",
}
"""The same fields for every kind of call."""

_ROUTED_FORMAT: Final[Mapping[str, str]] = {
    OWNER_CELL: f"%METADATA(ROUTE:{CELLS_METADATA}:{OWNER_CELL})%",
    MAP_VERSION: f"%METADATA(ROUTE:{CELLS_METADATA}:{MAP_VERSION})%",
}

COMPUTED_FORMAT: Final[Mapping[str, str]] = {PARTITION: f"%REQ({PARTITION_HEADER})%", **_ROUTED_FORMAT}
"""What a line says of cells where the proxy computed the partition."""


def key_format(key_header: str) -> Mapping[str, str]:
    """What a line says of cells where the proxy matched the key, which that header carries."""
    return {PARTITION_KEY: f"%REQ({key_header}):{MAX_DIGITS + 1}%", **_ROUTED_FORMAT}


CONNECTION_FORMAT: Final[Mapping[str, str]] = {
    START: "%START_TIME(%s.%6f)%",
    DURATION_MS: "%DURATION%",
    UPSTREAM_HOST: "%UPSTREAM_HOST%",
    UPSTREAM_CLUSTER: "%UPSTREAM_CLUSTER%",
    FLAGS: "%RESPONSE_FLAGS%",
    BYTES_RECEIVED: "%BYTES_RECEIVED%",
    BYTES_SENT: "%BYTES_SENT%",
}

ATTEMPT_FORMAT: Final[Mapping[str, str]] = {
    REQUEST_ID: f"%REQ({REQUEST_ID_HEADER})%",
    START: "%START_TIME(%s.%6f)%",
    DURATION_MS: "%DURATION%",
    UPSTREAM_HOST: "%UPSTREAM_HOST%",
    UPSTREAM_CLUSTER: "%UPSTREAM_CLUSTER%",
    STATUS: "%RESPONSE_CODE%",
    FLAGS: "%RESPONSE_FLAGS%",
}


def call_log(
    kind: CallKind, pod: str, *, unlogged_path: str | None = None, cells: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`access_log` entry of a connection manager: a line for each call, except calls of exactly `unlogged_path`.

    `cells` is what it says of them, if there are any.
    """
    fields = {KIND: kind, POD: pod, **CALL_FORMAT, **(cells or {})}
    if cells is not None and kind == INBOUND:
        fields[PEER] = f"%REQ({CALLER_HEADER})%"
    entry = _stdout_log(fields)
    if unlogged_path is not None:
        entry["filter"] = {
            "header_filter": {
                "header": {"name": ":path", "string_match": {"exact": unlogged_path}, "invert_match": True}
            }
        }
    return entry


def attempt_log(pod: str) -> dict[str, Any]:
    """`upstream_log` entry of a router filter: a line for each upstream try that failed.

    It ended with a response flag, its answer was a server error, or there was none: Envoy compares that as status 0
    (access_log_impl.cc, StatusCodeFilter), and sets no flag when the route's time-out or the caller ended it.
    """
    server_error = {"op": "GE", "value": {"default_value": FAILED_STATUS, "runtime_key": "testbed.failed_status"}}
    no_answer = {"op": "EQ", "value": {"default_value": 0, "runtime_key": "testbed.no_status"}}
    failed = [
        {"response_flag_filter": {}},
        {"status_code_filter": {"comparison": server_error}},
        {"status_code_filter": {"comparison": no_answer}},
    ]
    return {**_stdout_log({KIND: ATTEMPT, POD: pod, **ATTEMPT_FORMAT}), "filter": {"or_filter": {"filters": failed}}}


def connection_log(pod: str) -> dict[str, Any]:
    """`access_log` entry of a `tcp_proxy`: a line for each connection, when it has ended."""
    return _stdout_log({KIND: CONNECTION, POD: pod, **CONNECTION_FORMAT})


def called_service(cluster: str | None) -> str | None:
    """The service that an outbound `UPSTREAM_CLUSTER` is for: `outbound|<port>|<subset>|<service>`, or its plain
    name."""
    return None if cluster in (None, "-") else cluster.rpartition("|")[2]


def is_forward(cluster: str | None) -> bool:
    """Whether an inbound call went on to another pod, by its `UPSTREAM_CLUSTER`."""
    return cluster is not None and cluster.startswith(f"{OUTBOUND}|")


def _stdout_log(json_format: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": TYPES + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": {"json_format": dict(json_format)},
        },
    }
