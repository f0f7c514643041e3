"""Partition maps and their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.control import api_server
from testbed.control.cells.ownership import (
    Move,
    NotOwner,
    evenly,
    moved,
    partitions_of,
    problem_of,
    runs,
    written,
)
from testbed.control.manifests import manifests
from testbed.control.messages import Apply, Delete, RecordEvent
from testbed.control.store import Store
from testbed.objects.cells import Cell, DeploymentGroup, PartitionKey, PartitionMap, PartitionRule

NAMES = ("rz01", "rz02", "rz03")
MAP = PartitionMap(
    "cells",
    1,
    PartitionKey("header", "x-user-id"),
    PartitionRule("modulo"),
    (Cell("rz01", ("east-a",)), Cell("rz02", ("east-b",), backup="rz01"), Cell("rz03", ("east-c",), elastic=True)),
    evenly(NAMES[:2], 100),
)


@given(st.lists(st.tuples(st.lists(st.integers(0, 99), max_size=30), st.sampled_from(NAMES), st.sampled_from(NAMES))))
def test_every_partition_has_one_owner_after_any_moves_and_a_step_and_its_reverse_is_the_identity(
    asked: Sequence[tuple[list[int], str, str]],
) -> None:
    current = MAP
    for partitions, source, to in asked:
        owned = set(partitions_of(current, source))
        move = Move(tuple(sorted(owned & set(partitions))), source, to)
        after = moved(current, move)
        assert after.version == current.version + 1
        assert sorted(number for name in NAMES for number in partitions_of(after, name)) == list(range(100))
        if source != to:
            back = moved(after, move.reverse)
            assert replace(back, version=current.version) == current
        current = after
    assert problem_of(current) is None


def test_nobody_can_give_away_what_another_owns() -> None:
    with pytest.raises(NotOwner, match="partition 99 is owned by rz02, not by rz01"):
        moved(MAP, Move((0, 99), "rz01", "rz03"))
    with pytest.raises(KeyError):
        moved(MAP, Move((0,), "rz01", "rz04"))
    with pytest.raises(KeyError):
        moved(MAP, Move((100,), "rz02", "rz01"))


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=50))
def test_runs_are_all_partitions_in_order_and_no_two_neighbours_have_one_owner(owners: list[str]) -> None:
    found = runs(owners)
    assert [run.cell for run in found for _ in range(run.start, run.end)] == owners
    assert [run.start for run in found] == [0, *(run.end for run in found[:-1])]
    assert all(a.cell != b.cell for a, b in pairwise(found))


@given(st.integers(1, 12), st.integers(12, 120))
def test_even_shares_differ_by_one_at_most(cells: int, partitions: int) -> None:
    owners = evenly([f"c{number}" for number in range(cells)], partitions)
    counts = [owners.count(f"c{number}") for number in range(cells)]
    assert (sum(counts), max(counts) - min(counts) <= 1) == (partitions, True)


def test_partitions_are_written_as_ranges() -> None:
    assert written([0, 1, 2, 5, 99, 98]) == "0-2, 5, 98-99"
    assert written([]) == ""


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (replace(MAP, owners=()), "no partitions"),
        (replace(MAP, owners=("rz01", "rz09")), "partition 1 is owned by 'rz09', which is no cell"),
        (replace(MAP, cells=(*MAP.cells, MAP.cells[0])), "two cells 'rz01'"),
        (replace(MAP, cells=(Cell("nearest", ("east-a",)),)), "no name for a cell"),
        (replace(MAP, cells=(Cell("rz01", ()), *MAP.cells[1:])), "rz01 is in no zone"),
        (replace(MAP, cells=(Cell("rz01", ("a",), backup="rz01"), *MAP.cells[1:])), "must be another cell"),
        (replace(MAP, cells=(Cell("rz01", ("a",), (DeploymentGroup("a", 99),)), *MAP.cells[1:])), "sum to 100, not 99"),
        (replace(MAP, unkeyed="rz09"), "cannot go to 'rz09'"),
    ],
)
def test_a_bad_map_says_what_is_wrong_with_it(wrong: PartitionMap, problem: str) -> None:
    assert problem in (problem_of(wrong) or "")


def test_a_map_is_replaced_by_a_newer_one_only() -> None:
    store = Store()
    api_server.apply(store, Apply(MAP))
    newer = moved(MAP, Move((0, 1), "rz01", "rz03"))
    assert [
        command.reason for command in api_server.apply(store, Apply(newer)) if isinstance(command, RecordEvent)
    ] == ["Configured"]
    assert api_server.apply(store, Apply(newer)) == []
    with pytest.raises(api_server.Refused, match="version 1 is not newer than 2"):
        api_server.apply(store, Apply(MAP))
    with pytest.raises(api_server.Refused, match="has no partitions"):
        api_server.apply(store, Apply(replace(newer, version=3, owners=())))
    (shown,) = manifests(store)
    assert shown["spec"]["cells"]["rz03"] == {"zones": ["east-c"], "partitions": "0-1", "elastic": True}
    assert (shown["kind"], shown["spec"]["version"]) == ("PartitionMap", 2)
    api_server.delete(store, Delete(PartitionMap, "cells"))
    assert store.list(PartitionMap) == ()
