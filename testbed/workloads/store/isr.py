"""Drives one broker: carries out what it wants, on its disks, with the others, and for clients (`mode: isr`)."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Mapping
from itertools import count
from random import Random
from typing import assert_never

from testbed.consensus.outputs import Apply, ReadReady, Restore, Send, Write
from testbed.consensus.settings import Settings as ConsensusSettings
from testbed.control.cells.ownership import written
from testbed.control.cells.partitions import partition_of
from testbed.isr.broker import Broker
from testbed.isr.metadata import Cluster, Partition
from testbed.isr.outputs import Acknowledged, Acks, NotAcknowledged, Of, PartitionChanged, ToController
from testbed.isr.settings import Settings
from testbed.objects.workloads import StoreIsr, StoreWorkload
from testbed.workloads.store.commands import DONE, REFUSED, UNKNOWN, Answer, Ask, Get, Put, Told, Values
from testbed.workloads.store.encoding import PeerMessage, decode, encode
from testbed.workloads.store.group import DISK_FAILED
from testbed.workloads.store.journal import Journal
from testbed.workloads.store.leaders import LeadersLog
from testbed.workloads.store.peers import Peers
from testbed.workloads.store.settings import StoreSettings

_TIMER_S = 0.001
"""The loop counts in whole milliseconds, and would wake up before the deadline."""

Waiting = asyncio.Future[Answer]


class IsrDriver:
    """All of it in the thread of its loop, but for writing to the disk. A partition of the broker is a group of the
    store. Writes that come while the disk is busy are made durable together."""

    def __init__(self, settings: StoreSettings, isr: StoreIsr, journals: Mapping[int | None, Journal]) -> None:
        """`journals` are those of the groups that this replica has, and of the controllers (None)."""
        workload = settings.workload
        self.name = workload.replica
        self._settings = settings
        self._acks = Acks(isr.acks)
        self._timeout_s = workload.election_timeout_s
        self._peers = Peers(self.name, settings.peers, 2 * self._timeout_s, self._hear)
        self._leaders = LeadersLog(settings.leaders_log)
        self._logs = {log: _Log(journal) for log, journal in journals.items()}
        self._values = {group: Values() for group in journals if group is not None}
        self._broker = Broker(
            self.name,
            os.urandom(8).hex(),
            journals[None].stored,
            {group: journal.stored for group, journal in journals.items() if group is not None},
            first_cluster(workload),
            _broker_settings(isr),
            ConsensusSettings(workload.election_timeout_s, workload.heartbeat_s),
            Random(f"{settings.seed}/{self.name}"),
            time.monotonic(),
        )
        self._asked: dict[int, Waiting] = {}
        self._numbers = count()
        self._forbidden: dict[int, frozenset[int]] = {}
        """Partitions of which no writes are taken, by group."""
        self._timer: asyncio.TimerHandle | None = None
        self._led: dict[int, Partition] = {}
        """What it leads, as it was last noted."""
        self._group_of = [number for number, group in enumerate(workload.groups) for _ in range(group.start, group.end)]

    @property
    def ready(self) -> bool:
        """Whether the controllers have decided anything since the process started."""
        return self._broker.cluster.version > 0

    async def run(self) -> None:
        """Until it is cancelled. Raises OSError when an address is taken; ends the process when the disk fails."""
        await self._peers.open(self._settings.listen)
        self._look_ahead()
        try:
            async with asyncio.TaskGroup() as writing:
                for number, log in self._logs.items():
                    writing.create_task(self._keep_writing(number, log))
        finally:
            self._peers.close()

    def partition_of(self, key: str) -> int | None:
        """None where the rule makes none of it."""
        workload = self._settings.workload
        return partition_of(workload.rule, workload.partitions, key)

    async def do(self, partition: int, what: Put | Get) -> Answer:
        """By this replica if it leads the partition's group, else by the one that does."""
        waiting: Waiting = asyncio.get_running_loop().create_future()
        group, number = self._group_of[partition], next(self._numbers)
        leader = self._broker.cluster.partitions[group].leader
        if leader == self.name:
            self._begin(group, what, waiting)
        elif leader is None:
            return Answer(REFUSED, "there is no leader")
        elif self._peers.send(leader, encode(group, Ask(number, what))):
            self._asked[number] = waiting
        else:
            return Answer(REFUSED, f"the leader {leader} is out of reach")
        try:
            async with asyncio.timeout(3 * self._timeout_s):
                return await waiting
        except TimeoutError:
            return Answer(UNKNOWN, "no answer of all in sync in time")
        finally:
            self._asked.pop(number, None)

    def forbid_writes(self, group: int, partitions: frozenset[int]) -> None:
        """Of these partitions of the group, and no others, for as long as this process runs and leads: whoever may come
        to lead has to be told as well. What was taken before may still be on its way to followers: see `lags`. Raises
        ValueError for partitions of other groups, or groups that are not there."""
        if not 0 <= group < len(self._settings.workload.groups):
            raise ValueError(group)
        declared = self._settings.workload.groups[group]
        if not partitions <= set(range(declared.start, declared.end)):
            raise ValueError(partitions)
        self._forbidden[group] = partitions

    def lags(self, group: int) -> dict[str, int] | None:
        """How many writes each follower of the group is not known to have; None if this replica does not lead it."""
        replica = self._broker.replicas.get(group)
        return replica.lags if replica else None

    # --- requests ----------------------------------------------------------------------------------------------

    def _begin(self, group: int, what: Put | Get, waiting: Waiting) -> None:
        now_s = time.monotonic()
        if isinstance(what, Put) and self.partition_of(what.key) in self._forbidden.get(group, ()):
            _settle(waiting, Answer(REFUSED, "writes of this partition are forbidden at the moment"))
        elif isinstance(what, Put):
            self._carry_out(self._broker.produce(waiting, group, what, self._acks, now_s))
        else:
            self._carry_out(self._broker.read((what, waiting), group, now_s))

    def _hear(self, sender: str, data: bytes) -> None:
        group, message = decode(data)
        match message:
            case Ask(number, what):
                waiting: Waiting = asyncio.get_running_loop().create_future()
                waiting.add_done_callback(lambda done: self._tell(sender, group, Told(number, done.result())))
                self._begin(group, what, waiting)
            case Told(number, answer):
                if number in self._asked:
                    _settle(self._asked[number], answer)
            case _:
                self._carry_out(self._broker.receive(message, time.monotonic()))

    def _tell(self, to: str, group: int, message: PeerMessage) -> None:
        self._peers.send(to, encode(group, message))

    # --- what the broker wants done -------------------------------------------------------------------------------

    def _carry_out(self, outputs: tuple[Of, ...]) -> None:
        for of in outputs:
            match of.output:
                case Write():
                    self._logs[of.log].add(of.output)
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
                _settle(waiting, Answer(DONE, owner=f"{self.name}@{epoch}"))
            case ReadReady(request):
                assert isinstance(request, tuple)
                what, waiting = request
                _settle(waiting, self._values[group].get(what.key))
            case NotAcknowledged(request, problem):
                waiting = request[1] if isinstance(request, tuple) else request
                assert isinstance(waiting, asyncio.Future)
                _settle(waiting, Answer(REFUSED if problem.nothing_done else UNKNOWN, problem.value))
            case PartitionChanged(partition):
                self._note(group, partition)
            case Write() | Send() | ToController():
                raise AssertionError(of)
            case _ as never:
                assert_never(never)

    def _note(self, group: int, partition: Partition) -> None:
        in_sync = ", ".join(partition.isr)
        leader = partition.leader or "nobody"
        self._say(group, f"{leader} leads in epoch {partition.epoch}; in sync: {in_sync}")
        before, leads = self._led.pop(group, None), self._broker.replicas[group].leads
        declared = self._settings.workload.groups[group]
        partitions = written(range(declared.start, declared.end))
        again = before is not None and leads and before.epoch == partition.epoch
        if before and not again:
            self._leaders.note("leads no more", group, before.epoch, partitions)
        if leads:
            self._led[group] = partition
            if not again:
                self._leaders.note("leads", group, partition.epoch, partitions)
            if before is None or before.isr != partition.isr:
                self._leaders.note("in sync", group, partition.epoch, partitions, isr=partition.isr)

    # --- the disks ---------------------------------------------------------------------------------------------------

    async def _keep_writing(self, number: int | None, log: _Log) -> None:
        loop = asyncio.get_running_loop()
        while True:
            writes = await log.next_writes()
            try:
                await loop.run_in_executor(None, log.journal.append, writes)
            except OSError as error:
                # What is on the disk is whole. Who restarts it tries again.
                print(f"cannot write to {log.journal.path}: {error.strerror}; the replica ends", flush=True)
                os._exit(DISK_FAILED)
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


class _Log:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._writes: list[Write] = []
        self._to_write = asyncio.Event()

    def add(self, write: Write) -> None:
        self._writes.append(write)
        self._to_write.set()

    async def next_writes(self) -> list[Write]:
        await self._to_write.wait()
        self._to_write.clear()
        writes, self._writes = self._writes, []
        return writes


def first_cluster(workload: StoreWorkload) -> Cluster:
    """What all replicas begin with: a partition for each group."""
    return Cluster.first([group.replicas for group in workload.groups])


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
    )


def _settle(waiting: Waiting, answer: Answer) -> None:
    """Whoever waited may have gone."""
    if not waiting.done():
        waiting.set_result(answer)
