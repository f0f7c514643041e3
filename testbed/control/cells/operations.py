"""Operations on the partition map under load: who owns what next, in which steps, and how it is taken back.

Pure: a plan is made of the first map alone, before anything runs. Carrying it out is `emulation.driver.operating`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Literal

from testbed.control.cells.ownership import Move, moved, partitions_of
from testbed.objects.cells import Cell, DeploymentGroup, PartitionMap

Order = Literal["together", "gatewaysFirst", "sidecarsFirst"]
"""Which layer is told a new map first; the other one follows when all of it that can be reached has acknowledged."""


CATCH_UP_WITHIN_S = 10.0
"""By default. Replication that goes on at all takes far less, and meanwhile nobody writes."""


class OperationImpossible(Exception):
    """An operation does not fit the map as it is then; the message says why."""

    def __init__(self, operation: str, why: str) -> None:
        super().__init__(why)
        self.operation = operation


@dataclass(frozen=True, slots=True)
class MovePartitions:
    """From whoever owns them to one cell."""

    partitions: tuple[int, ...]
    to: str


@dataclass(frozen=True, slots=True)
class FailOver:
    """All that a cell owns goes to its backup."""

    cell: str


@dataclass(frozen=True, slots=True)
class Evacuate:
    """All that the cells of a city own leaves it: to the backup of each cell, or in turn to the cells elsewhere where
    there is none or it is in the city, too. A cell is of a city when all its zones are."""

    city: str


@dataclass(frozen=True, slots=True)
class PopOut:
    """The last part of what a cell owns goes to an elastic cell; `share` is of 1."""

    cell: str
    to: str
    share: float


@dataclass(frozen=True, slots=True)
class SwitchGroup:
    """All calls of some cells go to one of their deployment groups."""

    cells: tuple[str, ...]
    group: str


Operation = MovePartitions | FailOver | Evacuate | PopOut | SwitchGroup


@dataclass(frozen=True, slots=True)
class RollBack:
    """When an operation is given up: if of the requests of the last `over_s` seconds a larger share than `above` (of 1)
    was not ok. It is watched from the first step on until `over_s` after the last one."""

    above: float
    over_s: float


@dataclass(frozen=True, slots=True)
class ScheduledOperation:
    """Times are seconds since the load began. Of what changes, step by step, the shares `steps` (of 1, rising to 1) are
    done, with `pause_s` between two. After `for_s` all of it is taken back at once; None: it stays."""

    name: str
    at_s: float
    operation: Operation
    steps: tuple[float, ...] = (1.0,)
    pause_s: float = 0.0
    for_s: float | None = None
    order: Order = "together"
    roll_back: RollBack | None = None
    promotes: str | None = None
    """A store whose replicas in the cells that get partitions are to lead these before the map changes."""
    forbids: str | None = None
    """An asynchronous store that takes no writes of what moves until its data and the map are where they are to be."""
    catch_up_within_s: float = CATCH_UP_WITHIN_S
    """For how long replication is waited for then, in each step; in vain, the operation is given up."""

    @property
    def last_step_s(self) -> float:
        return self.at_s + self.pause_s * (len(self.steps) - 1)


@dataclass(frozen=True, slots=True)
class Weights:
    """Deployment groups of a cell, before and after."""

    cell: str
    before: tuple[DeploymentGroup, ...]
    after: tuple[DeploymentGroup, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """Of a map, in one new version."""

    moves: tuple[Move, ...] = ()
    weights: tuple[Weights, ...] = ()

    @property
    def reverse(self) -> Change:
        return Change(
            tuple(move.reverse for move in reversed(self.moves)),
            tuple(Weights(each.cell, each.after, each.before) for each in reversed(self.weights)),
        )

    @property
    def partitions(self) -> frozenset[int]:
        return frozenset(partition for move in self.moves for partition in move.partitions)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One new version of the map. `number` counts the steps of an operation from 1 on `of`; one that takes it back has
    `reverts`. `lent` are all partitions that after it are with another cell because their own one was given up."""

    at_s: float
    operation: str
    number: int
    of: int
    change: Change
    order: Order
    reverts: bool = False
    lent: frozenset[int] = frozenset()
    gives_up: bool = False
    """It reverts what was done, which no plan knows: the condition to roll back has come, or replication did not catch
    up in time."""


