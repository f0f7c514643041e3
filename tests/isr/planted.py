"""Errors to be planted into the replication: a check that finds none of them proves nothing. Several are what Kafka did
before the KIP that is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from testbed.consensus.outbox import Outbox
from testbed.isr import controller
from testbed.isr.broker import Broker
from testbed.isr.leadership import Leadership
from testbed.isr.messages import AlterPartition, Fetch, FetchReply
from testbed.isr.metadata import Cluster, Partition, fenced
from testbed.isr.replica import Replica
from tests.consensus.planted import Planted

high_watermark = Leadership.high_watermark
fetched = Leadership.fetched
reply_to = Leadership._reply_to
let_go = Outbox.let_go
read = Replica.read
settle = Replica._settle
take = Replica.take
receive = Replica.receive
take_reply = Replica._take_reply
follow_cluster = Broker._follow_cluster
altered = controller.altered


def count_itself_at_once(self: Leadership, durable_index: int) -> int:
    return high_watermark(self, self._log.last_index)


def fetch_before_durable(self: Outbox[Any, Any]) -> None:
    self._outputs += [send for send in self._sends if isinstance(send.message, Fetch)]
    self._sends = [send for send in self._sends if not isinstance(send.message, Fetch)]
    let_go(self)


def count_decided_only(self: Leadership, durable_index: int) -> int:
    names = self.partition.isr
    return min(durable_index if name == self._name else self._followers[name].index for name in names)


def count_wanted_only(self: Leadership, durable_index: int) -> int:
    names = self._asked_for or self.partition.isr
    return min(durable_index if name == self._name else self._followers[name].index for name in names)


def joins_when_it_fetches(self: Leadership, high_watermark: int, alive: list[str], now_s: float) -> tuple[str, ...]:
    def belongs(name: str) -> bool:
        if name == self._name:
            return True
        follower = self._followers[name]
        return not self._lags(follower, now_s) if name in self.partition.isr else follower.index >= 0

    return tuple(name for name in self.partition.replicas if belongs(name))


def count_diverging(self: Leadership, fetch: Fetch, now_s: float) -> None:
    fetched(self, fetch, now_s)
    if follower := self._followers.get(fetch.sender):
        follower.index = max(follower.index, fetch.last_index)


def diverging_by_index(self: Leadership, fetch: Fetch) -> tuple[int, int] | None:
    index = min(fetch.last_index, self._log.last_index)
    return None if index == fetch.last_index else (index, self._log.term_at(index) or 0)


def truncate_to_high_watermark(
    self: Replica, partition: Partition, alive: list[str], may_lead: bool, now_s: float
) -> Any:
    if partition.epoch != self.partition.epoch and partition.leader != self.name:
        self.log.truncate(self.high_watermark)
    return take(self, partition, alive, may_lead, now_s)


def truncate_to_leaders_end(self: Replica, index: int, epoch: int) -> None:
    self.log.truncate(index if index < self.log.last_index else index - 1)
    self.high_watermark = min(self.high_watermark, self.log.last_index)


def take_any_reply(self: Replica, message: Fetch | FetchReply, now_s: float) -> Any:
    if isinstance(message, FetchReply):
        message = replace(message, number=self._fetches)
        if message.entries and message.entries[0].index > self.log.last_index + 1:
            return ()
    return receive(self, message, now_s)


def show_all_that_was_fetched(self: Replica, reply: FetchReply) -> None:
    take_reply(self, reply)
    if reply.leads and not reply.diverging:
        self.high_watermark = self.log.last_index


def keep_high_watermark(self: Replica, reply: FetchReply) -> None:
    take_reply(self, reply if reply.entries or not reply.leads else replace(reply, high_watermark=0))


def lead_as_any_incarnation(self: Broker) -> None:
    own = tuple((name, self._incarnation if name == self.name else life) for name, life in self.cluster.alive)
    decided, self.cluster = self.cluster, replace(self.cluster, alive=own)
    follow_cluster(self)
    self.cluster = decided


def follow_before_registered(self: Broker) -> None:
    self._takes_part = True
    follow_cluster(self)


def alter_any_version(cluster: Cluster, request: AlterPartition) -> Cluster:
    return altered(cluster, replace(request, version=cluster.partitions[request.partition].version))


def alter_of_any_leader(cluster: Cluster, request: AlterPartition) -> Cluster:
    partition = cluster.partitions[request.partition]
    if partition.leader is None:
        return cluster
    return altered(cluster, replace(request, sender=partition.leader, epoch=partition.epoch, version=partition.version))


def always_unclean(cluster: Cluster, broker: str, unclean: bool) -> Cluster:
    return fenced(cluster, broker, unclean=True)


def acknowledge_in_any_case(self: Replica, leadership: Leadership, durable: int) -> None:
    self._settings, settings = replace(self._settings, min_insync_replicas=1), self._settings
    settle(self, leadership, durable)
    self._settings = settings


def read_at_once(self: Replica, request: object, now_s: float) -> Any:
    if self._leadership:
        self._leadership.first_index = 0
    return read(self, request, now_s)


PLANTED: dict[str, Planted] = {
    "a leader counts itself before its entries are durable": Planted(
        Leadership, "high_watermark", count_itself_at_once
    ),
    "a follower fetches on before its entries are durable": Planted(Outbox, "let_go", fetch_before_durable),
    "who may be in sync already does not count (before KIP-497)": Planted(
        Leadership, "high_watermark", count_decided_only, begin=500
    ),
    "who is to leave the ISR does not count any more": Planted(Leadership, "high_watermark", count_wanted_only),
    "a follower is in sync as soon as it fetches": Planted(Leadership, "_wanted_isr", joins_when_it_fetches),
    "a follower counts whose log diverges": Planted(Leadership, "fetched", count_diverging),
    "logs are compared by their ends only (before KIP-101)": Planted(Leadership, "_diverging", diverging_by_index),
    "followers cut off what is above their high watermark (before KIP-101)": Planted(
        Replica, "take", truncate_to_high_watermark
    ),
    "a follower takes answers to earlier fetches": Planted(Replica, "receive", take_any_reply),
    "a follower shows what not all in sync have": Planted(Replica, "_take_reply", show_all_that_was_fetched),
    "a follower learns what all have with new entries only (before KIP-392)": Planted(
        Replica, "_take_reply", keep_high_watermark
    ),
    "a restarted leader goes on in its epoch": Planted(Broker, "_follow_cluster", lead_as_any_incarnation),
    "a restarted follower acts upon what is past": Planted(
        Broker, "_follow_cluster", follow_before_registered, begin=6800
    ),
    "the controller takes any leader's request": Planted(controller, "altered", alter_of_any_leader, begin=350),
    "the controller takes requests of any version": Planted(controller, "altered", alter_any_version, begin=350),
    "elections are unclean": Planted(controller, "fenced", always_unclean),
    "acks=all is acknowledged whoever is in sync": Planted(Replica, "_settle", acknowledge_in_any_case),
    "reads before the leader knows what was acknowledged (before KIP-207)": Planted(
        Replica, "read", read_at_once, begin=60
    ),
}
