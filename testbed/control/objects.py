"""The objects of the emulated cluster: frozen values under the names that Kubernetes and Istio give them.

What is declared has a kind (its class), a name, a namespace (nodes have none) and labels; the rest is made from it.
Times are seconds, durations carry `_s`. Nothing here decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from testbed.control.topology import Locality

DEFAULT_NAMESPACE: Final = "default"

Labels = tuple[tuple[str, str], ...]
"""Labels of an object, or a selector that asks for some: pairs of key and value."""


def selects(selector: Labels, labels: Labels) -> bool:
    """Whether all that is asked for is there. An empty selector selects nothing, as a Service's does."""
    return bool(selector) and set(selector) <= set(labels)


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A TCP address, `127.20.1.3:15006`."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class PodAddress:
    """Where one pod listens. The application and its sidecar share one IP, as in a real pod."""

    app: SocketAddress
    inbound: SocketAddress
    outbound: SocketAddress


# --- workloads -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkTime:
    """How long the built-in workload works on a request before it answers."""

    distribution: Literal["constant", "uniform", "exponential", "lognormal"] = "constant"
    mean_s: float = 0.0
    spread_s: float = 0.0
    """Half width of `uniform`, standard deviation of `lognormal`; unused by the others."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class BuiltinWorkload:
    """A node of a call graph: works, then calls other services in stages, then answers.

    `stages`: the services of one stage are called in parallel, the stages one after the other.
    """

    work: WorkTime = WorkTime()
    stages: tuple[tuple[str, ...], ...] = ()
    response_bytes: int = 0
    error_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class CommandWorkload:
    """Any real program as the container. `$(NAME)` in an argument or value is replaced from its environment."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """A readiness or liveness probe with Kubernetes' fields and defaults."""

    kind: Literal["httpGet", "tcpSocket", "exec"] = "httpGet"
    path: str = "/"
    command: tuple[str, ...] = ()
    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3


MeshMode = Literal["sidecar", "node", "none"]
"""Who carries the calls of pods: a proxy in each pod, one proxy a node for all pods there, or kube-proxy alone."""


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What every pod of a Deployment has in common. Gateways and node proxies are pods with a proxy and nothing else.

    `mesh_mode` says who carries its calls (in Istio the labels `sidecar.istio.io/inject`, `istio.io/dataplane-mode`).
    """

    service: str
    """Its label `app`; in Istio's words, its canonical service."""
    workload: BuiltinWorkload | CommandWorkload | None
    port: int = 8080
    readiness: Probe | None = None
    liveness: Probe | None = None
    role: Literal["service", "gateway", "node-proxy"] = "service"
    mesh_mode: MeshMode = "sidecar"
    max_skew: int | None = 1
    """topologySpreadConstraints over zones (whenUnsatisfiable: DoNotSchedule); None spreads by preference only."""
    zones: tuple[str, ...] = ()
    """Restricts its pods to these zones (nodeSelector); empty for all."""
    node: str | None = None
    """Restricts its pods to one node that they do not leave either when it is unreachable, as a DaemonSet's do."""
    extra_labels: Labels = ()
    """Besides `app`."""

    @property
    def labels(self) -> Labels:
        return (("app", self.service), *self.extra_labels)

    @property
    def has_proxy(self) -> bool:
        """Whether an Envoy runs in the pod itself."""
        return self.role != "service" or self.mesh_mode == "sidecar"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Its selector is the label `app` of its template. A changed template is rolled out; see `deployments`."""

    name: str
    replicas: int
    template: PodTemplate
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Service:
    """A name that clients call, in front of the ready pods of its namespace that have the labels of its `selector`."""

    name: str
    port: int = 80
    traffic_distribution: Literal["PreferSameZone", "PreferSameNode"] | None = None
    selector: Labels = ()
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()

    @property
    def host(self) -> str:
        return host_of(self.name, self.namespace)


def host_of(name: str, namespace: str) -> str:
    """What a Service is called from anywhere: `web` in the namespace `default`, else `web.other`.

    `name` is how somebody in `namespace` calls it: `web`, or `web.other`, with or without `.svc.cluster.local`.
    """
    short, _, elsewhere = name.partition(".")
    found_in = elsewhere.removesuffix(".svc.cluster.local").removesuffix(".svc") or namespace
    return short if found_in == DEFAULT_NAMESPACE else f"{short}.{found_in}"


# --- cluster state ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """`ready` is the Ready condition: True, False, or Unknown once the Lease has expired.

    Declared are its name, locality, capacity, labels and `unschedulable`; the rest is its status.
    """

    name: str
    locality: Locality
    capacity_pods: int = 110
    ready: Literal["True", "False", "Unknown"] = "False"
    lease_renewed_s: float | None = None
    unreachable_since_s: float | None = None
    """When the NoExecute taint `node.kubernetes.io/unreachable` was put on; None while it is not there."""
    relays: tuple[tuple[str, SocketAddress], ...] = ()
    """For each other node, the listener of this node's link relay that leads there."""
    unschedulable: bool = False
    """Cordoned: it keeps its pods and gets no new ones."""
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """`phase` follows Kubernetes, with Terminating for a pod that is being deleted.

    Names of pods are given out for all namespaces together, so that a name alone says which one is meant.
    """

    name: str
    deployment: str
    template: PodTemplate
    node: str | None = None
    phase: Literal["Pending", "Running", "Terminating"] = "Pending"
    ready: bool = False
    """The Ready condition: the kubelet says so, the pod is Running and its node is Ready."""
    containers_ready: bool = False
    """The ContainersReady condition: what the kubelet said last, true or not by now."""
    address: PodAddress | None = None
    reason: str = ""
    """Why it is not what it should be, in one line: `0/6 nodes are available: ...`, `CrashLoopBackOff: ...`."""
    restarts: int = 0
    namespace: str = DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Endpoint:
    pod: str
    node: str
    locality: Locality
    address: SocketAddress
    """Where callers connect: the inbound listener of the mesh in front of the pod, or the application itself."""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """The ready endpoints of one Service, ordered by pod name."""

    service: str
    endpoints: tuple[Endpoint, ...] = ()
    namespace: str = DEFAULT_NAMESPACE

    @property
    def host(self) -> str:
        return host_of(self.service, self.namespace)


