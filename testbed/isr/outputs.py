"""What a replica of a partition wants done, besides the writes, messages and entries of `consensus.outputs`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from testbed.consensus.outputs import Apply, ReadReady, Restore, Send, Write
from testbed.isr.messages import AlterPartition, Message
from testbed.isr.metadata import Partition


class Acks(Enum):
    """When a write is acknowledged: at once, once the leader has it on disk, or once all in sync have."""

    NONE = "0"
    LEADER = "1"
    ALL = "all"


class Problem(Enum):
    """Kafka's own errors. Of the first two nothing was done; of the others nobody knows."""

    NOT_LEADER = "NOT_LEADER_OR_FOLLOWER"
    NOT_ENOUGH_REPLICAS = "NOT_ENOUGH_REPLICAS"
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = "NOT_ENOUGH_REPLICAS_AFTER_APPEND"
    LEADER_CHANGED = "NOT_LEADER_OR_FOLLOWER after the append"

    @property
    def nothing_done(self) -> bool:
        return self in (Problem.NOT_LEADER, Problem.NOT_ENOUGH_REPLICAS)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The write has that place in the leader's log."""

    request: object
    index: int
    epoch: int


@dataclass(frozen=True, slots=True)
class NotAcknowledged:
    request: object
    problem: Problem


@dataclass(frozen=True, slots=True)
class ToController:
    """Whoever that is at the moment; lost if nobody is."""

    message: AlterPartition


@dataclass(frozen=True, slots=True)
class PartitionChanged:
    """What the controller has decided, as this replica has learnt it."""

    partition: Partition


Output = (
    Write
    | Send[Message]
    | Apply
    | Restore
    | ReadReady
    | Acknowledged
    | NotAcknowledged
    | ToController
    | PartitionChanged
)


@dataclass(frozen=True, slots=True)
class Of:
    """What one log wants done: that of a partition, by number, or that of the controllers (None). A Write is to be
    answered by `persisted` with the same log."""

    log: int | None
    output: Output
