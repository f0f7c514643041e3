"""Models of traffic: gateway, mesh policies and load."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from testbed.control.mesh.locality import HOSTNAME, NETWORK
from testbed.scenario.models.fields import (
    Duration,
    HttpPath,
    Model,
    Percentage,
    PositiveDuration,
    PositivePercentage,
    Rate,
)
from testbed.scenario.schema_rules import NOT_EMPTY, all_of, empty, exactly_one_of, where, with_key, without

Limit = Annotated[int, Field(ge=1, le=2**32 - 1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Weight = Annotated[int, Field(ge=1, le=100)]


class RouteModel(Model):
    """A route of the gateways."""

    path: HttpPath
    """Prefix of the request's path."""
    service: str
    """Service that gets the request."""


class GatewayModel(Model):
    """The gateways: one pod a zone, all with the same routes."""

    routes: Annotated[list[RouteModel], Field(min_length=1)]
    """The first route that matches wins."""


# --- mesh ------------------------------------------------------------------------------------------------------


class DistributeModel(Model):
    """Shares the calls of one locality out by percentage."""

    from_: Annotated[str, Field(alias="from")]
    """Locality of the caller: `region/zone/*`, `region/*` or `*`. The first that matches holds."""
    to: Annotated[dict[str, Weight], Field(min_length=1)]
    """Percentage for each locality; they sum to 100, and a locality not listed gets nothing."""


class FailoverModel(Model):
    """Which region takes over from which."""

    from_: Annotated[str, Field(alias="from")]
    """Region that fails."""
    to: str
    """Region that takes over."""


class LocalityLbModel(Model):
    """Istio's localityLbSetting. It wins over trafficDistribution, whatever it says."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            where("distribute", NOT_EMPTY, empty("failover", "failoverPriority")),
            where(
                "failover", NOT_EMPTY, {"properties": {"failoverPriority": {"items": {"enum": [NETWORK, HOSTNAME]}}}}
            ),
        )
    )

    enabled: bool = True
    """Whether locality counts at all. Failover also needs outlierDetection."""
    distribute: list[DistributeModel] = Field(default_factory=list)
    """Explicit shares; excludes failover and failoverPriority."""
    failover: list[FailoverModel] = Field(default_factory=list)
    """Which region is tried first when one has failed. Beside failoverPriority, which then may name none of region,
    zone and subzone, it orders what those labels leave equal."""
    failover_priority: list[
        Literal[
            "topology.istio.io/network",
            "topology.kubernetes.io/region",
            "topology.kubernetes.io/zone",
            "topology.istio.io/subzone",
            "kubernetes.io/hostname",
        ]
    ] = Field(default_factory=list)
    """Labels, most important first: the more of them an endpoint shares with the caller, the sooner it is used."""


class LoadBalancerModel(Model):
    """Istio's loadBalancer."""

    simple: Literal["LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"] = "LEAST_REQUEST"
    """How an endpoint is picked."""
    locality_lb_setting: LocalityLbModel | None = None
    """How the locality of endpoints counts. Default: by trafficDistribution, else as `enabled: true`."""


class TcpPoolModel(Model):
    """Istio's connectionPool.tcp."""

    connect_timeout: PositiveDuration = 10.0
    """Longest wait for a connection."""
    max_connections: Limit | None = None
    """Connections at one time. Default: unlimited."""


class HttpPoolModel(Model):
    """Istio's connectionPool.http."""

    http1_max_pending_requests: Limit | None = None
    """Requests that wait for a connection. Default: unlimited."""
    http2_max_requests: Limit | None = None
    """Requests at one time. Default: unlimited."""
    max_retries: Limit | None = None
    """Retries at one time. Default: unlimited."""
    max_requests_per_connection: Limit | None = None
    """After so many a connection is closed. Default: unlimited."""
    idle_timeout: PositiveDuration | None = None
    """An idle connection is closed after this. Default: the proxy's own."""


class ConnectionPoolModel(Model):
    """Istio's connectionPool."""

    tcp: TcpPoolModel = TcpPoolModel()
    """Limits of connections."""
    http: HttpPoolModel = HttpPoolModel()
    """Limits of requests."""


class OutlierDetectionModel(Model):
    """Istio's outlierDetection: endpoints that fail are left out for a while, each proxy for itself."""

    consecutive_5xx_errors: Annotated[int, Field(ge=0, le=1000, alias="consecutive5xxErrors")] = 5
    """Server errors in a row that eject an endpoint; 0 disables."""
    consecutive_gateway_errors: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Errors 502, 503 and 504 in a row that eject an endpoint. Default: off."""
    interval: PositiveDuration = 10.0
    """Time between sweeps that end ejections."""
    base_ejection_time: PositiveDuration = 30.0
    """Time of the first ejection; grows with each one."""
    max_ejection_percent: Percent = 10
    """Share of a service's endpoints that may be ejected; 0 counts as 10, Envoy's default."""
    min_health_percent: Percent = 0
    """Below this share of healthy endpoints ejections are ignored."""


class TrafficPolicyModel(Model):
    """Istio's DestinationRule.trafficPolicy."""

    load_balancer: LoadBalancerModel = LoadBalancerModel()
    """How an endpoint is picked."""
    connection_pool: ConnectionPoolModel = ConnectionPoolModel()
    """Limits of connections and requests."""
    outlier_detection: OutlierDetectionModel | None = None
    """Which endpoints are left out. Default: none are."""


