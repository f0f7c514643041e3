"""Processes of the testbed that were held up: when that can have changed what a run shows."""

from __future__ import annotations

import orjson
import pyarrow as pa
import pytest

from testbed.results.judge.lateness import Late, outlasted
from testbed.results.tables.facts import RunFacts
from testbed.results.tables.schemas import SCHEMAS

FACTS = RunFacts(name="r", seed=0, profile="fast", warmup_s=1.0, end_s=40.0, ready_s=1.0)
AGENT = "the agent of node east-a-1"


def found(*lates: Late) -> list[tuple[str, float]]:
    rows = [
        {
            "t_s": late.t_s,
            "source": "east-a-1",
            "kind": "Process",
            "object": late.process,
            "reason": "Late",
            "details": orjson.dumps({"late_s": late.late_s, "patience_s": late.patience_s}).decode(),
        }
        for late in lates
    ]
    rows.append({"t_s": 5.0, "source": "master", "kind": "Node", "object": "east-a-1", "reason": "NodeNotReady"})
    events = pa.Table.from_pylist(rows, schema=SCHEMAS["events"])
    return [(late.process, late.late_s) for late in outlasted(events, FACTS)]


def test_who_was_held_up_for_longer_than_others_wait_is_named_the_longest_first() -> None:
    short, long = Late(AGENT, 5.0, 1.6, 1.5), Late("the control plane", 9.0, 2.5, 1.5)
    assert found(short, long) == [("the control plane", 2.5), (AGENT, 1.6)]
    assert found(Late(AGENT, 5.0, 1.4, 1.5)) == []


@pytest.mark.parametrize(
    ("t_s", "counts"), [(-3.0, False), (-1.0, True), (39.0, True), (40.5, False)], ids=["before", "into", "at", "after"]
)
def test_only_what_reaches_into_the_time_of_the_load_counts(t_s: float, counts: bool) -> None:
    assert bool(found(Late(AGENT, t_s, 2.0, 1.5))) is counts
