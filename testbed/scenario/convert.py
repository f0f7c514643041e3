"""From the completed models to the values that the rest of testbed works with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from testbed.control.cells.subsets import subsets_of
from testbed.faults.effects import LinkEffect
from testbed.faults.links import LinkFault
from testbed.faults.machines import MachinePowerOff
from testbed.faults.masters import MasterFault
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.timeline import Fault, ScheduledFault
from testbed.faults.zones import ZoneCrash
from testbed.objects.cells import PartitionKey, PartitionMap
from testbed.objects.cluster import ClusterSpec, Declared
from testbed.objects.core import CAPTURE_PORTS, Node, Service
from testbed.objects.mesh import DestinationRule, Gateway, Ingress, IngressPath, VirtualService
from testbed.objects.metadata import Labels
from testbed.objects.places import LinkQuality, Locality, Place, Topology, ZoneLink, clients_of, master_names
from testbed.objects.timings import Timings
from testbed.objects.workloads import (
    GATEWAY,
    NODE_PROXY,
    ROUTER,
    BuiltinWorkload,
    CommandWorkload,
    Deployment,
    MeshMode,
    PodTemplate,
    Probe,
    WorkTime,
    gateway_of,
    router_of,
)
from testbed.scenario.cells import key_of, partition_map, placements, router_zones
from testbed.scenario.models.cells import CellsModel
from testbed.scenario.models.cluster import (
    ControlPlaneModel,
    LinkModel,
    ProbeModel,
    ServiceModel,
    TimingsModel,
    TopologyModel,
    WorkloadModel,
)
from testbed.scenario.models.experiment import CutModel, ExpectationModel, FaultModel, ScenarioModel, SpecModel
from testbed.scenario.models.metrics import METRICS
from testbed.scenario.models.prices import PriceModel, PricesModel
from testbed.scenario.models.traffic import GatewayModel, IdsModel, LoadModel, MeshModel, OperationsModel
from testbed.scenario.operations import scheduled_operations
from testbed.scenario.policies import http_route, traffic_distribution, traffic_policy, winning_policy
from testbed.scenario.stores import store_workload
from testbed.scenario.values import (
    DirectedSpec,
    Expectation,
    IdSpec,
    LoadSource,
    LoadSpec,
    OperationKeys,
    Price,
    Prices,
    RecoveryRule,
    RequestSpec,
    Scenario,
)

GATEWAYS = "testbed-gateway"
"""The Gateway, or the Ingress, that says what all gateways route."""
_WEIGHTS = 1_000_000
"""Of one request of weight 1, where operations on a store have a share beside it: whole numbers, as weights are."""
GATEWAY_LABELS: Labels = (("istio", GATEWAYS),)

T = TypeVar("T")


def convert(model: ScenarioModel) -> Scenario:
    """The values of a scenario that is checked and completed."""
    spec = model.spec
    return Scenario(
        name=model.metadata.name,
        description=model.metadata.description,
        seed=spec.seed,
        profile=spec.control_plane.profile,
        ready_timeout_s=spec.control_plane.ready_timeout,
        cluster=_cluster(model),
        topology=topology_of(spec.topology, spec.control_plane),
        load=_load(spec),
        prices=_prices(spec.prices),
        cities={zone: city for city, zones in (spec.cells.cities if spec.cells else {}).items() for zone in zones},
        cross_cell=None if spec.cells is None else _cross_cell(spec.cells),
        faults=scheduled_faults(spec),
        expectations=tuple(_expectation(expectation) for expectation in spec.expect),
        operations=scheduled_operations(spec),
        recovery=RecoveryRule(spec.recovery.at_least, spec.recovery.window, spec.recovery.relative_to_steady),
        routes=tuple((route.path, route.service) for route in spec.gateway.routes),
        _resolved=model.model_dump(by_alias=True, exclude_none=True),
    )


def topology_of(topology: TopologyModel, control_plane: ControlPlaneModel) -> Topology:
    """Nodes in the order of the file, then the clients of each zone, then the control plane. Expects completed ones."""
    zones = [
        (Locality(region_name, zone_name), zone)
        for region_name, region in topology.regions.items()
        for zone_name, zone in region.zones.items()
    ]
    nodes = [Place(_sure(node.name), locality) for locality, zone in zones for node in zone.nodes]
    clients = [Place(clients_of(locality.zone), locality, "clients") for locality, _ in zones]
    regional = Locality(zones[0][0].region, "")
    localities = {locality.zone: locality for locality, _ in zones}
    where = control_plane.zones or [control_plane.zone or ""]
    names = master_names(control_plane.replicas)
    masters = [
        Place(name, localities.get(zone, regional), "control-plane") for name, zone in zip(names, where, strict=False)
    ]
    links = topology.links
    return Topology(
        places=(*nodes, *clients, *masters),
        same_zone=_quality(links.same_zone),
        same_region=_quality(links.same_region),
        cross_region=_quality(links.cross_region),
        zone_links=tuple(ZoneLink((b.zones[0], b.zones[1]), _quality(b)) for b in links.between),
    )


def _quality(link: LinkModel) -> LinkQuality:
    return LinkQuality(
        delay_s=_sure(link.rtt) / 2,
        jitter_s=_sure(link.jitter),
        bandwidth_bits_per_s=link.bandwidth,
        loss=_sure(link.loss),
    )


def _sure(value: T | None) -> T:
    """A value that completion has filled in."""
    assert value is not None
    return value


# --- cluster ---------------------------------------------------------------------------------------------------


def _cluster(model: ScenarioModel) -> ClusterSpec:
    spec = model.spec
    zones = [
        (region_name, zone_name, zone)
        for region_name, region in spec.topology.regions.items()
        for zone_name, zone in region.zones.items()
    ]
    nodes = tuple(
        Node(_sure(node.name), Locality(region, zone_name), _sure(node.capacity_pods))
        for region, zone_name, zone in zones
        for node in zone.nodes
    )
    mode = spec.mesh.mode
    gateway = PodTemplate(service=GATEWAY, workload=None, role="gateway", mesh_mode=mode, extra_labels=GATEWAY_LABELS)
    gateways = [Deployment(gateway_of(zone), 1, replace(gateway, zones=(zone,))) for _, zone, _ in zones]
    router = PodTemplate(service=ROUTER, workload=None, role="router", mesh_mode=mode)
    routers = [Deployment(router_of(zone), 1, replace(router, zones=(zone,))) for zone in router_zones(spec)]
    node_proxy = PodTemplate(service=NODE_PROXY, workload=None, role="node-proxy", mesh_mode=mode)
    node_proxies = [Deployment(f"{NODE_PROXY}-{node.name}", 1, replace(node_proxy, node=node.name)) for node in nodes]
    services = spec.services.items()
    speaking_tcp = [name for name, service in services if service.app_protocol == "tcp" and mode != "none"]
    captured = dict(zip(speaking_tcp, CAPTURE_PORTS, strict=False))
    cell_map = partition_map(spec)
    objects: list[Declared] = [
        *nodes,
        *(_service(name, service, spec.mesh, captured.get(name)) for name, service in services),
        *(node_proxies if mode == "node" else ()),
        *(each for name, service in services for each in _deployments(name, service, spec)),
        *gateways,
        *routers,
        *(_without_mesh(spec.gateway) if mode == "none" else _in_mesh(spec, cell_map)),
        *(() if cell_map is None else (cell_map,)),
    ]
    return ClusterSpec(tuple(objects), _timings(spec.control_plane.timings), mode)


def _in_mesh(spec: SpecModel, cell_map: PartitionMap | None) -> list[Declared]:
    """Two of Istio's objects for each service, and two for what gateways route, with the policy of the service."""
    policies = {name: winning_policy(name, spec.mesh) for name in spec.services}
    at_gateways = tuple(
        http_route(route.path, route.service, policies[route.service], route.path) for route in spec.gateway.routes
    )
    subsets = {
        name: () if cell_map is None else subsets_of(cell_map, service.class_ or "global")
        for name, service in spec.services.items()
    }
    return [
        *(DestinationRule(name, name, traffic_policy(policies[name]), subsets=subsets[name]) for name in policies),
        *(VirtualService(name, (name,), (http_route(name, name, policy),)) for name, policy in policies.items()),
        Gateway(GATEWAYS, GATEWAY_LABELS),
        VirtualService(GATEWAYS, ("*",), at_gateways, gateways=(GATEWAYS,)),
    ]


