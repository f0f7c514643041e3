"""When partitions changed hands with each step of an operation, by who served them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from testbed.control.cells.ownership import Move
from testbed.results.measure.handover import Handover, handovers
from testbed.results.tables.facts import MapStep
from testbed.results.tables.schemas import SCHEMAS


def _step(version: int, applied_s: float, *moves: Move, reverts: bool = False) -> MapStep:
    return MapStep(1, 1, reverts, applied_s, applied_s, version, "", moves=moves)


def _served(start_s: float, partition: int | None, cell: str, **fields: Any) -> dict[str, Any]:
    took = {"start_s": start_s, "duration_ms": 100.0, "status": 200, "route": "own", "direction": "inbound"}
    name = None if partition is None else str(partition)
    return {**took, "partition": name, "destination_cell": cell, "owner_cell": cell, **fields}


def _handovers(steps: list[MapStep], *calls: dict[str, Any]) -> dict[int, Handover]:
    return handovers(pa.Table.from_pylist(list(calls), schema=SCHEMAS["hops"]), steps)


AWAY = Move((0, 1), "rz01", "rz02")


def test_the_old_owner_ends_with_its_last_call_and_the_new_one_begins_with_its_first() -> None:
    got = _handovers(
        [_step(2, 5.0, AWAY)],
        _served(4.0, 0, "rz01"),
        _served(5.2, 1, "rz01"),
        _served(5.7, 1, "rz02"),
        _served(6.5, 0, "rz02"),
        _served(9.0, 2, "rz01"),
        _served(9.5, None, "rz01"),
    )
    assert got == {2: Handover(2, pytest.approx(5.3), 5.7, pytest.approx(0.4), ())}


def test_what_was_passed_on_refused_or_failed_was_not_served() -> None:
    got = _handovers(
        [_step(2, 5.0, AWAY)],
        _served(4.5, 0, "rz01"),
        _served(5.5, 0, "rz01", route="stale-cookie", owner_cell="rz02"),
        _served(5.6, 0, "rz01", route="misdirected", owner_cell="rz02", status=421),
        _served(5.7, 0, "rz02", status=503),
        _served(5.7, 0, "rz02", status=None),
        _served(5.8, 0, "rz02", direction="outbound"),
        _served(6.0, 0, "rz02"),
    )
    assert (got[2].old_until_s, got[2].new_from_s) == (pytest.approx(4.6), 6.0)


def test_partitions_that_both_cells_served_at_a_time_are_named() -> None:
    got = _handovers(
        [_step(2, 5.0, AWAY)],
        _served(5.1, 0, "rz01"),
        _served(5.15, 0, "rz02"),
        _served(5.2, 1, "rz01"),
        _served(5.4, 1, "rz02"),
    )
    assert got[2].between_s == pytest.approx(5.15 - 5.3)
    assert got[2].served_by_both == (0,)


def test_a_step_is_measured_between_those_that_moved_the_same_partitions() -> None:
    steps = [
        _step(2, 5.0, Move((0,), "rz01", "rz02")),
        _step(3, 7.0, Move((1,), "rz01", "rz03")),
        _step(4, 9.0, Move((0,), "rz02", "rz01"), reverts=True),
    ]
    got = _handovers(
        steps,
        _served(4.0, 0, "rz01"),
        _served(6.5, 1, "rz01"),
        _served(7.5, 1, "rz03"),
        _served(8.0, 0, "rz02"),
        _served(9.5, 0, "rz01"),
        _served(9.6, 1, "rz03"),
    )
    ends = {version: (each.old_until_s, each.new_from_s) for version, each in got.items()}
    assert ends == {
        2: (pytest.approx(4.1), 8.0),
        3: (pytest.approx(6.6), 7.5),
        4: (pytest.approx(8.1), 9.5),
    }


def test_what_nobody_served_has_no_times_and_what_moves_nothing_no_hand_over() -> None:
    steps = [_step(2, 5.0, AWAY), _step(3, 6.0)]
    assert _handovers(steps, _served(4.0, 7, "rz01")) == {2: Handover(2, None, None, None)}
    assert _handovers(steps) == {2: Handover(2, None, None, None)}
    assert _handovers(steps[1:], _served(4.0, 7, "rz01")) == {}