class RetriesModel(Model):
    """Istio's VirtualService retries."""

    model_config = ConfigDict(json_schema_extra=where("attempts", {"const": 0}, without("perTryTimeout", "retryOn")))

    attempts: Annotated[int, Field(ge=0, le=20)] = 2
    """Tries after the first; 0 disables."""
    per_try_timeout: PositiveDuration | None = None
    """Longest time of each try. Default: that of the request."""
    retry_on: str | None = None
    """Envoy's conditions and status codes, separated by commas. Default: as Istio's, whatever proves that the request
    was not taken up; no status code."""


class PolicyModel(Model):
    """Traffic rules for the calls to one service."""

    service: str
    """Service that is called; `*` for every service without a policy of its own. Policies are not merged."""
    traffic_distribution: Literal["PreferSameZone", "PreferSameNode", "PreferClose"] | None = None
    """Instead of the service's own trafficDistribution."""
    traffic_policy: TrafficPolicyModel = TrafficPolicyModel()
    """DestinationRule part."""
    retries: RetriesModel = RetriesModel()
    """VirtualService part."""
    timeout: PositiveDuration | None = None
    """Longest time of a request with all tries. Default: none."""


class MeshModel(Model):
    """The service mesh."""

    mode: Literal["sidecar", "node", "none"] = "sidecar"
    """Who carries calls: a proxy in each pod, one proxy on each node, or `none`: kube-proxy, which picks an endpoint at
    random for each connection and neither retries nor fails over."""
    policies: list[PolicyModel] = Field(default_factory=list)
    """The policy that names a service wins over `*`. In mode `none` nothing of them holds but `trafficDistribution`."""


# --- load ------------------------------------------------------------------------------------------------------


class SourceModel(Model):
    """Clients of one zone: an open load (`rate`) or a closed one (`users`)."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            exactly_one_of("rate", "users"),
            with_key("rate", without("thinkTime")),
            with_key("users", without("arrival")),
        )
    )

    zone: str
    """Zone whose gateway they prefer."""
    rate: Rate | None = None
    """Requests sent, whether or not earlier ones came back."""
    arrival: Literal["poisson", "constant"] | None = None
    """Times between the requests of a `rate`. Default poisson."""
    users: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Users who each wait for the response before the next request."""
    think_time: Duration | None = None
    """How long a user waits after a response. Default 1s."""


class RequestModel(Model):
    """A kind of request."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Name in the results. Default: method and path."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """HTTP method."""
    path: HttpPath = "/"
    """Path and query."""
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """How often it is sent, in relation to the others."""
    headers: dict[str, str] = Field(default_factory=dict)
    """HTTP headers."""
    body: str | None = None
    """Text of the body."""


class IdsModel(Model):
    """The ids that requests carry as their key."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            with_key("file", without("distribution", "count", "exponent")),
            with_key("exponent", {"properties": {"distribution": {"const": "zipf"}}, "required": ["distribution"]}),
        )
    )

    distribution: Literal["uniform", "zipf"] | None = None
    """How often each is drawn: all alike, or the n-th in proportion to n^-exponent. Default uniform."""
    count: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """They are 0 to `count` - 1. Default 1000000; with zipf at most 1000000."""
    exponent: Annotated[float, Field(ge=0, le=10)] | None = None
    """Of `zipf`. Default 1."""
    file: str | None = None
    """A file with an id a line, drawn alike, relative to the scenario file."""
    session: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """How many requests a client sends with one id, keeping its cookies, before it is followed by another."""


class OperationsModel(Model):
    """Writes and reads of a store's keys."""

    keys: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """They are `k0` to `k<keys - 1>`, drawn alike; with `spec.cells` the ids 0 to `keys` - 1, which requests carry as
    their key where nothing else is sent."""
    writes: Percentage = 0.5
    """Share of operations that write."""
    share: PositivePercentage = 1.0
    """Share of all requests that are operations; the others are those of `requests`."""
    path: HttpPath = "/"
    """What stands before the key in their path."""


class LoadModel(Model):
    """What clients send."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            with_key(
                "locustfile",
                {"properties": {"requests": {"maxItems": 0}, "sources": {"items": without("rate", "thinkTime")}}},
            ),
            with_key("operations", without("locustfile")),
        )
    )

    sources: Annotated[list[SourceModel], Field(min_length=1)]
    """Where requests come from."""
    warmup: Duration = 5.0
    """First part of the duration, left out of the results."""
    duration: PositiveDuration = 40.0
    """The whole time that load is sent, warm-up included."""
    requests: list[RequestModel] = Field(default_factory=list)
    """What is sent. Default: GET /."""
    operations: OperationsModel | None = None
    """Instead of `requests`, or a share beside them: PUT and GET of a store's keys, and a check of what was read.
    Default: none."""
    ids: IdsModel | None = None
    """The ids that requests carry as the key of `spec.cells`; `{id}` in a path stands for it, too. Default: none."""
    timeout: PositiveDuration = 5.0
    """Clients wait this long for a response."""
    connect_timeout: PositiveDuration = 1.0
    """Clients wait this long for a connection."""
    locustfile: str | None = None
    """A Locust file of your own instead of `requests`, relative to the scenario file."""

    @property
    def only_operations(self) -> bool:
        """Nothing else is sent: where there are cells, keys are ids."""
        return self.operations is not None and self.operations.share == 1.0
