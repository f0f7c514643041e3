"""Checks of topology, services and the capacity that holds them."""

from __future__ import annotations

from collections.abc import Iterator, KeysView

from testbed.documents.problems import Path
from testbed.documents.quantities import DURATION
from testbed.objects.places import master_names
from testbed.objects.workloads import GATEWAY, NODE_PROXY, ROUTER, gateway_of, router_of
from testbed.scenario.cells import Placement, placements, router_zones
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.cells import CellsModel
from testbed.scenario.models.cluster import ProbeModel, ServiceModel, TopologySpreadModel, ZoneModel
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.models.stores import StoreModel
from testbed.scenario.wording import LISTED_MAX, listed

SIDECAR_PORTS = range(15000, 15091)
"""Istio's: 15000 admin, 15001 outbound, 15006 inbound, 15021 health, 15090 metrics."""


def zones_of(model: ScenarioModel) -> Iterator[tuple[Path, str, ZoneModel]]:
    """Location, name and model of every zone."""
    for region_name, region in model.spec.topology.regions.items():
        for zone_name, zone in region.zones.items():
            yield ("spec", "topology", "regions", region_name, "zones", zone_name), zone_name, zone


def node_names(zone_name: str, zone: ZoneModel) -> tuple[str, ...]:
    return tuple(node.name or f"{zone_name}-{number}" for number, node in enumerate(zone.nodes, start=1))


def zone_names(findings: Findings) -> KeysView[str]:
    """All zones that are written, valid or not."""
    return findings.known("zone")


def check_topology(model: ScenarioModel, findings: Findings) -> None:
    homes: dict[str, str] = {}
    zones = zone_names(findings)
    masters = master_names(model.spec.control_plane.replicas)
    for location, zone_name, _ in zones_of(model):
        if zone_name in homes:
            message = f"zone {zone_name!r} is in region {homes[zone_name]!r} as well; zones need names of their own"
            findings.report(location, message, at_key=True)
        homes.setdefault(zone_name, str(location[3]))
        if zone_name in masters:
            findings.report(location, f"{zone_name!r} is the place of the control plane; choose another name")
    taken: dict[str, str] = {}
    for location, zone_name, zone in zones_of(model):
        for index, name in enumerate(node_names(zone_name, zone)):
            here = (*location, "nodes", index, "name")
            if name in taken:
                message = f"node {name!r} is in zone {taken[name]!r} as well, so that both would have one address"
                findings.report(here, f"{message}; choose another name")
            elif name in zones or name in masters:
                other = "control plane" if name in masters else "zone"
                findings.report(here, f"node {name!r} has the name of a {other}; choose another")
            taken.setdefault(name, zone_name)
    seen: set[frozenset[str]] = set()
    for index, between in enumerate(model.spec.topology.links.between):
        here = ("spec", "topology", "links", "between", index, "zones")
        for end, name in enumerate(between.zones):
            findings.reference((*here, end), "zone", name, zones)
        pair = frozenset(between.zones)
        if len(pair) == 1:
            findings.report(here, "must be two different zones; links within zones are `sameZone`")
        elif pair in seen:
            findings.report(here, "this pair of zones is written twice; keep one of them")
        seen.add(pair)


def check_services(model: ScenarioModel, findings: Findings) -> None:
    zones = zone_names(findings)
    nodes = [node for _, zone_name, zone in zones_of(model) for node in node_names(zone_name, zone)]
    reserved = dict.fromkeys([GATEWAY, *map(gateway_of, zones)], "gateway")
    reserved |= dict.fromkeys([NODE_PROXY, *(f"{NODE_PROXY}-{node}" for node in nodes)], "node proxy")
    if routers := router_zones(model.spec):
        reserved |= dict.fromkeys([ROUTER, *map(router_of, routers)], "router")
    for name, service in model.spec.services.items():
        here: Path = ("spec", "services", name)
        if name in reserved:
            message = f"{name!r} is the name of the {reserved[name]}'s own pods; choose another"
            findings.report(here, message, at_key=True)
        if service.container_port in SIDECAR_PORTS:
            message = f"port {service.container_port} overlaps with the sidecar's, 15000 to 15090 of the same address"
            findings.report((*here, "containerPort"), f"{message}; choose another, for example 8080")
        written: set[str] = set()
        for index, zone in enumerate(service.zones):
            findings.reference((*here, "zones", index), "zone", zone, zones)
            if zone in written:
                findings.report((*here, "zones", index), f"zone {zone!r} is written twice")
            written.add(zone)
        _check_workload((*here, "workload"), service, model.spec.cells, findings)
        for key, probe in (("readinessProbe", service.readiness_probe), ("livenessProbe", service.liveness_probe)):
            if probe is not None:
                _check_probe((*here, key), probe, findings)