def _without_mesh(gateway: GatewayModel) -> list[Declared]:
    """Nobody applies policies."""
    return [Ingress(GATEWAYS, tuple(IngressPath(route.path, route.service) for route in gateway.routes))]


def _timings(timings: TimingsModel) -> Timings:
    values = {name: getattr(timings, name) for name in type(timings).model_fields}
    rate, threshold = values.pop("eviction_rate"), values.pop("entry_failure_threshold")
    return Timings(
        eviction_rate_per_s=rate,
        entry_failure_threshold=threshold,
        **{f"{name}_s": value for name, value in values.items()},
    )


def _service(name: str, service: ServiceModel, mesh: MeshModel, capture_port: int | None) -> Service:
    policy = winning_policy(name, mesh)
    asked = (policy.traffic_distribution if policy else None) or service.traffic_distribution
    return Service(
        name,
        service.port,
        traffic_distribution(asked),
        selector=(("app", name),),
        service_class=service.class_ or "global",
        app_protocol=_sure(service.app_protocol),
        capture_port=capture_port,
    )


def _deployments(name: str, service: ServiceModel, spec: SpecModel) -> list[Deployment]:
    """One, or one for each cell, city, or replica of a store."""
    passed_on = () if spec.cells is None else (key_of(spec.cells.key).header,)
    template = _template(name, service, spec.mesh.mode, passed_on)
    deployments = []
    for each in placements(name, service, spec):
        placed = replace(template, zones=each.zones, extra_labels=each.labels, node=each.node)
        if service.workload.store is not None:
            store, cell_map = service.workload.store, partition_map(spec)
            workload = store_workload(each.deployment, name, service, spec, store, cell_map)
            placed = replace(placed, workload=workload)
        deployments.append(Deployment(each.deployment, each.replicas, placed))
    return deployments


