"""One broker: its replicas of the partitions, and its part in the group that decides who leads them."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from testbed.consensus.outputs import Accepted, Apply, Refused, Restore, Role, RoleChanged, Send
from testbed.consensus.replica import Outputs as ConsensusOutputs
from testbed.consensus.replica import Replica as ConsensusReplica
from testbed.consensus.settings import Settings as ConsensusSettings
from testbed.consensus.storage import Stored
from testbed.isr.controller import Controller
from testbed.isr.messages import AlterPartition, BrokerHeartbeat, Fetch, FetchReply, Message
from testbed.isr.metadata import Cluster, read_replica
from testbed.isr.outputs import Acks, NotAcknowledged, Of, Problem, ToController
from testbed.isr.replica import Outputs as ReplicaOutputs
from testbed.isr.replica import Replica
from testbed.isr.settings import Settings


class Broker:
    """Driven as a `consensus.replica.Replica` is. Each output says of which log it is.

    `incarnation` is one that this broker never had before. `controllers` and `logs` are what the disk holds, of the
    controllers' log and of each partition that it has a replica of; `first` is the cluster before anything was decided,
    the same for all. `racks` are those of all brokers, where reads go by them.
    """

    def __init__(
        self,
        name: str,
        incarnation: str,
        controllers: Stored,
        logs: Mapping[int, Stored],
        first: Cluster,
        settings: Settings,
        timing: ConsensusSettings,
        random: Random,
        now_s: float,
        racks: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.cluster = first
        self.controllers = ConsensusReplica(name, controllers, timing, random, now_s)
        self.replicas = {
            number: Replica(name, number, logs[number], partition, settings)
            for number, partition in enumerate(first.partitions)
            if name in partition.replicas
        }
        self._incarnation = incarnation
        self._settings = settings
        self._racks = racks
        self._now_s = now_s
        self._controller: Controller | None = None
        self._proposed_index = 0
        self._takes_part = False
        self._heartbeat_at_s = now_s
        self._outputs: list[Of] = []

    @property
    def ready(self) -> bool:
        """Whether the controllers have decided anything since the process started."""
        return self.cluster.version > 0

    def leader_of(self, partition: int) -> str | None:
        return self.cluster.partitions[partition].leader

    def reader_of(self, partition: int) -> str | None:
        """Who is to answer reads that come to this broker; it may refuse if it knows otherwise."""
        if not self._racks:
            return self.leader_of(partition)
        return read_replica(self.cluster.partitions[partition], self.name, self._racks)

    # --- inputs -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, now_s: float) -> tuple[Of, ...]:
        self._now_s = now_s
        match message:
            case Fetch() | FetchReply():
                if replica := self.replicas.get(message.partition):
                    self._take_of_replica(message.partition, replica.receive(message, now_s))
            case BrokerHeartbeat():
                if self._controller:
                    self._controller.hear(message, self.cluster, now_s)
            case AlterPartition():
                if self._controller:
                    self._controller.ask(message)
            case _:
                self._take_of_controllers(self.controllers.receive(message, now_s))
        return self._finish()

    def tick(self, now_s: float) -> tuple[Of, ...]:
        self._now_s = now_s
        if now_s >= self.controllers.next_deadline():
            self._take_of_controllers(self.controllers.tick(now_s))
        for number, replica in self.replicas.items():
            if now_s >= replica.next_deadline():
                self._take_of_replica(number, replica.tick(now_s))
        if now_s >= self._heartbeat_at_s:
            self._heartbeat_at_s = now_s + self._settings.broker_heartbeat_s
            self._tell_controller(BrokerHeartbeat(self.name, self._incarnation))
        return self._finish()

    def next_deadline(self) -> float:
        controller = float("inf")
        if self._controller and not self._is_deciding():
            controller = self._controller.next_deadline(self.cluster)
        replicas = [replica.next_deadline() for replica in self.replicas.values()]
        return min([self.controllers.next_deadline(), self._heartbeat_at_s, controller, *replicas])

    def persisted(self, log: int | None, number: int, now_s: float) -> tuple[Of, ...]:
        """That write of that log is durable, and so are all before it."""
        self._now_s = now_s
        if log is None:
            self._take_of_controllers(self.controllers.persisted(number, now_s))
        else:
            self._take_of_replica(log, self.replicas[log].persisted(number, now_s))
        return self._finish()

    def produce(self, request: object, partition: int, command: object, acks: Acks, now_s: float) -> tuple[Of, ...]:
        """Acknowledged or NotAcknowledged."""
        self._now_s = now_s
        if replica := self.replicas.get(partition):
            self._take_of_replica(partition, replica.produce(request, command, acks, now_s))
        else:
            self._outputs.append(Of(partition, NotAcknowledged(request, Problem.NOT_LEADER)))
        return self._finish()

    def read(self, request: object, partition: int, now_s: float) -> tuple[Of, ...]:
        """ReadReady or NotAcknowledged."""
        self._now_s = now_s
        if replica := self.replicas.get(partition):
            self._take_of_replica(partition, replica.read(request, now_s))
        else:
            self._outputs.append(Of(partition, NotAcknowledged(request, Problem.NOT_LEADER)))
        return self._finish()

    # --- what its parts want done -----------------------------------------------------------------------------

    def _take_of_replica(self, number: int, outputs: ReplicaOutputs) -> None:
        for output in outputs:
            if isinstance(output, ToController):
                self._tell_controller(output.message)
            else:
                self._outputs.append(Of(number, output))

    def _take_of_controllers(self, outputs: ConsensusOutputs) -> None:
        before = self.cluster
        for output in outputs:
            match output:
                case Apply(entries):
                    for entry in entries:
                        if isinstance(entry.command, Cluster) and entry.command.version == self.cluster.version + 1:
                            self.cluster = entry.command
                case Accepted(_, index, _):
                    self._proposed_index = index
                case RoleChanged():
                    self._heartbeat_at_s = self._now_s  # there may be another controller
                case Restore() | Refused():
                    pass
                case _:
                    self._outputs.append(Of(None, output))
        if self.cluster != before:
            self._follow_cluster()

    def _follow_cluster(self) -> None:
        """Not before this incarnation is registered: until then, what the controllers' log tells may be older than what
        an earlier one has acted upon, and a leader that was replaced would be followed again."""
        cluster = self.cluster
        may_lead = (self.name, self._incarnation) in cluster.alive
        self._takes_part |= may_lead
        if not self._takes_part:
            return
        for number, replica in self.replicas.items():
            partition = cluster.partitions[number]
            outputs = replica.take(partition, cluster.brokers_alive, may_lead, self._now_s)
            self._take_of_replica(number, outputs)

    def _tell_controller(self, message: BrokerHeartbeat | AlterPartition) -> None:
        leader = self.controllers.leader
        if self._controller and isinstance(message, AlterPartition):
            self._controller.ask(message)
        elif self._controller and isinstance(message, BrokerHeartbeat):
            self._controller.hear(message, self.cluster, self._now_s)
        elif leader is not None and leader != self.name:
            self._outputs.append(Of(None, Send(leader, message)))

    # --- the controller ---------------------------------------------------------------------------------------

    def _finish(self) -> tuple[Of, ...]:
        self._take_office_or_leave()
        while self._controller and not self._is_deciding():
            new = self._controller.next_cluster(self.cluster, self._now_s)
            if new is None:
                break
            self._take_of_controllers(self.controllers.propose(None, new, self._now_s))
        outputs, self._outputs = tuple(self._outputs), []
        return outputs

    def _is_deciding(self) -> bool:
        """One decision after the other, as each is of what the one before has made."""
        return self._proposed_index > self.controllers.applied_index

    def _take_office_or_leave(self) -> None:
        """It knows what the controllers before it have decided once an entry of its own term is applied."""
        controllers = self.controllers
        if controllers.role is not Role.LEADER:
            self._controller = None
        elif not self._controller and controllers.log.term_at(controllers.applied_index) == controllers.term:
            self._controller = Controller(self.cluster, self._settings, self._now_s)
            self._proposed_index = 0
            self._controller.hear(BrokerHeartbeat(self.name, self._incarnation), self.cluster, self._now_s)
