"""Brokers in a simulated world: one seed is one schedule of messages, disks, clocks, faults and clients.

Nothing here is realistic but what can go wrong: messages are lost, doubled, late and overtaken; a crash loses of each
log what was not synced, wholly or from some write on; clocks run at different speeds, and processes stand still.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from testbed.consensus.membership import Membership
from testbed.consensus.outputs import Apply, ReadReady, Restore, Send, Write
from testbed.consensus.settings import Settings as ConsensusSettings
from testbed.consensus.storage import Stored
from testbed.isr.broker import Broker
from testbed.isr.messages import Message
from testbed.isr.metadata import Cluster
from testbed.isr.outputs import Acknowledged, Acks, NotAcknowledged, Of, PartitionChanged
from testbed.isr.settings import Settings
from tests.consensus.simulation import Chances, CoarseRandom, Disk
from tests.isr.invariants import Invariants

T = 1.0
TIMING = ConsensusSettings(T, 0.3 * T)


@dataclass
class Host:
    name: str
    disks: dict[int | None, Disk]
    clock_rate: float = 1.0
    clock_offset_s: float = 0.0
    broker: Broker | None = None
    life: int = 0
    leads_epoch: int = 0
    timer_s: float | None = None
    disk_free_s: float = 0.0
    paused_until_s: float = 0.0

    @property
    def incarnation(self) -> str:
        return f"{self.name}.{self.life}"


@dataclass(frozen=True)
class Setting:
    """How the schedule is set up: the rules that decide whether anything may be lost."""

    acks: Acks = Acks.ALL
    min_insync_replicas: int = 2
    unclean: bool = False
    brokers: tuple[int, ...] = (3, 3, 4, 5)


@dataclass
class Simulation:
    seed: int
    setting: Setting = Setting()
    now_s: float = 0.0
    chances: Chances = field(default_factory=Chances)
    cut: set[tuple[str, str]] = field(default_factory=set)
    """Directed: from, to."""
    hosts: dict[str, Host] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    """What the brokers wanted done, by kind: nothing is proved about what never happens."""
    on_changed: Callable[[Host], None] = lambda host: None
    on_acknowledged: Callable[[Host], None] = lambda host: None

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.invariants = Invariants(self.setting.unclean, self.setting.acks, self.setting.min_insync_replicas)
        self.settings = Settings(
            min_insync_replicas=self.setting.min_insync_replicas,
            unclean_leader_election=self.setting.unclean,
            replica_lag_time_max_s=self.random.choice((0.6, 1.5)) * T,
            fetch_wait_max_s=0.3 * T,
            fetch_backoff_s=0.2 * T,
            broker_heartbeat_s=0.3 * T,
            broker_session_timeout_s=self.random.choice((1.0, 2.0)) * T,
            leader_imbalance_check_s=2 * T if self.seed % 4 == 2 else 300 * T,
            entries_per_fetch=self.random.choice((1, 2, 100)),
        )
        self._queue: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = 0
        self._requests = 0
        self._reads: dict[object, int] = {}
        names = tuple(f"b{number}" for number in range(self.random.choice(self.setting.brokers)))
        self.replicas = names[: self.random.choice((2, 3, 3))]
        self.first = Cluster.first([self.replicas])
        for name in names:
            disks: dict[int | None, Disk] = {None: Disk(Stored.nothing(Membership(names)))}
            if name in self.replicas:
                disks[0] = Disk(Stored.nothing())
            self.hosts[name] = Host(name, disks)
            self.start(self.hosts[name])

    # --- time -------------------------------------------------------------------------------------------------

    def at(self, time_s: float, action: Callable[..., None], *arguments: object) -> None:
        self._number += 1
        heapq.heappush(self._queue, (time_s, self._number, action, arguments))

    def run_until(self, end_s: float, stop: Callable[[], bool] | None = None) -> bool:
        """True if `stop` says so after some step."""
        while self._queue and self._queue[0][0] <= end_s:
            self.now_s, _, action, arguments = heapq.heappop(self._queue)
            action(*arguments)
            if stop and stop():
                return True
        self.now_s = end_s
        return False

    def clock(self, host: Host) -> float:
        return self.now_s * host.clock_rate + host.clock_offset_s

    # --- hosts ------------------------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        assert host.broker is None
        host.life += 1
        logs = {log: disk.content() for log, disk in host.disks.items() if log is not None}
        controllers = host.disks[None].content()
        random, now_s = CoarseRandom(self.random.random()), self.clock(host)
        arguments = (controllers, logs, self.first, self.settings, TIMING, random, now_s)
        host.broker = Broker(host.name, host.incarnation, *arguments)
        host.leads_epoch, host.timer_s, host.disk_free_s = 0, None, self.now_s
        self.set_timer(host)

    def crash(self, host: Host) -> None:
        """With any number of writes on each disk that were under way."""
        host.broker = None
        for disk in host.disks.values():
            if disk.unsynced:
                disk.sync(disk.unsynced[0].number - 1 + self.random.randint(0, len(disk.unsynced)))
                disk.unsynced.clear()

    def leader(self) -> Host | None:
        """Of the newest epoch among those that believe to lead."""
        leading = [
            (host.broker.replicas[0].partition.epoch, host.name)
            for host in self.hosts.values()
            if host.broker and 0 in host.broker.replicas and host.broker.replicas[0].leads
        ]
        return self.hosts[max(leading)[1]] if leading else None

    # --- what happens to a host -------------------------------------------------------------------------------

    def _deliver(self, sender: str, name: str, message: Message) -> None:
        host = self.hosts[name]
        if not host.broker or (sender, name) in self.cut:
            return
        if host.paused_until_s > self.now_s:
            self.at(host.paused_until_s, self._deliver, sender, name, message)
        else:
            self.do(host, host.broker.receive(message, self.clock(host)))

    def _sync(self, host: Host, life: int, log: int | None, number: int) -> None:
        if host.life != life or not host.broker:
            return
        host.disks[log].sync(number)
        if host.paused_until_s > self.now_s:
            self.at(host.paused_until_s, self._sync, host, life, log, number)
        else:
            self.do(host, host.broker.persisted(log, number, self.clock(host)))

    def _tick(self, host: Host, life: int, time_s: float) -> None:
        if host.life != life or not host.broker or host.timer_s != time_s:
            return
        host.timer_s = None
        if host.paused_until_s > self.now_s:
            self.set_timer(host)
        else:
            self.do(host, host.broker.tick(self.clock(host)))

    def set_timer(self, host: Host) -> None:
        """To be called as well when its clock has been changed."""
        if host.broker:
            deadline_s = (host.broker.next_deadline() - host.clock_offset_s) / host.clock_rate + 1e-9
            time_s = max(deadline_s, self.now_s, host.paused_until_s)
            if time_s != host.timer_s:
                host.timer_s = time_s
                self.at(time_s, self._tick, host, host.life, time_s)

    # --- what brokers want done -------------------------------------------------------------------------------

    def do(self, host: Host, outputs: tuple[Of, ...]) -> None:
        broker = host.broker
        assert broker
        for of in outputs:
            if host.broker is not broker:
                return  # it has crashed over the last one
            self.seen[type(of.output).__name__] += 1
            match of.output:
                case Send(to, message):
                    self._send(host.name, to, message)
                case Write():
                    self._write(host, of.log, of.output)
                case Apply(entries):
                    self.invariants.check_applied(host.name, entries)
                case Restore():
                    self.invariants.check_restored(host.name)
                case Acknowledged(request, index, epoch):
                    disks = [self.hosts[name].disks[0].content() for name in self.replicas]
                    self.invariants.acknowledge(index, epoch, request, disks)
                    self.on_acknowledged(host)
                case NotAcknowledged(_, problem):
                    self.seen[problem.name] += 1
                case ReadReady(request):
                    self.invariants.check_read(broker.replicas[0], self._reads.pop(request))
                case PartitionChanged(partition):
                    self.seen[f"ISR of {len(partition.isr)}"] += 1
        if host.broker is broker:
            self._check_leader(host, broker)
            self.set_timer(host)

    def _check_leader(self, host: Host, broker: Broker) -> None:
        replica = broker.replicas.get(0)
        if replica and replica.leads and replica.partition.epoch != host.leads_epoch:
            host.leads_epoch = replica.partition.epoch
            self.invariants.check_leader(replica, host.incarnation)
            self.on_changed(host)

    def _send(self, sender: str, to: str, message: Message) -> None:
        random, chances = self.random.random, self.chances
        if (sender, to) in self.cut or random() < chances.lost:
            return
        for _ in range(2 if random() < chances.doubled else 1):
            delay_s = chances.delay_s * (0.1 + 0.9 * random())
            if random() < chances.late:
                delay_s += 2 * T * random()
            self.at(self.now_s + delay_s, self._deliver, sender, to, message)

    def _write(self, host: Host, log: int | None, write: Write) -> None:
        if log is not None:
            for entry in write.entries:
                self.invariants.check_entry(entry)
        host.disks[log].unsynced.append(write)
        delay_s = self.chances.sync_s * self.random.random()
        host.disk_free_s = max(host.disk_free_s, self.now_s) + delay_s
        self.at(host.disk_free_s, self._sync, host, host.life, log, write.number)

    # --- clients ----------------------------------------------------------------------------------------------

    def produce(self, host: Host) -> int:
        """What is written: no other is like it."""
        assert host.broker
        self._requests += 1
        request = self._requests
        self.do(host, host.broker.produce(request, 0, request, self.setting.acks, self.clock(host)))
        return request

    def read(self, host: Host) -> None:
        assert host.broker
        self._requests += 1
        self._reads[self._requests] = self.invariants.last_acknowledged()
        self.do(host, host.broker.read(self._requests, 0, self.clock(host)))
