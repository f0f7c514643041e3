"""Which machines a lab has."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.machines.lab.plan import MAX_MACHINES, LabError, LabPlan, check_name, mac_of


def test_the_head_has_no_zone_and_workers_take_the_zones_in_turn() -> None:
    plan = LabPlan(5, ("a", "b", "c"))
    assert [(machine.name, machine.zone) for machine in plan.machines] == [
        ("m1", None),
        ("m2", "a"),
        ("m3", "b"),
        ("m4", "c"),
        ("m5", "a"),
    ]


@given(st.integers(1, MAX_MACHINES), st.integers(0, 255))
def test_every_machine_has_an_address_a_card_and_a_clock_of_its_own(count: int, third: int) -> None:
    plan = LabPlan(count, subnet=f"198.18.{third}.0/24")
    machines = plan.machines
    network = ipaddress.IPv4Network(plan.subnet)
    assert all(ipaddress.IPv4Address(machine.address) in network for machine in machines)
    assert len({machine.address for machine in machines} | {plan.host_address}) == count + 1
    assert len({machine.mac for machine in machines} | {mac_of(plan.host_address)}) == count + 1
    assert len({machine.clock_offset_s for machine in machines} | {0}) == count + 1


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"count": 0}, "1 to 16 machines"),
        ({"count": 17}, "1 to 16 machines"),
        ({"zones": ()}, "at least one zone"),
        ({"zones": ("east a",)}, "'east a' is no zone"),
        ({"subnet": "10.0.0.0/24"}, "198.18.0.0/15"),
        ({"subnet": "198.18.0.0/16"}, "must be a /24"),
        ({"subnet": "198.18.0.1/24"}, "host bits set"),
        ({"subnet": "east"}, "--subnet east"),
    ],
)
def test_what_cannot_be_made_is_told_with_what_would_be_right(plan: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        LabPlan(**plan)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["eth0", "testbed", "testbed-", "testbed-../etc", "testbed-much-too-long", "Testbed-lab"]
)
def test_a_lab_is_never_named_as_something_of_the_host_is(name: str) -> None:
    with pytest.raises(LabError, match="no name for a lab"):
        check_name(name)


def test_an_unknown_machine_is_told_with_the_nearest_name() -> None:
    with pytest.raises(LabError, match="did you mean m2"):
        LabPlan(2).machine("m22")


def test_a_machine_is_known_by_its_name_and_by_its_address() -> None:
    plan = LabPlan(3)
    for machine in plan.machines:
        assert plan.machine(machine.name) == plan.machine(machine.address) == machine


def test_an_unknown_address_is_told_with_an_address() -> None:
    with pytest.raises(LabError, match=r"did you mean 198\.18\.0\.12"):
        LabPlan(2).machine("198.18.0.122")
