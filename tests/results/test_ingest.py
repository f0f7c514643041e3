from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.results.measure.leaders import LeaderChange, leader_changes
from testbed.results.tables import lines as lines_module
from testbed.results.tables.ingest import NOT_FINISHED, ingest_leaders, ingest_outlier_log, ingest_requests
from testbed.results.tables.lines import IngestCounts
from testbed.results.tables.pods import PodIdentity, Pods
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import TableWriter, read_table

CLOCK = Clock(t0_monotonic_s=100.0, epoch_minus_monotonic_s=1_700_000_000.0)
WEB = PodIdentity("web-1", "web", "n1", "east-a", "east", "c1", "127.20.1.3", -5.0)
ORDERS = PodIdentity("orders-1", "orders", "n2", "east-b", "east", "c2", "127.20.2.3", -5.0)
PODS = Pods([WEB, ORDERS])


def _sent(request_id: str, intended_s: float = 101.0) -> dict[str, Any]:
    what = {"t": "PUT", "u": "/carts/7?full", "n": "GET /"}
    return {"e": "s", "id": request_id, **what, "i": intended_s, "s": intended_s + 0.5, "z": "east-a"}


def _finished(request_id: str, finished_s: float = 103.0, outcome: str = "ok") -> dict[str, Any]:
    answer = {"c": 200 if outcome == "ok" else None, "o": outcome, "m": None}
    return {"e": "f", "id": request_id, "f": finished_s, **answer, "a": 5, "b": 1000, "p": "7"}


def _write(path: Path, lines: list[Any], end: bytes = b"") -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines) + end)
    return path


def _requests(folder: Path, path: Path) -> tuple[IngestCounts, list[dict[str, Any]]]:
    with TableWriter(folder, "requests", "clients") as requests, TableWriter(folder, "events", "clients") as events:
        counts = ingest_requests(path, requests, events, CLOCK, "east-b")
    return counts, read_table(folder, "requests").to_pylist()


def test_a_request_is_one_row_with_latency_from_its_intended_time(tmp_path: Path) -> None:
    counts, rows = _requests(tmp_path, _write(tmp_path / "records", [_sent("r1"), _finished("r1")]))
    assert counts == IngestCounts(lines=2, rows=1)
    assert rows == [
        {
            "request_id": "r1",
            "origin_zone": "east-b",
            "name": "GET /",
            "method": "PUT",
            "path": "/carts/7?full",
            "partition": "7",
            "intended_s": 1.0,
            "sent_s": 1.5,
            "finished_s": 3.0,
            "latency_ms": 2000.0,
            "status": 200,
            "outcome": "ok",
            "error": None,
            "entry_zone": "east-a",
            "sent_bytes": 5,
            "received_bytes": 1000,
            "cell": None,
            "map_version": None,
            "questions": None,
            "router_ms": None,
        }
    ]


def test_a_request_without_finish_is_unknown(tmp_path: Path) -> None:
    _, rows = _requests(tmp_path, _write(tmp_path / "records", [_sent("r1")]))
    assert [(row["outcome"], row["error"], row["finished_s"]) for row in rows] == [("unknown", NOT_FINISHED, None)]


def test_what_a_replica_of_a_store_noted_of_its_leadership_are_events(tmp_path: Path) -> None:
    lines = [
        {"t_s": 90.0, "what": "leads", "group": 0, "term": 1, "partitions": "0-49"},
        {"t_s": 112.5, "what": "leads no more", "group": 0, "term": 1, "partitions": "0-49"},
        {"t_s": 111.0, "what": "leads", "group": 1, "term": 7, "partitions": "50"},
        {"t_s": 113.5, "what": "yields", "group": 1, "term": 7, "partitions": "50"},
        {"t_s": 113.75, "what": "leads", "group": 1, "term": 8, "partitions": "50"},
        {"t_s": 114.0, "what": "leads no more", "group": 1, "term": 7, "partitions": "50"},
        {"t_s": 115.0, "what": "leads", "group": 1, "term": 9, "partitions": "50"},
        {"t_s": 115.0, "what": "in sync", "group": 1, "term": 9, "partitions": "50", "isr": ["data-r1", "data-r2"]},
        {"t_s": "soon", "what": "leads", "group": 1, "term": 7, "partitions": "50"},
    ]
    path = _write(tmp_path / "data-r1-1.leaders.jsonl", lines, end=b'{"t_s": 1')
    with TableWriter(tmp_path, "events", "a") as events:
        counts = ingest_leaders(path, "data-r1-1", "data", CLOCK, events)
    assert (counts.lines, counts.rows, counts.unreadable) == (10, 8, 2)
    table = read_table(tmp_path, "events")
    assert {(row["source"], row["kind"]) for row in table.to_pylist()} == {("data-r1-1", "Leader")}
    (in_sync,) = (row["details"] for row in table.to_pylist() if row["reason"] == "IsrChanged")
    assert orjson.loads(in_sync) == {"term": 9, "partitions": "50", "isr": ["data-r1", "data-r2"]}
    # Who led before the load began is no change.
    assert leader_changes(table) == (
        LeaderChange(11.0, "data/1", "50", "data-r1-1", 7, "leads"),
        LeaderChange(12.5, "data/0", "0-49", "data-r1-1", 1, "leads no more"),
        LeaderChange(13.5, "data/1", "50", "data-r1-1", 7, "yields"),
        LeaderChange(13.75, "data/1", "50", "data-r1-1", 8, "leads", 0.25),
        # It had not heard yet that it does not lead: nobody was blocked since then.
        LeaderChange(14.0, "data/1", "50", "data-r1-1", 7, "leads no more"),
        LeaderChange(15.0, "data/1", "50", "data-r1-1", 9, "leads"),
    )


