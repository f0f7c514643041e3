"""The table `operations` -> what its history shows."""

from __future__ import annotations

import math

import pyarrow as pa

from testbed.results.measure.histories.check import HistoryReport, check
from testbed.results.measure.histories.operations import Operation, Outcome


def checked(table: pa.Table) -> HistoryReport | None:
    """None where clients did nothing to a store's keys."""
    operations = operations_of(table)
    return check(operations) if operations else None


def operations_of(table: pa.Table) -> list[Operation]:
    return [
        Operation(
            process=row["process"],
            key=row["key"],
            partition=row["partition"] or "",
            is_write=row["operation"] == "write",
            value=row["value"],
            invoked_s=row["invoked_s"],
            returned_s=math.inf if row["returned_s"] is None else row["returned_s"],
            outcome=Outcome(row["outcome"]),
            owner=row["owner"],
        )
        for row in table.to_pylist()
    ]
