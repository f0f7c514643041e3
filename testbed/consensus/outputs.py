"""What a replica wants done, in the order in which it is returned."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from testbed.consensus.log import Entry, Snapshot
from testbed.consensus.messages import Message


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Write:
    """Make this durable (fsync), then say `persisted(number)`. Writes are made in their order, and each whole or not at
    all; to say `persisted` of the last of several is to say it of all of them.

    `entries` replace all from the first one's index on. `snapshot` replaces what it stands for, and all entries if it
    does not stand at one of them. `storage.Stored.after` says what is on the disk then.
    """

    number: int
    term: int
    vote: str | None
    entries: tuple[Entry, ...]
    snapshot: Snapshot | None


M = TypeVar("M", covariant=True)


@dataclass(frozen=True, slots=True)
class Send(Generic[M]):
    """May leave at once: whatever it depends on is durable."""

    to: str
    message: M


@dataclass(frozen=True, slots=True)
class Apply:
    """These are committed, and durable here. Their indexes follow those of the last Apply or Restore."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Restore:
    """The state machine is to be what the snapshot says, whatever it was."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class RoleChanged:
    role: Role
    term: int
    leader: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request's entry has that place in the leader's log. It is done when an entry of that index and term is
    applied, and never will be if one of another term is. Until then nobody knows."""

    request: object
    index: int
    term: int


@dataclass(frozen=True, slots=True)
class ReadReady:
    """The state machine, as it is after all that was returned before this, is current for that read."""

    request: object


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was done, and nothing will be. `leader` is who may know better."""

    request: object
    reason: str
    leader: str | None


Output = Write | Send[Message] | Apply | Restore | RoleChanged | Accepted | ReadReady | Refused
