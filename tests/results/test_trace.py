"""One request's way through a made-up run: what is part of what, why it failed, and what proxies had been told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.results.measure.pushed import Group, Told
from testbed.results.measure.trace import FLAGS, Requests
from testbed.results.show.trace_lines import render
from testbed.results.tables.schemas import PLACE_FIELDS
from testbed.results.tables.writer import TableWriter

TABLES_PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
ID = "0a1b2c3d-0000-4000-8000-000000000001"


def _place(end: str, pod: str, zone: str) -> dict[str, str]:
    values = (pod, pod.rpartition("-")[0], f"{zone}-1", zone, "east", "")
    return dict(zip((f"{end}_{field}" for field in PLACE_FIELDS), values, strict=True))


IPS = {"gateway-1": "127.0.0.1", "web-1": "127.0.0.2", "orders-1": "127.0.0.3", "orders-2": "127.0.0.4"}


def _group(priority: int, zone: str, *pods: str) -> dict[str, Any]:
    at = [{"socket_address": {"address": IPS[pod], "port_value": 8000}} for pod in pods]
    return {
        "locality": {"region": "east", "zone": zone, "sub_zone": ""},
        "priority": priority,
        "load_balancing_weight": len(pods),
        "lb_endpoints": [{"endpoint": {"address": each}} for each in at],
    }


CLUSTER = {"name": "outbound|80||orders", "connect_timeout": "0.5s", "lb_policy": "LEAST_REQUEST"}
ROUTE = {"name": "orders", "match": {"prefix": "/"}, "route": {"cluster": CLUSTER["name"], "timeout": "2s"}}
BLOCKED = {"name": "block_all", "domains": ["*"], "routes": [{"name": "block_all", "match": {"prefix": "/"}}]}
RESOURCES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Cluster", CLUSTER),
    (
        "RouteConfiguration",
        {
            "name": "outbound",
            "virtual_hosts": [{"name": "orders:80", "domains": ["orders"], "routes": [ROUTE]}, BLOCKED],
        },
    ),
    ("ClusterLoadAssignment", {"cluster_name": CLUSTER["name"], "endpoints": []}),
    (
        "ClusterLoadAssignment",
        {
            "cluster_name": CLUSTER["name"],
            "endpoints": [_group(0, "east-a", "orders-1"), _group(1, "east-b", "orders-2")],
        },
    ),
    ("ClusterLoadAssignment", {"cluster_name": CLUSTER["name"], "endpoints": [_group(0, "east-b", "orders-2")]}),
)
PUSHES = (
    ("Cluster", "1", -2.0, -1.9, 0),
    ("RouteConfiguration", "1", -2.0, -1.8, 1),
    ("ClusterLoadAssignment", "6", -2.0, -1.9, 2),
    ("ClusterLoadAssignment", "7", 2.0, 2.01, 3),
    ("ClusterLoadAssignment", "8", 6.45, 6.6, 4),
    ("ClusterLoadAssignment", "9", 7.0, 7.1, 3),
)
WAY = (
    ("outbound", ("gateway-1", "east-a"), ("web-1", "east-a"), 6.5005, 3001.0, 504, "UT", 2),
    ("inbound", ("gateway-1", "east-a"), ("web-1", "east-a"), 6.501, 3000.0, None, "DC", 1),
    ("outbound", ("web-1", "east-a"), ("orders-2", "east-b"), 6.5021, 2998.5, None, "DC", 2),
)


@pytest.fixture
def traced(run_dir: Path) -> Path:
    """The made-up run, with one request more that has a way of its own."""
    with TableWriter(run_dir, "requests", "more") as requests:
        what = {"request_id": ID, "origin_zone": "east-a", "name": "GET /", "method": "GET", "path": "/orders?n=7"}
        times = {"intended_s": 6.5, "sent_s": 6.5002, "finished_s": 9.502, "latency_ms": 3002.0}
        answer = {"status": 504, "outcome": "unknown", "error": "status 504", "entry_zone": "east-a"}
        requests.append({**what, **times, **answer})
    with TableWriter(run_dir, "hops", "more") as hops:
        for direction, source, destination, start_s, duration_ms, status, flags, attempts in WAY:
            ends = {**_place("source", *source), **_place("destination", *destination)}
            route = "default" if direction == "inbound" else destination[0].partition("-")[0]
            call = {"direction": direction, "start_s": start_s, "duration_ms": duration_ms, "route": route}
            hops.append({"request_id": ID, **ends, **call, "status": status, "flags": flags, "attempts": attempts})
    with TableWriter(run_dir, "attempts", "more") as attempts_table:
        ends = {**_place("source", "web-1", "east-a"), **_place("destination", "orders-1", "east-a")}
        row = {"request_id": ID, **ends, "start_s": 6.5022, "duration_ms": 500.0, "status": 503, "flags": "UF,URX"}
        attempts_table.append(row)
    with TableWriter(run_dir, "pushes", "more") as pushes:
        for kind, version, sent_s, acked_s, number in PUSHES:
            times = {"sent_s": sent_s, "acked_s": acked_s}
            pushes.append({"proxy": "web-1", "type": kind, "version": version, **times, "resources": [number]})
    with TableWriter(run_dir, "resources", "more") as resources:
        for number, (kind, content) in enumerate(RESOURCES):
            name = content.get("name", CLUSTER["name"])
            resources.append({"number": number, "type": kind, "name": name, "content": orjson.dumps(content).decode()})
    with TableWriter(run_dir, "pods", "more") as pods:
        for pod, ip in IPS.items():
            pods.append({**dict.fromkeys(PLACE_FIELDS, ""), "pod": pod, "ip": ip, "started_s": -5.0})
    with TableWriter(run_dir, "events", "more") as events:
        for t_s, name, reason in (
            (4.0, "orders-2", "Ejected"),
            (5.0, "orders-2", "Unejected"),
            (6.0, "orders-1", "Ejected"),
            (6.7, "orders-2", "Ejected"),
        ):
            event = {"t_s": t_s, "source": "web-1", "kind": "Endpoint", "object": name, "reason": reason}
            events.append({**event, "details": "{}"})
    return run_dir


def trace(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["trace", *map(str, arguments)])


def test_the_way_of_a_request_at_80_columns(traced: Path, golden: Callable[[str, str], None]) -> None:
    said = trace(traced, ID[:8])
    assert said.exit_code == 0
    golden("trace.txt", said.stdout)
    assert all(len(line) <= 80 and line == line.rstrip() for line in said.stdout.splitlines())


def test_what_a_call_is_a_part_of_and_what_its_proxy_acted_by(traced: Path) -> None:
    (found,) = Requests(traced).traces([ID])
    assert [(step.kind, step.depth) for step in found.steps] == [
        ("outbound", 0),
        ("inbound", 1),
        ("outbound", 2),
        ("try", 3),
    ]
    versions = {version.type: version for version in found.versions["web-1"]}
    told = versions["ClusterLoadAssignment"]
    assert (told.in_force, told.acked_s, told.on_its_way) == ("7", 2.01, "8")
    assert versions["Cluster"].on_its_way is None
    groups = (Group(0, 1, "east/east-a", ("orders-1",)), Group(1, 1, "east/east-b", ("orders-2",)))
    assert found.told == (Told("web-1", "orders", "orders:80", ROUTE, CLUSTER, groups, ("orders-1",)),)


def test_the_configuration_that_a_call_went_by_is_shown_as_it_was_pushed(
    traced: Path, golden: Callable[[str, str], None]
) -> None:
    shown = trace(traced, ID, "--config").stdout
    golden("trace-config.txt", shown.removeprefix(trace(traced, ID).stdout))


def test_of_a_run_that_did_not_keep_what_was_pushed_versions_are_shown(traced: Path) -> None:
    shutil.rmtree(traced / "resources")
    for file in (traced / "pushes").iterdir():
        pq.write_table(pq.read_table(file).drop_columns("resources"), file)
    (found,) = Requests(traced).traces([ID])
    assert found.told == ()
    assert [version.in_force for version in found.versions["web-1"]] == ["1", "7", "1"]


def test_those_that_were_not_ok_and_the_slowest_can_be_picked(traced: Path) -> None:
    slowest = orjson.loads(trace(traced, "--slowest", 1, "--json").stdout)
    assert [each["request"]["request_id"] for each in slowest] == [ID]
    failed = orjson.loads(trace(traced, "--failed", "--json").stdout)
    assert len(failed) == 10
    assert all(each["request"]["outcome"] != "ok" for each in failed)
    both = orjson.loads(trace(traced, "--failed", "--slowest", 3, "--json").stdout)
    assert [each["request"]["latency_ms"] for each in both] == [3002.0, 1000.0, 1000.0]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "name requests, or choose some by --slowest N, --failed or both"),
        ((ID, "--failed"), "name requests, or choose some by --slowest N, --failed or both"),
        (("nobody",), "no request, or more than one, begins with nobody"),
        (("east",), "no request, or more than one, begins with east"),
    ],
)
def test_what_cannot_be_shown_is_bad_input(traced: Path, arguments: tuple[str, ...], why: str) -> None:
    said = trace(traced, *arguments)
    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr.endswith(f"{why}\n")


def test_a_request_that_no_proxy_saw_has_a_line_all_the_same(whole_run: Path) -> None:
    (found,) = Requests(whole_run).traces(["east-a-310"])
    lines = [line.plain for line in render(found, 80)]
    assert found.steps == ()
    assert "client in east-a" in lines[2]
    assert lines[-1] == "  no proxy has a record of it"


def test_flags_have_the_words_of_the_page() -> None:
    page = TABLES_PAGE.read_text()
    assert [flag for flag, words in FLAGS.items() if f"| `{flag}` | {words} |" not in page] == []
