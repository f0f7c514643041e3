"""What the controller decides: who is alive, who leads each partition, and who is in sync. All of it is one value, and
each change makes the next one of it, which all brokers learn from the controllers' log in the same order.

The rules are those of Kafka's ReplicationControlManager and PartitionChangeBuilder, without eligible leader replicas
(KIP-966).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from testbed.isr.messages import AlterPartition


@dataclass(frozen=True, slots=True)
class Partition:
    """`replicas` are in order of preference. `epoch` is the leader's: it goes up with each election. `version` (Kafka's
    partition epoch) goes up with each change, so that of two requests for the same version one counts (KIP-497)."""

    replicas: tuple[str, ...]
    isr: tuple[str, ...]
    leader: str | None = None
    epoch: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """`alive` are the brokers that are not fenced, each with its incarnation: one life of its process (KIP-631)."""

    partitions: tuple[Partition, ...]
    alive: tuple[tuple[str, str], ...] = ()
    version: int = 0

    @property
    def brokers_alive(self) -> list[str]:
        return [name for name, _ in self.alive]

    @staticmethod
    def first(replicas: Iterable[tuple[str, ...]]) -> Cluster:
        """With partitions that are empty, so that all are in sync. Nobody is alive yet."""
        return Cluster(tuple(Partition(each, each) for each in replicas))


def registered(cluster: Cluster, broker: str, incarnation: str, unclean: bool) -> Cluster:
    """It is alive, and leads what has no leader, if it may."""
    alive = tuple(sorted([*cluster.alive, (broker, incarnation)]))
    names = [name for name, _ in alive]
    return _changed(replace(cluster, alive=alive), lambda partition: _with_leader(partition, names, unclean))


def fenced(cluster: Cluster, broker: str, unclean: bool) -> Cluster:
    """Out of every ISR, but for one of which it is the last: who was in sync last has all that was acknowledged, and is
    waited for. Another one of the ISR leads what it led; if there is none, nobody does, or whoever is alive if the
    election may be unclean."""
    alive = tuple(each for each in cluster.alive if each[0] != broker)
    names = [name for name, _ in alive]

    def without(partition: Partition) -> Partition:
        others = tuple(name for name in partition.isr if name != broker)
        leader = None if partition.leader == broker else partition.leader
        return _with_leader(replace(partition, isr=others or partition.isr, leader=leader), names, unclean)

    return _changed(replace(cluster, alive=alive), without)


def altered(cluster: Cluster, request: AlterPartition) -> Cluster:
    """The ISR that its leader asks for; nothing, if another one leads, it has changed meanwhile, or somebody would join
    who is fenced (KIP-841)."""
    partition = cluster.partitions[request.partition]
    current = (partition.leader, partition.epoch, partition.version)
    joining = set(request.isr) - set(partition.isr)
    if current != (request.sender, request.epoch, request.version) or not joining <= set(cluster.brokers_alive):
        return cluster
    new = replace(partition, isr=request.isr, version=partition.version + 1)
    before, after = cluster.partitions[: request.partition], cluster.partitions[request.partition + 1 :]
    return replace(cluster, partitions=(*before, new, *after))


def rebalanced(cluster: Cluster) -> Cluster:
    """Led by the first of its replicas is every partition of which that is in sync (a preferred leader election)."""

    def change(partition: Partition) -> Partition:
        first = partition.replicas[0]
        if partition.leader in (None, first) or first not in partition.isr or first not in cluster.brokers_alive:
            return partition
        return replace(partition, leader=first)

    return _changed(cluster, change)


def read_replica(partition: Partition, asked: str, racks: Mapping[str, str]) -> str | None:
    """Who is to answer reads that come to broker `asked`: of those in sync in its rack the leader, else itself, else
    any of them; if there is none, the leader (Kafka's RackAwareReplicaSelector, which prefers who has most, and
    ReplicaManager.findPreferredReadReplica)."""
    near = [name for name in partition.isr if racks[name] == racks[asked]]
    if partition.leader is None or partition.leader in near or not near:
        return partition.leader
    return asked if asked in near else near[0]


def _with_leader(partition: Partition, alive: list[str], unclean: bool) -> Partition:
    """If it needs one. Replicas are asked in their order."""
    if partition.leader is not None:
        return partition
    clean = [name for name in partition.replicas if name in partition.isr and name in alive]
    if clean:
        isr = tuple(name for name in partition.isr if name in alive)
        return replace(partition, leader=clean[0], epoch=partition.epoch + 1, isr=isr)
    others = [name for name in partition.replicas if name in alive]
    if unclean and others:
        return replace(partition, leader=others[0], epoch=partition.epoch + 1, isr=(others[0],))
    return partition


def _changed(cluster: Cluster, change: Callable[[Partition], Partition]) -> Cluster:
    partitions = []
    for partition in cluster.partitions:
        new = change(partition)
        if new.leader != partition.leader and new.epoch == partition.epoch:
            new = replace(new, epoch=new.epoch + 1)  # whoever led must not answer any more
        partitions.append(partition if new == partition else replace(new, version=partition.version + 1))
    return replace(cluster, partitions=tuple(partitions))
