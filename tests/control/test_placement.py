"""Places on machines: labels, even spread, and what does not fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.control.placement import (
    ACTOR_BYTES,
    GATEWAY_POD_BYTES,
    LOCUST_BYTES,
    MB,
    POD_BYTES,
    PROGRAM_POD_BYTES,
    Hosting,
    Machine,
    Placement,
    PlacementImpossible,
    hosting_for,
    place,
    processes,
)
from testbed.objects.cluster import ClusterSpec
from testbed.objects.core import Node
from testbed.objects.places import Locality, Place, Topology
from testbed.objects.workloads import BuiltinWorkload, CommandWorkload, Deployment, PodTemplate

PLENTY = 10**12


def make_topology(nodes_of_zones: dict[str, int], control_plane_zone: str = "") -> Topology:
    localities = {zone: Locality("east", zone) for zone in nodes_of_zones}
    nodes = [
        Place(f"{zone}-{number}", localities[zone])
        for zone, count in nodes_of_zones.items()
        for number in range(1, count + 1)
    ]
    clients = [Place(f"clients/{zone}", locality, "clients") for zone, locality in localities.items()]
    control_plane = Place("control-plane", Locality("east", control_plane_zone), "control-plane")
    return Topology((*nodes, *clients, control_plane))


def make_cluster(topology: Topology, *deployments: Deployment) -> ClusterSpec:
    nodes = tuple(Node(place.name, place.locality) for place in topology.nodes)
    return ClusterSpec((*nodes, *deployments))


def make_machine(name: str, zone: str | None = None, memory_bytes: int = PLENTY) -> Machine:
    return Machine(name, f"10.0.0.{name[1:]}", zone, memory_bytes, cpus=2.0)


def web(replicas: int, *zones: str) -> Deployment:
    return Deployment("web", replicas, PodTemplate("web", BuiltinWorkload(), zones=zones))


def gateway(zone: str) -> Deployment:
    return Deployment(f"gateway-{zone}", 1, PodTemplate("gateway", None, role="gateway", zones=(zone,)))


def placed(topology: Topology, *machines: Machine, head: str = "m1") -> Placement:
    return place(topology, make_cluster(topology), machines, head, "node")


topologies = st.builds(
    make_topology, st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 6), min_size=1), st.just("")
)
unlabelled = st.integers(1, 8).map(lambda count: tuple(make_machine(f"m{n}") for n in range(1, count + 1)))


def zones_of(topology: Topology) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.locality.zone for node in topology.nodes))


# --- with labels ---------------------------------------------------------------------------------------------------


def test_a_zone_lies_on_the_machine_that_is_labelled_with_it() -> None:
    topology = make_topology({"a": 2, "b": 1})
    assert placed(topology, make_machine("m1", "b"), make_machine("m2", "a"), make_machine("m3"), head="m3") == {
        "a-1": "m2",
        "a-2": "m2",
        "b-1": "m1",
        "clients/a": "m2",
        "clients/b": "m1",
        "control-plane": "m3",
    }


def test_machines_of_a_zone_take_its_nodes_in_turn_and_the_first_its_clients() -> None:
    placement = placed(make_topology({"a": 3}), make_machine("m1", "a"), make_machine("m2", "a"))
    assert placement == {"a-1": "m1", "a-2": "m2", "a-3": "m1", "clients/a": "m1", "control-plane": "m1"}


def test_a_control_plane_in_a_zone_lies_on_its_first_machine() -> None:
    topology = make_topology({"a": 1, "b": 2}, control_plane_zone="b")
    machines = (make_machine("m1", "a"), make_machine("m2", "b"), make_machine("m3", "b"))
    assert placed(topology, *machines)["control-plane"] == "m2"


def test_every_zone_without_a_machine_is_named_with_the_labels_there_are_and_how_to_set_one() -> None:
    machines = (make_machine("m1", "a"), make_machine("m2"), make_machine("m3", "x"))
    with pytest.raises(PlacementImpossible) as caught:
        placed(make_topology({"a": 1, "b": 1, "c": 1}, control_plane_zone="c"), *machines)
    assert str(caught.value).splitlines() == [
        "zone b: no machine has the label testbed.zone=b; labels there are: a, x. "
        "Set it with `ray start --labels testbed.zone=b`",
        "zone c: no machine has the label testbed.zone=c; labels there are: a, x. "
        "Set it with `ray start --labels testbed.zone=c`",
    ]


@given(topologies, st.data())
def test_labelled_zones_never_leave_their_machines_and_share_them_evenly(
    topology: Topology, data: st.DataObject
) -> None:
    zones = zones_of(topology)
    others = data.draw(st.lists(st.sampled_from([*zones, None]), min_size=1, max_size=6))
    labels = data.draw(st.permutations([*zones, *others]))
    machines = tuple(make_machine(f"m{number}", zone) for number, zone in enumerate(labels, 1))
    placement = placed(topology, *machines)
    assert list(placement) == [place.name for place in topology.places]
    label_of = {machine.name: machine.zone for machine in machines}
    for zone in zones:
        nodes = [node.name for node in topology.nodes if node.locality.zone == zone]
        assert {label_of[placement[name]] for name in (*nodes, f"clients/{zone}")} == {zone}
        counts = Counter({machine.name: 0 for machine in machines if machine.zone == zone})
        counts.update(placement[name] for name in nodes)
        assert max(counts.values()) - min(counts.values()) <= 1


# --- without labels ------------------------------------------------------------------------------------------------


def test_without_labels_zones_go_to_machines_in_turn() -> None:
    placement = placed(make_topology({"a": 2, "b": 1, "c": 1}), make_machine("m1"), make_machine("m2"), head="m2")
    assert placement == {
        "a-1": "m1",
        "a-2": "m1",
        "b-1": "m2",
        "c-1": "m1",
        "clients/a": "m1",
        "clients/b": "m2",
        "clients/c": "m1",
        "control-plane": "m2",
    }


@given(topologies, unlabelled)
def test_without_labels_a_zone_stays_together_and_machines_differ_by_one_zone_at_most(
    topology: Topology, machines: tuple[Machine, ...]
) -> None:
    placement = placed(topology, *machines, head=machines[-1].name)
    machine_of_zone: dict[str, str] = {}
    for node in topology.nodes:
        machine = machine_of_zone.setdefault(node.locality.zone, placement[node.name])
        assert placement[node.name] == placement[f"clients/{node.locality.zone}"] == machine
    counts = Counter({machine.name: 0 for machine in machines})
    counts.update(machine_of_zone.values())
    assert max(counts.values()) - min(counts.values()) <= 1
    assert placement["control-plane"] == machines[-1].name


@given(topologies, st.sampled_from([None, "a", "elsewhere"]))
def test_a_single_machine_takes_everything(topology: Topology, label: str | None) -> None:
    placement = placed(topology, make_machine("m1", label))
    assert placement == dict.fromkeys((place.name for place in topology.places), "m1")


# --- room ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hosting", "actors"), [("actor", 4 + 2 * 3 + 1), ("node", 2)])
def test_memory_for_every_actor_and_process_is_just_enough(hosting: Hosting, actors: int) -> None:
    topology = make_topology({"a": 2, "b": 1})
    cluster = make_cluster(topology, web(4), gateway("a"), gateway("b"))
    # Two nodes and the control plane (which share a process, unless pods have actors), and clients; four pods on three
    # nodes, of which two are here: 2.67.
    need_bytes = actors * ACTOR_BYTES + LOCUST_BYTES + 3 * POD_BYTES + GATEWAY_POD_BYTES
    machines = (make_machine("m1", memory_bytes=need_bytes), make_machine("m2"))
    assert place(topology, cluster, machines, "m1", hosting)["a-1"] == "m1"
    with pytest.raises(PlacementImpossible) as caught:
        place(topology, cluster, (make_machine("m1", memory_bytes=need_bytes - 1), machines[1]), "m1", hosting)
    assert str(caught.value) == (
        f"machine m1 (10.0.0.1): has {need_bytes / MB:.0f} MB of memory but needs about {need_bytes / MB:.0f} MB, for "
        "nodes: 2, origin zones: 1, pods: 3, gateways: 1. Add machines, or declare fewer nodes or replicas"
    )


def test_pods_restricted_to_a_zone_count_for_its_machines_only() -> None:
    topology = make_topology({"a": 1, "b": 1})
    cluster = make_cluster(topology, web(10, "b"))
    without_pods = 2 * ACTOR_BYTES + LOCUST_BYTES
    with_pods = 2 * ACTOR_BYTES + LOCUST_BYTES + 10 * POD_BYTES
    machines = (make_machine("m1", memory_bytes=without_pods), make_machine("m2", memory_bytes=with_pods))
    assert place(topology, cluster, machines, "m1", "node")["b-1"] == "m2"
    with pytest.raises(PlacementImpossible, match="machine m2"):
        place(topology, cluster, (machines[0], replace(machines[1], memory_bytes=with_pods - 1)), "m1", "node")


@pytest.mark.parametrize(("pods", "machines", "hosting"), [(24, 1, "actor"), (25, 1, "node"), (96, 4, "actor")])
def test_few_pods_a_machine_have_actors_of_their_own_and_many_are_hosted_by_their_node(
    pods: int, machines: int, hosting: Hosting
) -> None:
    assert hosting_for(make_cluster(make_topology({"a": 1}), web(pods)), machines) == hosting


@pytest.mark.parametrize(
    ("nodes", "pods", "hosting", "sizes"),
    [
        (10, 45, "node", {"a-1": 11, "clients/a": 1}),
        (1, 0, "node", {"a-1": 2, "clients/a": 1}),
        (20, 110, "node", {"a-1": 10, "a-11": 10, "control-plane": 1, "clients/a": 1}),
        (2, 240, "node", {"a-1": 1, "a-2": 1, "control-plane": 1, "clients/a": 1}),
        (2, 5, "actor", {"a-1": 1, "a-2": 1, "control-plane": 1, "clients/a": 1}),
    ],
)
def test_nodes_that_host_their_pods_share_a_process_with_the_control_plane_as_long_as_these_are_not_too_many(
    nodes: int, pods: int, hosting: Hosting, sizes: dict[str, int]
) -> None:
    topology = make_topology({"a": nodes})
    cluster = make_cluster(topology, web(pods))
    placement = place(topology, cluster, (make_machine("m1"),), "m1", hosting)
    assert Counter(processes(topology, cluster, hosting, placement).values()) == sizes


@given(topologies, unlabelled, st.integers(0, 200))
def test_who_shares_a_process_is_on_one_machine_and_clients_are_among_themselves(
    topology: Topology, machines: tuple[Machine, ...], replicas: int
) -> None:
    cluster = make_cluster(topology, web(replicas))
    placement = place(topology, cluster, machines, "m1", "node")
    first_of = processes(topology, cluster, "node", placement)
    assert first_of.keys() == placement.keys()
    for name, first in first_of.items():
        assert first_of[first] == first
        assert placement[name] == placement[first]
        assert (topology.place(name).kind == "clients") == (topology.place(first).kind == "clients")


def test_all_problems_are_told_at_once() -> None:
    topology = make_topology({"a": 1, "b": 1, "c": 1})
    machines = (make_machine("m1", "a", memory_bytes=1), make_machine("m2", "b", memory_bytes=1))
    with pytest.raises(PlacementImpossible) as caught:
        placed(topology, *machines)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "zone c",
        "machine m1 (10.0.0.1)",
        "machine m2 (10.0.0.2)",
    ]


@given(topologies, unlabelled, st.integers(0, 200), st.integers(0, 20 * 10**9))
def test_more_memory_never_makes_it_impossible_and_changes_no_place(
    topology: Topology, machines: tuple[Machine, ...], replicas: int, memory_bytes: int
) -> None:
    cluster = make_cluster(topology, web(replicas))
    small = tuple(replace(machine, memory_bytes=memory_bytes) for machine in machines)
    try:
        placement = place(topology, cluster, small, "m1", "node")
    except PlacementImpossible as impossible:
        used = set(place(topology, cluster, machines, "m1", "node").values())
        named = {problem.split()[1] for problem in impossible.problems}
        assert named
        assert named <= used
    else:
        assert placement == place(topology, cluster, machines, "m1", "node")


def test_a_program_with_an_interpreter_of_its_own_counts_for_more_than_a_workload_that_is_forked() -> None:
    topology = make_topology({"a": 1})
    own = Deployment("own", 2, PodTemplate("own", CommandWorkload(("/bin/own",))))
    cluster = make_cluster(topology, web(3), own)
    need_bytes = 2 * ACTOR_BYTES + LOCUST_BYTES + 3 * POD_BYTES + 2 * PROGRAM_POD_BYTES
    assert PROGRAM_POD_BYTES > 2 * POD_BYTES
    assert place(topology, cluster, (make_machine("m1", memory_bytes=need_bytes),), "m1", "node")["a-1"] == "m1"
    with pytest.raises(PlacementImpossible, match="pods: 5"):
        place(topology, cluster, (make_machine("m1", memory_bytes=need_bytes - 1),), "m1", "node")