def _check_workload(here: Path, service: ServiceModel, cells: CellsModel | None, findings: Findings) -> None:
    workload = service.workload
    builtin = {
        "work": workload.work is not None,
        "calls": bool(workload.calls),
        "responseSize": workload.response_size is not None,
        "errorRate": workload.error_rate is not None,
        "crashOn": workload.crash_on is not None,
    }
    if workload.command is not None:
        for key in (key for key, written in builtin.items() if written):
            findings.report((*here, key), "belongs to the built-in workload; remove it or `command`", at_key=True)
    elif workload.store is not None:
        for key in (key for key, written in builtin.items() if written):
            findings.report((*here, key), "belongs to the built-in workload; remove it or `store`", at_key=True)
    if workload.store is not None:
        _check_store(here, service, workload.store, cells, findings)
    if workload.command is None and workload.env and findings.is_whole(*here):
        findings.report((*here, "env"), "is the environment of a `command`, and there is none", at_key=True)
    work = workload.work
    if work is None or not findings.is_whole(*here, "work"):
        return
    spreads = work.distribution in ("uniform", "lognormal")
    if spreads and work.spread is None:
        findings.report((*here, "work"), f"distribution {work.distribution!r} needs a `spread`, for example 1ms")
    elif not spreads and work.spread:
        findings.report((*here, "work", "spread"), f"distribution {work.distribution!r} has no spread; remove it")
    elif work.distribution == "uniform" and work.spread is not None and work.spread > work.mean:
        findings.report((*here, "work", "spread"), "must be at most the mean, or work times would be negative")
    elif work.distribution == "lognormal" and work.mean == 0:
        findings.report((*here, "work", "mean"), "must be more than 0s for a lognormal distribution")


def _check_store(
    here: Path, service: ServiceModel, store: StoreModel, cells: CellsModel | None, findings: Findings
) -> None:
    if service.workload.command is not None:
        findings.report((*here, "store"), "is a program already; remove it or `command`", at_key=True)
    if service.replicas == 0 and findings.is_whole(*here[:-1], "replicas"):
        findings.report((*here[:-1], "replicas"), "a store has one replica at least")
    if service.class_ == "perCity":
        message = "a store is one for all; write `class: global` or, with replicas in each cell, `class: sharded`"
        findings.report((*here[:-1], "class"), message, at_key=True)
    if store.heartbeat is not None and store.heartbeat >= store.election_timeout:
        message = f"must be well below electionTimeout, which is {DURATION.format(store.election_timeout)}"
        findings.report((*here, "store", "heartbeat"), message)
    partitions = store.groups if cells is None else cells.partitions
    if cells is not None and store.partitions not in (None, partitions):
        message = f"its partitions are the {partitions} of spec.cells; remove it"
        findings.report((*here, "store", "partitions"), message)
    elif store.groups > (partitions := store.partitions or partitions):
        message = f"{partitions} partitions are not enough for {store.groups} groups"
        findings.report((*here, "store", "groups"), message)
    _check_isr((*here, "store"), service, store, findings)
    if store.primary_zone is None:
        return
    known = zone_names(findings)
    findings.reference((*here, "store", "primaryZone"), "zone", store.primary_zone, known)
    whole = findings.is_whole(*here[:-1], "zones") and findings.is_whole(*here[:-1], "replicas")
    homes = (service.zones or list(known))[: service.replicas]
    if whole and store.primary_zone in known and store.primary_zone not in homes:
        message = f"no replica is at home in {store.primary_zone}, only in {listed(homes)}"
        findings.report((*here, "store", "primaryZone"), message)


def _check_isr(here: Path, service: ServiceModel, store: StoreModel, findings: Findings) -> None:
    if store.mode != "isr" and store.isr is not None:
        findings.report((*here, "isr"), "is of mode isr; write `mode: isr`, or remove it", at_key=True)
    if store.mode == "async":
        _check_async(here, service, store, findings)
    if store.mode != "isr":
        return
    if service.class_ == "sharded":
        message = "a sharded store is of mode quorum or async, whose leaders move with units; or write `class: global`"
        findings.report((*here, "mode"), message)
    if store.acks != "quorum":
        findings.report((*here, "acks"), "is of mode quorum; with isr, `isr.acks: 1` is the same")
    if store.isr is None:
        return
    factor, least = store.isr.replication_factor, store.isr.min_insync_replicas
    if factor is not None and factor > service.replicas:
        message = f"must be at most the {service.replicas} replicas that there are"
        findings.report((*here, "isr", "replicationFactor"), message)
    elif least > (having := factor or min(3, service.replicas)):
        message = f"must be at most the {having} replicas that have a group, or no write is ever acknowledged"
        findings.report((*here, "isr", "minInsyncReplicas"), message)


def _check_async(here: Path, service: ServiceModel, store: StoreModel, findings: Findings) -> None:
    if service.class_ != "sharded":
        message = "in mode async the owner of a partition takes its writes, by the map of cells; write `class: sharded`"
        findings.report((*here, "mode"), message)
    if store.acks != "quorum":
        findings.report((*here, "acks"), "is of mode quorum; in mode async, writes wait for the leader alone")
    if store.primary_zone is not None:
        findings.report((*here, "primaryZone"), "in mode async, the owner leads; remove it", at_key=True)


