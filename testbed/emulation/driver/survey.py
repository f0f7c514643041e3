"""Who could take part in a run, before any of it starts: the machines that have joined Ray, what would live where on
them, and how many actors that would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from testbed.control.lanes import Lane, lanes
from testbed.control.placement import (
    Hosting,
    Placement,
    PlacementImpossible,
    hosting_for,
    place,
    processes,
)
from testbed.emulation.driver.events import MachinesJoined
from testbed.emulation.driver.power_off import why_not_powered_off
from testbed.emulation.driver.ray_connection import RayMachine, machines
from testbed.faults.effects import PowerOffMachine
from testbed.scenario import Scenario

JOINING_TIMEOUT_S = 180.0
"""For workers that `ray up` is still setting up: installing the package takes a minute or two."""


class FleetUnfit(Exception):
    """Machines that cannot carry the run together: one line for each reason."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Machines that a run needs, and what lives where. The driver's own is always among them, and so is Ray's head
    where it may take part."""

    machines: tuple[RayMachine, ...]
    placement: Placement
    hosting: Hosting


def survey(scenario: Scenario, found: Sequence[RayMachine], hosting: Hosting | None = None) -> Survey:
    """`hosting` is what the user wants, if anything. Raises PlacementImpossible."""
    driver = next(machine for machine in found if machine.is_driver)
    hosting = hosting or hosting_for(scenario.cluster, len(found))
    described = [machine.described for machine in found]
    placement = place(scenario.topology, scenario.cluster, described, driver.name, hosting)
    carrying = set(placement.values())
    needed = (each for each in found if each.is_driver or each.is_head or each.name in carrying)
    return Survey(tuple(needed), placement, hosting)


def require_breakable(scenario: Scenario, machines: Sequence[RayMachine]) -> None:
    """Raises FleetUnfit where faults of the scenario power off what cannot be."""
    problems = [
        f"fault {fault.name}: {why}"
        for fault in scenario.faults
        for effect in fault.fault.effects(scenario.topology)
        if isinstance(effect, PowerOffMachine)
        if (why := why_not_powered_off(effect, machines)) is not None
    ]
    if problems:
        raise FleetUnfit("\n".join(problems))


def chosen_machines(found: Sequence[RayMachine], names: Sequence[str]) -> list[RayMachine]:
    """Those machines alone, by name or address, of which one has to be the driver's. Raises FleetUnfit."""
    chosen = [machine for machine in found if machine.name in names or machine.address in names]
    known = {name for machine in chosen for name in (machine.name, machine.address)}
    if missing := [name for name in names if name not in known]:
        there = ", ".join(machine.name for machine in found)
        raise FleetUnfit(f"no machine {' or '.join(missing)} has joined Ray; there are {there}")
    if not any(machine.is_driver for machine in chosen):
        here = next(machine.name for machine in found if machine.is_driver)
        raise FleetUnfit(f"this machine, {here}, drives the run and so has to be one of {', '.join(names)}")
    return chosen


def lanes_among(
    scenarios: Sequence[Scenario],
    found: Sequence[RayMachine],
    hosting: Hosting | None = None,
    machines_per_run: int | None = None,
) -> list[list[RayMachine]]:
    """Machines for runs side by side, of whichever of the scenarios; the driver of each is its own machine if that is
    among them, else the first, and comes first.

    The driver's machine and Ray's head have other things to do, and take part last. Raises PlacementImpossible or
    FleetUnfit where no lane can carry a run.
    """
    by_name = {machine.name: machine for machine in found}

    def driven(names: Sequence[str]) -> list[RayMachine]:
        lane = sorted((by_name[name] for name in names), key=lambda machine: not machine.is_driver)
        return [replace(machine, is_driver=machine is lane[0]) for machine in lane]

    def require(lane: Sequence[RayMachine]) -> None:
        for scenario in scenarios:
            require_breakable(scenario, survey(scenario, lane, hosting).machines)

    def carries(lane: Lane) -> bool:
        try:
            require(driven([machine.name for machine in lane]))
        except (PlacementImpossible, FleetUnfit):
            return False
        return True

    ordered = sorted(found, key=lambda machine: (machine.is_driver, machine.is_head, machine.name))
    zones = {place.locality.zone for scenario in scenarios for place in scenario.topology.nodes}
    parted = lanes([machine.described for machine in ordered], zones, carries, machines_per_run)
    if not parted:
        require(driven([machine.name for machine in ordered]))
        raise FleetUnfit(f"no {machines_per_run} of the {len(found)} machines can carry a run: take another number")
    return [driven([machine.name for machine in lane]) for lane in parted]


def joined_machines(at_least: int, tell: Callable[[MachinesJoined], None]) -> list[RayMachine]:
    """The machines that are part of Ray, once there are that many: `ray up` returns before the workers have joined.

    `tell` is told who has joined, whenever it is more of them. Raises FleetUnfit.
    """
    told = 0

    def look() -> list[RayMachine]:
        nonlocal told
        found = machines()
        if len(found) >= at_least:
            return found
        joined = MachinesJoined(tuple(machine.name for machine in found), at_least)
        if len(found) > told:
            tell(joined)
        told = len(found)
        raise FleetUnfit(f"only {joined}; `testbed preflight`, where `ray up` was called, says what is wrong elsewhere")

    return Retrying(
        retry=retry_if_exception_type(FleetUnfit),
        stop=stop_after_delay(JOINING_TIMEOUT_S),
        wait=wait_fixed(1.0),
        reraise=True,
    )(look)


def expected_actors(scenario: Scenario, hosting: Hosting | None = None) -> int:
    """How many actors a run on one machine will have: one a place, or for some of them, and for each pod one or two,
    unless its node hosts it."""
    hosting = hosting or hosting_for(scenario.cluster, machines=1)
    topology, zones = scenario.topology, {source.zone for source in scenario.load.sources}
    places = [each.name for each in topology.places if each.kind != "clients" or each.locality.zone in zones]
    supervisors = len(set(processes(topology, scenario.cluster, hosting, dict.fromkeys(places, "here")).values()))
    if hosting == "node":
        return supervisors
    return supervisors + sum(
        deployment.replicas * ((deployment.template.workload is not None) + deployment.template.has_proxy)
        for deployment in scenario.cluster.deployments
    )
