"""Replicas that are told who leads, by whoever operates them: asynchronous replication between units, without anybody
who elects.

As with MySQL's replicas: whoever leads acknowledges what it has on disk, all others fetch from it, and nothing but the
orders says who that is. They may reach one replica sooner than another, so two can lead at a time, each by its order;
what is to prevent that is the protocol in which orders are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from testbed.consensus.storage import Stored
from testbed.isr.messages import Fetch, FetchReply, Message
from testbed.isr.metadata import Partition
from testbed.isr.outputs import Acks, Of
from testbed.isr.replica import Outputs, Replica
from testbed.isr.settings import Settings

SETTINGS = Settings(durable_only=True, fetch_backoff_s=0.1)


@dataclass(frozen=True, slots=True)
class Order:
    """That replica leads, from this epoch on."""

    leader: str
    epoch: int


class Unit:
    """One replica's share of all partitions. Driven as a `broker.Broker` is; everybody has a replica of each."""

    def __init__(
        self,
        name: str,
        members: tuple[str, ...],
        logs: Mapping[int, Stored],
        orders: Mapping[int, Order],
        settings: Settings = SETTINGS,
    ) -> None:
        """`orders` are the last that this replica was given, of each partition, if need be by an earlier process."""
        self.replicas = {
            number: Replica(name, number, stored, Partition(members, members), settings)
            for number, stored in logs.items()
        }
        self._orders = dict(orders)
        self._begun = False

    @property
    def ready(self) -> bool:
        """It knows who leads from the start."""
        return True

    def leader_of(self, partition: int) -> str:
        return self._orders[partition].leader

    def reader_of(self, partition: int) -> str:
        return self.leader_of(partition)

    @property
    def orders(self) -> Mapping[int, Order]:
        """What it goes by, of each partition: to be given to the next process."""
        return self._orders

    # --- inputs -----------------------------------------------------------------------------------------------

    def order(self, partition: int, order: Order, now_s: float) -> tuple[Of, ...]:
        """One that is no newer than what it knows changes nothing: orders may overtake each other."""
        if order.epoch <= self._orders[partition].epoch:
            return ()
        self._orders[partition] = order
        return self._follow(partition, now_s) if self._begun else ()

    def receive(self, message: Message, now_s: float) -> tuple[Of, ...]:
        assert isinstance(message, Fetch | FetchReply), message
        return _of(message.partition, self.replicas[message.partition].receive(message, now_s))

    def tick(self, now_s: float) -> tuple[Of, ...]:
        found: tuple[Of, ...] = ()
        if not self._begun:
            self._begun = True
            for number in self.replicas:
                found += self._follow(number, now_s)
        for number, replica in self.replicas.items():
            if now_s >= replica.next_deadline():
                found += _of(number, replica.tick(now_s))
        return found

    def next_deadline(self) -> float:
        if not self._begun:
            return -math.inf
        return min(replica.next_deadline() for replica in self.replicas.values())

    def persisted(self, log: int | None, number: int, now_s: float) -> tuple[Of, ...]:
        """That write of that log is durable, and so are all before it."""
        assert log is not None
        return _of(log, self.replicas[log].persisted(number, now_s))

    def produce(self, request: object, partition: int, command: object, acks: Acks, now_s: float) -> tuple[Of, ...]:
        """Acknowledged or NotAcknowledged."""
        return _of(partition, self.replicas[partition].produce(request, command, acks, now_s))

    def read(self, request: object, partition: int, now_s: float) -> tuple[Of, ...]:
        """ReadReady or NotAcknowledged."""
        return _of(partition, self.replicas[partition].read(request, now_s))

    def _follow(self, number: int, now_s: float) -> tuple[Of, ...]:
        """Nobody but the leader is in sync: it waits for no one."""
        replica, order = self.replicas[number], self._orders[number]
        members, alone = replica.partition.replicas, (order.leader,)
        told = Partition(members, alone, order.leader, order.epoch, order.epoch)
        return _of(number, replica.take(told, list(alone), True, now_s))


def _of(number: int, outputs: Outputs) -> tuple[Of, ...]:
    return tuple(Of(number, output) for output in outputs)
