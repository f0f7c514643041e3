"""From clients' records to the table `operations`, and from that to what must not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from testbed.results.measure.histories.findings import Kind
from testbed.results.measure.histories.table import checked
from testbed.results.show.history_table import history_figures
from testbed.results.tables.ingest import ingest_requests
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import TableWriter, read_table

CLOCK = Clock(100.0, 0.0)


def sent(number: int, key: str, value: str | None, at_s: float, process: str | None = "p") -> dict[str, Any]:
    what = {"t": "GET" if value is None else "PUT", "u": f"/{key}", "n": "read" if value is None else "write"}
    return {"e": "s", "id": f"r{number}", **what, "i": at_s, "s": at_s, "z": "a", "w": process, "y": key, "x": value}


def finished(
    number: int, at_s: float, status: int | None, outcome: str, value: str | None = None, owner: str | None = None
) -> dict[str, Any]:
    answer = {"c": status, "o": outcome, "m": None, "a": 0, "b": 0, "p": None}
    return {"e": "f", "id": f"r{number}", "f": at_s, **answer, "x": value, "g": owner}


def table_of(folder: Path, *lines: dict[str, Any]) -> Any:
    records = folder / "records"
    records.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    with (
        TableWriter(folder, "requests", "a") as requests,
        TableWriter(folder, "events", "a") as events,
        TableWriter(folder, "operations", "a") as operations,
    ):
        counts = ingest_requests(records, requests, events, CLOCK, "a", operations)
    assert counts.unreadable == counts.orphans == 0
    assert len(read_table(folder, "requests")) == sum(line["e"] == "s" for line in lines)
    return read_table(folder, "operations")


def test_a_request_of_a_key_is_an_operation_and_any_other_is_not(tmp_path: Path) -> None:
    plain = {"e": "s", "id": "r9", "t": "GET", "u": "/", "n": "GET /", "i": 101.0, "s": 101.0, "z": "a"}
    table = table_of(
        tmp_path,
        sent(1, "k1", "v1", 101.0),
        finished(1, 102.0, 200, "ok", owner="data-r1@3"),
        sent(2, "k1", None, 102.5, process=None),
        finished(2, 103.0, 200, "ok", "v1"),
        plain,
    )
    written = {"request_id": "r1", "process": "p", "key": "k1", "partition": None, "operation": "write", "value": "v1"}
    written |= {"invoked_s": 1.0, "returned_s": 2.0, "outcome": "ok", "owner": "data-r1@3"}
    read = {**written, "request_id": "r2", "process": "r2", "operation": "read", "invoked_s": 2.5, "returned_s": 3.0}
    assert table.to_pylist() == [written, {**read, "owner": None}]


def test_a_server_error_does_not_tell_that_a_write_was_not_done(tmp_path: Path) -> None:
    table = table_of(
        tmp_path,
        *(sent(1, "k", "v1", 101.0), finished(1, 102.0, 503, "failed")),
        *(sent(2, "k", "v2", 101.0), finished(2, 102.0, 400, "failed")),
        *(sent(3, "k", "v3", 101.0), finished(3, 102.0, None, "failed")),
        sent(4, "k", "v4", 101.0),
    )
    assert [(row["value"], row["outcome"], row["returned_s"]) for row in table.to_pylist()] == [
        ("v1", "unknown", 2.0),
        ("v2", "failed", 2.0),
        ("v3", "failed", 2.0),
        ("v4", "unknown", None),
    ]
    assert checked(table) is not None


def test_what_must_not_be_is_counted_by_kind_and_shown_from_the_first_on(tmp_path: Path) -> None:
    lines = [
        *(sent(1, "k", "older", 101.0), finished(1, 102.0, 200, "ok")),
        *(sent(2, "k", "newer", 103.0), finished(2, 104.0, 200, "ok")),
        *(sent(3, "k", None, 105.0), finished(3, 106.0, 200, "ok", "older")),
    ]
    table = table_of(tmp_path, *lines)
    history = checked(table)
    assert history is not None
    assert [finding.kind for finding in history.of_kind(Kind.LOST_WRITE)] == [Kind.LOST_WRITE]
    figures = history_figures(history, table)
    assert (figures.operations, figures.acknowledged_writes, figures.unknown_writes, figures.reads) == (3, 2, 0, 1)
    assert figures.found["lost write"] == figures.found["stale read"] == 1
    lost = next(each for each in figures.first if each.kind == "lost write")
    assert (lost.key, lost.value, lost.other_value) == ("k", "newer", "older")


def test_without_operations_there_is_no_history(tmp_path: Path) -> None:
    assert checked(table_of(tmp_path)) is None
