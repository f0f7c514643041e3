"""Models of what the cluster is made of: topology, control plane and services."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from testbed.documents.quantities import shown
from testbed.objects.core import AppProtocol
from testbed.scenario.models.fields import (
    Bandwidth,
    Command,
    Duration,
    HttpPath,
    Model,
    Name,
    Percentage,
    PositiveDuration,
    Rate,
    Size,
)
from testbed.scenario.models.stores import StoreModel
from testbed.scenario.schema_rules import NOT_EMPTY, all_of, empty, exactly_one_of, needs, where, with_key, without

MAX_NODES_OF_A_ZONE = 250


class NodeModel(Model):
    """One node of a zone."""

    name: Name | None = None
    """Unique over all zones. Default: the zone's name and a running number, `east-a-1`."""
    capacity_pods: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many pods it holds. Default: the zone's `capacityPods`."""


def _counted_nodes(value: Any) -> Any:
    if isinstance(value, list):
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"must be a number of nodes or a list of them, not {shown(value)}")
    if not 1 <= value <= MAX_NODES_OF_A_ZONE:
        raise ValueError(f"a zone needs 1 to {MAX_NODES_OF_A_ZONE} nodes, not {value}")
    return [{}] * value


_NodeCount = Annotated[int, Field(ge=1, le=MAX_NODES_OF_A_ZONE)]


class ZoneModel(Model):
    """A zone: nodes that fail together."""

    nodes: Annotated[
        list[NodeModel],
        BeforeValidator(_counted_nodes, json_schema_input_type=_NodeCount | list[NodeModel]),
        Field(min_length=1, max_length=MAX_NODES_OF_A_ZONE),
    ]
    """How many nodes, or a list of them."""
    capacity_pods: Annotated[int, Field(ge=1, le=1000)] = 110
    """How many pods each of its nodes holds, where the node does not say."""


class RegionModel(Model):
    """A region: zones close to each other."""

    zones: Annotated[dict[Name, ZoneModel], Field(min_length=1)]
    """Zones by name; names are unique over all regions."""


class LinkModel(Model):
    """The quality of the links of one class."""

    rtt: Duration | None = None
    """Round trip time; half of it is the delay of each direction."""
    jitter: Duration | None = None
    """How much the delay of one direction varies. Default 0s."""
    bandwidth: Bandwidth | None = None
    """Of each direction. Default: unlimited."""
    loss: Percentage | None = None
    """Share of data lost in each direction. Default 0%."""


class BetweenModel(LinkModel):
    """The quality of the links between two zones, in both directions, instead of that of their class."""

    zones: Annotated[list[str], Field(min_length=2, max_length=2)]
    """The two zones."""
    rtt: Duration
    """Round trip time; half of it is the delay of each direction."""


class LinksModel(Model):
    """Declared network quality by class of link."""

    same_zone: LinkModel = LinkModel()
    """Between places of one zone; rtt 0.3ms by default."""
    same_region: LinkModel = LinkModel()
    """Between zones of one region; rtt 1ms by default."""
    cross_region: LinkModel = LinkModel()
    """Between regions; rtt 30ms by default."""
    between: list[BetweenModel] = Field(default_factory=list)
    """Single pairs of zones that differ from their class."""


class TopologyModel(Model):
    """Where things can be and how far apart."""

    regions: Annotated[dict[Name, RegionModel], Field(min_length=1)]
    """Regions by name."""
    links: LinksModel = LinksModel()
    """Declared network quality."""


