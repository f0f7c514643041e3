"""Drives one broker (`mode: isr`) or unit (`mode: async`): carries out what it wants, on its disks, with the others,
and for clients."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import assert_never

from testbed.consensus.outputs import Apply, ReadReady, Restore, Send, Write
from testbed.consensus.settings import Settings as ConsensusSettings
from testbed.consensus.storage import Stored
from testbed.control.cells.ownership import written
from testbed.isr.broker import Broker
from testbed.isr.metadata import Cluster, Partition
from testbed.isr.outputs import Acknowledged, Acks, NotAcknowledged, Of, PartitionChanged, Problem, ToController
from testbed.isr.settings import Settings
from testbed.isr.units import Order, Unit
from testbed.journal.appender import Appender
from testbed.journal.journal import Journal
from testbed.network.wire.peers import Peers
from testbed.objects.workloads import StoreIsr, StoreWorkload
from testbed.workloads.store.commands import DONE, REFUSED, UNKNOWN, Answer, Ask, Get, Put, Told, Values
from testbed.workloads.store.encoding import PeerMessage, decode, encode
from testbed.workloads.store.leaders import LeadersLog
from testbed.workloads.store.questions import Questions, Waiting, settle, to_be_told
from testbed.workloads.store.settings import StoreSettings
from testbed.workloads.store.standing_orders import StandingOrders

_TIMER_S = 0.001
"""The loop counts in whole milliseconds, and would wake up before the deadline."""


class IsrDriver:
    """All of it in the thread of its loop, but for writing to the disk. A partition of the broker is a group of the
    store."""

    def __init__(self, settings: StoreSettings, journals: Mapping[int | None, Journal]) -> None:
        """`journals` are those of the groups that this replica has, and of the controllers (None) in mode isr."""
        workload = settings.workload
        self.name = workload.replica
        self._settings = settings
        self._acks = Acks.LEADER if workload.isr is None else Acks(workload.isr.acks)
        timeout_s = workload.election_timeout_s
        self._peers = Peers(self.name, settings.peers, 2 * timeout_s, self._hear, settings.secret.encode())
        self._leaders = LeadersLog(settings.leaders_log)
        self._disks = {log: Appender(journal, partial(print, flush=True)) for log, journal in journals.items()}
        self._values = {group: Values() for group in journals if group is not None}
        self._orders = StandingOrders(settings.volume / "orders.json", _declared_leads(workload))
        self._broker = self._new_broker({number: journal.stored for number, journal in journals.items()})
        self._questions = Questions(self.name, 3 * timeout_s, "no answer of all in sync in time")
        self._timer: asyncio.TimerHandle | None = None
        self._led: dict[int, Partition] = {}
        """What it leads, as it was last noted."""
        self._group_of = [number for number, group in enumerate(workload.groups) for _ in range(group.start, group.end)]

    def _new_broker(self, logs: Mapping[int | None, Stored]) -> Broker | Unit:
        workload = self._settings.workload
        of_groups = {group: stored for group, stored in logs.items() if group is not None}
        if workload.isr is None:
            members = tuple(each.name for each in workload.replicas)
            return Unit(self.name, members, of_groups, self._orders.leads)
        return Broker(
            self.name,
            os.urandom(8).hex(),
            logs[None],
            of_groups,
            first_cluster(workload),
            _broker_settings(workload.isr),
            ConsensusSettings(workload.election_timeout_s, workload.heartbeat_s),
            Random(f"{self._settings.seed}/{self.name}"),
            time.monotonic(),
            {each.name: each.zone for each in workload.replicas} if _reads_go_by_zones(workload.isr) else None,
        )

    @property
    def ready(self) -> bool:
        """Whether it was known since the process started who leads."""
        return self._broker.ready

    async def run(self) -> None:
        """Until it is cancelled. Raises OSError when an address is taken; ends the process when the disk fails."""
        await self._peers.open(self._settings.listen)
        self._look_ahead()
        try:
            async with asyncio.TaskGroup() as writing:
                for number, disk in self._disks.items():
                    writing.create_task(self._keep_writing(number, disk))
        finally:
            self._peers.close()

    async def do(self, partition: int, what: Put | Get) -> Answer:
        """By this replica if that is up to it, else by the one that it is up to: who leads the partition's group."""
        group = self._group_of[partition]
        return await self._questions.answer(
            self._broker.leader_of(group) if isinstance(what, Put) else self._broker.reader_of(group),
            what,
            lambda waiting: self._begin(group, what, waiting),
            lambda leader, question: self._peers.send(leader, encode(group, question)),
        )

    def forbid_writes(self, group: int, partitions: frozenset[int]) -> None:
        """Of these partitions of the group, and no others, whenever this replica leads, also after a restart: whoever
        may come to lead has to be told as well. What was taken before may still be on its way to followers: see `lags`.
        Raises ValueError for partitions of other groups, or groups that are not there."""
        if not 0 <= group < len(self._settings.workload.groups):
            raise ValueError(group)
        declared = self._settings.workload.groups[group]
        if not partitions <= set(range(declared.start, declared.end)):
            raise ValueError(partitions)
        if (before := self._orders.forbidden.get(group, frozenset())) == partitions:
            return
        self._orders.forbid(group, partitions)
        replica = self._broker.replicas.get(group)
        if replica is None or not replica.leads:
            return
        if partitions - before:
            self._leaders.note("forbids writes", group, replica.partition.epoch, written(partitions - before))
        if before - partitions:
            self._leaders.note("allows writes", group, replica.partition.epoch, written(before - partitions))

    def lead(self, group: int, leader: str, epoch: int) -> None:
        """In mode async: from now on, also after a restart, that replica leads the group in that epoch, as far as this
        one is concerned, unless it knows of a newer one. Raises ValueError for a replica, or a group, that is not
        there, and in other modes."""
        known = {each.name for each in self._settings.workload.replicas}
        there = 0 <= group < len(self._settings.workload.groups)
        if not isinstance(self._broker, Unit) or leader not in known or not there:
            raise ValueError(leader)
        outputs = self._broker.order(group, Order(leader, epoch), time.monotonic())
        self._orders.lead(group, self._broker.orders[group])
        self._carry_out(outputs)

    def lags(self, group: int) -> dict[str, int] | None:
        """How many writes each follower of the group is not known to have; None if this replica does not lead it."""
        replica = self._broker.replicas.get(group)
        return replica.lags if replica else None

    # --- requests ----------------------------------------------------------------------------------------------

    def _begin(self, group: int, what: Put | Get, waiting: Waiting) -> None:
        now_s = time.monotonic()
        if isinstance(what, Put) and self._settings.partition_of(what.key) in self._orders.forbidden.get(group, ()):
            settle(waiting, Answer(REFUSED, "writes of this partition are forbidden at the moment"))
        elif isinstance(what, Put):
            self._carry_out(self._broker.produce(waiting, group, what, self._acks, now_s))
        else:
            self._carry_out(self._broker.read((what, waiting), group, now_s))

    def _hear(self, sender: str, data: bytes) -> None:
        group, message = decode(data)
        match message:
            case Ask(number, what):
                self._begin(group, what, to_be_told(number, lambda told: self._tell(sender, group, told)))
            case Told():
                self._questions.told(message)
            case _:
                self._carry_out(self._broker.receive(message, time.monotonic()))

    def _tell(self, to: str, group: int, message: PeerMessage) -> None:
        self._peers.send(to, encode(group, message))

    # --- what the broker wants done -------------------------------------------------------------------------------

    def _carry_out(self, outputs: tuple[Of, ...]) -> None:
        for of in outputs:
            match of.output:
                case Write():
                    self._disks[of.log].add(of.output)
                case Send(to, message):
                    self._tell(to, of.log or 0, message)
                case _:
                    assert of.log is not None
                    self._carry_out_of_group(of.log, of)
        self._look_ahead()

    def _carry_out_of_group(self, group: int, of: Of) -> None:
        match of.output:
            case Apply(entries):
                for entry in entries:
                    if isinstance(entry.command, Put):
                        self._values[group].apply(entry.command)
            case Restore():
                self._say(group, "what it has is not what its leader has: an unclean election took it back")
                self._values[group].restore(None)
            case Acknowledged(waiting, _, epoch):
                assert isinstance(waiting, asyncio.Future)
                settle(waiting, Answer(DONE, owner=f"{self.name}@{epoch}"))
            case ReadReady(request):
                assert isinstance(request, tuple)
                what, waiting = request
                found = self._values[group].get(what.key)
                leads = self._broker.replicas[group].leads
                settle(waiting, found if leads else replace(found, owner=self.name))
            case NotAcknowledged(request, problem):
                waiting = request[1] if isinstance(request, tuple) else request
                assert isinstance(waiting, asyncio.Future)
                why = self._not_here(group) if problem is Problem.NOT_LEADER else problem.value
                settle(waiting, Answer(REFUSED if problem.nothing_done else UNKNOWN, why))
            case PartitionChanged(partition):
                self._note(group, partition)
            case Write() | Send() | ToController():
                raise AssertionError(of)
            case _ as never:
                assert_never(never)

    def _not_here(self, group: int) -> str:
        """Names who leads, as far as this replica knows, and itself."""
        leader, partitions = self._broker.leader_of(group), self._settings.partitions_of(group)
        return f"partitions {partitions} are led by {self._where(leader)}; this is {self._where(self.name)}"

    def _where(self, replica: str | None) -> str:
        cell = next((each.cell for each in self._settings.workload.replicas if each.name == replica), "")
        return f"{replica} in cell {cell}" if cell else replica or "nobody"

    def _note(self, group: int, partition: Partition) -> None:
        in_sync = ", ".join(partition.isr)
        leader = partition.leader or "nobody"
        self._say(group, f"{leader} leads in epoch {partition.epoch}; waited for are: {in_sync}")
        before, leads = self._led.pop(group, None), self._broker.replicas[group].leads
        partitions = self._settings.partitions_of(group)
        again = before is not None and leads and before.epoch == partition.epoch
        if before and not again:
            self._leaders.note("leads no more", group, before.epoch, partitions)
        if leads:
            self._led[group] = partition
            if not again:
                self._leaders.note("leads", group, partition.epoch, partitions)
            if isinstance(self._broker, Broker) and (before is None or before.isr != partition.isr):
                self._leaders.note("in sync", group, partition.epoch, partitions, isr=partition.isr)

    # --- the disks ---------------------------------------------------------------------------------------------------

    async def _keep_writing(self, number: int | None, disk: Appender) -> None:
        async for writes in disk.durable():
            self._carry_out(self._broker.persisted(number, writes[-1].number, time.monotonic()))

    # --- time ------------------------------------------------------------------------------------------------------

    def _look_ahead(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self._broker.next_deadline()
        if deadline_s < math.inf:
            wait_s = max(0.0, deadline_s - time.monotonic()) + _TIMER_S
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._carry_out(self._broker.tick(time.monotonic()))

    def _say(self, group: int, text: str) -> None:
        print(time.strftime("%H:%M:%S"), f"group {group}: {text}", flush=True)


def _declared_leads(workload: StoreWorkload) -> dict[int, Order]:
    """In mode async, by group."""
    if workload.isr is not None:
        return {}
    return {number: Order(group.primaries[0], 1) for number, group in enumerate(workload.groups)}


def first_cluster(workload: StoreWorkload) -> Cluster:
    """What all replicas begin with: a partition for each group."""
    return Cluster.first([group.replicas for group in workload.groups])


def _reads_go_by_zones(isr: StoreIsr) -> bool:
    return isr.replica_selector == "rackAware"


def _broker_settings(isr: StoreIsr) -> Settings:
    return Settings(
        min_insync_replicas=isr.min_insync_replicas,
        unclean_leader_election=isr.unclean_leader_election,
        replica_lag_time_max_s=isr.replica_lag_time_max_s,
        fetch_wait_max_s=min(0.5, isr.replica_lag_time_max_s / 4),
        fetch_backoff_s=min(1.0, isr.broker_session_timeout_s / 9),
        broker_heartbeat_s=isr.broker_session_timeout_s / 4.5,
        broker_session_timeout_s=isr.broker_session_timeout_s,
        leader_imbalance_check_s=isr.leader_imbalance_check_s,
        follower_reads=_reads_go_by_zones(isr),
    )
