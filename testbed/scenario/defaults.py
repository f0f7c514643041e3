"""Everything that a scenario may leave out, filled in: profiles of timings, probes, names, links."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from testbed.control.cells.ownership import partitions_of, written
from testbed.objects.timings import Timings
from testbed.objects.workloads import Probe
from testbed.scenario.cells import partition_map, router_zones
from testbed.scenario.models.cells import CellsModel, RouterModel
from testbed.scenario.models.cluster import (
    ControlPlaneModel,
    LinkModel,
    LinksModel,
    NodeModel,
    ProbeModel,
    ServiceModel,
    TopologyModel,
    WorkloadModel,
    WorkModel,
    ZoneModel,
)
from testbed.scenario.models.experiment import FaultModel, ScenarioModel, SpecModel
from testbed.scenario.models.fields import Model
from testbed.scenario.models.prices import PriceModel, PricesModel
from testbed.scenario.models.stores import IsrModel
from testbed.scenario.models.traffic import IdsModel, LoadModel, RequestModel, SourceModel
from testbed.scenario.operations import default_catch_up_within, default_order
from testbed.scenario.values import Price, Prices

SPEED_UP = 20
"""How much faster the `fast` profile is than Kubernetes."""

_UNHURRIED = ("push_debounce_s", "push_debounce_max_s", "election_timeout_s")
"""Timings of the `fast` profile that stay as they are: Istio's and etcd's, and short enough already."""

FAST_PROBE_TIMEOUT_S = 0.25
"""Not 1 s / 20: 50 ms is what a busy machine may take, and 1 s would be longer than the period."""

LAB_KILL = ("testbed", "lab", "kill")
"""What powers a machine of the lab off, followed by its name."""

DEFAULT_RTT_S = {"same_zone": 0.0003, "same_region": 0.001, "cross_region": 0.03}

M = TypeVar("M", bound=Model)


def complete(scenario: ScenarioModel, folder: Path) -> ScenarioModel:
    """The same scenario with every default written out; paths in it are relative to `folder`. Expects a checked one."""
    spec = scenario.spec
    control_plane = spec.control_plane
    fast = control_plane.profile == "fast"
    spec = _with(
        spec,
        topology=complete_topology(spec.topology),
        control_plane=complete_control_plane(control_plane, spec.topology),
        services={name: _service(service, fast, spec) for name, service in spec.services.items()},
        cells=None if spec.cells is None else _cells(spec),
        load=_load(spec.load, folder),
        prices=_prices(spec.prices),
        faults=[_fault(fault) for fault in spec.faults],
        operations=[
            _filled(each, order=default_order(each), catch_up_within=default_catch_up_within(each))
            for each in spec.operations
        ],
        expect=[_filled(e, when=None if e.metric == "time_to_recover" else "all") for e in spec.expect],
    )
    return _with(scenario, spec=spec)


def complete_topology(topology: TopologyModel) -> TopologyModel:
    """Every node with its name and capacity, every link with its quality."""
    regions = {
        region_name: _with(region, zones={name: _zone(name, zone) for name, zone in region.zones.items()})
        for region_name, region in topology.regions.items()
    }
    return _with(topology, regions=regions, links=_links(topology.links))


def complete_control_plane(control_plane: ControlPlaneModel, topology: TopologyModel) -> ControlPlaneModel:
    """With every timing, and with the zones of several masters."""
    timings = _filled(control_plane.timings, **profile_timings(control_plane.profile == "fast"))
    zones = control_plane.zones
    if control_plane.replicas > 1 and zones is None:
        there = [name for region in topology.regions.values() for name in region.zones]
        zones = [there[number % len(there)] for number in range(control_plane.replicas)]
    return _with(control_plane, timings=timings, zones=zones)


def profile_timings(fast: bool) -> dict[str, float | int]:
    """The timings of a profile by the names of TimingsModel."""
    values: dict[str, float | int] = {}
    for timing in fields(Timings):
        value = getattr(Timings(), timing.name)
        if fast and timing.name not in _UNHURRIED:
            # An exact decimal again, so that 4 s / 20 is written as 200ms.
            if timing.name.endswith("_per_s"):
                value = round(value * SPEED_UP, 9)
            elif timing.name.endswith("_s"):
                value = round(value / SPEED_UP, 9)
        values[timing.name.removesuffix("_s").removesuffix("_per")] = value
    return values


def _with(model: M, **changes: Any) -> M:
    return model.model_copy(update=changes)


def _filled(model: M, **defaults: Any) -> M:
    """The model with defaults where it holds None."""
    return _with(model, **{name: value for name, value in defaults.items() if getattr(model, name) is None})


def _zone(name: str, zone: ZoneModel) -> ZoneModel:
    nodes: list[NodeModel] = [
        _filled(node, name=f"{name}-{number}", capacity_pods=zone.capacity_pods)
        for number, node in enumerate(zone.nodes, start=1)
    ]
    return _with(zone, nodes=nodes)


def _links(links: LinksModel) -> LinksModel:
    def link(model: M, rtt_s: float) -> M:
        return _filled(model, rtt=rtt_s, jitter=0.0, loss=0.0)

    classes: dict[str, LinkModel] = {name: link(getattr(links, name), rtt) for name, rtt in DEFAULT_RTT_S.items()}
    return _with(links, **classes, between=[link(between, between.rtt) for between in links.between])


def _cells(spec: SpecModel) -> CellsModel:
    """Every cell with what it owns, every city with its zones."""
    cell_map = partition_map(spec)
    assert spec.cells is not None
    assert cell_map is not None
    cells = {
        name: cell if cell.elastic else _with(cell, partitions=written(partitions_of(cell_map, name)).split(", "))
        for name, cell in spec.cells.cells.items()
    }
    cities = {city.name: list(city.zones) for city in cell_map.cities}
    completed = _with(spec.cells, cells=cells, cities=cities, unkeyed=cell_map.unkeyed)
    if spec.cells.entry == "gateway":
        return _filled(completed, first_hit=cell_map.first_hit)
    return _with(completed, router=_with(spec.cells.router or RouterModel(), zones=list(router_zones(spec))))


def _service(service: ServiceModel, fast: bool, spec: SpecModel) -> ServiceModel:
    served = {"tcpSocket": {}} if service.workload.command else {"httpGet": {"path": "/healthz"}}
    readiness = service.readiness_probe or ProbeModel.model_validate(served)
    liveness = service.liveness_probe
    return _with(
        service,
        app_protocol=service.app_protocol or "http",
        class_=service.class_ or (None if spec.cells is None else "global"),
        workload=_workload(service, spec),
        readiness_probe=_probe(readiness, fast),
        liveness_probe=liveness and _probe(liveness, fast),
    )


def _workload(service: ServiceModel, spec: SpecModel) -> WorkloadModel:
    workload = service.workload
    if workload.command is not None:
        return workload
    if (store := workload.store) is not None:
        partitions = store.groups if spec.cells is None else spec.cells.partitions
        heartbeat = round(store.election_timeout / 10, 9)
        isr = None
        if store.mode == "isr":
            isr = _filled(store.isr or IsrModel(), replication_factor=min(3, service.replicas))
        return _with(workload, store=_with(_filled(store, partitions=partitions, heartbeat=heartbeat), isr=isr))
    work = _filled(workload.work or WorkModel.model_validate({"mean": "0s"}), spread=0.0, seed=spec.seed)
    return _with(_filled(workload, response_size=0.0, error_rate=0.0), work=work)


def _probe(probe: ProbeModel, fast: bool) -> ProbeModel:
    kubernetes = Probe()
    return _filled(
        probe,
        initial_delay=kubernetes.initial_delay_s,
        period=kubernetes.period_s / SPEED_UP if fast else kubernetes.period_s,
        timeout=FAST_PROBE_TIMEOUT_S if fast else kubernetes.timeout_s,
        success_threshold=kubernetes.success_threshold,
        failure_threshold=kubernetes.failure_threshold,
    )


def _load(load: LoadModel, folder: Path) -> LoadModel:
    if load.ids is not None:
        load = _with(load, ids=_ids(load.ids, folder))
    if load.locustfile is not None:
        return _with(load, locustfile=str((folder / load.locustfile).resolve()))

    def source(model: SourceModel) -> SourceModel:
        return _filled(model, arrival="poisson") if model.users is None else _filled(model, think_time=1.0)

    asked = load.requests or ([] if load.only_operations else [RequestModel()])
    requests = [_filled(r, name=f"{r.method} {r.path}") for r in asked]
    return _with(load, sources=[source(s) for s in load.sources], requests=requests)


def _ids(ids: IdsModel, folder: Path) -> IdsModel:
    if ids.file is not None:
        return _with(ids, file=str((folder / ids.file).resolve()))
    ids = _filled(ids, distribution="uniform", count=1_000_000)
    return _filled(ids, exponent=1.0) if ids.distribution == "zipf" else ids


def _prices(prices: PricesModel) -> PricesModel:
    def price(model: PriceModel, default: Price) -> PriceModel:
        return _filled(model, out=default.out_per_gb, in_=default.in_per_gb)

    usual = Prices()
    region = price(prices.same_region, usual.same_region)
    return _with(
        prices,
        same_zone=price(prices.same_zone, usual.same_zone),
        # Who knows no cities has a price for his regions only.
        same_city=_filled(prices.same_city, out=region.out, in_=region.in_),
        same_region=region,
        cross_region=price(prices.cross_region, usual.cross_region),
    )


def _fault(fault: FaultModel) -> FaultModel:
    if fault.kill is not None and fault.kill.service is not None:
        return _with(fault, kill=_filled(fault.kill, count=1))
    if fault.power_off is not None:
        return _with(fault, power_off=_filled(fault.power_off, command=[*LAB_KILL, fault.machine]))
    if fault.degrade is not None:
        return _with(fault, degrade=_filled(fault.degrade, latency=0.0, jitter=0.0, loss=0.0))
    return fault
