"""Models of the experiment (faults, expectations) and of the whole document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, ValidationInfo, WithJsonSchema, field_serializer, field_validator

from testbed.scenario.models.cells import CellsModel
from testbed.scenario.models.cluster import ControlPlaneModel, ServiceModel, TopologyModel
from testbed.scenario.models.fields import (
    Bandwidth,
    Command,
    Duration,
    Model,
    Name,
    Names,
    Percentage,
    PositiveDuration,
    PositivePercentage,
)
from testbed.scenario.models.metrics import METRICS, OF_A_SERVICE, MetricName
from testbed.scenario.models.operations import OperationModel
from testbed.scenario.models.prices import PricesModel
from testbed.scenario.models.traffic import GatewayModel, LoadModel, MeshModel
from testbed.scenario.schema_rules import (
    Rule,
    all_of,
    at_least_one_of,
    exactly_one_of,
    needs,
    where,
    with_key,
    without,
)


class CrashModel(Model):
    """Loss of power of a zone, a node or a master."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of("zone", "node", "master"))

    zone: str | None = None
    """All nodes of this zone, and a master that lies there."""
    node: str | None = None
    """One node."""
    master: str | None = None
    """A replica of the control plane, by the name of its place: `control-plane`, or `control-plane-1` of several."""


class KillModel(Model):
    """Sudden end of pods on nodes that live, or of a master; one of a pod, a service and a master."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            exactly_one_of("pod", "service", "master"),
            with_key("pod", without("zone", "count")),
            with_key("master", without("zone", "count")),
        )
    )

    pod: str | None = None
    """One pod."""
    service: str | None = None
    """The first ready pods of this service."""
    zone: str | None = None
    """Only pods of the service in this zone."""
    count: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many pods of the service. Default 1."""
    master: str | None = None
    """A replica of the control plane, by the name of its place: `control-plane`, or `control-plane-1` of several. It is
    started again after `masterRestart`."""


class PauseModel(Model):
    """A process that does nothing and notices nothing (SIGSTOP), as a virtual machine that is moved."""

    master: str
    """A replica of the control plane, by the name of its place: `control-plane`, or `control-plane-1` of several."""


class CutModel(Model):
    """Links that carry nothing."""

    from_: Annotated[Names, Field(alias="from")]
    """Zones, nodes, `clients/<zone>`, `control-plane` or `control-plane-1` of several; `*` for all that the other side
    does not name."""
    to: Names
    """As `from`."""
    direction: Literal["both", "oneWay"] = "both"
    """Whether the way back is affected as well."""


class DegradeModel(CutModel):
    """Links that are worse than declared."""

    model_config = ConfigDict(json_schema_extra=at_least_one_of("latency", "jitter", "loss", "bandwidth"))

    latency: Duration | None = None
    """Added to the delay of each direction."""
    jitter: Duration | None = None
    """Added to the variation of the delay of each direction."""
    loss: Percentage | None = None
    """Share of data lost on top of what the link loses anyway."""
    bandwidth: Bandwidth | None = None
    """Upper bound of each direction."""


class PowerOffModel(Model):
    """Loss of power of a real machine."""

    command: Command | None = None
    """What does it, run where the scenario was started. Default: the kill of `testbed lab`."""


class FaultModel(Model):
    """Something that goes wrong; exactly one of crash, kill, pause, cut, degrade and powerOff."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            exactly_one_of("crash", "kill", "pause", "cut", "degrade", "powerOff"),
            *(with_key(lasting, needs("for")) for lasting in ("crash", "pause", "cut", "degrade")),
            *(with_key(instant, without("for")) for instant in ("kill", "powerOff")),
            with_key("powerOff", needs("machine")),
            with_key("machine", needs("powerOff")),
        )
    )

    name: Name
    """Unique name, for expectations and results."""
    at: Duration
    """When it starts, counted from the start of the load."""
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    """How long it lasts; a kill and a powerOff have no duration."""
    machine: Annotated[str, Field(min_length=1)] | None = None
    """The machine of a powerOff: a host name or the address of a Ray node."""
    crash: CrashModel | None = None
    """Loss of power of a zone, a node or a master."""
    kill: KillModel | None = None
    """Sudden end of pods or of a master."""
    pause: PauseModel | None = None
    """A master that stands still."""
    cut: CutModel | None = None
    """Links that carry nothing."""
    degrade: DegradeModel | None = None
    """Links that are worse than declared."""
    power_off: PowerOffModel | None = None
    """Loss of power of `machine`, for good."""


class RecoveryModel(Model):
    """When clients count as well again after a fault or its heal."""

    at_least: PositivePercentage = 0.99
    """Share of the requests of every window that are ok."""
    window: PositiveDuration = 1.0
    """How long a window is; one begins at every request."""
    relative_to_steady: bool = True
    """Whether a window is good, too, that is no worse than chance makes of the steady phase's own errors."""


