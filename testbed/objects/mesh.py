"""Traffic: Istio's objects, and an Ingress for a cluster without a mesh, as far as a scenario can ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from testbed.objects.metadata import DEFAULT_NAMESPACE, Labels


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """DestinationRule.trafficPolicy.outlierDetection with Istio's defaults.

    A `max_ejection_percent` of 0 counts as not given and leaves Envoy's default, 10 as well.
    """

    consecutive_5xx_errors: int = 5
    consecutive_gateway_errors: int | None = None
    interval_s: float = 10.0
    base_ejection_time_s: float = 30.0
    max_ejection_percent: int = 10
    min_health_percent: int = 0


@dataclass(frozen=True, slots=True)
class LocalityDistribution:
    """localityLbSetting.distribute: calls from one locality, shared out by percentage.

    Localities are `region/zone/subzone`; a `*` stands for the rest.
    """

    source: str
    to: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class LocalityLoadBalancing:
    """localityLbSetting. `failover` maps a region to the region that takes over; `distribute` wins over the rest."""

    enabled: bool = True
    distribute: tuple[LocalityDistribution, ...] = ()
    failover: tuple[tuple[str, str], ...] = ()
    failover_priority: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectionPool:
    connect_timeout_s: float = 10.0
    max_connections: int | None = None
    http1_max_pending_requests: int | None = None
    http2_max_requests: int | None = None
    max_retries: int | None = None
    max_requests_per_connection: int | None = None
    idle_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Retries:
    """VirtualService retries with Istio's defaults; `attempts` 0 disables them. No status is retried by default."""

    attempts: int = 2
    per_try_timeout_s: float | None = None
    retry_on: str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
    retriable_status_codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """DestinationRule.trafficPolicy."""

    load_balancer: Literal["LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"] = "LEAST_REQUEST"
    locality: LocalityLoadBalancing | None = None
    """The localityLbSetting; None when there is none."""
    connection_pool: ConnectionPool = ConnectionPool()
    outlier_detection: OutlierDetection | None = None


@dataclass(frozen=True, slots=True)
class Subset:
    """Endpoints of a host that have these labels, so that a route can name them alone: `outbound|80|<name>|<host>`."""

    name: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class DestinationRule:
    """What holds for calls to a service once they are routed there. Of several for one host, the first one counts.

    Hosts are names of Services, `web` in the object's own namespace or `web.other`.
    """

    name: str
    host: str
    traffic_policy: TrafficPolicy = TrafficPolicy()
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()
    subsets: tuple[Subset, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """HTTPRoute of a VirtualService: `prefix` is that of the path. Without `timeout_s` there is no time-out."""

    destination: str
    """The host that its calls go to."""
    prefix: str = "/"
    timeout_s: float | None = None
    retries: Retries = Retries()
    name: str = ""
    """What proxies call it in their logs, if anything."""


@dataclass(frozen=True, slots=True)
class VirtualService:
    """How calls to `hosts` are routed: the first of its routes that matches. Of several for one host, the first counts.

    It holds at the gateways named, or without any for the calls of pods in the mesh (Istio's reserved name `mesh`).
    """

    name: str
    hosts: tuple[str, ...]
    http: tuple[HttpRoute, ...]
    gateways: tuple[str, ...] = ()
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Gateway:
    """Pods of role `gateway` that it selects take calls for any host; VirtualServices that name it route them."""

    name: str
    selector: Labels
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class IngressPath:
    """First match wins. `path` is a prefix (pathType: Prefix)."""

    path: str
    service: str


@dataclass(frozen=True, slots=True)
class Ingress:
    """What gateways route where there is no mesh."""

    name: str
    paths: tuple[IngressPath, ...]
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()
