"""What routes match of a key, against the rule that says what its partition is."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.control.cells.ownership import runs
from testbed.control.cells.partitions import partition_of
from testbed.control.views.envoy.partition_match import Headers, of_key
from testbed.objects.cells import Cell, PartitionKey, PartitionMap, PartitionRule, ShuffleShards

HEADER = "x-user-id"


def a_map(rule: PartitionRule, owners: tuple[str, ...], **fields: Any) -> PartitionMap:
    cells = tuple(Cell(name, ("east-a",)) for name in sorted(set(owners)))
    return PartitionMap("cells", 1, PartitionKey("header", "X-User-Id"), rule, cells, owners, **fields)


def envoy_matches(headers: Headers, key: str) -> bool:
    """As Envoy 1.40 does: an expression matches all of the value, a range includes its start and not its end."""
    for matcher in headers:
        assert matcher["name"] == HEADER
        if "range_match" in matcher:
            bounds = matcher["range_match"]
            if re.fullmatch("[+-]?[0-9]+", key) is None or not bounds["start"] <= int(key) < bounds["end"]:
                return False
        elif re.fullmatch(matcher["string_match"]["safe_regex"]["regex"], key, re.ASCII) is None:
            return False
    return True


def owners_by_routes(cell_map: PartitionMap, key: str) -> list[str]:
    """The cells whose routes match."""
    by = of_key(cell_map)
    assert by is not None
    owned = {cell: [run for run in runs(cell_map.owners) if run.cell == cell] for cell in cell_map.owners}
    return [cell for cell, its in owned.items() for headers in by.any_of(its) if envoy_matches(headers, key)]


places = st.lists(st.integers(1, 15), min_size=1, max_size=3, unique=True).map(tuple)
rules = st.one_of(
    places.map(lambda digits: (PartitionRule("digits", digits=digits), 10 ** len(digits))),
    st.sampled_from([1, 10, 100]).map(lambda partitions: (PartitionRule("modulo"), partitions)),
    st.lists(st.integers(0, 10**15 - 1), min_size=1, max_size=30, unique=True).map(
        lambda bounds: (PartitionRule("ranges", bounds=tuple(sorted(bounds))), len(bounds))
    ),
)
keys = st.one_of(
    st.integers(0, 10**16).map(str),
    st.integers(0, 1200).map(str),
    st.text("0123456789", max_size=17),
    st.text("+-0179 ,a", max_size=6),
)


@given(rules, st.data())
def test_of_every_key_the_route_of_its_owner_matches_and_no_other(
    rule_and_partitions: tuple[PartitionRule, int], data: st.DataObject
) -> None:
    rule, partitions = rule_and_partitions
    names = st.sampled_from(["rz01", "rz02", "rz03"])
    lengths = data.draw(st.lists(st.integers(1, max(1, partitions // 3)), min_size=1, max_size=40))
    owners = [name for length in lengths for name in [data.draw(names)] * length]
    owners = (owners + [data.draw(names)] * partitions)[:partitions]
    cell_map = a_map(rule, tuple(owners))
    for key in data.draw(st.lists(keys, min_size=1, max_size=20)):
        partition = partition_of(rule, partitions, key)
        assert owners_by_routes(cell_map, key) == ([] if partition is None else [owners[partition]]), key


def test_all_three_digit_ids_by_the_rule_of_ldc() -> None:
    rule, owners = PartitionRule("digits", digits=(3, 2)), ("rz01", "rz02") * 20 + ("rz03",) * 60
    cell_map = a_map(rule, owners)
    for number in range(2000):
        partition = partition_of(rule, 100, str(number))
        assert partition is not None
        assert owners_by_routes(cell_map, str(number)) == [owners[partition]]


@pytest.mark.parametrize(
    ("rule", "partitions", "fields"),
    [
        (PartitionRule("hash"), 100, {}),
        (PartitionRule("modulo"), 64, {}),
        (PartitionRule("digits", digits=(2, 2)), 100, {}),
        (PartitionRule("digits", digits=(3, 2)), 100, {"shards": (ShuffleShards("web", 4, 2),)}),
    ],
    ids=["hash", "modulo-64", "a-digit-twice", "shuffle-shards"],
)
def test_what_no_matcher_can_say_is_left_to_who_computes_it(
    rule: PartitionRule, partitions: int, fields: dict[str, Any]
) -> None:
    assert of_key(a_map(rule, ("rz01",) * partitions, **fields)) is None
