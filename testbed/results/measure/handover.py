"""How partitions changed hands with each step of an operation: until when their old owner served them, and from when on
the new one.

By what their pods received, answered and did not pass on, whatever any map said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.control.views.envoy.access_log import FAILED_STATUS, OWN
from testbed.results.tables.columns import Codes, Floats, Mask, codes, floats
from testbed.results.tables.facts import MapStep


@dataclass(frozen=True, slots=True)
class Handover:
    """Of the partitions that one step moved. None for a side that served none of them, and so for the time between."""

    partitions: int
    old_until_s: float | None
    """When the last call ended that the old owner served, before or after the step."""
    new_from_s: float | None
    """When the first call came in that the new owner served after the step."""
    between_s: float | None
    """From the one to the other: a gap in which nobody served them, or if it is negative an overlap."""
    served_by_both: tuple[int, ...] = ()
    """Partitions of which the new owner had a call before the old one had ended its last."""


def handovers(hops: pa.Table, steps: Sequence[MapStep]) -> dict[int, Handover]:
    """By version of the map, of all steps of a run that moved partitions. For a step count the calls that came in since
    the step before it that moved the same partition, until the next one."""
    moving = sorted((step for step in steps if step.moves), key=lambda step: step.applied_s)
    if not moving:
        return {}
    received = pc.and_kleene(pc.equal(hops["direction"], "inbound"), pc.equal(hops["route"], OWN))
    answered = pc.and_kleene(pc.less(hops["status"], FAILED_STATUS), pc.is_valid(hops["partition"]))
    served = hops.filter(pc.and_kleene(received, answered))
    partition, names = codes(served["partition"])
    numbers = np.array([int(name) for name in names], dtype=np.int64)[partition] if names else partition
    size = 1 + max(int(numbers.max(initial=0)), *(max(move.partitions) for step in moving for move in step.moves))
    start_s = floats(served["start_s"])
    calls = _Served(numbers, codes(served["destination_cell"]), start_s, start_s + _lasted_s(served))
    windows = _windows([_moved(step, size) for step in moving], [step.applied_s for step in moving])
    return {
        step.version: _handover(calls, step, since_s, until_s)
        for step, (since_s, until_s) in zip(moving, windows, strict=True)
    }


@dataclass(frozen=True, slots=True)
class _Served:
    partition: Codes
    cell: tuple[Codes, list[str]]
    start_s: Floats
    end_s: Floats

    def by(self, cell: str) -> Mask:
        found: Mask = self.cell[0] == (self.cell[1].index(cell) if cell in self.cell[1] else -2)
        return found


def _lasted_s(served: pa.Table) -> Floats:
    return np.nan_to_num(floats(served["duration_ms"])) / 1e3


def _moved(step: MapStep, size: int) -> Mask:
    found: Mask = np.zeros(size, dtype=np.bool_)
    for move in step.moves:
        found[list(move.partitions)] = True
    return found


def _windows(moved: Sequence[Mask], applied_s: Sequence[float]) -> Iterator[tuple[Floats, Floats]]:
    """For each step and partition: when the step before and the one after it came that moved this one, too."""
    for number, here in enumerate(moved):
        since_s, until_s = np.full(len(here), -np.inf), np.full(len(here), np.inf)
        for other in range(number):
            since_s[moved[other]] = applied_s[other]
        for other in range(len(moved) - 1, number, -1):
            until_s[moved[other]] = applied_s[other]
        yield since_s, until_s


def _handover(calls: _Served, step: MapStep, since_s: Floats, until_s: Floats) -> Handover:
    old_until_s, new_from_s = np.full(len(since_s), -np.inf), np.full(len(since_s), np.inf)
    meant = (calls.start_s >= since_s[calls.partition]) & (calls.start_s < until_s[calls.partition])
    for move in step.moves:
        concerned = meant & np.isin(calls.partition, move.partitions)
        old, new = concerned & calls.by(move.source), concerned & calls.by(move.to) & (calls.start_s >= step.applied_s)
        np.maximum.at(old_until_s, calls.partition[old], calls.end_s[old])
        np.minimum.at(new_from_s, calls.partition[new], calls.start_s[new])
    both = tuple(map(int, np.flatnonzero(old_until_s > new_from_s)))
    last_s, first_s = _finite(old_until_s.max()), _finite(new_from_s.min())
    between_s = None if last_s is None or first_s is None else first_s - last_s
    return Handover(sum(len(move.partitions) for move in step.moves), last_s, first_s, between_s, both)


def _finite(value_s: float) -> float | None:
    return float(value_s) if np.isfinite(value_s) else None