class Judge:
    """Of the requests of the last seconds: which share was not ok. Pure: it is told once a second."""

    def __init__(self, roll_back: RollBack) -> None:
        self._roll_back = roll_back
        self._seconds: deque[tuple[float, float, int]] = deque()
        """Time, requests sent in the second before, and how many were not ok since the load began."""

    def gives_up(self, now_s: float, sent: float, not_ok: int) -> bool:
        """`sent` are those since it was told last, `not_ok` all since the load began. Never before it was told for
        `over_s`."""
        self._seconds.append((now_s, sent, not_ok))
        while len(self._seconds) > 1 and self._seconds[1][0] <= now_s - self._roll_back.over_s:
            self._seconds.popleft()
        first_s, _, before = self._seconds[0]
        if first_s > now_s - self._roll_back.over_s:
            return False
        asked = sum(sent for _, sent, _ in list(self._seconds)[1:])
        return not_ok - before > self._roll_back.above * asked


def taken_back(done: Sequence[Change]) -> Change:
    """What undoes the changes of one operation so far, in their order."""
    first, last = done[0].weights, done[-1].weights
    return Change(
        tuple(move for change in reversed(done) for move in change.reverse.moves),
        tuple(Weights(before.cell, after.after, before.before) for before, after in zip(first, last, strict=True)),
    )


def changed(cell_map: PartitionMap, change: Change) -> PartitionMap:
    """The next version of the map. Raises NotOwner, and KeyError for a cell, group or partition that is not there."""
    found = cell_map
    for move in change.moves:
        found = moved(found, move)
    weights = {each.cell: each.after for each in change.weights}
    cells = tuple(replace(cell, groups=weights.get(cell.name, cell.groups)) for cell in found.cells)
    return replace(found, cells=cells, version=cell_map.version + 1)


def planned(cell_map: PartitionMap, operations: Iterable[ScheduledOperation]) -> tuple[PlannedStep, ...]:
    """All steps in order of time; at one time, what is taken back comes first.

    Raises OperationImpossible where an operation has nothing to change, or would change what another one has changed
    that is not over.
    """
    due = [(at_s, number > len(each.steps), number, each) for each in operations for number, at_s in _times(each)]
    return tuple(_played(cell_map, sorted(due, key=lambda item: (item[0], not item[1], item[2]))))


def _times(each: ScheduledOperation) -> Iterator[tuple[int, float]]:
    """Of its steps, from 1 on; one more is that which takes all back."""
    for number in range(len(each.steps)):
        yield number + 1, each.at_s + number * each.pause_s
    if each.for_s is not None:
        yield len(each.steps) + 1, each.at_s + each.for_s


def _played(
    cell_map: PartitionMap, due: Iterable[tuple[float, bool, int, ScheduledOperation]]
) -> Iterator[PlannedStep]:
    under_way: dict[str, tuple[Change, tuple[Change, ...]]] = {}
    lent: dict[str, frozenset[int]] = {}
    for at_s, reverts, number, each in due:
        name, of = each.name, len(each.steps)
        if number == 1:
            whole = _whole(name, each.operation, cell_map)
            for other, (theirs, _) in under_way.items():
                _require_apart(name, whole, other, theirs)
            under_way[name] = whole, tuple(_parts(whole, each.steps))
        whole, parts = under_way[name]
        change = whole.reverse if reverts else parts[number - 1]
        cell_map = changed(cell_map, change)
        if isinstance(each.operation, FailOver | Evacuate):
            lent[name] = frozenset() if reverts else lent.get(name, frozenset()) | change.partitions
        if number == of + (each.for_s is not None):
            del under_way[name]
        yield PlannedStep(
            at_s, name, min(number, of), of, change, each.order, reverts, frozenset().union(*lent.values())
        )


def _require_apart(name: str, whole: Change, other: str, theirs: Change) -> None:
    if both := whole.partitions & theirs.partitions:
        raise OperationImpossible(name, f"partition {min(both)} is changed by {other!r}, which is not over by then")
    if both_cells := {each.cell for each in whole.weights} & {each.cell for each in theirs.weights}:
        raise OperationImpossible(name, f"cell {min(both_cells)} is changed by {other!r}, which is not over by then")


