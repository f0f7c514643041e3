"""Shuffle shards: what is drawn, and that it is as arithmetic says."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.control.cells.shards import overlaps, partitions_by_worker, workers_of
from testbed.objects.cells import ShuffleShards

SHAPES = [(2, 8), (3, 6), (4, 10)]
PARTITIONS = 4000


@pytest.mark.parametrize(("size", "workers"), SHAPES)
def test_whom_a_partition_shares_workers_with_is_hypergeometric(size: int, workers: int) -> None:
    """Within 3 standard errors of independent draws, which all other partitions are, given one."""
    shards = ShuffleShards("web", workers, size, seed=3)
    poison = set(workers_of(shards, 0))
    shared = Counter(len(poison & set(workers_of(shards, other))) for other in range(1, PARTITIONS))
    for count, share in enumerate(overlaps(size, workers)):
        tolerance = 3 * (share * (1 - share) / (PARTITIONS - 1)) ** 0.5
        assert shared[count] / (PARTITIONS - 1) == pytest.approx(share, abs=tolerance)


def test_all_choices_of_workers_are_as_likely() -> None:
    shards = ShuffleShards("web", 5, 2, seed=1)
    drawn = Counter(workers_of(shards, partition) for partition in range(PARTITIONS))
    assert set(drawn) == set(combinations(range(5), 2))
    tolerance = 4 * (PARTITIONS / 10 * 0.9) ** 0.5  # of ten choices, so that all are within it
    assert all(abs(count - PARTITIONS / 10) <= tolerance for count in drawn.values())


def test_shares_of_overlaps_are_those_of_the_literature() -> None:
    """Amazon Builders' Library: 8 workers and shards of 2 make 28 shards."""
    assert overlaps(2, 8) == pytest.approx((15 / 28, 12 / 28, 1 / 28))
    assert overlaps(3, 3) == (0, 0, 0, 1)


@given(st.data(), st.integers(1, 12), st.integers(0, 2**63), st.integers(1, 60))
def test_every_partition_has_so_many_workers_and_every_worker_knows(
    data: st.DataObject, workers: int, seed: int, partitions: int
) -> None:
    shards = ShuffleShards("web", workers, data.draw(st.integers(1, workers)), seed)
    by_worker = partitions_by_worker(shards, partitions)
    for partition in range(partitions):
        own = workers_of(shards, partition)
        assert len(set(own)) == shards.size
        assert own == tuple(worker for worker, served in enumerate(by_worker) if partition in served)
    assert sum(overlaps(shards.size, workers)) == pytest.approx(1)
