"""A zone dies under load and comes back: what clients, proxies and the control plane went through."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import orjson
import pytest

from tests.emulation.conftest import (
    DEADLINE_S,
    RUN_TIMEOUT_S,
    FinishedRun,
    finish_run,
    readme_cost_s,
    start_run,
    told_of,
    whole_in_logs,
)

pytestmark = pytest.mark.live

DEAD = "east-a"
ANYWHERE = "stock"
"""The service whose callers know no zones, so that there are calls into the dead one to time out."""


@dataclass(frozen=True)
class Watched:
    """A run, and everything that its page showed meanwhile."""

    run: FinishedRun
    shown: Sequence[dict[str, str]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    out = tmp_path_factory.mktemp("runs")
    process = start_run("outage.yaml", out, hosting="actor", options=["--watch"])
    assert process.stderr is not None
    shown: list[dict[str, str]] = []
    for line in process.stderr:
        if (link := re.search(rb"http://127\.0\.0\.1:\d+/\S+/", line)) is not None:
            viewer = threading.Thread(target=_watch, args=(link[0].decode(), shown), daemon=True)
            viewer.start()
            break
    run = finish_run(process, out)
    assert run.summary, run.stderr
    viewer.join(DEADLINE_S)
    return Watched(run, shown)


def _watch(url: str, shown: list[dict[str, str]]) -> None:
    with urllib.request.urlopen(f"{url}events", timeout=RUN_TIMEOUT_S) as stream:
        shown.extend(orjson.loads(line[5:]) for line in stream if line.startswith(b"data: {"))


@pytest.fixture(scope="module")
def outage(watched: Watched) -> FinishedRun:
    return watched.run


def test_its_page_showed_the_outage_as_it_happened_and_the_end(watched: Watched) -> None:
    fault = watched.run.summary["faults"][0]
    maps = [piece for shown in watched.shown if (piece := shown.get("map"))]
    assert any(f"hit by the fault: {DEAD}-1" in piece for piece in maps)
    assert any("calls to its pods" in piece and "flow e0" in piece for piece in maps)
    assert fault["name"] in "".join(shown.get("course", "") for shown in watched.shown)
    assert any("NodeNotReady" in shown.get("events", "") for shown in watched.shown)
    held: dict[str, str] = {}
    for shown in watched.shown:
        held |= shown
    assert watched.run.summary["verdict"] in held["state"]
    assert held["doing"] == f"the run has ended; its report is {watched.run.run_dir}/report.html"
    assert f"{fault['entry']['moves'][0]['origin']} left the gateway of {DEAD}" in held["recovery"]
    requests = watched.run.summary["requests"]
    counted = [int(figure.replace(",", "")) for figure in re.findall("<dd>([\\d,]+)</dd>", held["tiles"])]
    assert counted == [requests["sent"], requests["failed"], requests["unknown"]]


def test_rows_and_locusts_count_and_the_summary_agree(outage: FinishedRun) -> None:
    requests = outage.summary["requests"]
    assert requests["sent"] > 0
    assert len(outage.rows("requests")) == requests["sent"]
    assert outage.summary["locust"]["requests"] == requests["sent"]
    assert requests["ok"] + requests["failed"] + requests["unknown"] == requests["sent"]


def test_every_ok_request_has_its_hops(outage: FinishedRun) -> None:
    hops = outage.summary["hops"]
    assert hops["ok_requests_without_hops"] == hops["explained_by_killed_proxies"]
    chains: dict[str, set[tuple[str | None, str | None, str]]] = {}
    for hop in outage.rows("hops"):
        chain = chains.setdefault(hop["request_id"], set())
        chain.add((hop["source_service"], hop["destination_service"], hop["direction"]))
    whole = {
        ("gateway", "web", "outbound"),
        ("gateway", "web", "inbound"),
        ("web", "orders", "outbound"),
        ("web", "orders", "inbound"),
        ("web", "stock", "outbound"),
        ("web", "stock", "inbound"),
    }
    answered = [row for row in outage.rows("requests") if row["outcome"] == "ok" and whole_in_logs(outage, row)]
    assert len(answered) > 500
    for request in answered:
        assert chains[request["request_id"]] >= whole


def test_a_request_that_a_retry_saved_is_traced_with_what_its_proxies_had_been_told(outage: FinishedRun) -> None:
    fault = outage.summary["faults"][0]
    in_vain = {
        row["request_id"]
        for row in outage.rows("attempts")
        if row["destination_zone"] == DEAD and fault["applied_s"] < row["start_s"] < fault["healed_s"] - 1.5
    }
    saved = [row for row in outage.rows("requests") if row["outcome"] == "ok" and row["request_id"] in in_vain]
    assert saved
    for trace in outage.traces([row["request_id"] for row in saved[:10]]):
        calls = [step for step in trace["steps"] if step["kind"] != "inbound"]
        assert [step for step in calls if step["kind"] == "try" and step["destination_zone"] == DEAD]
        for step in calls:
            told = told_of(step, trace)
            # Also those of the dead zone, until the control plane had noticed.
            assert step["destination"] in told["pods"]
            assert told["cluster"]["connect_timeout"] == "0.4s"
            assert told["route"]["route"]["retry_policy"]["per_try_timeout"] == "1s"
            if step["kind"] == "outbound":
                entered = step["source"].startswith("gateway-")
                assert told["route"]["name"] == step["route"] == ("/" if entered else step["service"])
                for group in told["endpoints"]:
                    preferred = group["locality"] == f"east/{step['source_zone']}"
                    assert group["priority"] == (0 if preferred or step["service"] == ANYWHERE else 1)


def test_of_what_was_pushed_every_content_is_kept_once(outage: FinishedRun) -> None:
    resources, pushes = outage.rows("resources"), outage.rows("pushes")
    assert len({row["content"] for row in resources}) == len(resources)
    assert {row["number"] for row in resources} == {number for push in pushes for number in push["resources"]}
    assert {row["type"] for row in resources} == {push["type"] for push in pushes if push["resources"]}


def test_what_was_lost_until_clients_found_another_gateway_is_told_as_their_entry(outage: FinishedRun) -> None:
    fault = outage.summary["faults"][0]
    (move,) = [move for move in fault["entry"]["moves"] if move["origin"] == DEAD]
    assert (move["left"], move["to"] != DEAD) == (DEAD, True)
    assert fault["applied_s"] < move["answered_s"] < move["moved_s"]
    lost = [
        row
        for row in outage.rows("requests")
        if (row["origin_zone"], row["entry_zone"]) == (DEAD, DEAD) and row["outcome"] != "ok"
        if row["sent_s"] < move["moved_s"] and row["finished_s"] >= fault["applied_s"]
    ]
    assert sum(move["errors"].values()) == len(lost) > 0
    assert fault["by"]["origin"][DEAD]["errors"]["unknown"] >= move["errors"]["unknown"]


def test_calls_into_the_dead_zone_end_by_time_out_not_by_reset(outage: FinishedRun) -> None:
    fault = outage.summary["faults"][0]
    tries = [
        row
        for row in outage.rows("attempts")
        if row["destination_zone"] == DEAD
        and row["source_zone"] != DEAD
        and fault["applied_s"] < row["start_s"] < fault["healed_s"] - 1.5
    ]
    connects: dict[str, list[float]] = {}
    for row in tries:
        if row["flags"] == "UF":
            connects.setdefault(row["source_pod"], []).append(row["duration_ms"])
    assert connects, "nobody tried to connect to the dead zone"
    # A request that waits for a connection which another one opened waits for the rest of the time-out of 400 ms.
    for durations_ms in connects.values():
        assert max(durations_ms) >= 390, sorted(durations_ms)
    assert not [row for row in tries if row["flags"] == "UC"], "a dead machine does not reset its connections"


def test_every_try_into_the_dead_zone_is_accounted_for_with_its_time(outage: FinishedRun) -> None:
    fault = outage.summary["faults"][0]
    tries: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in outage.rows("attempts"):
        tries.setdefault((row["request_id"], row["source_pod"], row["destination_service"]), []).append(row)
    # A pod may be given a request twice: once until the gateway's per-try time-out, and again as its retry.
    calls: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for hop in outage.rows("hops"):
        if hop["direction"] == "outbound" and hop["source_zone"] != DEAD:
            calls.setdefault((hop["request_id"], hop["source_pod"], hop["destination_service"]), []).append(hop)
    in_vain = 0
    for key, hops in calls.items():
        if not any(fault["applied_s"] < hop["start_s"] < fault["healed_s"] for hop in hops):
            continue
        if any("UH" in (hop["flags"] or "") for hop in hops):
            continue
        failed = tries.get(key, [])
        answered = sum(hop["status"] == 200 and hop["flags"] is None for hop in hops)
        made = sum(hop["attempts"] for hop in hops)
        assert len(failed) == made - answered, (hops, failed)
        lost_ms = sum(row["duration_ms"] for row in failed)
        took_ms = sum(hop["duration_ms"] for hop in hops)
        assert lost_ms <= took_ms + 5 * len(failed), (hops, failed)
        if not answered:
            # What is not a try is waiting before the next one: 25 to 250 ms.
            assert lost_ms >= took_ms - 300 * (made - len(hops)) - 250 * len(hops), (hops, failed)
        in_vain += any(row["destination_zone"] == DEAD for row in failed)
    # How many is chance (7 to 16 were seen): one of three calls of either caller goes there until it is ejected.
    assert in_vain >= 2
    script_s = readme_cost_s(outage, DEAD)
    for pod, seconds in script_s.items():
        lost_s = sum(
            min(row["start_s"] + row["duration_ms"] / 1e3, fault["healed_s"]) - max(row["start_s"], fault["applied_s"])
            for rows in tries.values()
            for row in rows
            if row["source_pod"] == pod and row["destination_zone"] == DEAD
            if fault["applied_s"] - row["duration_ms"] / 1e3 < row["start_s"] < fault["healed_s"]
        )
        assert abs(seconds - lost_s) < 0.01, pod
    assert set(script_s) >= {"web-2", "web-3"}


def test_the_other_zones_proxies_acknowledge_endpoints_without_the_dead_zone(outage: FinishedRun) -> None:
    fault = outage.summary["faults"][0]
    zone_of = {row["pod"]: row["zone"] for row in outage.rows("pods")}
    acked = {
        row["proxy"]
        for row in outage.rows("pushes")
        if row["type"] == "ClusterLoadAssignment"
        and row["acked_s"] is not None
        and fault["applied_s"] < row["sent_s"] <= row["acked_s"] < fault["healed_s"]
    }
    assert acked == {pod for pod, zone in zone_of.items() if zone != DEAD}


def test_the_dead_zone_is_neither_called_nor_heard_while_it_is_dead_and_is_called_again_once_healed(
    outage: FinishedRun,
) -> None:
    fault = outage.summary["faults"][0]
    served = [row["start_s"] for row in outage.rows("hops") if row["direction"] == "inbound"]
    dead = [
        row["start_s"]
        for row in outage.rows("hops")
        if row["direction"] == "inbound" and row["destination_zone"] == DEAD
    ]
    assert [start_s for start_s in dead if start_s < fault["applied_s"]]
    # What is in its nodes goes on among itself until the processes are killed, behind links that are silent already.
    assert not [start_s for start_s in dead if outage.last_kill_s() < start_s < fault["healed_s"]]
    assert [start_s for start_s in served if fault["applied_s"] < start_s < fault["healed_s"]]
    assert [start_s for start_s in dead if start_s > fault["healed_s"]]


def test_the_ledger_has_the_messages_of_every_call_once_whatever_their_bodies(outage: FinishedRun) -> None:
    """No workload of this run sends a body."""
    made = [row for row in outage.rows("hops") if row["direction"] == "outbound" and row["destination_zone"]]
    assert all(row["request_bytes"] > 60 and row["response_bytes"] > 15 for row in made if row["status"] == 200)
    steady = outage.summary["ledger"]["by_phase"]["steady"]
    inside = [row for row in made if 2.0 <= row["start_s"] < outage.summary["faults"][0]["applied_s"]]
    crossing = [row for row in inside if row["source_zone"] != row["destination_zone"]]
    assert steady["all"]["calls"] == len(inside)
    assert steady["cross_zone"]["response_bytes"] == sum(row["response_bytes"] for row in crossing) > 0
    assert steady["by_distance"]["same_region"] == steady["cross_zone"]
    assert list(steady["by_service"]) == ["gateway", "web"]


def test_the_fault_came_on_time_and_the_node_was_found_unready_by_its_lease(outage: FinishedRun) -> None:
    fault = outage.summary["faults"][0]
    assert fault["applied_s"] - 6.0 >= 0
    not_ready = [
        row["t_s"]
        for row in outage.rows("events")
        if row["reason"] == "NodeNotReady" and row["object"] == f"{DEAD}-1" and row["t_s"] > fault["applied_s"]
    ]
    # Grace of the fast profile is 2 s from the last renewal, which is some 0.5 s before the crash; who heard of the
    # death otherwise would know at once.
    assert fault["applied_s"] + 1.0 <= min(not_ready) < fault["healed_s"]


def test_calls_stay_in_their_zone_with_locality_failover_and_follow_the_endpoints_share_without(
    outage: FinishedRun,
) -> None:
    fault = outage.summary["faults"][0]
    local: dict[str, list[bool]] = {}
    for row in outage.rows("hops"):
        if row["direction"] == "outbound" and row["destination_zone"] and 2.0 <= row["start_s"] < fault["applied_s"]:
            same = row["source_zone"] == row["destination_zone"]
            local.setdefault(row["destination_service"], []).append(same)
    for service in ("web", "orders"):
        assert sum(local[service]) / len(local[service]) >= 0.99, service
    calls = len(local[ANYWHERE])
    share = sum(local[ANYWHERE]) / calls
    # One of three endpoints is in the caller's zone; a share of n choices is within 5 standard errors of it.
    assert abs(share - 1 / 3) <= 5 * sqrt(1 / 3 * 2 / 3 / calls), (share, calls)