def _bounds_in_the_unit_of(metric: MetricName) -> Rule:
    bound = METRICS[metric].json_schema()
    bounds = {key: {**bound, "type": [bound["type"], "null"]} for key in ("atLeast", "atMost")}
    return where("metric", {"const": metric}, {"properties": bounds})


Bound = Annotated[Any, WithJsonSchema({"type": ["string", "integer", "null"]})]


class ExpectationModel(Model):
    """A bound that a result must keep for the run to pass."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            at_least_one_of("atLeast", "atMost"),
            *(_bounds_in_the_unit_of(metric) for metric in get_args(MetricName)),
            where("metric", {"enum": list(OF_A_SERVICE)}, {}, without("service")),
            where("metric", {"const": "time_to_recover"}, {}, without("origin", "cell")),
            with_key("origin", without("service", "cell")),
            with_key("cell", without("service")),
            where(
                "metric",
                {"const": "time_to_recover"},
                all_of(needs("fault"), without("when")),
                where("when", {"enum": ["during", "after"]}, needs("fault"), without("fault")),
            ),
        )
    )

    metric: MetricName
    """What is measured."""
    when: Literal["all", "steady", "during", "after"] | None = None
    """Which part of the run: all but the warm-up, before the first fault, or during or after a fault. Default all."""
    fault: str | None = None
    """The fault or operation that `during`, `after` and time_to_recover are about."""
    service: str | None = None
    """Only calls to this service, for same_zone_share and partition_local_share; for time_to_recover only requests that
    a route of the gateway leads to it."""
    origin: str | None = None
    """Only requests of clients in this zone; for time_to_recover."""
    cell: str | None = None
    """Only requests for what this cell owns; for time_to_recover."""
    at_least: Bound = None
    """Lower bound, in the unit of the metric."""
    at_most: Bound = None
    """Upper bound, in the unit of the metric."""

    @field_validator("at_least", "at_most")
    @classmethod
    def _in_the_unit_of_the_metric(cls, value: Any, info: ValidationInfo) -> float | None:
        metric = info.data.get("metric")
        return METRICS[metric].parse(value) if metric in METRICS else None

    @field_serializer("at_least", "at_most")
    def _with_unit(self, value: float | None) -> str | int | None:
        return None if value is None else METRICS[self.metric].format(value)


class SpecModel(Model):
    """The experiment."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of everything random."""
    topology: TopologyModel
    """Regions, zones, nodes and links."""
    control_plane: ControlPlaneModel = ControlPlaneModel()
    """Place and timings of the control plane."""
    services: Annotated[dict[Name, ServiceModel], Field(min_length=1)]
    """Services by name."""
    gateway: GatewayModel
    """Where requests enter."""
    cells: CellsModel | None = None
    """Which part of all requests belongs where. Default: no cells."""
    mesh: MeshModel = MeshModel()
    """Rules of the service mesh."""
    load: LoadModel
    """What clients send."""
    prices: PricesModel = PricesModel()
    """What the bytes of calls cost."""
    faults: list[FaultModel] = Field(default_factory=list)
    """What goes wrong, and when."""
    operations: list[OperationModel] = Field(default_factory=list)
    """What is changed on purpose, and when. Needs cells."""
    recovery: RecoveryModel = RecoveryModel()
    """When clients count as well again."""
    expect: list[ExpectationModel] = Field(default_factory=list)
    """What must hold for the run to pass."""


class MetadataModel(Model):
    """What the scenario is called."""

    name: Name
    """Name of the scenario, part of the name of each run."""
    description: str = ""
    """What it shows, in a sentence."""


class ScenarioModel(Model):
    """A scenario of testbed: a cluster, its load, what goes wrong and what must hold nevertheless."""

    api_version: Literal["testbed/v1"]
    """Version of this language."""
    kind: Literal["Scenario"]
    """Always Scenario."""
    metadata: MetadataModel
    """Name and description."""
    spec: SpecModel
    """Cluster, load, faults and expectations."""
