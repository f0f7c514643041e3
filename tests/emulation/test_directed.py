"""Clients that are directed, on a whole cluster: they ask once, ask anew when refused, and need the router for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.emulation.conftest import FinishedRun

pytestmark = pytest.mark.live

MOVED = set(map(str, range(45)))
UNWRITTEN_S = 1.0
"""Of what the router has answered before it is killed, that much may not be in its log."""


@pytest.fixture(scope="module")
def directed(testbed_run: Callable[..., FinishedRun]) -> FinishedRun:
    run = testbed_run("directed.yaml")
    assert run.summary, run.stderr
    return run


def test_each_answer_of_the_router_is_one_row_of_its_log_and_one_question_of_a_request(directed: FinishedRun) -> None:
    at_router = [hop for hop in directed.rows("hops") if hop["destination_service"] == "router"]
    assert {(hop["direction"], hop["source_pod"], hop["route"]) for hop in at_router} == {("inbound", None, "directed")}
    (fault,) = (each for each in directed.summary["faults"] if each["name"] == "no-router")
    answered = Counter(hop["request_id"] for hop in at_router)
    asked = Counter({row["request_id"]: row["questions"] for row in directed.rows("requests")})
    assert answered <= asked
    logged = [
        row
        for row in directed.rows("requests")
        if row["finished_s"] < fault["applied_s"] - UNWRITTEN_S and row["outcome"] == "ok"
    ]
    assert len(logged) > 100
    assert {row["request_id"]: row["questions"] for row in logged} == {
        row["request_id"]: answered[row["request_id"]] for row in logged
    }


def test_asking_takes_a_round_trip_for_the_connection_and_one_for_the_answer(directed: FinishedRun) -> None:
    for row in directed.rows("requests"):
        if row["questions"] and row["outcome"] == "ok":
            assert 8.0 <= row["router_ms"] < row["latency_ms"]


def test_every_request_goes_to_the_cell_that_its_client_was_told(directed: FinishedRun) -> None:
    zones = {"rz01": "east-a", "rz02": "east-b"}
    sent = [row for row in directed.rows("requests") if row["entry_zone"] is not None]
    assert all(row["entry_zone"] == zones[row["cell"]] for row in sent)
    assert all(hop["route"] != "first-hit" for hop in directed.rows("hops"))
    rights = directed.summary["ledger"]["by_phase"]["all"]["by_right"]
    assert set(rights) <= {"entry", "own"}, "who is refused is not forwarded"


def test_who_has_moved_is_refused_once_and_then_told_his_new_cell_within_one_request(directed: FinishedRun) -> None:
    refused = [hop["request_id"] for hop in directed.rows("hops") if hop["route"] == "misdirected"]
    rows = [row for row in directed.rows("requests") if row["request_id"] in refused and row["outcome"] == "ok"]
    assert len(rows) > 3
    assert len(refused) == len(set(refused))
    assert {row["partition"] for row in rows} <= MOVED
    assert {row["questions"] for row in rows} == {1}, "all held an answer"
    assert {(row["cell"], row["map_version"], row["status"]) for row in rows} == {("rz02", 2, 200)}


def test_without_the_router_only_those_fail_who_need_it(directed: FinishedRun) -> None:
    (fault,) = (each for each in directed.summary["faults"] if each["name"] == "no-router")

    in_vain_s = (fault["applied_s"] + 0.1, fault["healed_s"] - 1.0)
    during = [row for row in directed.rows("requests") if in_vain_s[0] < row["sent_s"] < in_vain_s[1]]
    assert {row["outcome"] for row in during if row["questions"] == 0} == {"ok"}
    lost = [row for row in during if row["questions"]]
    assert len(lost) > 2
    assert {(row["outcome"], row["error"], row["entry_zone"], row["cell"]) for row in lost} == {
        ("unknown", "router: timed out", None, None)
    }