def _whole(name: str, operation: Operation, cell_map: PartitionMap) -> Change:
    """All that an operation changes. Raises OperationImpossible."""
    if isinstance(operation, SwitchGroup):
        return Change(weights=tuple(_switched(name, cell_map.cell(cell), operation.group) for cell in operation.cells))
    goes = {part: to for part, to in _destinations(name, operation, cell_map) if cell_map.owners[part] != to}
    if not goes:
        raise OperationImpossible(name, "it changes nothing: all of that is there already")
    return Change(_moves((part, cell_map.owners[part], to) for part, to in sorted(goes.items())))


def _destinations(
    name: str, operation: MovePartitions | FailOver | Evacuate | PopOut, cell_map: PartitionMap
) -> Iterator[tuple[int, str]]:
    match operation:
        case MovePartitions(partitions, to):
            yield from ((partition, to) for partition in partitions)
        case FailOver(cell):
            backup = cell_map.cell(cell).backup
            if backup is None:
                raise OperationImpossible(name, f"cell {cell} has no backup")
            yield from ((partition, backup) for partition in partitions_of(cell_map, cell))
        case PopOut(cell, to, share):
            owned = partitions_of(cell_map, cell)
            yield from ((partition, to) for partition in owned[len(owned) - math.ceil(len(owned) * share) :])
        case Evacuate(city):
            yield from _leaving(name, city, cell_map)


def _leaving(name: str, city: str, cell_map: PartitionMap) -> Iterator[tuple[int, str]]:
    zones = next(set(each.zones) for each in cell_map.cities if each.name == city)
    inside = [cell for cell in cell_map.cells if set(cell.zones) <= zones]
    elsewhere = [cell.name for cell in cell_map.cells if not set(cell.zones) & zones and not cell.elastic]
    if not elsewhere:
        raise OperationImpossible(name, f"there is no cell outside of {city}")
    in_turn = cycle(elsewhere)
    for cell in inside:
        for partition in partitions_of(cell_map, cell.name):
            yield partition, cell.backup if cell.backup in elsewhere else next(in_turn)


def _switched(name: str, cell: Cell, group: str) -> Weights:
    if group not in {each.name for each in cell.groups}:
        raise OperationImpossible(name, f"cell {cell.name} has no deployment group {group!r}")
    after = tuple(replace(each, weight=100 if each.name == group else 0) for each in cell.groups)
    if after == cell.groups:
        raise OperationImpossible(name, f"it changes nothing: {group} of cell {cell.name} has all calls already")
    return Weights(cell.name, cell.groups, after)


def _moves(goes: Iterable[tuple[int, str, str]]) -> tuple[Move, ...]:
    """A move for each pair of cells, in the order of the partitions."""
    pairs: dict[tuple[str, str], list[int]] = {}
    for partition, source, to in goes:
        pairs.setdefault((source, to), []).append(partition)
    return tuple(Move(tuple(partitions), source, to) for (source, to), partitions in pairs.items())


def _parts(whole: Change, shares: Sequence[float]) -> Iterator[Change]:
    """The changes that together are the whole one, up to each share of it."""
    goes = sorted((partition, move.source, move.to) for move in whole.moves for partition in move.partitions)
    done, before = 0, {each.cell: each.before for each in whole.weights}
    for share in shares:
        upto = math.ceil(len(goes) * share)
        weights = [Weights(each.cell, before[each.cell], _between(each, share)) for each in whole.weights]
        yield Change(_moves(goes[done:upto]), tuple(weights))
        done, before = upto, {each.cell: each.after for each in weights}


def _between(weights: Weights, share: float) -> tuple[DeploymentGroup, ...]:
    """Whole percentages that sum to 100: what rounding leaves over is the last shrinking group's."""
    found = [
        replace(old, weight=round(old.weight + (new.weight - old.weight) * share))
        for old, new in zip(weights.before, weights.after, strict=True)
    ]
    odd = 100 - sum(each.weight for each in found)
    shrinking = [at for at, each in enumerate(weights.after) if each.weight == 0 and found[at].weight + odd >= 0]
    if odd:
        found[shrinking[-1]] = replace(found[shrinking[-1]], weight=found[shrinking[-1]].weight + odd)
    return tuple(found)