# --- traffic: Istio's objects, and an Ingress for a cluster without a mesh, as far as a scenario can ask -----------


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
class DestinationRule:
    """What holds for calls to a service once they are routed there. Of several for one host, the first one counts.

    Hosts are names of Services, `web` in the object's own namespace or `web.other`.
    """

    name: str
    host: str
    traffic_policy: TrafficPolicy = TrafficPolicy()
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """HTTPRoute of a VirtualService: `prefix` is that of the path. Without `timeout_s` there is no time-out."""

    destination: str
    """The host that its calls go to."""
    prefix: str = "/"
    timeout_s: float | None = None
    retries: Retries = Retries()


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


# --- timings ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timings:
    """Every timing of the control plane. The defaults are Kubernetes' and Istio's own (the `kubernetes` profile)."""

    lease_renew_s: float = 10.0
    lease_grace_s: float = 40.0
    node_monitor_s: float = 5.0
    unreachable_toleration_s: float = 300.0
    eviction_rate_per_s: float = 0.1
    restart_backoff_initial_s: float = 10.0
    restart_backoff_max_s: float = 300.0
    restart_backoff_reset_s: float = 600.0
    push_debounce_s: float = 0.1
    push_debounce_max_s: float = 10.0
    entry_check_interval_s: float = 10.0
    entry_check_timeout_s: float = 4.0
    entry_failure_threshold: int = 3
    entry_ttl_s: float = 60.0


Declared = Node | Deployment | Service | DestinationRule | VirtualService | Gateway | Ingress
"""Whatever a user can apply and delete."""

D = TypeVar("D", Node, Deployment, Service, DestinationRule, VirtualService, Gateway, Ingress)


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The objects that are applied to a control plane when it starts, in this order, and what it is set up with."""

    objects: tuple[Declared, ...] = ()
    timings: Timings = Timings()
    mesh_mode: MeshMode = "sidecar"

    def of(self, kind: type[D]) -> tuple[D, ...]:
        return tuple(each for each in self.objects if isinstance(each, kind))

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.of(Node)

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        return self.of(Deployment)

    @property
    def services(self) -> tuple[Service, ...]:
        return self.of(Service)
