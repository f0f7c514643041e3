"""The changes that faults make, and which of them came together, so that what they cost cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.results.tables.facts import AppliedFault

TOGETHER_S = 1.0
"""Changes with less than this between them came together: nobody could tell in so short a time whether clients were
well again."""


@dataclass(frozen=True, slots=True)
class Change:
    """A fault that came, or its heal."""

    fault: AppliedFault
    heal: bool
    at_s: float

    @property
    def name(self) -> str:
        return f"heal of {self.fault.name}" if self.heal else self.fault.name


@dataclass(frozen=True, slots=True)
class Moment:
    """Changes that came together, in order of time, and the time until the next moment; `end_s` is infinite for none.

    A change belongs to the moment of the one before it if less than `TOGETHER_S` lies between them, be they starts or
    heals. Only its own fault's moment a heal does not share: a fault lasts as long as it lasts.
    """

    changes: tuple[Change, ...]
    end_s: float

    @property
    def start_s(self) -> float:
        return self.changes[0].at_s

    @property
    def faults_from_s(self) -> float | None:
        """When the first fault of the moment came; None if all are heals."""
        return next((change.at_s for change in self.changes if not change.heal), None)

    def besides(self, change: Change) -> tuple[str, ...]:
        """The names of what came together with this change."""
        return tuple(other.name for other in self.changes if other is not change)


def moments(faults: Sequence[AppliedFault]) -> tuple[Moment, ...]:
    """All moments of a run, in order of time."""
    changes = [Change(fault, False, fault.applied_s) for fault in faults]
    changes += [Change(fault, True, fault.healed_s) for fault in faults if fault.healed_s is not None]
    groups: list[list[Change]] = []
    for change in sorted(changes, key=lambda change: change.at_s):
        if groups and change.at_s - groups[-1][-1].at_s < TOGETHER_S and not _heals(change, groups[-1]):
            groups[-1].append(change)
        else:
            groups.append([change])
    starts_s = [*(group[0].at_s for group in groups), float("inf")]
    return tuple(Moment(tuple(group), end_s) for group, end_s in zip(groups, starts_s[1:], strict=True))


def _heals(change: Change, group: Sequence[Change]) -> bool:
    return change.heal and any(other.fault is change.fault for other in group)