def _template(name: str, service: ServiceModel, mesh_mode: MeshMode, passed_on: tuple[str, ...]) -> PodTemplate:
    spread, liveness = service.topology_spread, service.liveness_probe
    return PodTemplate(
        service=name,
        workload=_workload(service.workload, passed_on),
        port=service.container_port,
        readiness=_probe(_sure(service.readiness_probe)),
        liveness=None if liveness is None else _probe(liveness),
        mesh_mode=mesh_mode,
        max_skew=spread.max_skew if spread.when_unsatisfiable == "DoNotSchedule" else None,
    )


def _workload(workload: WorkloadModel, passed_on: tuple[str, ...]) -> BuiltinWorkload | CommandWorkload | None:
    """None of a store, whose replicas differ."""
    if workload.store is not None:
        return None
    if workload.command is not None:
        return CommandWorkload(tuple(workload.command), tuple(workload.env.items()))
    work = _sure(workload.work)
    return BuiltinWorkload(
        work=WorkTime(work.distribution, work.mean, _sure(work.spread), _sure(work.seed)),
        stages=tuple(map(tuple, workload.calls)),
        response_bytes=int(_sure(workload.response_size)),
        error_rate=_sure(workload.error_rate),
        passed_on=passed_on,
        crash_path=workload.crash_on,
    )


def _probe(probe: ProbeModel) -> Probe:
    timing: dict[str, Any] = {
        "initial_delay_s": probe.initial_delay,
        "period_s": probe.period,
        "timeout_s": probe.timeout,
        "success_threshold": probe.success_threshold,
        "failure_threshold": probe.failure_threshold,
    }
    if probe.http_get is not None:
        return Probe("httpGet", path=probe.http_get.path, **timing)
    if probe.exec is not None:
        return Probe("exec", command=tuple(probe.exec.command), **timing)
    return Probe("tcpSocket", **timing)


# --- load, faults, expectations ----------------------------------------------------------------------------------


def _load(spec: SpecModel) -> LoadSpec:
    load, cells = spec.load, spec.cells
    return LoadSpec(
        sources=tuple(
            LoadSource(s.zone, s.rate, s.arrival or "poisson", s.users, s.think_time or 0.0) for s in load.sources
        ),
        warmup_s=load.warmup,
        duration_s=load.duration,
        requests=_requests(load),
        timeout_s=load.timeout,
        connect_timeout_s=load.connect_timeout,
        locustfile=None if load.locustfile is None else Path(load.locustfile),
        ids=None if cells is None else _drawn(load, key_of(cells.key)),
        operations=_operation_keys(load, among_cells=cells is not None),
        directed=None if cells is None or _drawn(load, key_of(cells.key)) is None else _directed(spec, cells),
    )


def _requests(load: LoadModel) -> tuple[RequestSpec, ...]:
    """Those that are asked for and operations, with weights by which each have their share."""
    asked = tuple(
        RequestSpec(_sure(r.name), r.method, r.path, r.weight, tuple(r.headers.items()), r.body) for r in load.requests
    )
    if load.operations is None:
        return asked
    total, share = sum(each.weight for each in asked) or 1, round(load.operations.share * _WEIGHTS)
    others = tuple(replace(each, weight=each.weight * (_WEIGHTS - share)) for each in asked)
    return others + _operations(load.operations, total * share)


