"""One request's way through a made-up run: what is part of what, why it failed, and what proxies had been told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.results.measure.trace import FLAGS, Endpoints, Requests
from testbed.results.show.trace_lines import render
from testbed.results.tables.schemas import PLACE_FIELDS
from testbed.results.tables.writer import TableWriter

TABLES_PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
ID = "0a1b2c3d-0000-4000-8000-000000000001"


def _place(end: str, pod: str, zone: str) -> dict[str, str]:
    values = (pod, pod.rpartition("-")[0], f"{zone}-1", zone, "east", "")
    return dict(zip((f"{end}_{field}" for field in PLACE_FIELDS), values, strict=True))


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
            call = {"direction": direction, "start_s": start_s, "duration_ms": duration_ms}
            hops.append({"request_id": ID, **ends, **call, "status": status, "flags": flags, "attempts": attempts})
    with TableWriter(run_dir, "attempts", "more") as attempts_table:
        ends = {**_place("source", "web-1", "east-a"), **_place("destination", "orders-1", "east-a")}
        row = {"request_id": ID, **ends, "start_s": 6.5022, "duration_ms": 500.0, "status": 503, "flags": "UF,URX"}
        attempts_table.append(row)
    with TableWriter(run_dir, "pushes", "more") as pushes:
        for kind, version, sent_s, acked_s in (
            ("Cluster", "1", -2.0, -1.9),
            ("ClusterLoadAssignment", "7", 2.0, 2.01),
            ("ClusterLoadAssignment", "8", 6.45, 6.6),
            ("ClusterLoadAssignment", "9", 7.0, 7.1),
        ):
            pushes.append({"proxy": "web-1", "type": kind, "version": version, "sent_s": sent_s, "acked_s": acked_s})
    with TableWriter(run_dir, "events", "more") as events:
        changed = ("master", "EndpointSlice", "orders", "EndpointsChanged")
        for t_s, (source, kind, name, reason), details in (
            (-2.5, changed, '{"added":["orders-1","orders-2"],"removed":[]}'),
            (4.0, ("web-1", "Endpoint", "orders-2", "Ejected"), "{}"),
            (5.0, ("web-1", "Endpoint", "orders-2", "Unejected"), "{}"),
            (6.0, ("web-1", "Endpoint", "orders-1", "Ejected"), "{}"),
            (6.4, changed, '{"added":[],"removed":["orders-1"]}'),
        ):
            events.append(
                {"t_s": t_s, "source": source, "kind": kind, "object": name, "reason": reason, "details": details}
            )
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
    # What had been decided since was on its way.
    assert found.endpoints == {"web-1": (Endpoints("orders", ("orders-1", "orders-2"), ("orders-1",)),)}


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
