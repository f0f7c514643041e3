"""What goes down although no fault explains it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa
import pytest

from testbed.results.judge.undeclared import undeclared
from testbed.results.measure.recovery import impacts
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import AppliedFault, RunFacts
from testbed.results.tables.schemas import SCHEMAS

FACTS = RunFacts(name="r", seed=0, profile="fast", warmup_s=1.0, end_s=40.0, ready_s=1.0)
OUTAGE = AppliedFault("outage", 10.0, 10.004, 20.0, 20.0)
KILL = AppliedFault("kill", 10.0, 10.002, instant=True)

Row = tuple[float, str, str, dict[str, Any]]
"""Time, `Kind/object`, reason and details."""


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "t_s": t_s,
                "source": details.get("source", "master"),
                "kind": what.partition("/")[0],
                "object": what.partition("/")[2],
                "reason": reason,
                "details": orjson.dumps(details).decode(),
            }
            for t_s, what, reason, details in rows
        ],
        schema=SCHEMAS["events"],
    )


def _found(rows: list[Row], *faults: AppliedFault, profile: str = "fast") -> list[tuple[float, str, str, bool]]:
    times_s = [n / 50 for n in range(2000)]
    sent = [{"intended_s": t_s, "sent_s": t_s, "finished_s": t_s + 0.01, "outcome": "ok"} for t_s in times_s]
    requests = Requests.of(pa.Table.from_pylist(sent, schema=SCHEMAS["requests"]), faults)
    table, pushes = _table(rows), SCHEMAS["pushes"].empty_table()
    facts = replace(FACTS, faults=faults, profile=profile)
    found = undeclared(table, facts, impacts(requests, table, pushes, faults, facts.end_s))
    return [(one.t_s, one.what, one.object, one.invalidates) for one in found]


def _exit(t_s: float, pod: str, program: str, by: str | None, code: int = -9) -> Row:
    process = "proxy" if program == "envoy" else "app"
    return t_s, f"Pod/{pod}", "ProcessExited", {"process": process, "code": code, "program": program, "by": by}


def test_a_replica_of_a_store_that_refuses_its_disk_is_named_with_its_own_words() -> None:
    damaged = "/volumes/data-r1/group-0/journal: the record at byte 0 is damaged; the replica must not start"
    t_s, what, reason, details = _exit(5.0, "data-r1-1", "workload", None, 65)
    rows = [
        (t_s, what, reason, {**details, "last_lines": f"starting | {damaged}"}),
        _exit(6.0, "data-r2-1", "workload", None),
    ]
    why = [each.why for each in undeclared(_table(rows), FACTS, ())]
    assert why == [f"built-in workload ended with code 65: {damaged}", "built-in workload ended by signal 9"]


@pytest.mark.parametrize("faults", [(), (OUTAGE,)])
@pytest.mark.parametrize("program", ["envoy", "workload"])
def test_a_program_of_the_testbed_that_nobody_ended_is_named_and_makes_the_run_invalid_whatever_else_happens(
    program: str, faults: tuple[AppliedFault, ...]
) -> None:
    assert _found([_exit(12.0, "web-1", program, None)], *faults) == [(12.0, "death", "web-1", True)]


def test_what_a_fault_killed_is_declared() -> None:
    assert _found([_exit(10.005, "web-1", "envoy", "fault")], KILL) == []
    assert _found([_exit(10.005, "web-1", "workload", "fault"), _exit(10.005, "web-2", "workload", None)], KILL) == [
        (10.005, "death", "web-2", True)
    ]


def test_a_workload_that_a_request_crashed_as_declared_is_named_outside_of_faults_and_makes_no_run_invalid() -> None:
    rows = [_exit(t_s, "web-1", "workload", "request", 70) for t_s in (5.0, 12.0)]
    assert _found(rows, OUTAGE) == [(5.0, "death", "web-1", False)]


def test_a_command_of_the_users_that_ends_by_itself_is_named_outside_of_faults_and_judged_by_nobody() -> None:
    rows = [_exit(5.0, "web-1", "command", None, 1), _exit(12.0, "web-1", "command", None, 1)]
    assert _found(rows, OUTAGE) == [(5.0, "death", "web-1", False)]


def test_a_liveness_probe_that_restarts_a_pod_outside_of_faults_is_named() -> None:
    assert _found([_exit(5.0, "web-1", "workload", "kubelet", -15)], OUTAGE) == [(5.0, "restart", "web-1", False)]
    assert _found([_exit(12.0, "web-1", "workload", "kubelet", -15)], OUTAGE) == []


def test_nodes_and_pods_not_ready_and_ejections_are_named_outside_of_faults_only() -> None:
    def at(t_s: float) -> list[Row]:
        return [
            (t_s, "Node/east-a-1", "NodeNotReady", {}),
            (t_s, "Pod/web-1", "NotReady", {}),
            (t_s, "Endpoint/web-1", "Ejected", {"source": "gateway"}),
            (t_s + 0.5, "Node/east-a-1", "NodeReady", {}),
            (t_s + 0.5, "Pod/web-1", "Ready", {}),
            (t_s + 0.5, "Endpoint/web-1", "Unejected", {"source": "gateway"}),
        ]

    named = [
        (5.0, "not ready", "east-a-1", False),
        (5.0, "not ready", "web-1", False),
        (5.0, "ejection", "web-1", False),
    ]
    assert _found(at(5.0), OUTAGE) == named
    assert _found(at(9.996) + at(15.0) + at(20.5), OUTAGE) == []
    assert [t_s for t_s, *_ in _found(at(30.0), OUTAGE)] == [30.0] * 3


def test_gateways_that_clients_are_told_to_be_ill_are_named_outside_of_faults_only() -> None:
    def told(t_s: float, origin: str, *answer: str) -> Row:
        return t_s, f"Entry/{origin}", "EntryChanged", {"answer": answer}

    rows = [
        told(-1.0, "east-b", "east-b"),
        told(-0.5, "east-b", "east-a", "east-b"),
        told(5.0, "east-a", "east-b"),
        told(5.5, "east-a", "east-a", "east-b"),
        told(10.5, "east-b", "east-b"),
        told(20.5, "east-b", "east-a", "east-b"),
        told(30.0, "east-b", "east-a"),
    ]
    assert _found(rows, OUTAGE) == [
        (5.0, "unhealthy", "gateway-east-a", False),
        (30.0, "unhealthy", "gateway-east-b", False),
    ]


def test_what_happens_before_the_load_begins_is_the_bring_ups() -> None:
    assert _found([_exit(-2.0, "web-1", "command", None, 1), (-1.0, "Pod/web-1", "NotReady", {})]) == []


def test_nodes_that_are_switched_off_when_the_load_has_ended_are_not_named() -> None:
    rows: list[Row] = [(39.5, "Node/east-a-1", "NodeNotReady", {}), (40.5, "Node/east-a-2", "NodeNotReady", {})]
    assert [name for _, _, name, _ in _found(rows)] == ["east-a-1"]


def test_a_heal_explains_what_goes_down_until_all_that_it_brings_back_is_back() -> None:
    """A pod of a rebooted node is down without an event of its own, and comes back 8 s later."""
    rows: list[Row] = [
        (-5.0, "Pod/web-1", "Started", {"node": "east-a-1", "restarts": 0}),
        (-4.0, "Pod/web-1", "Ready", {"node": "east-a-1"}),
        (20.04, "Node/east-a-1", "NodeReady", {"rebooted": True}),
        (27.0, "Endpoint/web-2", "Ejected", {"source": "gateway"}),
        (27.5, "Pod/web-1", "Started", {"node": "east-a-1", "restarts": 1}),
        (28.0, "Pod/web-1", "Ready", {"node": "east-a-1"}),
        (28.5, "Endpoint/web-2", "Unejected", {"source": "gateway"}),
        (33.0, "Endpoint/web-2", "Ejected", {"source": "gateway"}),
    ]
    assert _found(rows, OUTAGE) == [(33.0, "ejection", "web-2", False)]


def test_an_endpoint_that_is_ejected_again_and_again_is_not_explained_for_ever() -> None:
    rows: list[Row] = [
        (10.0 + 4 * n + up, "Endpoint/web-1", "Unejected" if up else "Ejected", {"source": "gateway"})
        for n in range(6)
        for up in (0, 2)
    ]
    assert [t_s for t_s, *_ in _found(rows, KILL)] == [14.0, 18.0, 22.0, 26.0, 30.0]


def test_a_machine_that_was_powered_off_explains_what_goes_down_until_the_end() -> None:
    off = AppliedFault("off", 10.0, 10.0, instant=True, by_command=True)
    assert _found([(14.0, "Node/east-a-1", "NodeNotReady", {})], off) == []
    assert len(_found([(14.0, "Node/east-a-1", "NodeNotReady", {})], KILL)) == 1


def test_a_control_plane_with_kubernetes_own_times_may_notice_a_minute_later() -> None:
    rows: list[Row] = [(35.0, "Node/east-a-1", "NodeNotReady", {})]
    assert _found(rows, OUTAGE, profile="kubernetes") == []
    assert len(_found(rows, OUTAGE)) == 1