class TimingsModel(Model):
    """Timings of the control plane that differ from the profile."""

    lease_renew: PositiveDuration | None = None
    """How often a node renews its Lease."""
    lease_grace: PositiveDuration | None = None
    """Without renewal for this long, a node turns Unknown."""
    node_monitor: PositiveDuration | None = None
    """How often the node controller looks."""
    unreachable_toleration: Duration | None = None
    """How long pods stay bound to an unreachable node."""
    eviction_rate: Rate | None = None
    """How many nodes a second are emptied at most."""
    restart_backoff_initial: Duration | None = None
    """Wait before the first restart of a crashed container; doubles each time."""
    restart_backoff_max: Duration | None = None
    """Longest wait before a restart."""
    restart_backoff_reset: Duration | None = None
    """A container that ran this long starts again from the initial wait."""
    master_restart: Duration | None = None
    """Wait before a master that was killed is started again."""
    election_timeout: PositiveDuration | None = None
    """Of several masters: when the leader's heartbeats have been missed for this long, and up to twice as long, another
    is elected."""
    leader_elect_lease_duration: Duration | None = None
    """Of several masters: the controllers' Lease is not taken before it was not renewed for this long. One that ends
    sooner than an election is not kept: the controllers are then where the leader is."""
    leader_elect_renew_deadline: PositiveDuration | None = None
    """Who could not renew that Lease for this long runs controllers no more."""
    leader_elect_retry_period: PositiveDuration | None = None
    """How often the Lease is renewed, or looked at."""
    push_debounce: Duration | None = None
    """Quiet time before proxies are told of changes."""
    push_debounce_max: Duration | None = None
    """Longest time that changes wait for quiet."""
    entry_check_interval: PositiveDuration | None = None
    """How often the entry (DNS, load balancer) checks a gateway."""
    entry_check_timeout: PositiveDuration | None = None
    """A check without answer for this long has failed."""
    entry_failure_threshold: Annotated[int, Field(ge=1)] | None = None
    """Failed checks in a row until a gateway is taken out."""
    entry_ttl: Duration | None = None
    """How long clients keep the address that they were given."""


class ControlPlaneModel(Model):
    """The control plane: API server, controllers and mesh control in one."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            where("replicas", {"enum": [3, 5]}, without("zone")), with_key("zones", needs("replicas"))
        )
    )

    profile: Literal["fast", "kubernetes"] = "fast"
    """Default timings: Kubernetes' own, or `fast`, all of them divided by 20."""
    zone: str | None = None
    """The zone it lies in and fails with. Default: the first region, outside all zones."""
    replicas: Literal[1, 3, 5] = 1
    """How many masters there are. Several agree by a log (Raft) that a majority has; they are called `control-plane-1`
    and so on."""
    zones: Annotated[list[str], Field(min_length=1)] | None = None
    """Of several masters, the zone of each. Default: all zones in turn."""
    ready_timeout: PositiveDuration = 30.0
    """How long the cluster may take until all pods are ready and all proxies configured."""
    timings: TimingsModel = TimingsModel()
    """Timings that differ from the profile."""


# --- services --------------------------------------------------------------------------------------------------


class WorkModel(Model):
    """How long the built-in workload works on a request."""

    model_config = ConfigDict(
        json_schema_extra=where("distribution", {"enum": ["uniform", "lognormal"]}, needs("spread"))
    )

    distribution: Literal["constant", "uniform", "exponential", "lognormal"] = "constant"
    """Shape of the distribution."""
    mean: Duration
    """Mean of the distribution."""
    spread: Duration | None = None
    """Half the width of `uniform`, standard deviation of `lognormal`."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the draws. Default: the scenario's seed."""


def _constant_work(value: Any) -> Any:
    return value if isinstance(value, dict) else {"distribution": "constant", "mean": value}


def _stage(value: Any) -> Any:
    """One callee may be written without the brackets of a list."""
    return [value] if isinstance(value, str | dict) else value


def _callee(value: Any) -> Any:
    if isinstance(value, dict):
        named = [name for name in value.values() if isinstance(name, str)]
        right = named[0] if len(named) == 1 else "web"
        raise ValueError(f"must be the name of a service, not {shown(value)}; write only the name, such as {right}")
    return value


Callee = Annotated[str, BeforeValidator(_callee, json_schema_input_type=str)]
Stage = Annotated[list[Callee], BeforeValidator(_stage, json_schema_input_type=str | list[str]), Field(min_length=1)]


class WorkloadModel(Model):
    """What the pods of a service run: the built-in call graph node, a store, or a command of your own."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            with_key("command", all_of(without("work", "responseSize", "errorRate", "crashOn"), empty("calls"))),
            with_key(
                "store", all_of(without("work", "responseSize", "errorRate", "crashOn", "command"), empty("calls"))
            ),
            where("env", NOT_EMPTY, needs("command")),
        )
    )

    work: Annotated[WorkModel, BeforeValidator(_constant_work, json_schema_input_type=Duration | WorkModel)] | None = (
        None
    )
    """Time worked on each request: `2ms`, or a distribution."""
    calls: list[Stage] = Field(default_factory=list)
    """Services called for each request, one after the other; those of a nested list in parallel."""
    response_size: Size | None = None
    """Size of the response body. Default 0B."""
    error_rate: Percentage | None = None
    """Share of requests answered with status 500. Default 0%."""
    crash_on: HttpPath | None = None
    """A request for this path ends the process at once, without an answer: a poison request. Default: none does."""
    store: StoreModel | None = None
    """A replicated store instead of the built-in workload. Each replica is at home on a node, with its disk."""
    command: Command | None = None
    """A real program instead of the built-in workload. `$(NAME)` stands for a variable of its environment."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of the command."""


