"""Where the replicas of stores are at home, and what each of them runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, pairwise
from typing import Literal

from testbed.objects.cells import PartitionMap
from testbed.objects.workloads import BY_HASH, StoreGroup, StoreIsr, StoreReplica, StoreWorkload
from testbed.scenario.models.cluster import ServiceModel
from testbed.scenario.models.experiment import SpecModel
from testbed.scenario.models.stores import IsrModel, StoreModel


def homes(name: str, service: ServiceModel, spec: SpecModel) -> list[tuple[StoreReplica, str]]:
    """Of each replica: what it is, and its zone. Zones take turns in the order in which the service names them (else in
    that of the topology), and so do the nodes of a zone. A zone that is not there has a node that is not there."""
    zones = {name: zone for region in spec.topology.regions.values() for name, zone in region.zones.items()}
    names = service.zones or list(zones)
    found = []
    for index in range(service.replicas):
        turn, place = divmod(index, len(names))
        zone_name = names[place]
        nodes = zones[zone_name].nodes if zone_name in zones else []
        at = turn % max(1, len(nodes))
        node = (nodes[at].name if nodes else None) or f"{zone_name}-{at + 1}"
        found.append((StoreReplica(f"{name}-r{index + 1}", node, _first_number(name, spec) + index), zone_name))
    return found


def store_workload(
    replica: str, name: str, service: ServiceModel, spec: SpecModel, store: StoreModel, cell_map: PartitionMap | None
) -> StoreWorkload:
    """Of a scenario that is checked and completed."""
    all_homes = homes(name, service, spec)
    sharded_by = cell_map if service.class_ == "sharded" else None
    preferred = [each.name for each, zone in all_homes if store.primary_zone in (None, zone)]
    groups = _groups(store, preferred)
    if sharded_by is not None and store.primary_zone is None:
        groups = _led_by_owners(groups, sharded_by, [(each.name, zone) for each, zone in all_homes])
    assert store.heartbeat is not None
    if store.isr is not None:
        # Whose zone is preferred comes first, and neighbours are in different zones.
        names = [each.name for each, zone in sorted(all_homes, key=lambda home: home[1] != store.primary_zone)]
        groups = _on_some(groups, names, store.isr)
    return StoreWorkload(
        replica=replica,
        replicas=tuple(replace(each, cell=_cell_of(zone, sharded_by), zone=zone) for each, zone in all_homes),
        groups=groups,
        rule=BY_HASH if cell_map is None else cell_map.rule,
        acks=store.acks,
        election_timeout_s=store.election_timeout,
        heartbeat_s=store.heartbeat,
        snapshot_entries=store.snapshot_every,
        mode=store.mode,
        isr=None if store.isr is None else _isr(store.isr),
    )


def _groups(store: StoreModel, primaries: list[str]) -> tuple[StoreGroup, ...]:
    """Of shares that differ by one partition at most. `primaries` take turns to be the first; where nothing is to be
    spread and no zone is preferred, nobody is."""
    assert store.partitions is not None
    if store.groups == 1 and store.primary_zone is None:
        return (StoreGroup(0, store.partitions),)
    return tuple(
        replace(group, primaries=tuple(primaries[number % len(primaries) :] + primaries[: number % len(primaries)]))
        for number, group in enumerate(groups_of(store.partitions, store.groups))
    )


def groups_of(partitions: int, groups: int) -> tuple[StoreGroup, ...]:
    """Without primaries."""
    bounds = [number * partitions // groups for number in range(groups + 1)]
    return tuple(StoreGroup(start, end) for start, end in pairwise(bounds))


def _led_by_owners(
    groups: tuple[StoreGroup, ...], cell_map: PartitionMap, replicas: list[tuple[str, str]]
) -> tuple[StoreGroup, ...]:
    """Each by a replica in the zones of the cell that owns its first partition, while one can; then by the others."""
    found = []
    for group in groups:
        zones = cell_map.cell(cell_map.owners[group.start]).zones
        in_order = sorted(replicas, key=lambda replica: replica[1] not in zones)
        found.append(replace(group, primaries=tuple(name for name, _ in in_order)))
    return tuple(found)


def _cell_of(zone: str, cell_map: PartitionMap | None) -> str:
    cells = () if cell_map is None else cell_map.cells
    return next((cell.name for cell in cells if zone in cell.zones), "")


def _on_some(groups: tuple[StoreGroup, ...], names: list[str], isr: IsrModel) -> tuple[StoreGroup, ...]:
    """All take turns to be the first that has a group."""
    factor = isr.replication_factor
    return tuple(
        replace(group, primaries=(), replicas=tuple((names[at:] + names[:at])[:factor]))
        for group, at in zip(groups, cycle(range(len(names))), strict=False)
    )


def _isr(isr: IsrModel) -> StoreIsr:
    acks: dict[object, Literal["all", "1", "0"]] = {"all": "all", 1: "1", 0: "0"}
    return StoreIsr(
        acks=acks[isr.acks],
        min_insync_replicas=isr.min_insync_replicas,
        unclean_leader_election=isr.unclean_leader_election,
        replica_lag_time_max_s=isr.replica_lag_time_max,
        broker_session_timeout_s=isr.broker_session_timeout,
        leader_imbalance_check_s=isr.leader_imbalance_check,
        replica_selector=isr.replica_selector,
    )


def _first_number(name: str, spec: SpecModel) -> int:
    number = 0
    for other, service in spec.services.items():
        if other == name:
            break
        number += service.replicas if service.workload.store is not None else 0
    return number
