"""Every fault is undone exactly, and means the links and nodes that its description says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.faults.actions import (
    Action,
    BootNode,
    CrashNode,
    ImposeOnLinks,
    KillPod,
    LiftFromLinks,
    LinkEffect,
    PowerOffMachine,
)
from testbed.faults.links import LinkFault
from testbed.faults.machines import MachinePowerOff
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.schedule import Fault, ScheduledFault, steps
from testbed.faults.zones import ZoneCrash
from testbed.objects.places import Locality, Place, Topology

A, B = Locality("east", "a"), Locality("east", "b")
CLIENTS = (Place("clients/a", A, "clients"), Place("clients/b", B, "clients"))
NODES = (Place("a-1", A), Place("a-2", A), Place("b-1", B))
TOPOLOGY = Topology((*NODES, *CLIENTS, Place("control-plane", Locality("east", ""), "control-plane")))
MASTER_IN_A = Topology((*NODES, *CLIENTS, Place("control-plane", A, "control-plane")))
CUT = LinkEffect(cut=True)


class World:
    """As much of the world as actions change: effects by directed link and fault, and nodes without power."""

    def __init__(self) -> None:
        self.effects: dict[tuple[str, str], dict[str, LinkEffect]] = {}
        self.down: list[str] = []
        self.killed: list[KillPod] = []

    def apply(self, *actions: Action) -> World:
        for action in actions:
            match action:
                case ImposeOnLinks():
                    for pair in action.pairs:
                        self.effects.setdefault(pair, {})[action.fault] = action.effect
                case LiftFromLinks():
                    for pair in list(self.effects):
                        self.effects[pair].pop(action.fault, None)
                        if not self.effects[pair]:
                            del self.effects[pair]
                case CrashNode():
                    assert action.node not in self.down
                    self.down.append(action.node)
                case BootNode():
                    self.down.remove(action.node)
                case KillPod():
                    self.killed.append(action)
                case PowerOffMachine():
                    raise AssertionError("a machine cannot be restored")
        return self

    def state(self) -> tuple[dict[tuple[str, str], dict[str, LinkEffect]], list[str]]:
        return self.effects, sorted(self.down)


FAULTS: tuple[Fault, ...] = (
    NodeCrash("a-1"),
    ZoneCrash("a"),
    LinkFault(("a",), ("b",), CUT),
    LinkFault(("a",), ("b",), CUT, both_ways=False),
    LinkFault(("a",), ("*",), CUT),
    LinkFault(("a-1",), ("control-plane",), LinkEffect(added_delay_s=0.1, added_loss=0.01)),
)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("topology", [TOPOLOGY, MASTER_IN_A], ids=["regional master", "master in a"])
def test_stopping_a_fault_restores_what_was_before_it(fault: Fault, topology: Topology) -> None:
    def world() -> World:
        return World().apply(ImposeOnLinks("other", (("a-1", "b-1"), ("b-1", "a-2")), LinkEffect(added_delay_s=1)))

    broken = world().apply(*fault.start("mine", topology))
    assert broken.state() != world().state()
    assert broken.apply(*fault.stop("mine", topology)).state() == world().state()


OVERLAPPING = [fault for fault in FAULTS if not isinstance(fault, ZoneCrash)]
"""All concern a-1; none has a victim that another one of them has already powered off."""


@given(st.permutations([*range(len(OVERLAPPING))] * 2))
def test_overlapping_faults_on_one_victim_are_undone_in_any_order(order: list[int]) -> None:
    world, in_force = World(), set[int]()
    for number in order:
        fault = OVERLAPPING[number]
        stopping = number in in_force
        world.apply(*(fault.stop if stopping else fault.start)(str(number), TOPOLOGY))
        in_force ^= {number}
        # What is there is what those that are in force would have made alone, whatever came and went before.
        alone = World()
        for other in in_force:
            alone.apply(*OVERLAPPING[other].start(str(other), TOPOLOGY))
        assert world.state() == alone.state()
    assert world.state() == World().state()


def test_a_node_is_silent_to_everybody_before_its_processes_die() -> None:
    silenced, crash = NodeCrash("a-1").start("f", TOPOLOGY)
    others = [place.name for place in TOPOLOGY.places if place.name != "a-1"]
    assert crash == CrashNode("a-1")
    assert isinstance(silenced, ImposeOnLinks)
    assert set(silenced.pairs) == {pair for other in others for pair in (("a-1", other), (other, "a-1"))}
    assert silenced.effect == CUT


def test_a_zone_loses_all_its_nodes_after_all_of_them_are_silent() -> None:
    first, *rest = ZoneCrash("a").start("f", TOPOLOGY)
    assert isinstance(first, ImposeOnLinks)
    assert {("a-1", "a-2"), ("a-2", "b-1"), ("clients/a", "a-1"), ("a-1", "control-plane")} < set(first.pairs)
    assert ("clients/a", "b-1") not in first.pairs
    assert ("b-1", "control-plane") not in first.pairs
    assert rest == [CrashNode("a-1"), CrashNode("a-2")]


def test_a_control_plane_in_a_crashed_zone_falls_silent_with_it() -> None:
    silenced = ZoneCrash("a").start("f", MASTER_IN_A)[0]
    assert isinstance(silenced, ImposeOnLinks)
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


def test_a_killed_pod_has_nothing_to_undo() -> None:
    kill = PodKill(service="orders", zone="a", count=2)
    assert kill.start("f", TOPOLOGY) == (KillPod(service="orders", zone="a", count=2),)
    assert kill.stop("f", TOPOLOGY) == ()


def test_a_machine_without_power_stays_off() -> None:
    off = MachinePowerOff("m2", ("testbed", "lab", "kill", "m2"))
    assert off.start("f", TOPOLOGY) == (PowerOffMachine("m2", ("testbed", "lab", "kill", "m2")),)
    assert off.stop("f", TOPOLOGY) == ()


def test_steps_come_in_order_of_time_and_stops_before_starts() -> None:
    faults = (
        ScheduledFault("late", 20.0, 5.0, NodeCrash("b-1")),
        ScheduledFault("early", 10.0, 10.0, ZoneCrash("a")),
        ScheduledFault("kill", 10.0, None, PodKill(pod="web-0")),
    )
    found = [(step.at_s, step.fault, step.phase) for step in steps(faults, TOPOLOGY)]
    assert found == [
        (10.0, "early", "start"),
        (10.0, "kill", "start"),
        (20.0, "early", "stop"),
        (20.0, "late", "start"),
        (25.0, "late", "stop"),
    ]
