"""What brokers tell each other besides the messages of consensus. Any of them can be lost, doubled, late, or overtaken
by another."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.consensus import messages as consensus
from testbed.consensus.log import Entry


@dataclass(frozen=True, slots=True)
class Fetch:
    """A follower has durable what the leader had up to `last_index`, if the leader's entry there is of `last_epoch`,
    and wants what follows (KIP-101, KIP-595). `epoch` is that in which it follows, `number` its own, for the reply;
    `high_watermark` is what it knows, so that news of it are told at once (KIP-392)."""

    sender: str
    partition: int
    epoch: int
    number: int
    last_index: int
    last_epoch: int
    high_watermark: int


@dataclass(frozen=True, slots=True)
class FetchReply:
    """`entries` follow those that the follower has. If these are not the leader's, there are none, and `diverging` is
    the index and epoch of the leader's last entry whose epoch is not above theirs (KIP-279). `leads` is False from
    whoever does not lead in that epoch (Kafka's FENCED_LEADER_EPOCH and UNKNOWN_LEADER_EPOCH)."""

    sender: str
    partition: int
    epoch: int
    number: int
    leads: bool
    entries: tuple[Entry, ...] = ()
    high_watermark: int = 0
    diverging: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class BrokerHeartbeat:
    """To the controller: it is alive. The first one of an incarnation registers it (KIP-631)."""

    sender: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class AlterPartition:
    """From a partition's leader to the controller: this ISR, in the place of that of `version` (KIP-497). There is no
    reply: whatever is decided is in the controllers' log."""

    sender: str
    partition: int
    epoch: int
    version: int
    isr: tuple[str, ...]


Message = Fetch | FetchReply | BrokerHeartbeat | AlterPartition | consensus.Message
