"""From the cells of a scenario to its partition map, and to the Deployments that a service becomes in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from testbed.control.cells.ownership import evenly
from testbed.control.cells.subsets import groups_of
from testbed.objects.cells import (
    CELL,
    CITY,
    REFUSE,
    WORKER,
    Cell,
    City,
    DeploymentGroup,
    PartitionKey,
    PartitionMap,
    PartitionRule,
    ShuffleShards,
)
from testbed.objects.metadata import Labels
from testbed.scenario.models.cells import CellModel, CellsModel, KeyModel, PartitionRuleModel, RouterModel
from testbed.scenario.models.cluster import ServiceModel
from testbed.scenario.models.experiment import SpecModel
from testbed.scenario.stores import homes

CELLS = "cells"
"""The name of the PartitionMap."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One Deployment of a service: the zones that it is restricted to (none: all are free to it), its labels, and the
    node that its pod does not leave, if there is one."""

    deployment: str
    zones: tuple[str, ...]
    replicas: int
    labels: Labels = ()
    node: str | None = None


def placements(name: str, service: ServiceModel, spec: SpecModel) -> Iterator[Placement]:
    """In the order of cells or cities. Also of cells that are wrong in something else."""
    cells = spec.cells
    if service.workload.store is not None:
        for replica, zone in homes(name, service, spec):
            inside = cell_of(zone, cells) if cells is not None and service.class_ == "sharded" else None
            labels: Labels = () if inside is None else ((CELL, inside),)
            yield Placement(replica.name, (zone,), 1, labels, node=replica.node)
    elif cells is not None and service.class_ == "sharded":
        for cell_name, cell in cells.cells.items():
            for subset, of_group, _ in groups_of(_cell(cell_name, cell)):
                whole = Placement(f"{name}-{subset}", tuple(cell.zones), service.replicas, of_group)
                yield from [whole] if service.shuffle_shards is None else _workers(whole)
    elif cells is not None and service.class_ == "perCity":
        for city in cities_of(spec):
            yield Placement(f"{name}-{city.name}", city.zones, service.replicas, ((CITY, city.name),))
    else:
        yield Placement(name, tuple(service.zones), service.replicas)


def cell_of(zone: str, cells: CellsModel) -> str | None:
    """The first cell that is in that zone."""
    return next((name for name, cell in cells.cells.items() if zone in cell.zones), None)


def _workers(whole: Placement) -> Iterator[Placement]:
    """Each a Deployment of its own: whoever takes the place of a pod that is lost is the same worker."""
    for number in range(whole.replicas):
        labels = (*whole.labels, (WORKER, str(number)))
        yield Placement(f"{whole.deployment}-w{number}", whole.zones, 1, labels)


def partition_map(spec: SpecModel) -> PartitionMap | None:
    """The first version of the map of a scenario that is checked."""
    cells = spec.cells
    if cells is None:
        return None
    return PartitionMap(
        name=CELLS,
        version=1,
        key=key_of(cells.key),
        rule=_rule(cells.partition),
        cells=tuple(_cell(name, cell) for name, cell in cells.cells.items()),
        owners=_owners(cells),
        cities=cities_of(spec),
        cookie=cells.cookie,
        entry=cells.entry,
        answer_ttl_s=int((cells.router or RouterModel()).ttl),
        first_hit="owner" if cells.entry == "directed" else cells.first_hit or "nearest",
        misdirected=cells.misdirected,
        unkeyed=cells.unkeyed or REFUSE,
        shards=tuple(
            ShuffleShards(name, service.replicas, service.shuffle_shards, spec.seed)
            for name, service in spec.services.items()
            if service.shuffle_shards is not None
        ),
    )


def key_of(key: KeyModel) -> PartitionKey:
    """Expects exactly one of its kinds."""
    if key.header is not None:
        return PartitionKey("header", key.header)
    if key.cookie is not None:
        return PartitionKey("cookie", key.cookie)
    if key.query is not None:
        return PartitionKey("query", key.query)
    assert key.path is not None
    return PartitionKey("path", key.path)


def router_zones(spec: SpecModel) -> tuple[str, ...]:
    """Zones with a router; none where clients ask none."""
    if spec.cells is None or spec.cells.entry != "directed":
        return ()
    router = spec.cells.router or RouterModel()
    return tuple(router.zones or [zone for region in spec.topology.regions.values() for zone in region.zones])


def cities_of(spec: SpecModel) -> tuple[City, ...]:
    if spec.cells is not None and spec.cells.cities:
        return tuple(City(name, tuple(zones)) for name, zones in spec.cells.cities.items())
    return tuple(City(name, tuple(region.zones)) for name, region in spec.topology.regions.items())


def owned(cell: CellModel) -> Iterator[tuple[int, int, int]]:
    """What it is written to own, as `ranges` has it."""
    return ranges(cell.partitions or [])


def ranges(partitions: list[str]) -> Iterator[tuple[int, int, int]]:
    """Of `0-9` and `12`: index in the list, first partition and last one."""
    for index, written in enumerate(partitions):
        first, _, last = written.partition("-")
        yield index, int(first), int(last or first)


def sharing(cells: CellsModel) -> list[str]:
    """The cells that own equal shares because no cell says what it owns; none where one does."""
    if any(cell.partitions is not None for cell in cells.cells.values()):
        return []
    return [name for name, cell in cells.cells.items() if not cell.elastic]


def _owners(cells: CellsModel) -> tuple[str, ...]:
    if shares := sharing(cells):
        return evenly(shares, cells.partitions)
    owners = [""] * cells.partitions
    for name, cell in cells.cells.items():
        for _, first, last in owned(cell):
            owners[first : last + 1] = [name] * (last - first + 1)
    return tuple(owners)


def _rule(rule: PartitionRuleModel) -> PartitionRule:
    if rule.digits is not None:
        return PartitionRule("digits", digits=tuple(rule.digits))
    if rule.ranges is not None:
        return PartitionRule("ranges", bounds=tuple(rule.ranges))
    return PartitionRule("modulo" if rule.modulo is not None else "hash")


def _cell(name: str, cell: CellModel) -> Cell:
    groups = tuple(DeploymentGroup(group, weight) for group, weight in cell.groups.items())
    return Cell(name, tuple(cell.zones), groups, cell.backup, cell.elastic)
