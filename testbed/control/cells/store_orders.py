"""What replicas of an asynchronous store are told while partitions change hands: who leads, and whose writes to take.

Nobody but the orders says who leads (`isr.units`). So a replica that goes by an old map takes writes beside the new
owner, unless it was told before to take none.
"""

from __future__ import annotations

from collections.abc import Mapping
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
class StoreOrder:
    """For one replica."""

    service: str
    replica: str
    what: Lead | Forbid


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """`lags` are those of the group, by follower; None from who does not lead it. Who does not answer has not `done`
    it, as far as is known."""

    done: bool
    lags: dict[str, int] | None = None


def forbids(store: ShardedStore, change: Change) -> tuple[Forbid, ...]:
    """Writes of all that changes hands, and of nothing else. Raises GroupSplit."""
    partitions = change.partitions
    return tuple(
        Forbid(number, tuple(each for each in range(group.start, group.end) if each in partitions))
        for number, group in ((number, store.groups[number]) for number, _ in moved_groups(store.groups, change))
    )


def lacks(lead: Lead, answers: Mapping[str, StoreAnswer]) -> int | None:
    """How many writes of its group the one who is to lead lacks, by what each replica answered, by name; None while
    nobody can say. What another one has that leads by an older map counts; if there is none, it lacks nothing."""
    others = [answer for name, answer in answers.items() if name != lead.leader]
    leading = [answer.lags for answer in others if answer.lags is not None]
    if not leading:
        return 0 if all(answer.done for answer in others) else None
    return max(lags[lead.leader] for lags in leading)


def leads(store: ShardedStore, change: Change, epoch: int) -> tuple[Lead, ...]:
    """Who leads what by the map of that version, of all groups whose partitions change hands. Raises GroupSplit."""
    return tuple(Lead(group, store.primaries(to)[0], epoch) for group, to in moved_groups(store.groups, change))
