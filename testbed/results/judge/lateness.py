"""Processes of the testbed that were held up for so long that what they emulate could be taken for dead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from testbed.results.tables.facts import RunFacts

LATE = "Late"
"""The reason of an event that says so. Its details are `late_s` and `patience_s`."""


@dataclass(frozen=True, slots=True)
class Late:
    """`process` did nothing from `t_s` on, for `late_s` at least; others wait for it `patience_s`."""

    process: str
    t_s: float
    late_s: float
    patience_s: float


def outlasted(events: pa.Table, facts: RunFacts) -> tuple[Late, ...]:
    """All that outlasted the patience of others while load was sent, the longest first.

    Then a lease may have expired, a probe failed or a gateway been left that nothing was wrong with.
    """
    found = [late for late in _lates(events) if late.late_s >= late.patience_s]
    during = [late for late in found if late.t_s < facts.end_s and late.t_s + late.late_s > 0]
    return tuple(sorted(during, key=lambda late: (-late.late_s, late.t_s)))


def _lates(events: pa.Table) -> Iterator[Late]:
    for row in events.filter(pc.equal(events["reason"].cast(pa.string()), LATE)).to_pylist():
        details = orjson.loads(row["details"])
        yield Late(row["object"], row["t_s"], details["late_s"], details["patience_s"])
