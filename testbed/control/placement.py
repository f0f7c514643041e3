"""Which machine carries which emulated place, for runs across the machines of a Ray cluster.

Owns the mapping and the check that it fits into memory, before anything starts. Pods and sidecars follow their node;
which pods that will be is the scheduler's, later, so that only an even share of them can be counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle
from math import ceil
from typing import Literal

from testbed.objects.cluster import ClusterSpec
from testbed.objects.places import Place, Topology
from testbed.objects.workloads import CommandWorkload, StoreWorkload

ZONE_LABEL = "testbed.zone"
"""The label of a Ray node that says which zone of a scenario its machine carries."""

MB = 1_000_000
# Measured. Every zone is counted as if clients sent load from it.
ACTOR_BYTES = 54 * MB
ENVOY_BYTES = 15 * MB
WORKLOAD_BYTES = 8 * MB
"""Of a built-in one, which is forked and shares most of its memory: 5.1 MB after some thousand requests."""
PROGRAM_BYTES = 35 * MB
"""Of one with an interpreter of its own; what a user's own program takes is not known."""
LOCUST_BYTES = 120 * MB
GATEWAY_POD_BYTES = ENVOY_BYTES
POD_BYTES = ENVOY_BYTES + WORKLOAD_BYTES
PROGRAM_POD_BYTES = ENVOY_BYTES + PROGRAM_BYTES
"""Without the actors that supervise its processes."""

Hosting = Literal["actor", "node"]
"""Where what supervises a pod's processes lives: in an actor for each of them, or in its node's agent."""
PODS_WITH_ACTORS_MAX = 24
"""Pods a machine up to which each has actors of its own. Starting an actor takes half a CPU second, and the agent of a
node can do the same for a dozen pods at once."""

PODS_A_PROCESS = 60
"""Of nodes that host their pods, so many agents share a process: what it does for these takes a small part of a core,
and what Ray and an interpreter cost by themselves is paid once."""

Placement = Mapping[str, str]
"""The machine of every place of a topology, the control plane's included: name to name, in topology order."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A Ray node. `zone` is its label `testbed.zone`, `memory_bytes` what it has for the run."""

    name: str
    address: str
    zone: str | None
    memory_bytes: int
    cpus: float


