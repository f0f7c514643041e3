"""Who owns which partitions, and how one map becomes the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby

from testbed.objects.cells import NEAREST, REFUSE, PartitionMap

RESERVED = (REFUSE, NEAREST)
"""Names that no cell can have: fates of requests without a key."""


class NotOwner(Exception):
    """Partitions were to be moved from a cell that does not own them."""


@dataclass(frozen=True, slots=True)
class Move:
    """Partitions that go from one cell to another."""

    partitions: tuple[int, ...]
    source: str
    to: str

    @property
    def reverse(self) -> Move:
        return Move(self.partitions, self.to, self.source)


@dataclass(frozen=True, slots=True)
class Owned:
    """Partitions from `start` up to, but not including `end`, of one owner."""

    start: int
    end: int
    cell: str


def moved(cell_map: PartitionMap, move: Move) -> PartitionMap:
    """The next version of the map. Raises NotOwner, and KeyError for a cell or partition that is not there."""
    cell_map.cell(move.to)
    owners = list(cell_map.owners)
    for partition in move.partitions:
        if not 0 <= partition < len(owners):
            raise KeyError(partition)
        if owners[partition] != move.source:
            raise NotOwner(f"partition {partition} is owned by {owners[partition]}, not by {move.source}")
        owners[partition] = move.to
    return replace(cell_map, owners=tuple(owners), version=cell_map.version + 1)


def runs(owners: Iterable[str]) -> tuple[Owned, ...]:
    """Neighbouring partitions of one owner together, in order."""
    found = []
    for cell, run in groupby(enumerate(owners), key=lambda owned: owned[1]):
        numbers = [number for number, _ in run]
        found.append(Owned(numbers[0], numbers[-1] + 1, cell))
    return tuple(found)


def partitions_of(cell_map: PartitionMap, cell: str) -> tuple[int, ...]:
    return tuple(partition for partition, owner in enumerate(cell_map.owners) if owner == cell)


def written(partitions: Iterable[int]) -> str:
    """`0-24, 50`: as a scenario has them."""
    owned = set(partitions)
    there = runs("x" if partition in owned else "" for partition in range(max(owned, default=-1) + 1))
    parts = [run for run in there if run.cell]
    return ", ".join(f"{run.start}-{run.end - 1}" if run.end - run.start > 1 else f"{run.start}" for run in parts)


def evenly(cells: Iterable[str], partitions: int) -> tuple[str, ...]:
    """Owners of all partitions where none is declared: neighbouring shares that differ by one at most."""
    names = tuple(cells)
    return tuple(names[partition * len(names) // partitions] for partition in range(partitions))


def problem_of(cell_map: PartitionMap) -> str | None:
    """Why a map cannot be applied; None where it can."""
    names = Counter(cell.name for cell in cell_map.cells)
    if twice := [name for name, count in names.items() if count > 1]:
        return f"there are two cells {twice[0]!r}"
    if bad := [name for name in names if name in RESERVED]:
        return f"{bad[0]!r} is no name for a cell: it is a fate of requests without a key"
    if not cell_map.owners:
        return "it has no partitions"
    if strangers := [owner for owner in cell_map.owners if owner not in names]:
        return f"partition {cell_map.owners.index(strangers[0])} is owned by {strangers[0]!r}, which is no cell"
    for cell in cell_map.cells:
        if not cell.zones:
            return f"cell {cell.name} is in no zone"
        weights = sum(group.weight for group in cell.groups)
        if cell.groups and weights != 100:
            return f"the weights of the groups of cell {cell.name} must sum to 100, not {weights}"
        if cell.backup is not None and (cell.backup not in names or cell.backup == cell.name):
            return f"the backup of cell {cell.name} must be another cell, not {cell.backup!r}"
    for shards in cell_map.shards:
        if not 1 <= shards.size <= shards.workers:
            return f"shards of {shards.service} cannot have {shards.size} of {shards.workers} workers"
    if cell_map.unkeyed not in (*RESERVED, *names):
        return f"requests without a key cannot go to {cell_map.unkeyed!r}, which is no cell"
    return None
