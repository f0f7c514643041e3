"""Faults as layers over the declared links."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.faults.effects import LinkEffect
from testbed.network.links import LinkTable
from testbed.objects.places import LinkQuality, Locality, Place, Topology

NAMES = ("a", "b", "c")
PAIRS = tuple((source, destination) for source in NAMES for destination in NAMES if source != destination)
TOPOLOGY = Topology(
    places=(
        Place("a", Locality("east", "east-a")),
        Place("b", Locality("east", "east-b")),
        Place("c", Locality("west", "west-a")),
    ),
    same_region=LinkQuality(delay_s=0.001, loss=0.01),
    cross_region=LinkQuality(delay_s=0.015, jitter_s=0.002, bandwidth_bits_per_s=1e8),
)

effects = st.builds(
    LinkEffect,
    cut=st.booleans(),
    added_delay_s=st.floats(0, 1),
    added_jitter_s=st.floats(0, 1),
    added_loss=st.floats(0, 1),
    bandwidth_bits_per_s=st.none() | st.floats(1e3, 1e9),
)
imposed = st.tuples(st.sampled_from(["f1", "f2", "f3", "f4"]), st.lists(st.sampled_from(PAIRS), max_size=4), effects)


def qualities(table: LinkTable) -> list[LinkQuality]:
    return [table.quality(*pair) for pair in PAIRS]


@given(st.lists(imposed | st.sampled_from(["f1", "f2", "f3", "f4"]), max_size=20))
def test_lifting_everything_restores_the_declared_table(
    steps: list[tuple[str, list[tuple[str, str]], LinkEffect] | str],
) -> None:
    table = LinkTable(TOPOLOGY)
    for step in steps:
        if isinstance(step, str):
            table.lift(step)
        else:
            table.impose(*step)
        qualities(table)
    for fault in ("f3", "f1", "f4", "f2"):
        table.lift(fault)
    assert qualities(table) == [TOPOLOGY.quality(*pair) for pair in PAIRS]


@given(st.lists(imposed, min_size=2, max_size=4, unique_by=lambda step: step[0]))
def test_overlapping_faults_do_not_depend_on_their_order(
    steps: list[tuple[str, list[tuple[str, str]], LinkEffect]],
) -> None:
    seen = []
    for order in permutations(steps):
        table = LinkTable(TOPOLOGY)
        for step in order:
            table.impose(*step)
        all_of_them = qualities(table)
        table.lift(steps[0][0])
        seen.append((all_of_them, qualities(table)))
    assert all(each == seen[0] for each in seen)


def test_effects_combine_as_declared() -> None:
    table = LinkTable(TOPOLOGY)
    table.impose("slow", [("a", "c")], LinkEffect(added_delay_s=0.1, added_jitter_s=0.01, bandwidth_bits_per_s=1e9))
    table.impose("lossy", [("a", "c")], LinkEffect(added_loss=0.5, bandwidth_bits_per_s=1e6))
    table.impose("lossier", [("a", "c")], LinkEffect(added_loss=0.5))
    quality = table.quality("a", "c")
    assert quality.delay_s == pytest.approx(0.115)
    assert quality.jitter_s == pytest.approx(0.012)
    assert quality.bandwidth_bits_per_s == 1e6
    assert quality.loss == 0.75
    assert not quality.cut
    assert table.quality("c", "a") == TOPOLOGY.cross_region


def test_a_cut_in_either_direction_stops_handshakes() -> None:
    table = LinkTable(TOPOLOGY)
    assert table.passable("a", "b")
    table.impose("cut", [("a", "b")], LinkEffect(cut=True))
    assert not table.passable("a", "b")
    assert not table.passable("b", "a")
    assert table.quality("a", "b").cut
    assert not table.quality("b", "a").cut
    assert table.passable("a", "c")


def test_a_second_effect_of_one_fault_on_a_pair_replaces_the_first() -> None:
    table = LinkTable(TOPOLOGY)
    table.impose("slow", [("a", "b")], LinkEffect(added_delay_s=1))
    table.impose("slow", [("a", "b")], LinkEffect(added_delay_s=2))
    assert table.quality("a", "b").delay_s == pytest.approx(2.001)


def test_an_unknown_place_is_refused_and_changes_nothing() -> None:
    table = LinkTable(TOPOLOGY)
    with pytest.raises(KeyError, match="nowhere"):
        table.impose("cut", [("a", "b"), ("a", "nowhere")], LinkEffect(cut=True))
    assert table.passable("a", "b")
