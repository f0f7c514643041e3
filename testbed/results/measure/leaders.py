"""Who led which log from when on, as the logs' replicas noted it."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
import pyarrow as pa
import pyarrow.compute as pc

ELECTED, LOST = "LeaderElected", "LeaderLost"


@dataclass(frozen=True, slots=True)
class LeaderChange:
    """`who` began to lead the `log` in that term or, if not `elected`, found out that it leads no more. What leads when
    its process ends tells nobody."""

    t_s: float
    log: str
    partitions: str
    who: str
    term: int
    elected: bool


def leader_changes(events: pa.Table) -> tuple[LeaderChange, ...]:
    """Since the load began, in order of time. The first leaders come before that."""
    of_leaders = pc.is_in(events["reason"].cast(pa.string()), value_set=pa.array([ELECTED, LOST]))
    found = []
    for row in events.filter(pc.and_kleene(of_leaders, pc.greater_equal(events["t_s"], 0.0))).to_pylist():
        details = orjson.loads(row["details"])
        elected = row["reason"] == ELECTED
        found.append(
            LeaderChange(row["t_s"], row["object"], details["partitions"], row["source"], details["term"], elected)
        )
    return tuple(sorted(found, key=lambda change: change.t_s))
