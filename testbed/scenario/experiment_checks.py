"""Checks of faults and expectations."""

from __future__ import annotations

from pydantic.alias_generators import to_snake

from testbed.control.topology import Topology
from testbed.faults.links import EVERYTHING_ELSE, LinkFault
from testbed.scenario.cluster_checks import node_names, zone_names, zones_of
from testbed.scenario.convert import CONTROL_PLANE, GATEWAY, NODE_PROXY, fault_of, topology_of
from testbed.scenario.defaults import complete_topology
from testbed.scenario.findings import Findings
from testbed.scenario.models import CrashModel, CutModel, ExpectationModel, FaultModel, KillModel, ScenarioModel
from testbed.scenario.problems import Path
from testbed.scenario.quantities import DURATION

KINDS = ("crash", "kill", "cut", "degrade", "powerOff")


def check_faults(model: ScenarioModel, findings: Findings) -> None:
    names: set[str] = set()
    for index, fault in enumerate(model.spec.faults):
        here: Path = ("spec", "faults", index)
        if fault.name in names:
            findings.report((*here, "name"), f"there is a fault {fault.name!r} already; choose another name")
        names.add(fault.name)
        kinds = [kind for kind in KINDS if getattr(fault, to_snake(kind)) is not None]
        if len(kinds) == 1:
            _check_kind(here, fault, model, findings)
        elif findings.is_whole(*here):
            found = f"but has {' and '.join(kinds)}" if kinds else "but has none"
            findings.report(here, f"must have exactly one of {', '.join(KINDS)}, {found}")
        _check_time(here, fault, model, findings)
    _check_double_crashes(model, findings)


def _check_time(here: Path, fault: FaultModel, model: ScenarioModel, findings: Findings) -> None:
    if (instant := _without_duration(fault)) is not None:
        if fault.for_ is not None:
            findings.report((*here, "for"), f"{instant} has no duration; remove it", at_key=True)
    elif fault.for_ is None and findings.is_whole(*here):
        findings.report((*here, "for"), "is required but not written: how long the fault lasts", at_key=True)
    if not findings.is_whole("spec", "load", "duration"):
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


def _check_kind(here: Path, fault: FaultModel, model: ScenarioModel, findings: Findings) -> None:
    if fault.machine is not None and fault.power_off is None:
        findings.report((*here, "machine"), "belongs to `powerOff`; remove it", at_key=True)
    if fault.crash is not None:
        _check_crash((*here, "crash"), fault.crash, model, findings)
    elif fault.power_off is not None and fault.machine is None and findings.is_whole(*here, "machine"):
        message = "is required but not written: which machine loses its power, by host name or Ray node address"
        findings.report((*here, "machine"), message, at_key=True)
    elif fault.kill is not None:
        _check_kill((*here, "kill"), fault.kill, model, findings)
    elif fault.degrade is not None:
        worse = fault.degrade
        effects = (worse.latency, worse.jitter, worse.loss, worse.bandwidth)
        if not any(effects) and findings.is_whole(*here, "degrade"):
            message = "changes nothing; write at least one of latency, jitter, loss and bandwidth"
            findings.report((*here, "degrade"), message, at_key=True)
        _check_links((*here, "degrade"), fault, worse, model, findings)
    elif fault.cut is not None:
        _check_links((*here, "cut"), fault, fault.cut, model, findings)


def _check_crash(here: Path, crash: CrashModel, model: ScenarioModel, findings: Findings) -> None:
    if (crash.zone is None) == (crash.node is None):
        if findings.is_whole(*here):
            findings.report(here, "must have either `zone` or `node`", at_key=True)
    elif crash.zone is not None:
        findings.reference((*here, "zone"), "zone", crash.zone, zone_names(findings))
    elif crash.node is not None and findings.is_whole("spec", "topology"):
        findings.reference((*here, "node"), "node", crash.node, _nodes(model))


