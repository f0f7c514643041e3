"""The pods of a service that serve one cell, a deployment group of it, or one city: as subsets of DestinationRules."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.objects.cells import CELL, CITY, GROUP, Cell, PartitionMap, ServiceClass
from testbed.objects.mesh import Subset
from testbed.objects.metadata import Labels


def subsets_of(cell_map: PartitionMap, service_class: ServiceClass) -> tuple[Subset, ...]:
    """Of a service of that class: for each cell, or group of one, or for each city."""
    match service_class:
        case "sharded":
            return tuple(Subset(name, labels) for cell in cell_map.cells for name, labels, _ in groups_of(cell))
        case "perCity":
            return tuple(Subset(city.name, ((CITY, city.name),)) for city in cell_map.cities)
        case "global":
            return ()


def groups_of(cell: Cell) -> Iterable[tuple[str, Labels, int]]:
    """Subset, labels and weight of each deployment group of a cell; of all of it where it has none."""
    labels = ((CELL, cell.name),)
    if not cell.groups:
        yield cell.name, labels, 100
    for group in cell.groups:
        yield f"{cell.name}-{group.name}", (*labels, (GROUP, group.name)), group.weight
