"""Brokers in a simulated world: one seed is one schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.consensus.membership import Membership
from testbed.consensus.outputs import Apply, ReadReady, Restore, Send, Write
from testbed.consensus.settings import Settings as ConsensusSettings
from testbed.consensus.storage import Stored
from testbed.isr.broker import Broker
from testbed.isr.messages import Message
from testbed.isr.metadata import Cluster
from testbed.isr.outputs import Acknowledged, Acks, NotAcknowledged, Of, PartitionChanged
from testbed.isr.settings import Settings
from tests.isr.invariants import Invariants
from tests.simulated.world import CoarseRandom, Disk, T, World
from tests.simulated.world import Host as SimulatedHost

TIMING = ConsensusSettings(T, 0.3 * T)


@dataclass
class Host(SimulatedHost[Broker]):
    leads_epoch: int = 0

    @property
    def broker(self) -> Broker | None:
        return self.running

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


class Simulation(World[Host]):
    def __init__(self, seed: int, setting: Setting) -> None:
        super().__init__(seed)
        self.setting = setting
        self.on_changed: Callable[[Host], None] = lambda host: None
        self.on_acknowledged: Callable[[Host], None] = lambda host: None
        self.invariants = Invariants(setting.unclean, setting.acks, setting.min_insync_replicas)
        self.settings = Settings(
            min_insync_replicas=setting.min_insync_replicas,
            unclean_leader_election=setting.unclean,
            replica_lag_time_max_s=self.random.choice((0.6, 1.5)) * T,
            fetch_wait_max_s=0.3 * T,
            fetch_backoff_s=0.2 * T,
            broker_heartbeat_s=0.3 * T,
            broker_session_timeout_s=self.random.choice((1.0, 2.0)) * T,
            leader_imbalance_check_s=2 * T if seed % 4 == 2 else 300 * T,
            entries_per_fetch=self.random.choice((1, 2, 100)),
            follower_reads=True,
        )
        self._requests = 0
        self._reads: dict[object, int] = {}
        names = tuple(f"b{number}" for number in range(self.random.choice(setting.brokers)))
        self.replicas = names[: self.random.choice((2, 3, 3))]
        self.first = Cluster.first([self.replicas])
        for name in names:
            disks: dict[int | None, Disk] = {None: Disk(Stored.nothing(Membership(names)))}
            if name in self.replicas:
                disks[0] = Disk(Stored.nothing())
            self.hosts[name] = Host(name, disks)
            self.start(self.hosts[name])

    # --- hosts ------------------------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        assert host.running is None
        logs = {log: disk.content() for log, disk in host.disks.items() if log is not None}
        controllers = host.disks[None].content()
        random, now_s = CoarseRandom(self.random.random()), self.clock(host)
        arguments = (controllers, logs, self.first, self.settings, TIMING, random, now_s)
        host.running = Broker(host.name, host.incarnation, *arguments)
        host.leads_epoch, host.timer_s, host.disk_free_s = 0, None, self.now_s
        self.set_timer(host)

    def leader(self) -> Host | None:
        """Of the newest epoch among those that believe to lead."""
        leading = [
            (host.broker.replicas[0].partition.epoch, host.name)
            for host in self.hosts.values()
            if host.broker and 0 in host.broker.replicas and host.broker.replicas[0].leads
        ]
        return self.hosts[max(leading)[1]] if leading else None

    # --- what happens to a host -------------------------------------------------------------------------------

    def receive(self, host: Host, message: Message) -> None:
        assert host.broker
        self.do(host, host.broker.receive(message, self.clock(host)))

    def persisted(self, host: Host, log: int | None, number: int) -> None:
        assert host.broker
        self.do(host, host.broker.persisted(log, number, self.clock(host)))

    def tick(self, host: Host) -> None:
        assert host.broker
        self.do(host, host.broker.tick(self.clock(host)))

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
                    self.send(host.name, to, message)
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
                    if broker.replicas[0].leads:  # what a follower reads may be old
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

    def _write(self, host: Host, log: int | None, write: Write) -> None:
        if log is not None:
            for entry in write.entries:
                self.invariants.check_entry(entry)
        self.write(host, log, write)

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

    def shown_by(self, host: Host) -> int:
        """The last entry of what it shows to who reads; -1 if it refuses."""
        if not host.broker:
            return -1
        replica = host.broker.replicas[0]
        answered = replica.leads or any(
            isinstance(of.output, ReadReady) for of in host.broker.read(None, 0, self.clock(host))
        )
        return replica.applied_index if answered else -1
