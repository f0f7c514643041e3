"""Every fault is undone exactly, and means the links and nodes that its description says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.faults.effects import (
    CutMasterPower,
    CutPower,
    Effect,
    ImpairLinks,
    KillPods,
    LinkEffect,
    PauseMaster,
    PowerOffMachine,
)
from testbed.faults.links import LinkFault, cut_off
from testbed.faults.machines import MachinePowerOff
from testbed.faults.masters import MasterFault
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.timeline import Fault, ScheduledFault, Timeline
from testbed.faults.zones import ZoneCrash
from testbed.objects.places import Locality, Place, Topology

A, B = Locality("east", "a"), Locality("east", "b")
CLIENTS = (Place("clients/a", A, "clients"), Place("clients/b", B, "clients"))
NODES = (Place("a-1", A), Place("a-2", A), Place("b-1", B))
TOPOLOGY = Topology((*NODES, *CLIENTS, Place("control-plane", Locality("east", ""), "control-plane")))
MASTER_IN_A = Topology((*NODES, *CLIENTS, Place("control-plane", A, "control-plane")))
CUT = LinkEffect(cut=True)


class World:
    """As much of the world as lasting effects change: what is upon links and nodes, by fault."""

    def __init__(self) -> None:
        self.upon: dict[tuple[str, str] | str, dict[str, LinkEffect | None]] = {}

    def apply(self, fault: str, *effects: Effect) -> World:
        for effect in effects:
            match effect:
                case ImpairLinks(pairs, what):
                    for pair in pairs:
                        self.upon.setdefault(pair, {})[fault] = what
                case CutPower(name) | CutMasterPower(name) | PauseMaster(name):
                    self.upon.setdefault(name, {})[fault] = None
                case _:
                    raise AssertionError(f"{effect} does not last")
        return self

    def revert(self, fault: str, *effects: Effect) -> World:
        for effect in effects:
            assert effect.lasts
            match effect:
                case ImpairLinks():
                    targets: tuple[tuple[str, str] | str, ...] = effect.pairs
                case CutPower(name) | CutMasterPower(name) | PauseMaster(name):
                    targets = (name,)
            for target in targets:
                del self.upon[target][fault]
                if not self.upon[target]:
                    del self.upon[target]
        return self


FAULTS: tuple[Fault, ...] = (
    NodeCrash("a-1"),
    ZoneCrash("a"),
    MasterFault("control-plane", "crash"),
    MasterFault("control-plane", "pause"),
    LinkFault(("a",), ("b",), CUT),
    LinkFault(("a",), ("b",), CUT, both_ways=False),
    LinkFault(("a",), ("*",), CUT),
    LinkFault(("a-1",), ("control-plane",), LinkEffect(added_delay_s=0.1, added_loss=0.01)),
)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("topology", [TOPOLOGY, MASTER_IN_A], ids=["regional master", "master in a"])
def test_stopping_a_fault_restores_what_was_before_it(fault: Fault, topology: Topology) -> None:
    def world() -> World:
        return World().apply("other", ImpairLinks((("a-1", "b-1"), ("b-1", "a-2")), LinkEffect(added_delay_s=1)))

    broken = world().apply("mine", *fault.effects(topology))
    assert broken.upon != world().upon
    assert broken.revert("mine", *fault.effects(topology)).upon == world().upon


@given(st.permutations([*range(len(FAULTS))] * 2))
def test_overlapping_faults_on_one_victim_are_undone_in_any_order(order: list[int]) -> None:
    world, in_force = World(), set[int]()
    for number in order:
        change = world.revert if number in in_force else world.apply
        change(str(number), *FAULTS[number].effects(TOPOLOGY))
        in_force ^= {number}
        # What is there is what those that are in force would have made alone, whatever came and went before.
        alone = World()
        for other in in_force:
            alone.apply(str(other), *FAULTS[other].effects(TOPOLOGY))
        assert world.upon == alone.upon
    assert world.upon == {}


def test_a_node_is_silent_to_everybody_before_its_processes_die() -> None:
    silenced, crash = NodeCrash("a-1").effects(TOPOLOGY)
    others = [place.name for place in TOPOLOGY.places if place.name != "a-1"]
    assert crash == CutPower("a-1")
    assert isinstance(silenced, ImpairLinks)
    assert set(silenced.pairs) == {pair for other in others for pair in (("a-1", other), (other, "a-1"))}
    assert silenced.effect == CUT


def test_a_zone_loses_all_its_nodes_after_all_of_them_are_silent() -> None:
    first, *rest = ZoneCrash("a").effects(TOPOLOGY)
    assert isinstance(first, ImpairLinks)
    assert {("a-1", "a-2"), ("a-2", "b-1"), ("clients/a", "a-1"), ("a-1", "control-plane")} < set(first.pairs)
    assert ("clients/a", "b-1") not in first.pairs
    assert ("b-1", "control-plane") not in first.pairs
    assert rest == [CutPower("a-1"), CutPower("a-2")]


def test_a_master_in_a_crashed_zone_dies_with_it() -> None:
    silenced, *rest = ZoneCrash("a").effects(MASTER_IN_A)
    assert rest == [CutMasterPower("control-plane"), CutPower("a-1"), CutPower("a-2")]
    assert isinstance(silenced, ImpairLinks)
    assert {("control-plane", "b-1"), ("b-1", "control-plane")} < set(silenced.pairs)


def test_a_one_way_cut_leaves_the_way_back() -> None:
    pairs = LinkFault(("a",), ("b",), CUT, both_ways=False).pairs(TOPOLOGY)
    assert pairs == (("a-1", "b-1"), ("a-2", "b-1"))


def test_a_cut_between_zones_does_not_touch_clients_but_everything_else_includes_them() -> None:
    between = LinkFault(("a",), ("b",), CUT).pairs(TOPOLOGY)
    isolated = LinkFault(("a",), ("*",), CUT).pairs(TOPOLOGY)
    assert not [pair for pair in between if any(end.startswith("clients/") for end in pair)]
    assert {("clients/b", "a-1"), ("a-1", "clients/a"), ("a-2", "control-plane")} < set(isolated)
    assert ("a-1", "a-2") not in isolated


def test_clients_can_be_cut_off_by_name() -> None:
    pairs = LinkFault(("clients/a",), ("a-1",), CUT).pairs(TOPOLOGY)
    assert pairs == (("clients/a", "a-1"), ("a-1", "clients/a"))


def test_a_link_is_named_once_even_if_both_sides_share_places() -> None:
    pairs = LinkFault(("a", "a-1"), ("a",), CUT).pairs(TOPOLOGY)
    assert pairs == (("a-1", "a-2"), ("a-2", "a-1"))


def test_a_name_that_the_topology_lacks_is_refused() -> None:
    with pytest.raises(KeyError, match="west"):
        LinkFault(("west",), ("a",), CUT).pairs(TOPOLOGY)


def test_a_killed_pod_and_a_machine_without_power_have_nothing_to_undo() -> None:
    kill = KillPods(service="orders", zone="a", count=2)
    off = PowerOffMachine("m2", ("testbed", "lab", "kill", "m2"))
    assert PodKill(service="orders", zone="a", count=2).effects(TOPOLOGY) == (kill,)
    assert MachinePowerOff("m2", ("testbed", "lab", "kill", "m2")).effects(TOPOLOGY) == (off,)
    assert not kill.lasts
    assert not off.lasts


def test_steps_are_due_in_order_of_time_and_reverts_before_what_comes() -> None:
    faults = (
        ScheduledFault("late", 20.0, 5.0, NodeCrash("b-1")),
        ScheduledFault("early", 10.0, 10.0, ZoneCrash("a")),
        ScheduledFault("kill", 10.0, None, PodKill(pod="web-0")),
    )
    timeline = Timeline(faults, TOPOLOGY)
    assert timeline.due(9.9) == ()
    found: list[list[tuple[float, str, str]]] = []
    while (next_s := timeline.next_s()) is not None:
        found.append([(step.at_s, step.fault, step.do) for step in timeline.due(next_s)])
    assert found == [
        [(10.0, "early", "apply"), (10.0, "kill", "apply")],
        [(20.0, "early", "revert"), (20.0, "late", "apply")],
        [(25.0, "late", "revert")],
    ]


def test_who_asks_late_is_told_of_all_that_was_due() -> None:
    timeline = Timeline((ScheduledFault("crash", 1.0, 2.0, NodeCrash("a-1")),), TOPOLOGY)
    assert [step.do for step in timeline.due(5.0)] == ["apply", "revert"]
    assert timeline.due(6.0) == ()
    assert timeline.next_s() is None


@pytest.mark.parametrize(
    ("fault", "places"),
    [
        (LinkFault(("a",), ("*",), CUT), ("a-1", "a-2")),
        (LinkFault(("control-plane",), ("b",), CUT, both_ways=False), ("b-1",)),
        (LinkFault(("b-1",), ("control-plane",), CUT, both_ways=False), ("b-1",)),
        (LinkFault(("a",), ("b",), CUT), ()),
        (LinkFault(("a",), ("*",), LinkEffect(added_delay_s=0.1)), ()),
    ],
)
def test_who_is_cut_off_from_the_control_plane(fault: Fault, places: tuple[str, ...]) -> None:
    (links,) = fault.effects(TOPOLOGY)
    assert isinstance(links, ImpairLinks)
    assert cut_off(links, TOPOLOGY.masters) == places


def test_who_reaches_one_of_several_masters_is_not_cut_off() -> None:
    masters = (Place("control-plane-1", A, "control-plane"), Place("control-plane-2", B, "control-plane"))
    topology = Topology((*NODES, *masters))
    (one,) = LinkFault(("control-plane-1",), ("*",), CUT).effects(topology)
    (zone,) = LinkFault(("a-1",), ("*",), CUT).effects(topology)
    assert isinstance(one, ImpairLinks)
    assert isinstance(zone, ImpairLinks)
    assert cut_off(one, topology.masters) == ()
    assert cut_off(zone, topology.masters) == ("a-1",)