def test_what_a_locustfile_fired_itself_is_an_event_and_no_request(tmp_path: Path) -> None:
    own = {"e": "o", "t": "JOURNEY", "n": "buy", "f": 104.5, "d": 320.5, "m": None}
    path = _write(
        tmp_path / "records", [_sent("r1"), own, {**own, "m": "no stock"}, {**own, "f": None}, _finished("r1")]
    )
    counts, rows = _requests(tmp_path, path)
    assert counts == IngestCounts(lines=5, rows=1, unreadable=1)
    assert [row["request_id"] for row in rows] == ["r1"]
    events = read_table(tmp_path, "events").to_pylist()
    assert [(row["t_s"], row["source"], row["kind"], row["object"], row["reason"]) for row in events] == [
        (4.5, "clients/east-b", "LocustEvent", "buy", reason) for reason in ("Fired", "Failed")
    ]
    assert orjson.loads(events[1]["details"]) == {
        "request_type": "JOURNEY",
        "response_time_ms": 320.5,
        "error": "no stock",
    }


def test_records_of_an_earlier_version_have_neither_path_nor_bytes(tmp_path: Path) -> None:
    sent = {key: value for key, value in _sent("r1").items() if key not in "tu"}
    finished = {key: value for key, value in _finished("r1").items() if key not in "ab"}
    _, (row,) = _requests(tmp_path, _write(tmp_path / "records", [sent, finished]))
    assert (row["outcome"], row["method"], row["path"], row["received_bytes"]) == ("ok", None, None, None)


def test_torn_and_strange_lines_are_counted_and_cost_nothing_else(tmp_path: Path) -> None:
    lines = [_sent("r1"), 5, {"e": "s"}, _finished("r1", outcome="maybe"), _finished("nobody"), _finished("r1")]
    path = _write(tmp_path / "records", lines, end=b'{"e":"s","id":"r')
    counts, rows = _requests(tmp_path, path)
    assert counts == IngestCounts(lines=7, rows=1, unreadable=4, orphans=1)
    assert rows[0]["outcome"] == "ok"


_OUTCOME = st.sampled_from(["ok", "failed", "unknown", None])


@given(outcomes=st.lists(_OUTCOME, max_size=30), cut=st.integers(0, 200), block_bytes=st.integers(1, 500))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_every_whole_sent_line_is_exactly_one_row_wherever_the_file_was_torn(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[str | None], cut: int, block_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    lines: list[Any] = [_sent(f"r{number}") for number in range(len(outcomes))]
    lines += [_finished(f"r{number}", outcome=outcome) for number, outcome in enumerate(outcomes) if outcome]
    content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    content = content[: max(0, len(content) - cut)]
    (folder / "records").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "_BLOCK_BYTES", block_bytes)
        counts, rows = _requests(folder, folder / "records")
    whole = [line for line in lines[: content.count(b"\n")] if line["e"] == "s"]
    # A last line that lacks its newline only is whole as well.
    assert counts.rows == len(rows) in (len(whole), len(whole) + 1)
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert counts.unreadable <= 1
    tally = [sum(row["outcome"] == outcome for row in rows) for outcome in ("ok", "failed", "unknown")]
    assert sum(tally) == counts.rows


def test_ejections_are_events_about_the_endpoint(tmp_path: Path) -> None:
    line = {
        "type": "CONSECUTIVE_5XX",
        "cluster_name": "orders",
        "upstream_url": "127.20.2.3:15006",
        "action": "EJECT",
        "num_ejections": 1,
        "enforced": True,
        "timestamp": "2023-11-14T22:15:01.500Z",
    }
    lines = [line, {**line, "action": "UNEJECT", "enforced": False}, {**line, "enforced": False}, {"action": "EJECT"}]
    with TableWriter(tmp_path, "events", "web-1") as events:
        counts = ingest_outlier_log(_write(tmp_path / "outliers", lines), "web-1", PODS, CLOCK, events)
    rows = read_table(tmp_path, "events").to_pylist()
    assert (counts.rows, counts.unreadable) == (3, 1)
    assert [row["reason"] for row in rows] == ["Ejected", "Unejected", "EjectionNotEnforced"]
    assert (rows[0]["t_s"], rows[0]["source"], rows[0]["kind"], rows[0]["object"]) == (
        1.5,
        "web-1",
        "Endpoint",
        "orders-1",
    )
    assert orjson.loads(rows[0]["details"])["type"] == "CONSECUTIVE_5XX"
