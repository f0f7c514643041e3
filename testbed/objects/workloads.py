"""What runs: programs and their probes, the template of a pod, and Deployments of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from testbed.objects.cells import PartitionRule
from testbed.objects.metadata import DEFAULT_NAMESPACE, Labels


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
    passed_on: tuple[str, ...] = ()
    """Headers of a request that its own calls carry, too, besides `x-request-id`."""
    crash_path: str | None = None
    """A request for this path ends the process with CRASHED."""


CRASHED: Final = 70
"""The exit code of a built-in workload that a request made crash, as declared: sysexits.h, EX_SOFTWARE."""


@dataclass(frozen=True, slots=True)
class CommandWorkload:
    """Any real program as the container. `$(NAME)` in an argument or value is replaced from its environment."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StoreReplica:
    """One replica of a store, at home on a node, where its disk is. `number` is unique among all stores' replicas."""

    name: str
    node: str
    number: int
    cell: str = ""
    """In which it is, where the store is sharded."""
    zone: str = ""


Acks = Literal["quorum", "leader"]
"""When a write is acknowledged: once a majority has it on disk, or once the leader has (Kafka's acks=all and 1)."""


StoreMode = Literal["quorum", "isr", "async"]
"""How the replicas of a group agree: by consensus, as Kafka's do, or not at all: the first replica of the group leads
until whoever operates the store says otherwise, and the others fetch from it."""

BY_HASH: Final = PartitionRule("hash")


@dataclass(frozen=True, slots=True)
class StoreGroup:
    """Partitions from `start` up to, but not including `end`: they share a log, and so a leader."""

    start: int
    end: int
    primaries: tuple[str, ...] = ()
    """The replicas that are to lead it while they can, the first of them first; any leads if there are none."""
    replicas: tuple[str, ...] = ()
    """Who has it, the one that is to lead first, where not all have everything (`StoreIsr`)."""


@dataclass(frozen=True, slots=True)
class StoreIsr:
    """Kafka's replication, in its words; a group is a partition of Kafka."""

    acks: Literal["all", "1", "0"] = "all"
    min_insync_replicas: int = 1
    unclean_leader_election: bool = False
    replica_lag_time_max_s: float = 30.0
    broker_session_timeout_s: float = 9.0
    leader_imbalance_check_s: float = 300.0
    replica_selector: Literal["leader", "rackAware"] = "leader"
    """Racks are zones."""


@dataclass(frozen=True, slots=True)
class StoreWorkload:
    """The replica called `replica` of a store: keys and values in logs that all `replicas` agree on, one a group."""

    replica: str
    replicas: tuple[StoreReplica, ...]
    groups: tuple[StoreGroup, ...] = (StoreGroup(0, 1),)
    """Of all partitions, in their order."""
    rule: PartitionRule = BY_HASH
    """How a key becomes a partition."""
    acks: Acks = "quorum"
    election_timeout_s: float = 1.0
    heartbeat_s: float = 0.1
    snapshot_entries: int = 10_000
    """After so many entries a snapshot takes the place of a log."""
    mode: StoreMode = "quorum"
    isr: StoreIsr | None = None
    """Of mode isr: groups are replicated by it, and consensus is that of their controllers."""

    @property
    def partitions(self) -> int:
        return self.groups[-1].end


Workload = BuiltinWorkload | CommandWorkload | StoreWorkload


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

    @property
    def patience_s(self) -> float:
        """For how long it has to find nobody before that has a consequence."""
        return (self.failure_threshold - 1) * self.period_s + self.timeout_s


MeshMode = Literal["sidecar", "node", "none"]
"""Who carries the calls of pods: a proxy in each pod, one proxy a node for all pods there, or kube-proxy alone."""


GATEWAY: Final = "gateway"
"""The service that all gateways are of; no other can have the name."""
NODE_PROXY: Final = "node-proxy"
"""The service that all node proxies are of."""
ROUTER: Final = "router"
"""The service of the routers that tell clients their cell, where cells are entered by them."""


def gateway_of(zone: str) -> str:
    """The Deployment of the gateway of a zone."""
    return f"{GATEWAY}-{zone}"


def router_of(zone: str) -> str:
    """The Deployment of the router of a zone."""
    return f"{ROUTER}-{zone}"


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What every pod of a Deployment has in common. Gateways, routers and node proxies are a proxy and nothing else.

    `mesh_mode` says who carries its calls (in Istio the labels `sidecar.istio.io/inject`, `istio.io/dataplane-mode`).
    """

    service: str
    """Its label `app`; in Istio's words, its canonical service."""
    workload: Workload | None
    port: int = 8080
    readiness: Probe | None = None
    liveness: Probe | None = None
    role: Literal["service", "gateway", "router", "node-proxy"] = "service"
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

    @property
    def is_entered(self) -> bool:
        """Whether clients call it themselves."""
        return self.role in ("gateway", "router")


@dataclass(frozen=True, slots=True)
class Deployment:
    """Its selector is the label `app` of its template. A changed template is rolled out; see `deployments`."""

    name: str
    replicas: int
    template: PodTemplate
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()
