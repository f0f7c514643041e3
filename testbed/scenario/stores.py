"""Where the replicas of stores are at home, and what each of them runs."""

from __future__ import annotations

from itertools import pairwise

from testbed.objects.cells import PartitionRule
from testbed.objects.workloads import StoreGroup, StoreReplica, StoreWorkload
from testbed.scenario.models.cluster import ServiceModel, StoreModel
from testbed.scenario.models.experiment import SpecModel


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
    replica: str, name: str, service: ServiceModel, spec: SpecModel, store: StoreModel, rule: PartitionRule
) -> StoreWorkload:
    """Of a scenario that is checked and completed."""
    all_homes = homes(name, service, spec)
    assert store.heartbeat is not None
    return StoreWorkload(
        replica=replica,
        replicas=tuple(each for each, _ in all_homes),
        groups=_groups(store, [each.name for each, zone in all_homes if store.primary_zone in (None, zone)]),
        rule=rule,
        acks=store.acks,
        election_timeout_s=store.election_timeout,
        heartbeat_s=store.heartbeat,
        snapshot_entries=store.snapshot_every,
    )


def _groups(store: StoreModel, primaries: list[str]) -> tuple[StoreGroup, ...]:
    """Of shares that differ by one partition at most. `primaries` take turns to be the first; where nothing is to be
    spread and no zone is preferred, nobody is."""
    assert store.partitions is not None
    if store.groups == 1 and store.primary_zone is None:
        return (StoreGroup(0, store.partitions),)
    bounds = [number * store.partitions // store.groups for number in range(store.groups + 1)]
    return tuple(
        StoreGroup(start, end, tuple(primaries[number % len(primaries) :] + primaries[: number % len(primaries)]))
        for number, (start, end) in enumerate(pairwise(bounds))
    )


def _first_number(name: str, spec: SpecModel) -> int:
    number = 0
    for other, service in spec.services.items():
        if other == name:
            break
        number += service.replicas if service.workload.store is not None else 0
    return number
