"""Checks of faults and expectations."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pydantic.alias_generators import to_snake

from testbed.documents.problems import Path
from testbed.documents.quantities import DURATION
from testbed.faults.links import EVERYTHING_ELSE, LinkFault
from testbed.objects.places import Topology
from testbed.objects.workloads import GATEWAY, NODE_PROXY, ROUTER
from testbed.scenario.cells import placements, router_zones
from testbed.scenario.checks.cluster import node_names, zone_names, zones_of
from testbed.scenario.checks.findings import Findings
from testbed.scenario.convert import fault_of, topology_of
from testbed.scenario.defaults import complete_control_plane, complete_topology
from testbed.scenario.models.experiment import (
    CrashModel,
    CutModel,
    ExpectationModel,
    FaultModel,
    KillModel,
    ScenarioModel,
)
from testbed.scenario.models.metrics import OF_A_ROUTER, OF_A_SERVICE, OF_A_STORE, OF_CELLS, OF_MOVED_DATA
from testbed.scenario.wording import listed

KINDS = ("crash", "kill", "pause", "cut", "degrade", "powerOff")


def check_faults(model: ScenarioModel, findings: Findings, *, by_hand: bool = False) -> None:
    """`by_hand`: injected into a cluster that is up, which has no end, and pods of whatever numbers."""
    names: set[str] = set()
    topology = _topology(model) if findings.is_whole("spec", "topology") else None
    for index, fault in enumerate(model.spec.faults):
        here: Path = ("spec", "faults", index)
        if fault.name in names:
            findings.report((*here, "name"), f"there is a fault {fault.name!r} already; choose another name")
        names.add(fault.name)
        kinds = [kind for kind in KINDS if getattr(fault, to_snake(kind)) is not None]
        if len(kinds) == 1:
            _check_kind(here, fault, model, topology, findings, by_hand=by_hand)
        elif findings.is_whole(*here):
            found = f"but has {' and '.join(kinds)}" if kinds else "but has none"
            findings.report(here, f"must have exactly one of {', '.join(KINDS)}, {found}")
        _check_time(here, fault, model, findings, by_hand=by_hand)
    _check_double_crashes(model, findings)


def _check_time(here: Path, fault: FaultModel, model: ScenarioModel, findings: Findings, *, by_hand: bool) -> None:
    if (instant := _without_duration(fault)) is not None:
        if fault.for_ is not None:
            findings.report((*here, "for"), f"{instant} has no duration; remove it", at_key=True)
    elif fault.for_ is None and findings.is_whole(*here) and not by_hand:
        findings.report((*here, "for"), "is required but not written: how long the fault lasts", at_key=True)
    if by_hand or not findings.is_whole("spec", "load", "duration"):
        return
    duration, end = model.spec.load.duration, fault.at + (fault.for_ or 0.0)
    run = f"the load lasts {DURATION.format(duration)}"
    if fault.at >= duration:
        findings.report((*here, "at"), f"lies outside the run: {run}")
    elif end > duration:
        findings.report((*here, "for"), f"lasts until {end:g}s, outside the run: {run}")


def _without_duration(fault: FaultModel) -> str | None:
    """What to call a fault that happens at one instant; None for one that lasts."""
    if fault.kill is not None:
        return "a kill"
    return None if fault.power_off is None else "a powerOff (the machine stays off)"


def _check_kind(
    here: Path,
    fault: FaultModel,
    model: ScenarioModel,
    topology: Topology | None,
    findings: Findings,
    *,
    by_hand: bool,
) -> None:
    if fault.machine is not None and fault.power_off is None:
        findings.report((*here, "machine"), "belongs to `powerOff`; remove it", at_key=True)
    if fault.crash is not None:
        _check_crash((*here, "crash"), fault.crash, findings)
    elif fault.power_off is not None and fault.machine is None and findings.is_whole(*here, "machine"):
        message = "is required but not written: which machine loses its power, by host name or Ray node address"
        findings.report((*here, "machine"), message, at_key=True)
    elif fault.kill is not None:
        _check_kill((*here, "kill"), fault.kill, model, findings, by_hand=by_hand)
    elif fault.pause is not None:
        _check_master((*here, "pause"), fault.pause.master, findings)
    elif fault.degrade is not None:
        worse = fault.degrade
        effects = (worse.latency, worse.jitter, worse.loss, worse.bandwidth)
        if not any(effects) and findings.is_whole(*here, "degrade"):
            message = "changes nothing; write at least one of latency, jitter, loss and bandwidth"
            findings.report((*here, "degrade"), message, at_key=True)
        _check_links((*here, "degrade"), fault, worse, topology, findings)
    elif fault.cut is not None:
        _check_links((*here, "cut"), fault, fault.cut, topology, findings)


def _check_crash(here: Path, crash: CrashModel, findings: Findings) -> None:
    if [crash.zone, crash.node, crash.master].count(None) != 2:
        if findings.is_whole(*here):
            findings.report(here, "must have exactly one of `zone`, `node` and `master`", at_key=True)
    elif crash.master is not None:
        _check_master(here, crash.master, findings)
    elif crash.zone is not None:
        instead = {"node": f"`node: {crash.zone}`"}
        findings.reference((*here, "zone"), "zone", crash.zone, zone_names(findings), instead)
    elif crash.node is not None and findings.is_whole("spec", "topology"):
        instead = {"zone": f"`zone: {crash.node}`"}
        findings.reference((*here, "node"), "node", crash.node, findings.known("node"), instead)


def _check_master(here: Path, master: str, findings: Findings) -> None:
    findings.reference((*here, "master"), "master", master, findings.known("master"))


def _check_kill(here: Path, kill: KillModel, model: ScenarioModel, findings: Findings, *, by_hand: bool) -> None:
    zones = zone_names(findings)
    if [kill.pod, kill.service, kill.master].count(None) != 2:
        if findings.is_whole(*here):
            findings.report(here, "must have exactly one of `pod`, `service` and `master`", at_key=True)
    elif kill.master is not None:
        for key in (key for key in ("zone", "count") if getattr(kill, key) is not None):
            findings.report((*here, key), "belongs to `service`; remove it", at_key=True)
        _check_master(here, kill.master, findings)
    elif kill.pod is not None:
        for key in (key for key in ("zone", "count") if getattr(kill, key) is not None):
            findings.report((*here, key), "belongs to `service`; a `pod` is one already", at_key=True)
        if kill.pod in findings.known("service"):
            findings.reference((*here, "pod"), "pod", kill.pod, (), {"service": f"`service: {kill.pod}`"})
        elif not _is_of(kill.pod, findings.known("deployment")):
            first = next(iter(findings.known("deployment")))
            message = f"there is no pod {kill.pod!r}; pods are named after their service, {first}-..."
            findings.report((*here, "pod"), message)
        elif not by_hand and (why := _beyond_replicas(kill.pod, model, findings)) is not None:
            findings.report((*here, "pod"), why)
    elif kill.service is not None:
        proxies = [GATEWAY, *([NODE_PROXY] if model.spec.mesh.mode == "node" else [])]
        proxies += [ROUTER] if router_zones(model.spec) else []
        if _is_of(kill.service, findings.known("deployment")) and kill.service not in findings.known("service"):
            message = f"there is no service {kill.service!r}; it is a pod: write `pod: {kill.service}`"
            findings.report((*here, "service"), message)
        elif kill.service not in proxies:
            findings.reference((*here, "service"), "service", kill.service, findings.known("service"))
        if kill.zone is not None:
            findings.reference((*here, "zone"), "zone", kill.zone, zones)
        if kill.service in model.spec.services and findings.is_whole("spec", "services", kill.service, "replicas"):
            replicas = model.spec.services[kill.service].replicas
            if (kill.count or 1) > replicas:
                findings.report((*here, "count"), f"{kill.service} has only {replicas} replicas")


def _beyond_replicas(pod: str, model: ScenarioModel, findings: Findings) -> str | None:
    """Why there is no pod of that number when the load begins, if there is none: pods are numbered from 1."""
    deployment, _, number = pod.rpartition("-")
    service, replicas = next(
        (
            (name, each.replicas)
            for name, service in model.spec.services.items()
            for each in placements(name, service, model.spec)
            if each.deployment == deployment
        ),
        (deployment, 1),
    )
    if service in findings.known("service") and not findings.is_whole("spec", "services", service, "replicas"):
        return None
    if number.isdecimal() and 1 <= int(number) <= replicas:
        return None
    names = f"{deployment}-1" if replicas == 1 else f"{deployment}-1 to {deployment}-{replicas}"
    return f"there is no pod {pod!r}: {deployment} has {names} (one that replaces an evicted pod goes by `service`)"


def _is_of(pod: str, deployments: Collection[str]) -> bool:
    """Whether a pod of one of them can have that name."""
    deployment, _, number = pod.rpartition("-")
    return number.isdecimal() and deployment in deployments


def _check_links(here: Path, fault: FaultModel, links: CutModel, topology: Topology | None, findings: Findings) -> None:
    if topology is None:
        return
    known = findings.known("zone or node")
    strangers = False
    for key, names in (("from", links.from_), ("to", links.to)):
        for index, name in enumerate(names):
            if name != EVERYTHING_ELSE:
                strangers |= name not in known
                findings.reference((*here, key, index), "zone or node", name, known)
            elif len(names) > 1:
                message = "`*` means everything else and stands alone; remove the other names or the `*`"
                findings.report((*here, key, index), message)
    if EVERYTHING_ELSE in links.from_ and EVERYTHING_ELSE in links.to:
        findings.report((*here, "to"), "`*` may stand on one side only: it means all that the other does not name")
    elif not strangers:
        value = fault_of(fault)
        assert isinstance(value, LinkFault)
        sources, destinations = map(set, value.sides(topology))
        if not sources or not destinations or len(sources | destinations) == 1:
            findings.report(here, "affects no link: both sides are the same single place", at_key=True)


def _check_double_crashes(model: ScenarioModel, findings: Findings) -> None:
    """What is down cannot lose its power again, and booting it would end the other crash as well."""
    by_zone = {name: node_names(name, zone) for _, name, zone in zones_of(model)}
    crashes: dict[str, list[tuple[float, float, int]]] = {}
    for index, fault in enumerate(model.spec.faults):
        if fault.crash is not None and fault.for_ is not None:
            for node in by_zone.get(fault.crash.zone or "", ()) or filter(None, [fault.crash.node]):
                crashes.setdefault(node, []).append((fault.at, fault.at + fault.for_, index))
    reported: set[int] = set()
    for node in sorted(crashes):
        for first, second in overlapping(crashes[node]):
            other, index = sorted((first, second))
            if index not in reported:
                reported.add(index)
                fault = model.spec.faults[other]
                during = f"from {fault.at:g}s to {fault.at + (fault.for_ or 0.0):g}s"
                message = f"node {node} is already down through {fault.name!r} {during}; crash it before or after that"
                findings.report(("spec", "faults", index), message)


def overlapping(times: list[tuple[float, float, int]]) -> Iterator[tuple[int, int]]:
    """Pairs of numbers of what overlaps in time, given as (start, end, number); touching counts.

    Everything that overlaps with something earlier is in one pair at least: with what ends last of that.
    """
    longest: tuple[float, int] | None = None
    for start, end, number in sorted(times):
        if longest is not None and start <= longest[0]:
            yield longest[1], number
        longest = (end, number) if longest is None else max(longest, (end, number))


def _topology(model: ScenarioModel) -> Topology:
    topology = complete_topology(model.spec.topology)
    return topology_of(topology, complete_control_plane(model.spec.control_plane, topology))


def check_expectations(model: ScenarioModel, findings: Findings) -> None:
    faults, services = findings.known("fault or operation"), findings.known("service")
    instants = {fault.name: kind for fault in model.spec.faults if (kind := _without_duration(fault)) is not None}
    at_once = (each.name for each in model.spec.operations if len(each.steps) == 1 and each.for_ is None)
    instants |= dict.fromkeys(at_once, "an operation of one step that stays")
    for index, expectation in enumerate(model.spec.expect):
        here: Path = ("spec", "expect", index)
        if expectation.fault is not None:
            findings.reference((*here, "fault"), "fault or operation", expectation.fault, faults)
        if expectation.service is not None:
            findings.reference((*here, "service"), "service", expectation.service, services)
            if expectation.metric not in OF_A_SERVICE:
                message = f"only {listed(OF_A_SERVICE)} are measured for a service, {expectation.metric} for the whole"
                findings.report((*here, "service"), message, at_key=True)
        _check_part(here, expectation, model, findings)
        if expectation.metric in OF_CELLS and model.spec.cells is None:
            findings.report((*here, "metric"), f"{expectation.metric} is of cells, and there are none: no spec.cells")
        moved = [each for each in model.spec.operations if (each.promote, each.forbid_write) != (None, None)]
        if expectation.metric in OF_MOVED_DATA and not moved:
            message = f"{expectation.metric} is of data that operations move, and none has `promote` or `forbidWrite`"
            findings.report((*here, "metric"), message)
        if expectation.metric in (*OF_A_STORE, *OF_MOVED_DATA):
            if model.spec.load.operations is None:
                message = f"{expectation.metric} is of what clients write and read, and there is no load.operations"
                findings.report((*here, "metric"), message)
            if expectation.when not in (None, "all"):
                why = "what is read last decides" if expectation.metric in OF_A_STORE else "of all that is moved"
                message = f"{expectation.metric} is of the whole run: {why}; remove it"
                findings.report((*here, "when"), message, at_key=True)
        if expectation.metric in OF_A_ROUTER and not router_zones(model.spec):
            message = f"{expectation.metric} is of a router, and there is none: no spec.cells with entry: directed"
            findings.report((*here, "metric"), message)
        if expectation.when == "during" and expectation.fault in instants:
            findings.report((*here, "when"), f"{instants[expectation.fault]} has no duration; write `after`")
        if findings.is_whole(*here):
            _check_when(here, expectation, findings)
            _check_bounds(here, expectation, findings)


def _check_part(here: Path, expectation: ExpectationModel, model: ScenarioModel, findings: Findings) -> None:
    """Which part of all requests a time_to_recover is about."""
    spec, metric = model.spec, expectation.metric
    named = [key for key in ("origin", "service", "cell") if getattr(expectation, key) is not None]
    for key in named:
        if key != "service" and metric != "time_to_recover":
            message = f"only time_to_recover is measured by {key}, {metric} for the whole"
            findings.report((*here, key), message, at_key=True)
    if metric != "time_to_recover" or not named:
        return
    if len(named) > 1:
        message = f"stands beside {named[0]}: only one of origin, service and cell can be named"
        findings.report((*here, named[1]), message, at_key=True)
    if expectation.origin is not None:
        zones = findings.known("zone")
        findings.reference((*here, "origin"), "zone", expectation.origin, zones)
        sources = dict.fromkeys(source.zone for source in spec.load.sources)
        if expectation.origin in zones - sources.keys() and findings.is_whole("spec", "load"):
            message = f"no client is in {expectation.origin}; clients are in {listed(sources)}"
            findings.report((*here, "origin"), message)
    routed = dict.fromkeys(route.service for route in spec.gateway.routes)
    service = expectation.service
    if service in findings.known("service") and service not in routed and findings.is_whole("spec", "gateway"):
        message = f"no route of the gateway leads to {service}; there are routes to {listed(routed)}"
        findings.report((*here, "service"), message)
    if expectation.cell is not None and spec.cells is None and findings.is_whole("spec", "cells"):
        findings.report((*here, "cell"), "there are no cells: no spec.cells", at_key=True)
    elif expectation.cell is not None and spec.cells is not None:
        findings.reference((*here, "cell"), "cell", expectation.cell, findings.known("cell"))


def _check_when(here: Path, expectation: ExpectationModel, findings: Findings) -> None:
    recovery = expectation.metric == "time_to_recover"
    if recovery and expectation.when is not None:
        findings.report((*here, "when"), "time_to_recover counts from its fault; remove it", at_key=True)
    about_a_fault = recovery or expectation.when in ("during", "after")
    subject = "time_to_recover" if recovery else f"when: {expectation.when or 'all'}"
    if about_a_fault and expectation.fault is None:
        findings.report((*here, "fault"), f"is required but not written: which fault {subject} is about", at_key=True)
    elif not about_a_fault and expectation.fault is not None:
        findings.report((*here, "fault"), f"has no meaning for {subject}; write when: during or after", at_key=True)


def _check_bounds(here: Path, expectation: ExpectationModel, findings: Findings) -> None:
    least, most = expectation.at_least, expectation.at_most
    if least is None and most is None:
        findings.report(here, "must have `atLeast` or `atMost`, or both")
    elif least is not None and most is not None and least > most:
        findings.report((*here, "atLeast"), "is more than `atMost`, so that nothing could meet both")
