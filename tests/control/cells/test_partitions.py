"""From ids to partitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.control.cells.partitions import fnv1a, partition_of
from testbed.objects.cells import PartitionRule

LDC = PartitionRule("digits", digits=(3, 2))
RULES = (LDC, PartitionRule("modulo"), PartitionRule("hash"), PartitionRule("ranges", bounds=tuple(range(0, 1000, 10))))


@pytest.mark.parametrize(
    ("rule", "key", "partition"),
    [
        (LDC, "2088001234567", 56),
        (LDC, "7", 0),
        (LDC, "42", 4),
        (LDC, "alice", None),
        (LDC, "", None),
        (LDC, "1" * 16, None),
        (PartitionRule("modulo"), "1234", 34),
        (PartitionRule("modulo"), "-1", None),
        (PartitionRule("hash"), "", None),
        (PartitionRule("ranges", bounds=(10, 20, 50)), "9", None),
        (PartitionRule("ranges", bounds=(10, 20, 50)), "19", 0),
        (PartitionRule("ranges", bounds=(10, 20, 50)), "20", 1),
        (PartitionRule("ranges", bounds=(10, 20, 50)), "99999", 2),
    ],
)
def test_the_partition_of_an_id(rule: PartitionRule, key: str, partition: int | None) -> None:
    assert partition_of(rule, 100, key) == partition


def test_the_hash_is_fnv_1a() -> None:
    assert (fnv1a(""), fnv1a("a"), fnv1a("foobar")) == (0x811C9DC5, 0xE40C292C, 0xBF9CF968)


@given(st.sampled_from(RULES), st.text(max_size=20) | st.integers(0, 10**16).map(str))
def test_a_partition_is_one_of_all_whatever_the_key(rule: PartitionRule, key: str) -> None:
    partition = partition_of(rule, 100, key)
    assert partition is None or 0 <= partition < 100


@pytest.mark.parametrize("rule", RULES[:3])
def test_many_ids_are_spread_over_all_partitions_alike(rule: PartitionRule) -> None:
    found = [partition_of(rule, 100, str(number)) for number in range(100_000)]
    counts = [found.count(partition) for partition in range(100)]
    assert min(counts) > 0.8 * 1000
    assert max(counts) < 1.2 * 1000
