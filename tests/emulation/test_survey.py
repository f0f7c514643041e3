"""Which machines of a Ray cluster take part in a run, and which in one beside others."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.control.placement import MB, Machine, PlacementImpossible
from testbed.emulation.driver.ray_connection import RayMachine
from testbed.emulation.driver.survey import FleetUnfit, chosen_machines, lanes_among
from testbed.scenario import Scenario, load_scenario

SCENARIO = Path(__file__).parents[2] / "scenarios" / "zone-outage.yaml"


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario(SCENARIO)


def machine(name: str, memory_mb: int = 16_000, zone: str | None = None) -> RayMachine:
    """m1 is where the command is, and Ray's head."""
    described = Machine(name, f"10.0.0.{name[1:]}", zone, memory_mb * MB, cpus=8.0)
    return RayMachine(described, f"id-{name}", is_driver=name == "m1", is_head=name == "m1")


FOUR = [machine(f"m{number}") for number in range(1, 5)]


def named(lanes: list[list[RayMachine]]) -> list[str]:
    """The driver of each lane in capitals."""
    return ["+".join(each.name.upper() if each.is_driver else each.name for each in lane) for lane in lanes]


def test_only_chosen_machines_take_part_and_the_drivers_own_has_to_be_one() -> None:
    assert [each.name for each in chosen_machines(FOUR, ["10.0.0.3", "m1"])] == ["m1", "m3"]
    with pytest.raises(FleetUnfit, match="no machine m9 or m7 has joined Ray; there are m1, m2, m3, m4"):
        chosen_machines(FOUR, ["m9", "m1", "m7"])
    with pytest.raises(FleetUnfit, match="this machine, m1, drives the run and so has to be one of m2, m3"):
        chosen_machines(FOUR, ["m2", "m3"])


def test_each_lane_is_driven_by_a_machine_of_its_own_and_the_busiest_machine_comes_last(scenario: Scenario) -> None:
    assert named(lanes_among([scenario], FOUR)) == ["M2", "M3", "M4", "M1"]
    assert named(lanes_among([scenario], FOUR, machines_per_run=2)) == ["M2+m3", "M1+m4"]
    assert named(lanes_among([scenario], FOUR, machines_per_run=3)) == ["M2+m3+m4"]
    assert named(lanes_among([scenario], FOUR, machines_per_run=4)) == ["M1+m2+m3+m4"]


def test_a_lane_has_as_many_machines_as_the_memory_of_a_run_wants(scenario: Scenario) -> None:
    small = [machine(f"m{number}", 1_100) for number in range(1, 5)]
    assert named(lanes_among([scenario], small)) == ["M2+m3", "M1+m4"]
    with pytest.raises(PlacementImpossible, match="has 100 MB of memory"):
        lanes_among([scenario], [machine("m1", 100), machine("m2", 100)])
    with pytest.raises(FleetUnfit, match="no 1 of the 4 machines can carry a run"):
        lanes_among([scenario], small, machines_per_run=1)


def test_lanes_of_several_machines_keep_to_the_zones_that_these_are_for(scenario: Scenario) -> None:
    zones = [machine(f"m{number}", zone=f"east-{letter}") for number, letter in enumerate("abcabc", start=2)]
    assert named(lanes_among([scenario], [machine("m1"), *zones], machines_per_run=3)) == ["M2+m3+m4", "M5+m6+m7"]


def test_where_runs_power_a_machine_off_there_is_no_lane_without_it() -> None:
    fault = "spec.faults=[{name: off, at: 12s, machine: m3, powerOff: {command: [x]}}]"
    breaking = load_scenario(SCENARIO, [fault, "spec.expect="])
    assert named(lanes_among([breaking], FOUR)) == ["M1+m2+m3+m4"]