class PlacementImpossible(Exception):
    """The scenario does not fit on the machines; each of `problems` is one line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def hosting_for(cluster: ClusterSpec, machines: int) -> Hosting:
    """Actors of their own for a few pods a machine; beyond that they would take longer to start than all else."""
    pods = sum(deployment.replicas for deployment in cluster.deployments)
    return "actor" if pods <= PODS_WITH_ACTORS_MAX * machines else "node"


def processes(topology: Topology, cluster: ClusterSpec, hosting: Hosting, placement: Placement) -> Mapping[str, str]:
    """With whom each place shares a process: the first place that is in it, by the names of all places.

    Where pods have actors of their own, so has every place. Else those of a machine come together, for what is said
    within a process is no call of Ray: its clients, and its nodes with the supervisors of masters. If the nodes have
    more pods than one process is for, they have several, and masters, which then have a lot to say, one of their own.
    """
    if hosting == "actor":
        return {name: name for name in placement}
    pods = sum(deployment.replicas for deployment in cluster.deployments)
    nodes_max = max(1, PODS_A_PROCESS * len(topology.nodes) // max(1, pods))
    first_of: dict[str, str] = {}
    for machine in dict.fromkeys(placement.values()):
        here = [place for place in topology.places if placement.get(place.name) == machine]
        nodes, clients, masters = (
            [place.name for place in here if place.kind == kind] for kind in ("node", "clients", "control-plane")
        )
        if len(nodes) <= nodes_max:
            together = [nodes + masters]
        else:
            together = [*(nodes[at : at + nodes_max] for at in range(0, len(nodes), nodes_max)), masters]
        for names in filter(None, (*together, clients)):
            first_of |= dict.fromkeys(names, names[0])
    return first_of


def place(
    topology: Topology, cluster: ClusterSpec, machines: Sequence[Machine], head: str, hosting: Hosting
) -> Placement:
    """Zones go to the machines that are labelled with them, or are spread evenly where no machine has a label.

    Several machines of a zone take its nodes in turn; its clients, and a control plane that lies in it, go to the first
    of them. A control plane outside all zones goes to `head`, the name of one of the machines. A single machine takes
    everything. Raises PlacementImpossible with all problems at once.
    """
    assert head in {machine.name for machine in machines}
    zones = tuple(dict.fromkeys(place.locality.zone for place in topology.places if place.kind != "control-plane"))
    hosts = _hosts(zones, machines)
    turns = {zone: cycle(hosts[zone]) for zone in zones}

    def machine_of(place: Place) -> str | None:
        zone = place.locality.zone
        if place.kind == "node":
            return next(turns[zone], None)
        if place.kind == "control-plane" and not zone:
            return head
        return next(iter(hosts[zone]), None)

    chosen = {place.name: machine_of(place) for place in topology.places}
    placement = {name: machine for name, machine in chosen.items() if machine is not None}
    problems = [_without_machine(zone, machines) for zone in zones if not hosts[zone]]
    shared = processes(topology, cluster, hosting, placement)
    problems += [
        problem
        for machine in machines
        if (problem := _without_room(machine, placement, topology, cluster, hosting, shared))
    ]
    if problems:
        raise PlacementImpossible(problems)
    return placement


def _hosts(zones: Sequence[str], machines: Sequence[Machine]) -> dict[str, tuple[str, ...]]:
    """The machines of each zone, in order; none for a zone that labels leave out."""
    if len(machines) > 1 and any(machine.zone is not None for machine in machines):
        return {zone: tuple(machine.name for machine in machines if machine.zone == zone) for zone in zones}
    return {zone: (machines[index % len(machines)].name,) for index, zone in enumerate(zones)}


def _without_machine(zone: str, machines: Sequence[Machine]) -> str:
    labels = dict.fromkeys(machine.zone for machine in machines if machine.zone is not None)
    return (
        f"zone {zone}: no machine has the label {ZONE_LABEL}={zone}; labels there are: {', '.join(labels)}. "
        f"Set it with `ray start --labels {ZONE_LABEL}={zone}`"
    )


def _without_room(
    machine: Machine,
    placement: Placement,
    topology: Topology,
    cluster: ClusterSpec,
    hosting: Hosting,
    shared: Mapping[str, str],
) -> str | None:
    kinds = [place.kind for place in topology.places if placement.get(place.name) == machine.name]
    nodes, clients = kinds.count("node"), kinds.count("clients")
    forked, programs, gateways = _pods(machine, placement, topology, cluster)
    pods = forked + programs
    supervisors = len({shared[name] for name, there in placement.items() if there == machine.name})
    actors = supervisors + (2 * pods + gateways if hosting == "actor" else 0)
    need_bytes = actors * ACTOR_BYTES + clients * LOCUST_BYTES
    need_bytes += forked * POD_BYTES + programs * PROGRAM_POD_BYTES + gateways * GATEWAY_POD_BYTES
    if need_bytes <= machine.memory_bytes:
        return None
    return (
        f"machine {machine.name} ({machine.address}): has {machine.memory_bytes / MB:.0f} MB of memory but needs about "
        f"{need_bytes / MB:.0f} MB, for nodes: {nodes}, origin zones: {clients}, pods: {pods}, gateways: {gateways}. "
        "Add machines, or declare fewer nodes or replicas"
    )


def _pods(machine: Machine, placement: Placement, topology: Topology, cluster: ClusterSpec) -> tuple[int, int, int]:
    """The even share of pods of built-in workloads, of other programs, and of gateways, of all nodes on the machine:
    an estimate, rounded up."""
    forked = programs = gateways = Fraction(0)
    for deployment in cluster.deployments:
        zones = deployment.template.zones
        allowed = [n.name for n in topology.nodes if not zones or n.locality.zone in zones]
        here = sum(placement.get(name) == machine.name for name in allowed)
        share = Fraction(deployment.replicas * here, max(1, len(allowed)))
        if deployment.template.is_entered:
            gateways += share
        elif isinstance(deployment.template.workload, CommandWorkload | StoreWorkload):
            programs += share
        else:
            forked += share
    return ceil(forked), ceil(programs), ceil(gateways)
