"""Writes that nobody took while data was moved: of what moved, and of all else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from testbed.control.cells.ownership import Move
from testbed.results.measure.blocked import BlockedWrites, blocked_writes
from testbed.results.measure.leaders import LeaderChange
from testbed.results.tables.facts import MapStep, PromotedData
from testbed.results.tables.schemas import SCHEMAS

STEP = MapStep(
    1, 1, False, 10.0, 10.1, 2, "0-1", {"gateways": 10.3, "sidecars": None}, moves=(Move((0, 1), "rz01", "rz02"),)
)
WITH_DATA = MapStep(
    1, 1, False, 10.0, 10.1, 2, "0-1", STEP.delivered_s, moves=STEP.moves, promoted=PromotedData(10.0, 10.08)
)


def _operation(
    invoked_s: float, partition: str | None, outcome: str = "ok", operation: str = "write"
) -> dict[str, Any]:
    return {"invoked_s": invoked_s, "partition": partition, "outcome": outcome, "operation": operation}


def test_what_is_sent_from_the_first_order_until_all_have_the_map_is_told_apart_by_what_moved() -> None:
    rows = [
        _operation(9.9, "0", "failed"),
        _operation(10.0, "0", "failed"),
        _operation(10.01, "1", "unknown"),
        _operation(10.02, "1"),
        _operation(10.03, "1", "failed", "read"),
        _operation(10.04, "10", "failed"),
        _operation(10.05, "2"),
        _operation(10.06, None),
        _operation(11.4, "0", "failed"),
    ]
    leaders = [
        LeaderChange(10.01, "data/0", "0-1", "data-r1-1", 3, "yields"),
        LeaderChange(10.06, "data/0", "0-1", "data-r2-1", 4, "leads", 0.05),
        LeaderChange(19.0, "data/1", "2-9", "data-r2-1", 4, "leads", 0.5),
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["operations"])
    assert blocked_writes(table, leaders, [STEP]) == {}
    found = blocked_writes(table, leaders, [WITH_DATA])[2]
    assert found == BlockedWrites(10.0, pytest.approx(11.3), 3, 2, 3, 1, (("0-1", 0.05),))
