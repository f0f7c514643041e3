"""What replicas of an asynchronous store are told while partitions change hands: who leads, and whose writes to take.

Nobody but the orders says who leads (`isr.units`). So a replica that goes by an old map takes writes beside the new
owner, unless it was told before to take none.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.control.cells.operations import Change
from testbed.control.cells.promotion import ShardedStore, moved_groups


@dataclass(frozen=True, slots=True)
class Lead:
    """That one leads the group, from this epoch on: the version of the map by which its cell owns it."""

    group: int
    leader: str
    epoch: int

    @property
    def body(self) -> object:
        return {"leader": self.leader, "epoch": self.epoch}


@dataclass(frozen=True, slots=True)
class Forbid:
    """Take no writes of these partitions of the group, and of no others; none lifts it."""

    group: int
    partitions: tuple[int, ...] = ()

    @property
    def body(self) -> object:
        return self.partitions


@dataclass(frozen=True, slots=True)
class AskLags:
    """How many writes of the group its followers lack, which who leads it knows."""

    group: int

    @property
    def body(self) -> object:
        return None


@dataclass(frozen=True, slots=True)
class StoreOrder:
    """For one replica."""

    service: str
    replica: str
    what: Lead | Forbid | AskLags


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """`lags` are those of the group, by follower; None from who does not lead it. Who does not answer has not `done`
    it, as far as is known."""

    done: bool
    lags: dict[str, int] | None = None


def leads(store: ShardedStore, change: Change, epoch: int) -> tuple[Lead, ...]:
    """Who leads what by the map of that version, of all groups whose partitions change hands. Raises GroupSplit."""
    return tuple(Lead(group, store.primaries(to)[0], epoch) for group, to in moved_groups(store.groups, change))
