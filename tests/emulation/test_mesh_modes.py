"""The same cluster with one proxy a node, and without a mesh: who carries calls, and what a failure costs."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import pytest

from tests.emulation.conftest import FinishedRun, readme_cost_s, told_of, whole_in_logs, wrongs

pytestmark = pytest.mark.live

VICTIM = "node-proxy-east-a-1-1"
KILL_PROXY = f"spec.faults=[{{name: kill-proxy, at: 4s, kill: {{pod: {VICTIM}}}}}]"
STOCK = (
    "spec.services.stock={replicas: 2, workload: {work: 1ms}}",
    "spec.services.web.workload.calls=[orders, stock]",
)
# With this seed, kube-proxy leads the first 16 connections from east-a-1 to stock to the pod in east-b. Callers keep
# their connections: with another one, whether any of web-1's leads into the zone that dies is chance.
TO_STOCK_2 = "spec.seed=2759"
LOSE_ZONE = "spec.faults=[{name: lose-east-b, at: 4s, for: 3s, crash: {zone: east-b}}]"

CLIENT_TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def node(testbed_run: Callable[..., FinishedRun]) -> FinishedRun:
    run = testbed_run("modes.yaml", "spec.mesh.mode=node", KILL_PROXY)
    assert run.summary, run.stderr
    return run


@pytest.fixture(scope="module")
def none(testbed_run: Callable[..., FinishedRun]) -> FinishedRun:
    run = testbed_run("modes.yaml", "spec.mesh.mode=none", *STOCK, TO_STOCK_2, LOSE_ZONE)
    assert run.summary, run.stderr
    return run


def envoys(run: FinishedRun) -> set[str]:
    assert run.run_dir is not None
    return {path.name.removesuffix(".bootstrap.json") for path in run.run_dir.glob("logs/*.bootstrap.json")}


def chains(run: FinishedRun) -> dict[str, set[tuple[str | None, str | None, str]]]:
    """Request -> its hops as (source service, destination service, direction)."""
    found: dict[str, set[tuple[str | None, str | None, str]]] = {}
    for hop in run.rows("hops"):
        call = (hop["source_service"], hop["destination_service"], hop["direction"])
        found.setdefault(hop["request_id"], set()).add(call)
    return found


def ok_requests(run: FinishedRun) -> list[str]:
    """Those whose hops are all there."""
    return [row["request_id"] for row in run.rows("requests") if row["outcome"] == "ok" and whole_in_logs(run, row)]


def same_zone_share(hops: list[dict[str, Any]], service: str) -> tuple[float, int]:
    called = [hop for hop in hops if hop["direction"] == "outbound" and hop["destination_service"] == service]
    return sum(hop["source_zone"] == hop["destination_zone"] for hop in called) / len(called), len(called)


# --- one proxy a node ----------------------------------------------------------------------------------------------


def test_a_head_request_passes_through_every_proxy_and_leaves_its_connections_whole(node: FinishedRun) -> None:
    rows = node.rows("requests")
    killed_s = node.summary["faults"][0]["applied_s"]
    assert {(row["method"], row["path"]) for row in rows} == {("GET", "/"), ("HEAD", "/cart?full")}
    asked_before = [row for row in rows if row["intended_s"] < killed_s - CLIENT_TIMEOUT_S]
    assert {row["outcome"] for row in asked_before} == {"ok"}
    assert {row["received_bytes"] for row in asked_before if row["method"] == "HEAD"} == {0}
    # What is under way when the proxy dies is cut off with it, though it began before.
    answered = {row["request_id"] for row in asked_before}
    assert not [row for row in node.rows("attempts") if row["request_id"] in answered]
    assert not [row for row in node.rows("hops") if row["request_id"] in answered and row["flags"]]


def test_only_gateways_and_nodes_have_proxies(node: FinishedRun) -> None:
    assert wrongs(node) == []
    proxies = {"gateway-east-a-1", "gateway-east-b-1", VICTIM, "node-proxy-east-b-1-1"}
    assert envoys(node) == proxies
    assert {row["proxy"] for row in node.rows("pushes")} == proxies | {"clients/east-a", "clients/east-b"}
    assert not [row for row in node.rows("pushes") if row["error"]]
    assert proxies < {row["pod"] for row in node.rows("pods")}


def test_a_node_proxy_logs_both_ends_of_the_calls_of_its_pods(node: FinishedRun) -> None:
    found = chains(node)
    whole = {
        ("gateway", "web", "outbound"),
        ("gateway", "web", "inbound"),
        ("web", "orders", "outbound"),
        ("web", "orders", "inbound"),
    }
    ok = ok_requests(node)
    assert len(ok) > 200
    assert {frozenset(found[request_id]) for request_id in ok} == {frozenset(whole)}


def test_a_killed_node_proxy_cuts_its_pods_off_until_it_is_back(node: FinishedRun) -> None:
    killed_s = node.summary["faults"][0]["applied_s"]
    came_back = [row for row in node.rows("events") if row["object"] == VICTIM and row["reason"] == "Connected"]
    assert len(came_back) == 2
    served = [row for row in node.rows("hops") if row["direction"] == "inbound" and row["destination_zone"] == "east-a"]
    assert [row for row in served if row["start_s"] < killed_s]
    assert not [row for row in served if killed_s < row["start_s"] < came_back[-1]["t_s"]]
    assert [row for row in served if row["start_s"] > came_back[-1]["t_s"]]
    # The pods themselves never stopped.
    workloads = {row["object"] for row in node.rows("events") if row["reason"] == "ProcessExited"}
    assert workloads == {VICTIM}


def test_a_node_proxy_honours_traffic_distribution(node: FinishedRun) -> None:
    killed_s = node.summary["faults"][0]["applied_s"]
    steady = [hop for hop in node.rows("hops") if hop["start_s"] < killed_s]
    assert same_zone_share(steady, "orders")[0] == 1.0


def test_a_trace_has_what_the_proxy_of_its_node_had_been_told_of_a_pods_calls(node: FinishedRun) -> None:
    killed_s = node.summary["faults"][0]["applied_s"]
    ok = [row["request_id"] for row in node.rows("requests") if row["finished_s"] < killed_s - CLIENT_TIMEOUT_S]
    for trace in node.traces(ok[:10]):
        for step in trace["steps"]:
            if step["kind"] == "outbound":
                entered = step["source"].startswith("gateway-")
                told = told_of(step, trace, None if entered else f"node-proxy-{step['source_zone']}-1-1")
                assert step["destination"] in told["pods"]
                assert told["route"]["name"] == step["route"] == ("/" if entered else "orders")
                assert told["cluster"]["name"] == f"outbound|80||{step['service']}"


# --- no mesh -------------------------------------------------------------------------------------------------------


def test_without_a_mesh_only_gateways_are_proxies(none: FinishedRun) -> None:
    assert wrongs(none) == []
    assert envoys(none) == {"gateway-east-a-1", "gateway-east-b-1"}
    told = {(row["proxy"], row["type"]) for row in none.rows("pushes") if row["acked_s"] is not None}
    assert {("kube-proxy/east-a-1", "EndpointSlice"), ("kube-proxy/east-b-1", "EndpointSlice")} <= told


def test_without_a_mesh_callers_tell_of_every_call(none: FinishedRun) -> None:
    found = chains(none)
    ok = ok_requests(none)
    assert len(ok) > 150
    called = (("gateway", "web"), ("web", "orders"), ("web", "stock"))
    whole = frozenset((source, destination, "outbound") for source, destination in called)
    assert {frozenset(found[request_id]) for request_id in ok} == {whole}


def test_a_trace_has_what_kube_proxy_had_been_told(none: FinishedRun) -> None:
    crashed_s = none.summary["faults"][0]["applied_s"]
    ok = [row["request_id"] for row in none.rows("requests") if row["finished_s"] < crashed_s - CLIENT_TIMEOUT_S]
    for trace in none.traces(ok[:10]):
        for step in trace["steps"]:
            entered = step["source"].startswith("gateway-")
            told = told_of(step, trace, None if entered else f"kube-proxy/{step['source_zone']}-1")
            assert step["destination"] in told["pods"]
            assert step["route"] == ("/" if entered else None)


def test_kube_proxy_honours_traffic_distribution_and_else_knows_no_zones(none: FinishedRun) -> None:
    crashed_s = none.summary["faults"][0]["applied_s"]
    steady = [hop for hop in none.rows("hops") if hop["start_s"] < crashed_s]
    assert same_zone_share(steady, "orders")[0] == 1.0
    share, calls = same_zone_share(steady, "web")
    assert abs(share - 0.5) <= 5 * sqrt(0.25 / calls), (share, calls)


def test_without_a_mesh_nothing_is_tried_twice_and_calls_into_a_dead_zone_hang(none: FinishedRun) -> None:
    fault = none.summary["faults"][0]
    assert {hop["attempts"] for hop in none.rows("hops")} <= {0, 1, None}
    hung = [
        hop
        for hop in none.rows("hops")
        if hop["source_pod"] == "gateway-east-a-1"
        and hop["status"] != 200
        # What is still open at the heal is ended by that.
        and fault["applied_s"] < hop["start_s"] < fault["healed_s"] - 2 * CLIENT_TIMEOUT_S
    ]
    assert hung
    # A dead machine does not reset: the clients give up.
    assert {hop["flags"] for hop in hung} == {"DC"}
    assert "web-2" in {hop["destination_pod"] for hop in hung}
    at_stock = {row["request_id"] for row in none.rows("attempts") if row["destination_pod"] == "stock-2"}
    assert {hop["request_id"] for hop in hung if hop["destination_pod"] == "web-1"} <= at_stock
    lost = {row["outcome"] for row in none.rows("requests") if row["request_id"] in {hop["request_id"] for hop in hung}}
    assert lost == {"unknown"}


def test_without_a_mesh_the_time_that_clients_lost_is_found_in_the_tries_that_lost_it(none: FinishedRun) -> None:
    fault = none.summary["faults"][0]
    applied_s, healed_s = fault["applied_s"], fault["healed_s"]
    attempts = none.rows("attempts")
    # A machine that is short of cores lets other requests time out as well.
    in_vain = {row["request_id"] for row in attempts if row["destination_zone"] == "east-b"}
    waited_s = [
        min(row["finished_s"], healed_s) - max(row["sent_s"], applied_s)
        for row in none.rows("requests")
        if row["outcome"] != "ok" and row["request_id"] in in_vain and row["finished_s"] > applied_s
    ]
    assert len(waited_s) > 20
    # Both who hangs at a pod of the dead zone are there: gateways, and workloads at a connection of kube-proxy's.
    script_s = readme_cost_s(none, "east-b")
    assert script_s.keys() == {"gateway-east-a-1", "web-1"}
    # Either is measured by a process of its own: a tenth of a second each is what these may differ by.
    assert sum(script_s.values()) == pytest.approx(sum(waited_s), abs=0.1 * len(waited_s))
    hung = [row for row in attempts if row["source_pod"] == "web-1" and row["flags"] == "DC"]
    assert ("stock-2", "east-b") in {(row["destination_pod"], row["destination_zone"]) for row in hung}
