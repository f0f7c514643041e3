"""Who led which log from when on, as the logs' replicas noted it, and for how long nobody took writes in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.compute as pc

What: TypeAlias = Literal["leads", "yields", "leads no more", "forbids writes", "allows writes"]
_WHAT: Final[dict[str, What]] = {
    "LeaderElected": "leads",
    "LeaderYields": "yields",
    "LeaderLost": "leads no more",
    "WritesForbidden": "forbids writes",
    "WritesAllowed": "allows writes",
}
"""By reason of the event."""


@dataclass(frozen=True, slots=True)
class LeaderChange:
    """`who` began to lead the `log` in that term, hands it over, or found out that it leads no more; or who leads it
    was told to take no writes of some `partitions`, or to take them again. A leader whose process ends tells nobody."""

    t_s: float
    log: str
    partitions: str
    who: str
    term: int
    what: What
    blocked_s: float | None = None
    """Of one that leads, or takes writes again: since the one before it took no more, if that one could tell."""


def leader_changes(events: pa.Table) -> tuple[LeaderChange, ...]:
    """Since the load began, in order of time. The first leaders come before that."""
    of_leaders = pc.is_in(events["reason"].cast(pa.string()), value_set=pa.array(list(_WHAT)))
    rows = events.filter(pc.and_kleene(of_leaders, pc.greater_equal(events["t_s"], 0.0))).to_pylist()
    blocked_from_s: dict[str, float] = {}
    forbidden_from_s: dict[str, float] = {}
    found: list[LeaderChange] = []
    for row in sorted(rows, key=lambda row: float(row["t_s"])):
        details, what, log, blocked_s = orjson.loads(row["details"]), _WHAT[row["reason"]], row["object"], None
        if what == "forbids writes":
            forbidden_from_s.setdefault(log, row["t_s"])
        elif what in ("leads", "allows writes"):
            since_s = (blocked_from_s if what == "leads" else forbidden_from_s).pop(log, None)
            blocked_s = None if since_s is None else row["t_s"] - since_s
        elif not _is_old(found, log, details["term"]):
            blocked_from_s.setdefault(log, row["t_s"])
        found.append(
            LeaderChange(row["t_s"], log, details["partitions"], row["source"], details["term"], what, blocked_s)
        )
    return tuple(found)


def _is_old(found: list[LeaderChange], log: str, term: int) -> bool:
    """Whether that term was over already: who led in it did not know."""
    return any(change.log == log and change.what == "leads" and change.term > term for change in found)
