"""Whose writes were not taken while a step of an operation was made: those of what it moved, and those of all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.objects.places import CONTROL_PLANE
from testbed.results.measure.leaders import LeaderChange
from testbed.results.tables.columns import floats
from testbed.results.tables.facts import MapStep

SETTLING_S = 1.0
"""What still hangs together with a step after its last proxy has the map."""


@dataclass(frozen=True, slots=True)
class BlockedWrites:
    """Writes that were sent between `from_s` and `until_s`, and how many of these were not acknowledged."""

    from_s: float
    until_s: float
    moved: int
    moved_refused: int
    others: int
    others_refused: int
    blocked: tuple[tuple[str, float], ...] = ()
    """Partitions, and for how long nobody took their writes: because their log was between two leaders, or because
    that was forbidden."""


def blocked_writes(
    operations: pa.Table, leaders: Sequence[LeaderChange], steps: Sequence[MapStep]
) -> dict[int, BlockedWrites]:
    """By version of the map, of all steps that moved data."""
    found = {}
    writes = operations.filter(pc.equal(operations["operation"], "write"))
    invoked_s = floats(writes["invoked_s"])
    refused = ~np.asarray(pc.equal(writes["outcome"], "ok"), dtype=np.bool_)
    for step in (step for step in steps if step.data is not None):
        delivered = [at_s for at_s in step.delivered_s.values() if at_s is not None]
        lifted = [] if step.held is None else [step.held.lifted_s]
        from_s, until_s = step.began_s, max([step.applied_s, *delivered, *lifted]) + SETTLING_S
        ends = "leads" if step.held is None else "allows writes"
        moving = pa.array([str(partition) for move in step.moves for partition in move.partitions], pa.string())
        of_moved = np.asarray(pc.is_in(writes["partition"].cast(pa.string()), value_set=moving), dtype=np.bool_)
        within = (invoked_s >= from_s) & (invoked_s < until_s)
        found[step.version] = BlockedWrites(
            from_s,
            until_s,
            int(np.sum(within & of_moved)),
            int(np.sum(within & of_moved & refused)),
            int(np.sum(within & ~of_moved)),
            int(np.sum(within & ~of_moved & refused)),
            tuple(
                (change.partitions, change.blocked_s)
                for change in leaders
                if change.log != CONTROL_PLANE
                and change.blocked_s is not None
                and change.what == ends
                and from_s <= change.t_s < until_s
            ),
        )
    return found
