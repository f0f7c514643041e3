"""Real Locust processes write and read a store's keys; what their records show is what the store did."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from testbed.results.measure.histories.check import HistoryReport
from testbed.results.measure.histories.findings import Kind
from testbed.results.measure.histories.table import checked
from testbed.results.tables.ingest import ingest_requests
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import TableWriter, read_table

KINDS = [
    {"name": name, "method": method, "path": "/{key}", "weight": 0.5, "headers": {}, "body": None}
    for name, method in (("write", "PUT"), ("read", "GET"))
]


@contextmanager
def store(keeps: Callable[[int], bool]) -> Iterator[str]:
    """One that acknowledges every write and keeps those whose number, from 1 on, it is to keep."""
    values: dict[str, bytes] = {}
    lock = threading.Lock()
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_PUT(self) -> None:
            nonlocal count
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                count += 1
                if keeps(count):
                    values[self.path] = body
            self._answer(200, b"")

        def do_GET(self) -> None:
            with lock:
                value = values.get(self.path)
            self._answer(204 if value is None else 200, value or b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("x-store-owner", "only@1")
            if status != 204:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def history_of(load: Any, folder: Path) -> tuple[Any, HistoryReport]:
    load.start()
    load.finish()
    with (
        TableWriter(folder, "requests", "a") as requests,
        TableWriter(folder, "events", "a") as events,
        TableWriter(folder, "operations", "a") as operations,
    ):
        ingest_requests(load.records_file, requests, events, Clock(load.t0_s, 0.0), "a", operations)
    table = read_table(folder, "operations")
    history = checked(table)
    assert history is not None
    return table, history


@pytest.mark.parametrize("source", [{"users": 5, "think_time_s": 0.01}, {"rate_per_s": 100.0, "arrival": "poisson"}])
def test_a_store_that_keeps_all_shows_nothing(start_load: Any, tmp_path: Path, source: dict[str, Any]) -> None:
    with store(lambda number: True) as url:
        load = start_load(url, sources=[source], requests=KINDS, operations={"keys": 5, "owner": "x-store-owner"})
        table, history = history_of(load, tmp_path)
    assert history.findings == ()
    rows = table.to_pylist()
    assert {row["key"] for row in rows} == {"k0", "k1", "k2", "k3", "k4"}
    writes = [row for row in rows if row["operation"] == "write"]
    assert len({row["value"] for row in writes}) == len(writes) > 20
    assert {row["owner"] for row in writes} == {"only@1"}
    assert any(row["value"] for row in rows if row["operation"] == "read")
    assert len({row["process"] for row in rows}) == (5 if "users" in source else len(rows))


def test_a_store_that_forgets_what_it_acknowledged_is_found_out(start_load: Any, tmp_path: Path) -> None:
    with store(lambda number: number % 7 != 0) as url:
        source = {"users": 5, "think_time_s": 0.01}
        load = start_load(url, sources=[source], requests=KINDS, operations={"keys": 5, "owner": "x-store-owner"})
        _, history = history_of(load, tmp_path)
    assert history.of_kind(Kind.STALE_READ)
    assert history.of_kind(Kind.NOT_LINEARIZABLE)


def test_operations_beside_other_requests_draw_keys_of_their_own_though_clients_carry_ids(
    start_load: Any, tmp_path: Path
) -> None:
    other = {"name": "other", "method": "GET", "path": "/", "weight": 1.0, "headers": {}, "body": None}
    ids = {"where": "header", "name": "x-user-id", "session": 1, "count": 1000}
    with store(lambda number: True) as url:
        load = start_load(
            url,
            sources=[{"users": 5, "think_time_s": 0.01}],
            requests=[other, *KINDS],
            ids=ids,
            operations={"keys": 5, "owner": "x-store-owner"},
        )
        table, history = history_of(load, tmp_path)
    assert history.findings == ()
    assert set(table["key"].to_pylist()) == {"k0", "k1", "k2", "k3", "k4"}
    names = read_table(tmp_path, "requests")["name"].to_pylist()
    assert names.count("other") > 20 < len(names) - names.count("other") == table.num_rows
