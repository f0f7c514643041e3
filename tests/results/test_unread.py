"""Which lines that are in no table the death of their writer explains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from testbed.results.tables.facts import AppliedFault, LocustCount, MachineFacts, RunFacts, UnreadLines
from testbed.results.tables.schemas import SCHEMAS
from testbed.results.tables.unread import unexplained_lines
from testbed.scenario import LoadSource

FACTS = RunFacts(
    name="r",
    seed=0,
    profile="fast",
    warmup_s=1.0,
    end_s=11.0,
    ready_s=1.0,
    sources=(LoadSource("a", 100.0, "constant"),),
    locust={"a": LocustCount(1100, 0)},
)
PODS = pa.Table.from_pylist([{"pod": "web-1", "node": "a-1"}], schema=SCHEMAS["pods"])


def _left(log: UnreadLines, exits: tuple[str, ...] = (), **facts: Any) -> tuple[UnreadLines, ...]:
    """`exits` are the processes of web-1 that ended."""
    events = pa.Table.from_pylist(
        [
            {"t_s": 5.0, "object": "web-1", "reason": "ProcessExited", "details": f'{{"process": "{process}"}}'}
            for process in exits
        ],
        schema=SCHEMAS["events"],
    )
    return unexplained_lines(replace(FACTS, unread=(log,), **facts), events, PODS)


def test_each_death_of_a_writer_explains_one_torn_line() -> None:
    log = UnreadLines("web-1.access.jsonl", unreadable=2)
    assert _left(log) == (log,)
    assert _left(log, ("app", "proxy")) == (replace(log, unreadable=1),)
    assert _left(log, ("proxy", "proxy")) == ()
    assert _left(replace(log, file="web-2.access.jsonl"), ("proxy", "proxy")) == (
        replace(log, file="web-2.access.jsonl"),
    )


def test_the_crash_of_its_node_is_a_death_of_a_pod() -> None:
    log = UnreadLines("web-1.access.jsonl", unreadable=1)
    assert _left(log, faults=(AppliedFault("f", 5.0, 5.0, 7.0, victims=("a-1",)),)) == ()
    assert _left(log, faults=(AppliedFault("f", 5.0, 5.0, 7.0, victims=("b-1",)),)) == (log,)


@pytest.mark.parametrize("file", ["web-1.outlier.jsonl", "a.requests.jsonl", "a-1.connections.jsonl"])
def test_the_loss_of_a_machine_explains_a_line_that_came_home_in_part(file: str) -> None:
    log = UnreadLines(file, unreadable=1)
    machine = MachineFacts("m2", ("a-1", "clients/a"), lost_s=6.0, records_until_s=5.5)
    assert _left(log, machines=(machine,)) == ()
    assert _left(log, machines=(replace(machine, places=("b-1",)),)) == (log,)
    assert _left(log, machines=(replace(machine, lost_s=None),)) == (log,)


def test_a_locust_that_ended_without_its_counts_can_have_left_a_torn_line() -> None:
    log = UnreadLines("a.requests.jsonl", unreadable=1)
    assert _left(log) == (log,)
    assert _left(log, locust={}) == ()


def test_what_was_never_sent_is_explained_by_nothing_and_who_nobody_knew_by_a_lost_machine() -> None:
    orphans = UnreadLines("a.requests.jsonl", orphans=3)
    assert _left(orphans, locust={}) == (orphans,)
    unknown = UnreadLines("web-7.access.jsonl", unknown=12)
    assert _left(unknown) == (unknown,)
    assert _left(unknown, machines=(MachineFacts("m2", lost_s=6.0),)) == ()