def _check_kill(here: Path, kill: KillModel, model: ScenarioModel, findings: Findings) -> None:
    zones = zone_names(findings)
    if (kill.pod is None) == (kill.service is None):
        if findings.is_whole(*here):
            findings.report(here, "must have either `pod` or `service`", at_key=True)
    elif kill.pod is not None:
        for key in (key for key in ("zone", "count") if getattr(kill, key) is not None):
            findings.report((*here, key), "belongs to `service`; a `pod` is one already", at_key=True)
        gateways = [f"{GATEWAY}-{zone}" for zone in zones]
        node_proxies = [f"{NODE_PROXY}-{node}" for node in _nodes(model)] if model.spec.mesh.mode == "node" else []
        deployments = (*findings.names("spec", "services"), *gateways, *node_proxies)
        if not any(kill.pod.startswith(f"{deployment}-") for deployment in deployments):
            message = f"there is no pod {kill.pod!r}; pods are named after their service, {deployments[0]}-..."
            findings.report((*here, "pod"), message)
        elif (why := _beyond_replicas(kill.pod, model, findings)) is not None:
            findings.report((*here, "pod"), why)
    elif kill.service is not None:
        services = findings.names("spec", "services")
        proxies = (GATEWAY, NODE_PROXY) if model.spec.mesh.mode == "node" else (GATEWAY,)
        findings.reference((*here, "service"), "service", kill.service, (*services, *proxies))
        if kill.zone is not None:
            findings.reference((*here, "zone"), "zone", kill.zone, zones)
        if kill.service in model.spec.services and findings.is_whole("spec", "services", kill.service, "replicas"):
            replicas = model.spec.services[kill.service].replicas
            if (kill.count or 1) > replicas:
                findings.report((*here, "count"), f"{kill.service} has only {replicas} replicas")


def _beyond_replicas(pod: str, model: ScenarioModel, findings: Findings) -> str | None:
    """Why there is no pod of that number when the load begins, if there is none: pods are numbered from 1."""
    deployment, _, number = pod.rpartition("-")
    replicas = 1
    if deployment in model.spec.services:
        if not findings.is_whole("spec", "services", deployment, "replicas"):
            return None
        replicas = model.spec.services[deployment].replicas
    if number.isdecimal() and 1 <= int(number) <= replicas:
        return None
    names = f"{deployment}-1" if replicas == 1 else f"{deployment}-1 to {deployment}-{replicas}"
    return f"there is no pod {pod!r}: {deployment} has {names} (one that replaces an evicted pod goes by `service`)"


def _check_links(here: Path, fault: FaultModel, links: CutModel, model: ScenarioModel, findings: Findings) -> None:
    if not findings.is_whole("spec", "topology"):
        return
    zones = zone_names(findings)
    known = (*zones, *_nodes(model), *(f"clients/{zone}" for zone in zones), CONTROL_PLANE)
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
        if not value.pairs(_topology(model)):
            findings.report(here, "affects no link: both sides are the same single place", at_key=True)


def _check_double_crashes(model: ScenarioModel, findings: Findings) -> None:
    """What is down cannot lose its power again, and booting it would end the other crash as well."""
    down: list[tuple[str, float, float, frozenset[str]]] = []
    for index, fault in enumerate(model.spec.faults):
        if fault.crash is None or fault.for_ is None:
            continue
        by_zone = {name: node_names(name, zone) for _, name, zone in zones_of(model)}
        victims = frozenset(by_zone.get(fault.crash.zone or "", ()) or filter(None, [fault.crash.node]))
        for other, start, end, nodes in down:
            if fault.at <= end and start <= fault.at + fault.for_ and victims & nodes:
                message = f"node {min(victims & nodes)} is already down through {other!r} from {start:g}s to {end:g}s"
                findings.report(("spec", "faults", index), f"{message}; crash it before or after that")
        down.append((fault.name, fault.at, fault.at + fault.for_, victims))


def _nodes(model: ScenarioModel) -> tuple[str, ...]:
    return tuple(node for _, name, zone in zones_of(model) for node in node_names(name, zone))


def _topology(model: ScenarioModel) -> Topology:
    return topology_of(complete_topology(model.spec.topology), model.spec.control_plane.zone)


def check_expectations(model: ScenarioModel, findings: Findings) -> None:
    faults = findings.names("spec", "faults")
    services = findings.names("spec", "services")
    instants = {fault.name: kind for fault in model.spec.faults if (kind := _without_duration(fault)) is not None}
    for index, expectation in enumerate(model.spec.expect):
        here: Path = ("spec", "expect", index)
        if expectation.fault is not None:
            findings.reference((*here, "fault"), "fault", expectation.fault, faults)
        if expectation.service is not None:
            findings.reference((*here, "service"), "service", expectation.service, services)
            if expectation.metric != "same_zone_share":
                message = f"only same_zone_share is measured for a service, {expectation.metric} for the whole"
                findings.report((*here, "service"), message, at_key=True)
        if expectation.when == "during" and expectation.fault in instants:
            findings.report((*here, "when"), f"{instants[expectation.fault]} has no duration; write `after`")
        if findings.is_whole(*here):
            _check_when(here, expectation, findings)
            _check_bounds(here, expectation, findings)


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