def _operations(operations: OperationsModel, weight: int) -> tuple[RequestSpec, ...]:
    writes = round(operations.writes * weight)
    kinds = (("write", "PUT", writes), ("read", "GET", weight - writes))
    path = operations.path.removesuffix("/") + "/{key}"
    return tuple(RequestSpec(name, method, path, weight, (), None) for name, method, weight in kinds if weight)


def _operation_keys(load: LoadModel, among_cells: bool) -> OperationKeys | None:
    if load.operations is None:
        return None
    # Among cells a store has their partitions, by their rule, which is for ids.
    return OperationKeys(load.operations.keys, "" if among_cells else "k", among_cells and load.only_operations)


def _drawn(load: LoadModel, key: PartitionKey) -> IdSpec | None:
    """The key of an operation is the id by which its partition is found, and each is by a client of its own."""
    if load.operations is not None and load.only_operations:
        return IdSpec(key, session=1, count=load.operations.keys)
    return None if load.ids is None else _ids(load.ids, key)


def _directed(spec: SpecModel, cells: CellsModel) -> DirectedSpec | None:
    if cells.entry == "gateway":
        return None
    within = {name: tuple(cell.zones) for name, cell in cells.cells.items()}
    return DirectedSpec(cells.cookie, int(_sure(cells.router).ttl), router_zones(spec), within)


def _cross_cell(cells: CellsModel) -> dict[str, tuple[str, str]] | None:
    declared = cells.cross_cell
    return None if declared is None else {name: (rule.from_, rule.to) for name, rule in declared.items()}


def _ids(ids: IdsModel, key: PartitionKey) -> IdSpec:
    return IdSpec(
        key=key,
        session=ids.session,
        distribution=ids.distribution or "uniform",
        count=ids.count or 1,
        exponent=ids.exponent or 0.0,
        file=None if ids.file is None else Path(ids.file),
    )


def _prices(prices: PricesModel) -> Prices:
    def price(model: PriceModel) -> Price:
        return Price(_sure(model.out), _sure(model.in_))

    return Prices(
        prices.currency,
        price(prices.same_zone),
        price(prices.same_city),
        price(prices.same_region),
        price(prices.cross_region),
    )


def scheduled_faults(spec: SpecModel) -> tuple[ScheduledFault, ...]:
    """In the order of the file."""
    return tuple(ScheduledFault(fault.name, fault.at, fault.for_, fault_of(fault)) for fault in spec.faults)


def fault_of(fault: FaultModel) -> Fault:
    """The fault itself, without its time. Expects exactly one of its kinds."""
    for what in ("kill", "pause", "crash"):
        if (aimed := getattr(fault, what)) is not None and aimed.master is not None:
            return MasterFault(aimed.master, what)
    if fault.crash is not None:
        return NodeCrash(fault.crash.node) if fault.crash.node is not None else ZoneCrash(_sure(fault.crash.zone))
    if fault.kill is not None:
        return PodKill(fault.kill.pod, fault.kill.service, fault.kill.zone, fault.kill.count or 1)
    if fault.power_off is not None:
        return MachinePowerOff(_sure(fault.machine), tuple(_sure(fault.power_off.command)))
    if (worse := fault.degrade) is not None:
        effect = LinkEffect(
            added_delay_s=worse.latency or 0.0,
            added_jitter_s=worse.jitter or 0.0,
            added_loss=worse.loss or 0.0,
            bandwidth_bits_per_s=worse.bandwidth,
        )
        return _link_fault(worse, effect)
    return _link_fault(_sure(fault.cut), LinkEffect(cut=True))


def _link_fault(links: CutModel, effect: LinkEffect) -> LinkFault:
    return LinkFault(tuple(links.from_), tuple(links.to), effect, both_ways=links.direction == "both")


def _expectation(e: ExpectationModel) -> Expectation:
    when = e.when or "all"
    words = [e.metric, *([f"of {part}"] if (part := e.service or e.origin or e.cell) else [])]
    words += [when] if when != "all" else []
    words += [e.fault] if e.fault else []
    bounds = [("at least", e.at_least), ("at most", e.at_most)]
    limits = [f"{name} {METRICS[e.metric].format(bound)}" for name, bound in bounds if bound is not None]
    text = f"{' '.join(words)} {' and '.join(limits)}"
    return Expectation(e.metric, when, e.fault, e.service, e.at_least, e.at_most, text, e.origin, e.cell)