class HttpGetModel(Model):
    """Healthy when a GET is answered with a status below 400."""

    path: HttpPath = "/"
    """Path of the request."""


class TcpSocketModel(Model):
    """Healthy when the port accepts a connection."""


class ExecModel(Model):
    """Healthy when a command ends with exit code 0."""

    command: Command
    """Program and arguments."""


class ProbeModel(Model):
    """A probe with Kubernetes' fields; exactly one of httpGet, tcpSocket and exec."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of("httpGet", "tcpSocket", "exec"))

    http_get: HttpGetModel | None = None
    """Ask by HTTP."""
    tcp_socket: TcpSocketModel | None = None
    """Ask by connecting."""
    exec: ExecModel | None = None
    """Ask by running a command."""
    initial_delay: Duration | None = None
    """Wait before the first probe. Default 0s."""
    period: PositiveDuration | None = None
    """Time from probe to probe. Default: the profile's (kubernetes 10s, fast 500ms)."""
    timeout: PositiveDuration | None = None
    """A probe without answer for this long has failed. Default: the profile's (kubernetes 1s, fast 250ms)."""
    success_threshold: Annotated[int, Field(ge=1, le=100)] | None = None
    """Successes in a row until healthy. Default 1."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] | None = None
    """Failures in a row until unhealthy. Default 3."""


class TopologySpreadModel(Model):
    """topologySpreadConstraints over zones."""

    max_skew: Annotated[int, Field(ge=1, le=1000)] = 1
    """By how many pods two zones may differ."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "DoNotSchedule"
    """Whether the skew is a rule or a preference."""


def _spoken(value: Any) -> Any:
    if value not in ("http", "tcp"):
        raise ValueError(
            f"must be http (calls, each of which is routed) or tcp (connections, whatever they carry), "
            f"not {shown(value)}: TLS, HTTP/2 and gRPC are not emulated yet; as tcp they pass"
        )
    return value


class ServiceModel(Model):
    """A service and the Deployment behind it."""

    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many pods; of a service that is spread over cells or cities, in each."""
    class_: Annotated[Literal["sharded", "global", "perCity"] | None, Field(alias="class")] = None
    """How it is spread over cells: `sharded` has pods in each, for what the cell owns (LDC: RZone), `global` one group
    for all (GZone), `perCity` one a city (CZone). Default, where there are cells: global."""
    shuffle_shards: Annotated[int, Field(ge=1, le=1000)] | None = None
    """So many of its pods in each cell serve a partition, drawn from the seed for each partition. Only of a `sharded`
    service. Default: all serve all."""
    port: Annotated[int, Field(ge=1, le=65535)] = 80
    """Port that callers use."""
    container_port: Annotated[int, Field(ge=1024, le=65535)] = 8080
    """Port that the container listens on."""
    app_protocol: (
        Annotated[AppProtocol, BeforeValidator(_spoken, json_schema_input_type=Literal["http", "tcp"])] | None
    ) = None
    """What the service speaks, in Kubernetes' word: `http` (HTTP/1.1), or `tcp`, which is anything else. To be written
    where the port is known for another protocol. Containers find a service that speaks TCP at `NAME_SERVICE_HOST` and
    `NAME_SERVICE_PORT` of their environment. Default http."""
    workload: WorkloadModel = WorkloadModel()
    """What its pods run."""
    readiness_probe: ProbeModel | None = None
    """Decides whether a pod gets calls. Default: GET /healthz of the built-in workload, tcpSocket of a command."""
    liveness_probe: ProbeModel | None = None
    """Decides whether a container is restarted. Default: none."""
    traffic_distribution: Literal["PreferSameZone", "PreferSameNode", "PreferClose"] | None = None
    """Where calls go while any endpoint there is ready. PreferClose is the old name of PreferSameZone."""
    topology_spread: TopologySpreadModel = TopologySpreadModel()
    """How its pods spread over zones."""
    zones: list[str] = Field(default_factory=list)
    """Zones that its pods are restricted to. Default: all."""
