"""Real load processes whose clients ask a router for their cell."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.loadgen.conftest import Load, Server, get

StartServer = Callable[[], Server]
StartLoad = Callable[..., Load]

DIRECTED = {"cookie": "cell", "map_version_header": "x-cell-map"}
IDS = {"where": "header", "name": "x-user-id", "session": 1000, "distribution": "uniform", "count": 1000}
ONE_CLIENT = [{"users": 1, "think_time_s": 0.1}]
NOWHERE = "http://127.0.0.1:1"


def answer(cell: str, version: int = 3, max_age_s: int = 30) -> dict[str, str]:
    return {"set-cookie": f"cell={cell}; Path=/; Max-Age={max_age_s}", "x-cell-map": str(version)}


def start(start_load: StartLoad, gateway: Server, router: str, **changes: Any) -> Load:
    table = {
        "routers": [{"zone": "edge", "url": router}],
        "cells": {"rz01": [{"zone": "b", "url": gateway.url}], "rz02": [{"zone": "c", "url": NOWHERE}]},
    }
    settings = {"ids": IDS, "directed": DIRECTED, "sources": ONE_CLIENT, "duration_s": 0.8}
    load = start_load(NOWHERE, table=table, **settings | changes)
    load.start()
    return load


@pytest.fixture
def gateway(start_server: StartServer) -> Server:
    return start_server()


@pytest.fixture
def router(start_server: StartServer) -> Server:
    server = start_server()
    server.answer = answer("rz01")
    return server


def test_a_client_asks_once_about_its_key_and_goes_straight_to_its_cell(
    start_load: StartLoad, gateway: Server, router: Server
) -> None:
    load = start(start_load, gateway, router.url, requests=[get("/cart?a=1")])
    done = load.finish()
    sent, finished = load.records()
    assert done["requests"] == done["sent"] == len(sent) == len(finished) == len(gateway.request_ids) > 3
    assert (done["failures"], done["own_events"]) == (0, 0)
    (question,) = router.headers
    first, *others = sorted(finished.values(), key=lambda line: line["f"])
    assert question["x-user-id"] == gateway.headers[0]["x-user-id"]
    assert question["x-request-id"] == first["id"] == gateway.headers[0]["x-request-id"]
    assert "cookie" not in question
    assert router.paths == ["/cart?a=1"] == gateway.paths[:1]
    assert {headers["cookie"] for headers in gateway.headers} == {"cell=rz01"}
    assert (first["q"], [line["q"] for line in others]) == (1, [0] * len(others))
    assert first["f"] - sent[first["id"]]["i"] > first["r"] / 1e3 > 0, "asking is part of the latency"
    assert {line["r"] for line in others} == {None}
    assert {(line["z"], line["k"], line["v"]) for line in finished.values()} == {("b", "rz01", 3)}
    assert {line["z"] for line in sent.values()} == {None}, "nobody knows it when it is sent"


def test_an_answer_is_kept_for_its_max_age_and_what_the_cell_says_of_cookies_changes_nothing(
    start_load: StartLoad, gateway: Server, router: Server
) -> None:
    router.answer = answer("rz01", max_age_s=1)
    gateway.answer = {"set-cookie": "theme=dark; Path=/"}
    load = start(start_load, gateway, router.url, duration_s=1.8)
    load.finish()
    _, finished = load.records()
    asked_s = sorted(line["f"] for line in finished.values() if line["q"])
    assert len(asked_s) == len(router.headers) == 2
    assert all(later - earlier > 0.9 for earlier, later in pairwise(asked_s))
    assert {headers.get("cookie") for headers in router.headers} == {None, "theme=dark"}


def test_a_router_that_repeats_itself_is_asked_once_more_and_then_the_refusal_stands(
    start_load: StartLoad, gateway: Server, router: Server
) -> None:
    gateway.statuses = [421, 421, 421]
    load = start(start_load, gateway, router.url)
    done = load.finish()
    _, finished = load.records()
    first, second, third, *_ = sorted(finished.values(), key=lambda line: line["f"])
    assert (done["failures"], done["requests"]) == (1, len(finished))
    assert (first["o"], first["c"], first["m"], first["q"]) == ("failed", 421, "status 421", 2)
    assert (second["o"], second["q"]) == ("ok", 2), "it holds nothing, and is refused once more"
    assert (third["o"], third["q"]) == ("ok", 0)


def test_who_is_told_no_cell_enters_anywhere(start_load: StartLoad, gateway: Server, router: Server) -> None:
    router.answer = {"x-cell-map": "3"}
    load = start(start_load, gateway, router.url)
    load.set_entry("a", gateway.url)
    load.finish()
    _, finished = load.records()
    assert {(line["z"], line["k"]) for line in finished.values() if line["o"] == "ok"} == {("a", None)}


def test_without_an_answer_of_the_router_nothing_is_sent_and_the_request_is_what_became_of_the_question(
    start_load: StartLoad, gateway: Server, router: Server
) -> None:
    requests, open_load = [get("/hang"), get("/503"), get("/lose")], [{"rate_per_s": 40.0}]
    load = start(start_load, gateway, router.url, requests=requests, sources=open_load, timeout_s=0.3)
    done = load.finish()
    sent, finished = load.records()
    assert gateway.request_ids == []
    assert done["requests"] == done["failures"] == len(sent) == len(finished) > 10
    assert done["unfinished"] == 0
    assert {(line["c"], line["k"], line["z"], line["q"]) for line in finished.values()} == {(None, None, None, 1)}
    outcomes = {(sent[name]["u"], line["o"], line["m"].partition(":")[0]) for name, line in finished.items()}
    assert outcomes == {("/hang", "unknown", "router"), ("/503", "failed", "router"), ("/lose", "unknown", "router")}
    messages = {line["m"] for line in finished.values()}
    assert {"router: timed out", "router: status 503"} < messages
    assert all(line["r"] > 290 for name, line in finished.items() if sent[name]["u"] == "/hang")


def test_a_router_that_refuses_connections_fails_requests(start_load: StartLoad, gateway: Server) -> None:
    load = start(start_load, gateway, NOWHERE)
    done = load.finish()
    _, finished = load.records()
    assert done["failures"] == done["requests"] == len(finished) > 0
    assert {(line["o"], line["k"]) for line in finished.values()} == {("failed", None)}
    assert all(line["m"].startswith("router: ") and "refused" in line["m"] for line in finished.values())
