"""Shuffle shards: which workers of a service serve a partition, and how much two partitions have in common.

Source of the idea and its arithmetic: Amazon Builders' Library, "Workload isolation using shuffle-sharding".
"""

from __future__ import annotations

from math import comb
from random import Random

from testbed.objects.cells import PartitionMap, ShuffleShards


def workers_of(shards: ShuffleShards, partition: int) -> tuple[int, ...]:
    """The workers of a partition, rising: drawn from the seed for each by itself, so all choices are as likely."""
    drawn = Random(f"{shards.seed}/{shards.service}/{partition}").sample(range(shards.workers), shards.size)
    return tuple(sorted(drawn))


def partitions_by_worker(shards: ShuffleShards, partitions: int) -> tuple[tuple[int, ...], ...]:
    """What each worker serves."""
    found: list[list[int]] = [[] for _ in range(shards.workers)]
    for partition in range(partitions):
        for worker in workers_of(shards, partition):
            found[worker].append(partition)
    return tuple(map(tuple, found))


def overlaps(size: int, workers: int) -> tuple[float, ...]:
    """The share of partitions that have 0, 1, ... `size` workers in common with a given one: hypergeometric."""
    ways = comb(workers, size)
    return tuple(comb(size, shared) * comb(workers - size, size - shared) / ways for shared in range(size + 1))


def shards_of(cell_map: PartitionMap | None, service: str) -> ShuffleShards | None:
    """Those of a service; None where all its pods serve everybody."""
    declared = () if cell_map is None else cell_map.shards
    return next((each for each in declared if each.service == service), None)
