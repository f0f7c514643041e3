"""Faults that say less than they seem to: before anything counts, or on what another fault has hit already."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.documents.quantities import DURATION
from testbed.faults.links import LinkFault
from testbed.faults.machines import MachinePowerOff
from testbed.faults.masters import MasterFault
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.timeline import ScheduledFault
from testbed.faults.zones import ZoneCrash
from testbed.objects.core import Pod
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.values import Scenario

COMPARED_MAX = 100
"""With how many faults that are in force a new one is compared: thousands of faults stay a matter of a second."""


def warn_of_warmup(model: ScenarioModel, findings: Findings) -> None:
    warmup = model.spec.load.warmup
    for index, fault in enumerate(model.spec.faults):
        if fault.at <= warmup:
            message = f"comes before anything counts: the first {DURATION.format(warmup)} are warm-up"
            findings.warn(("spec", "faults", index, "at"), f"{message}, and no phase is steady")


@dataclass(frozen=True, slots=True)
class _Hit:
    """Whom a fault hits. Pods are those of the start; who is killed of a service is the first of its pods."""

    position: int
    fault: ScheduledFault
    end_s: float
    nodes: frozenset[str] = frozenset()
    pods: tuple[tuple[str, str], ...] = ()
    """Pod and node."""
    by_name: bool = False
    """Whether it is a pod that was named. Of a service, kills at one moment take different ones."""
    sides: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    both_ways: bool = False
    """Of the links between the sides."""
    machine: str | None = None
    master: str | None = None


def warn_of_overlaps(scenario: Scenario, pods: Sequence[Pod], findings: Findings) -> None:
    named = {pod.name: [pod] for pod in pods}
    by_service: dict[str, list[Pod]] = {}
    for pod in pods:
        by_service.setdefault(pod.template.service, []).append(pod)
    in_force: list[_Hit] = []
    hits = [_hit(position, fault, scenario, named, by_service) for position, fault in enumerate(scenario.faults)]
    for hit in sorted(hits, key=lambda hit: (hit.fault.at_s, hit.position)):
        at_s = hit.fault.at_s
        in_force = [other for other in in_force if other.end_s > at_s or other.fault.at_s == at_s]
        for other in in_force:
            if (both := _both(other, hit)) is not None:
                until = f" to {other.end_s:g}s" if at_s < other.end_s < math.inf else ""
                message = f"hits {both}, as {other.fault.name!r} does from {other.fault.at_s:g}s{until}"
                findings.warn(("spec", "faults", hit.position), f"{message}: what each costs cannot be told apart")
                break
        in_force = [*in_force[1 - COMPARED_MAX :], hit]


def _hit(
    position: int,
    fault: ScheduledFault,
    scenario: Scenario,
    named: Mapping[str, Sequence[Pod]],
    by_service: Mapping[str, Sequence[Pod]],
) -> _Hit:
    topology, end_s = scenario.topology, fault.at_s + (fault.for_s or 0.0)
    match fault.fault:
        case NodeCrash() | ZoneCrash() as crash:
            return _Hit(position, fault, end_s, nodes=frozenset(crash.victims(topology)))
        case PodKill(pod, service, zone, count):
            wanted = named.get(pod, ()) if pod is not None else by_service.get(service or "", ())
            at = [(each.name, topology.place(each.node or "")) for each in wanted]
            victims = [(name, node.name) for name, node in at if zone in (None, node.locality.zone)][:count]
            return _Hit(position, fault, end_s, pods=tuple(victims), by_name=pod is not None)
        case LinkFault() as links:
            there, back = map(frozenset, links.sides(topology))
            return _Hit(position, fault, end_s, sides=(there, back), both_ways=links.both_ways)
        case MasterFault(place):
            return _Hit(position, fault, end_s, master=place)
        case MachinePowerOff(machine):
            return _Hit(position, fault, math.inf, machine=machine)


def _both(first: _Hit, second: _Hit) -> str | None:
    """What both of them hit, in words; two crashes of one node are no scenario."""
    if first.machine is not None and first.machine == second.machine:
        return f"machine {first.machine}"
    if first.master is not None and first.master == second.master:
        return f"master {first.master}"
    if second.by_name and set(second.pods) & set(first.pods):
        return f"pod {second.pods[0][0]}"
    for crash, other in ((first, second), (second, first)):
        if crash.nodes and other.pods and all(node in crash.nodes for _, node in other.pods):
            return f"pod {other.pods[0][0]} on node {other.pods[0][1]}"
        if crash.nodes and (down := _what_all_touch(crash.nodes, *other.sides)) is not None:
            return f"only links of node {down}"
    return _common_link(first, second)


def _what_all_touch(nodes: frozenset[str], sources: frozenset[str], destinations: frozenset[str]) -> str | None:
    """One of the nodes, if every link from the one side to the other begins or ends at them."""
    left = (sources - nodes, destinations - nodes)
    others = all(left) and len(left[0] | left[1]) > 1
    return None if others else min(nodes & (sources | destinations), default=None)


def _common_link(first: _Hit, second: _Hit) -> str | None:
    (sources, destinations), (other_sources, other_destinations) = first.sides, second.sides
    ends = [(sources & other_sources, destinations & other_destinations)]
    if first.both_ways or second.both_ways:
        ends.append((sources & other_destinations, destinations & other_sources))
    for some, others in ends:
        for source in sorted(some):
            for destination in sorted(others - {source}):
                return f"the link from {source} to {destination}"
    return None