def _check_probe(here: Path, probe: ProbeModel, findings: Findings) -> None:
    kinds = {"httpGet": probe.http_get, "tcpSocket": probe.tcp_socket, "exec": probe.exec}
    written = [key for key, value in kinds.items() if value is not None]
    if len(written) != 1 and findings.is_whole(*here):
        found = f"but has {' and '.join(written)}" if written else "but has none"
        findings.report(here, f"must have exactly one of httpGet, tcpSocket and exec, {found}", at_key=True)


# --- calls and capacity ----------------------------------------------------------------------------------------


def check_calls(model: ScenarioModel, findings: Findings) -> None:
    services = model.spec.services
    known = findings.names("spec", "services")
    for name, service in services.items():
        for stage, callees in enumerate(service.workload.calls):
            for index, callee in enumerate(callees):
                here = ("spec", "services", name, "workload", "calls", stage, index)
                findings.reference(here, "service", callee, known)
    finished: set[str] = set()
    for name in services:
        _find_cycles([name], model, findings, finished)


def _find_cycles(chain: list[str], model: ScenarioModel, findings: Findings, finished: set[str]) -> None:
    """Depth first, without recursion; `chain` is the way to where the search is, and each cycle is reported once."""
    on_the_way = {chain[0]: 0}
    pending = [_callees(chain[0], model)] if chain[0] not in finished else []
    while pending:
        location, callee = next(pending[-1], ((), ""))
        if not location:
            del on_the_way[chain[-1]]
            finished.add(chain.pop())
            pending.pop()
        elif callee in on_the_way:
            start = on_the_way[callee]
            around = chain[start : start + LISTED_MAX]
            cycle = " -> ".join([*around, *(["..."] if len(chain) > start + LISTED_MAX else []), callee])
            findings.report(location, f"call cycle {cycle}: a request would never end; remove one of these calls")
        elif callee in model.spec.services and callee not in finished:
            on_the_way[callee] = len(chain)
            chain.append(callee)
            pending.append(_callees(callee, model))


def _callees(name: str, model: ScenarioModel) -> Iterator[tuple[Path, str]]:
    for stage, callees in enumerate(model.spec.services[name].workload.calls):
        for index, callee in enumerate(callees):
            yield ("spec", "services", name, "workload", "calls", stage, index), callee


def check_capacity(model: ScenarioModel, findings: Findings) -> None:
    """What no scheduler could place. A cluster that passes may still not hold them: `scheduling_checks` tries."""
    if not findings.is_whole("spec", "topology") or not findings.is_whole("spec", "services"):
        return
    proxies = 1 if model.spec.mesh.mode == "node" else 0
    capacity = {
        name: sum((node.capacity_pods or zone.capacity_pods) - proxies for node in zone.nodes)
        for _, name, zone in zones_of(model)
    }
    everywhere = frozenset(capacity)
    by_zones: dict[frozenset[str], dict[str, Placement]] = {}
    services_of: dict[str, str] = {}
    for service_name, service in model.spec.services.items():
        for each in placements(service_name, service, model.spec):
            zones = frozenset(each.zones) & everywhere if each.zones else everywhere
            by_zones.setdefault(zones, {})[each.deployment] = each
            services_of[each.deployment] = service_name
    for allowed, placed in by_zones.items():
        if not allowed:
            continue
        room = sum(capacity[zone] for zone in allowed) - len(allowed)
        where = listed(zone for zone in capacity if zone in allowed)
        too_large = {name for name, each in placed.items() if each.replicas > room}
        for name, each in placed.items():
            here: Path = ("spec", "services", services_of[name], "replicas")
            if name in too_large:
                message = f"{where} can hold {room} pods beside the gateways, {name} wants {each.replicas}"
                findings.report(here, message)
            else:
                spread = model.spec.services[services_of[name]].topology_spread
                _check_spread(here, each.replicas, spread, allowed, capacity, findings)
        inside = {
            other: each.replicas
            for zones, others in by_zones.items()
            if zones <= allowed
            for other, each in others.items()
        }
        if sum(inside.values()) > room and not too_large:
            shares = listed(f"{other} {replicas}" for other, replicas in inside.items())
            message = f"{where} can hold {room} pods beside the gateways; wanted are {shares}"
            findings.report(("spec", "services", services_of[next(iter(placed))], "replicas"), message)


def _check_spread(
    here: Path,
    replicas: int,
    spread: TopologySpreadModel,
    allowed: frozenset[str],
    capacity: dict[str, int],
    findings: Findings,
) -> None:
    """With N zones and a skew of at most S, no zone has less than (replicas - S (N - 1)) / N of the pods."""
    if spread.when_unsatisfiable != "DoNotSchedule":
        return
    least = -(-(replicas - spread.max_skew * (len(allowed) - 1)) // len(allowed))
    for zone in (zone for zone in capacity if zone in allowed):
        room = capacity[zone] - 1
        if least > room:
            message = f"with maxSkew {spread.max_skew} zone {zone} must take {least} of the {replicas} pods"
            findings.report(here, f"{message}, but holds {room} beside its gateway")
