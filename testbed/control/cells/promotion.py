"""Which replicas are to lead what, so that the data of partitions is where their owner is: before it owns them.

With data that a majority agrees on nothing is lost in any order; what is promoted first saves the new owner the way to
the old one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from testbed.control.cells.operations import Change
from testbed.control.cells.ownership import written
from testbed.objects.cells import CELL
from testbed.objects.workloads import Deployment, StoreGroup, StoreMode, StoreWorkload


class GroupSplit(Exception):
    """A step moves a part of a group, and a log has one leader; the message says which."""


@dataclass(frozen=True, slots=True)
class ShardedStore:
    """A store whose replicas are in cells: which are in which, in their order."""

    service: str
    groups: tuple[StoreGroup, ...]
    replicas: tuple[tuple[str, str], ...]
    """Name and cell."""
    mode: StoreMode = "quorum"

    def primaries(self, cell: str) -> tuple[str, ...]:
        """Who is to lead what that cell owns: its replicas, then the others."""
        return tuple(name for name, _ in sorted(self.replicas, key=lambda replica: replica[1] != cell))


@dataclass(frozen=True, slots=True)
class Promotion:
    """From now on these replicas are to lead that group while they can, the first of them first."""

    service: str
    group: int
    primaries: tuple[str, ...]


def sharded_stores(deployments: Iterable[Deployment]) -> dict[str, ShardedStore]:
    """All that there are, by service."""
    found: dict[str, ShardedStore] = {}
    for each in deployments:
        service, workload, cell = (
            each.template.service,
            each.template.workload,
            dict(each.template.extra_labels).get(CELL),
        )
        if isinstance(workload, StoreWorkload) and cell is not None:
            store = found.get(service, ShardedStore(service, workload.groups, (), workload.mode))
            found[service] = replace(store, replicas=(*store.replicas, (each.name, cell)))
    return found


def promotions(store: ShardedStore, change: Change) -> tuple[Promotion, ...]:
    """Of all groups whose partitions change hands, in their order. Raises GroupSplit."""
    return tuple(
        Promotion(store.service, group, store.primaries(to)) for group, to in moved_groups(store.groups, change)
    )


def moved_groups(groups: Iterable[StoreGroup], change: Change) -> tuple[tuple[int, str], ...]:
    """Each with the cell that its partitions go to. Raises GroupSplit."""
    goes = {partition: move.to for move in change.moves for partition in move.partitions}
    found = []
    for number, group in enumerate(groups):
        partitions = range(group.start, group.end)
        to = {goes.get(partition, "") for partition in partitions}
        if to == {""}:
            continue
        if len(to) > 1:
            moving = written(partition for partition in partitions if partition in goes)
            raise GroupSplit(
                f"group {number} has the partitions {written(partitions)} and one leader, but only {moving} would move "
                "to one cell in this step; move whole groups"
            )
        found.append((number, to.pop()))
    return tuple(found)
