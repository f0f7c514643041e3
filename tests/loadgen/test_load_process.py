"""Real Locust processes against a local server: what they send, record, count and say."""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen import settings
from loadgen.schedule import schedule


def get(path: str, **changes: Any) -> dict[str, Any]:
    return {"name": path, "method": "GET", "path": path, "weight": 1, "headers": {}, "body": None} | changes


def wait_until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def check_counts(load: Any, done: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sent and finished lines are the same requests; with the locustfile's own events, they are what Locust counts."""
    sent, finished = load.records()
    assert sent.keys() == finished.keys()
    own = load.own_events()
    assert done["own_events"] == len(own)
    assert done["own_failures"] == sum(record["m"] is not None for record in own)
    assert done["sent"] == len(sent)
    assert done["requests"] == len(sent) + len(own)
    assert done["failures"] == sum(record["o"] != "ok" for record in finished.values()) + done["own_failures"]
    return sent, finished


def outcomes_by_name(sent: dict[str, Any], finished: dict[str, Any]) -> dict[str, set[tuple[int | None, str]]]:
    seen: dict[str, set[tuple[int | None, str]]] = {}
    for request_id, record in finished.items():
        seen.setdefault(sent[request_id]["n"], set()).add((record["c"], record["o"]))
    return seen


def test_server_records_and_locust_count_the_same_requests(server: Any, start_load: Any) -> None:
    load = start_load(
        server.url,
        sources=[
            {"rate_per_s": 100.0, "arrival": "poisson"},
            {"rate_per_s": 50.0, "arrival": "constant"},
            {"users": 3, "think_time_s": 0.05},
        ],
        requests=[
            get("/a", weight=3),
            get("/b", method="POST", body="hell\u00f6", headers={"x-kind": "test"}),
            get("/c?d=1", method="HEAD"),
        ],
    )
    load.start()
    statistics = load.wait_for("stats")
    sent, finished = check_counts(load, load.finish())
    assert Counter(server.request_ids) == Counter(sent.keys())
    assert statistics["total"]["sent"] == statistics["sent"] > 0
    assert {record["z"] for record in sent.values()} == {"a"}
    for request_id, record in sent.items():
        assert load.t0_s <= record["i"] <= record["s"] <= finished[request_id]["f"]
    assert {record["o"] for record in finished.values()} == {"ok"}
    kinds = {(sent[id]["t"], sent[id]["u"], record["a"], record["b"]) for id, record in finished.items()}
    assert kinds == {("GET", "/a", 0, 2), ("POST", "/b", 6, 2), ("HEAD", "/c?d=1", 0, 0)}


def test_intended_times_are_the_schedule_and_a_hanging_server_does_not_slow_it(server: Any, start_load: Any) -> None:
    load = start_load(
        server.url, requests=[get("/hang")], sources=[{"rate_per_s": 200.0, "arrival": "poisson"}], timeout_s=1.0
    )
    planned = [offset_s for offset_s, _ in schedule(settings.load(load.settings_file))]
    load.start()
    sent, finished = check_counts(load, load.finish())
    intended = sorted(record["i"] - load.t0_s for record in sent.values())
    assert len(intended) == len(planned) > 200
    assert all(abs(got - wanted) < 1e-6 for got, wanted in zip(intended, planned, strict=True))
    assert server.most_at_once > 100
    assert {record["o"] for record in finished.values()} == {"unknown"}


def test_outcomes_tell_failed_from_unknown(server: Any, start_load: Any) -> None:
    paths = ("/", "/302", "/404", "/503", "/504", "/lose", "/hang")
    load = start_load(server.url, requests=[get(path) for path in paths], duration_s=1.0, timeout_s=2.0)
    load.start()
    sent, finished = check_counts(load, load.finish())
    assert outcomes_by_name(sent, finished) == {
        "/": {(200, "ok")},
        "/302": {(302, "ok")},
        "/404": {(404, "failed")},
        "/503": {(503, "failed")},
        "/504": {(504, "unknown")},
        "/lose": {(None, "unknown")},
        "/hang": {(None, "unknown")},
    }
    words = {sent[request_id]["n"]: record["m"] for request_id, record in finished.items()}
    assert [words[path] for path in ("/404", "/503", "/504")] == ["status 404", "status 503", "status 504"]
    # Neither a redirect nor a lost connection makes the client ask again.
    assert Counter(server.request_ids) == Counter(sent.keys())


def test_a_refused_connection_is_failed(start_load: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        load = start_load(f"http://127.0.0.1:{unused.getsockname()[1]}", duration_s=0.5)
        load.start()
        sent, finished = check_counts(load, load.finish())
    assert outcomes_by_name(sent, finished) == {"/": {(None, "failed")}}


def test_a_connection_that_never_comes_about_is_unknown(start_load: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        load = start_load(f"http://127.0.0.1:{silent.getsockname()[1]}", duration_s=0.5, connect_timeout_s=0.5)
        load.start()
        sent, finished = check_counts(load, load.finish())
        for filler in fillers:
            filler.close()
    assert outcomes_by_name(sent, finished) == {"/": {(None, "unknown")}}


def test_new_requests_follow_the_entry_table_after_its_ttl(start_server: Any, start_load: Any) -> None:
    first, second = start_server(), start_server()
    load = start_load(first.url, duration_s=120.0, sources=[{"rate_per_s": 50.0}, {"users": 2, "think_time_s": 0.02}])
    load.start()
    wait_until(lambda: len(first.request_ids) > 0)
    load.set_entry("b", second.url)
    wait_until(lambda: len(second.request_ids) > 20)
    load.say("stop")
    sent, finished = check_counts(load, load.finish())
    zones = [record["z"] for record in sorted(sent.values(), key=lambda record: record["s"])]
    assert zones == sorted(zones)
    assert Counter(zones) == {"a": len(first.request_ids), "b": len(second.request_ids)}
    assert {record["o"] for record in finished.values()} == {"ok"}


def test_stop_ends_the_load_early_and_waits_for_requests_under_way(server: Any, start_load: Any) -> None:
    load = start_load(server.url, duration_s=600.0, requests=[get("/"), get("/hang")], timeout_s=2.0)
    load.start()
    wait_until(lambda: len(server.request_ids) > 20)
    load.say("stop")
    done = load.finish()
    sent, finished = check_counts(load, done)
    assert done["unfinished"] == 0
    assert outcomes_by_name(sent, finished) == {"/": {(200, "ok")}, "/hang": {(None, "unknown")}}


def test_the_end_of_stdin_ends_the_load_at_once(server: Any, start_load: Any) -> None:
    load = start_load(
        server.url,
        duration_s=600.0,
        timeout_s=300.0,
        sources=[{"rate_per_s": 100.0}, {"users": 2, "think_time_s": 0.01}],
        requests=[get("/hang")],
    )
    load.start()
    wait_until(lambda: len(server.request_ids) > 20)
    load.close_stdin()
    done = load.finish()
    _, finished = check_counts(load, done)
    assert done["unfinished"] == len(finished)
    assert {record["o"] for record in finished.values()} == {"unknown"}


def test_a_load_that_is_stopped_before_its_start_sends_nothing(server: Any, start_load: Any) -> None:
    load = start_load(server.url)
    load.wait_for("ready")
    load.say("stop")
    counts = ("requests", "failures", "sent", "unfinished", "own_events", "own_failures")
    assert load.finish() == dict.fromkeys(counts, 0)
    assert server.request_ids == []


def test_sigterm_ends_the_load_with_final_counts(server: Any, start_load: Any) -> None:
    load = start_load(server.url, duration_s=600.0, requests=[get("/hang")], timeout_s=300.0)
    load.start()
    wait_until(lambda: len(server.request_ids) > 5)
    load.process.send_signal(signal.SIGTERM)
    check_counts(load, load.finish())


def test_a_killed_process_leaves_a_record_of_everything_it_sent(server: Any, start_load: Any) -> None:
    load = start_load(server.url, duration_s=600.0, sources=[{"rate_per_s": 300.0, "arrival": "constant"}])
    load.start()
    wait_until(lambda: len(server.request_ids) > 200)
    load.process.kill()
    load.wait()
    sent, _ = load.records()
    assert set(server.request_ids) <= sent.keys()


LOCUSTFILE = """
from locust import FastHttpUser, HttpUser, constant, task

print("a locustfile may print")

class Slow(HttpUser):
    wait_time = constant(0.02)

    def on_start(self):
        self.client.get("/begin")

    @task
    def read(self):
        self.client.get("/read", name="read", headers={"x-kind": "slow"})
        self.client.get("/503")

    @task
    def judge(self):
        with self.client.get("/judged", catch_response=True) as response:
            response.failure("not what I wanted")

class Fast(FastHttpUser):
    wait_time = constant(0.02)

    @task(10)
    def write(self):
        with self.rest("POST", "/write", json={"a": 1}) as response:
            response.success()

    @task  # drawn last, as good as surely: it keeps its user to the end
    def wait(self):
        self.client.get("/hang")

    @task(10)
    def report(self):
        self.environment.events.request.fire(
            request_type="OWN", name="own", response_time=5.0, response_length=0, exception=None, context={})
        self.environment.events.request.fire(
            request_type="OWN", name="step", response_time=None, response_length=0, exception=ValueError("no"))
"""


def test_a_locustfile_of_the_users_own_is_recorded(server: Any, start_load: Any, tmp_path: Path) -> None:
    locustfile = tmp_path / "locustfile.py"
    locustfile.write_text(LOCUSTFILE)
    load = start_load(
        server.url,
        locustfile=str(locustfile),
        requests=[],
        duration_s=2.0,
        timeout_s=0.3,
        sources=[{"users": 16, "think_time_s": 0.0}],
    )
    load.start()
    sent, finished = check_counts(load, load.finish())
    by_name = outcomes_by_name(sent, finished)
    assert by_name.pop("/hang") == {(None, "unknown")}
    # Locust may kill a user in a request that it begins as the load ends.
    assert {name: seen - {(None, "unknown")} for name, seen in by_name.items()} == {
        "/begin": {(200, "ok")},
        "read": {(200, "ok")},
        "/503": {(503, "failed")},
        "/judged": {(200, "failed")},
        "/write": {(200, "ok")},
    }
    judged = {record["m"] for id, record in finished.items() if sent[id]["n"] == "/judged" and record["c"] == 200}
    assert judged == {"not what I wanted"}
    assert {record["a"] for id, record in finished.items() if sent[id]["n"] == "/write"} == {len('{"a": 1}')}
    own = {(record["t"], record["n"], record["d"], record["m"]) for record in load.own_events()}
    assert own == {("OWN", "own", 5.0, None), ("OWN", "step", None, "no")}
    answered = {request_id for request_id, record in finished.items() if record["c"] is not None}
    assert answered <= set(server.request_ids) <= sent.keys()
    assert len(server.request_ids) == len(set(server.request_ids))


HANGING_LOCUSTFILE = """
from locust import FastHttpUser, HttpUser, task

class Slow(HttpUser):
    @task
    def hang(self):
        self.client.get("/hang", timeout=300)

class Fast(FastHttpUser):
    network_timeout = 300

    @task
    def hang(self):
        self.client.get("/hang")
"""


def test_requests_of_a_locustfile_that_outlast_the_load_are_unknown(
    server: Any, start_load: Any, tmp_path: Path
) -> None:
    locustfile = tmp_path / "user.py"
    locustfile.write_text(HANGING_LOCUSTFILE)
    load = start_load(
        server.url, locustfile=str(locustfile), duration_s=1.5, timeout_s=0.5, sources=[{"users": 4, "think_time_s": 0}]
    )
    load.start()
    done = load.finish()
    sent, finished = check_counts(load, done)
    assert done["unfinished"] == len(sent) == 4
    assert {record["o"] for record in finished.values()} == {"unknown"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\nimport no_such_module\n", ":2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import json\njson.loads('{')\n", ":2: JSONDecodeError: Expecting property name"),
        ("def broken(:\n", ": SyntaxError: invalid syntax (mine.py, line 1)"),
        ("raise ValueError('two\\nlines')\n", ":1: ValueError: two"),
        ("x = 1\n", ": defines no Locust user"),
        ("raise SystemExit('no')\n", ": defines no Locust user, or ended Locust by itself"),
    ],
)
def test_a_locustfile_that_cannot_be_loaded_is_told_in_a_line(
    start_load: Any, tmp_path: Path, text: str, why: str
) -> None:
    locustfile = tmp_path / "mine.py"
    locustfile.write_text(text)
    load = start_load("http://127.0.0.1:1", locustfile=str(locustfile), requests=[], sources=[{"users": 1}])
    assert load.wait_for("failed").startswith(f"{locustfile}{why}")
    assert load.wait() != 0


def test_clients_carry_their_id_and_the_cookies_that_they_were_given(server: Any, start_load: Any) -> None:
    load = start_load(
        server.url,
        sources=[{"rate_per_s": 10.0, "arrival": "constant"}, {"users": 2, "think_time_s": 0.02}],
        requests=[get("/cookie")],
        duration_s=3.0,
        ids={"where": "header", "name": "x-user-id", "session": 5, "count": 1_000_000},
        partition_header="x-partition",
    )
    load.start()
    _, finished = check_counts(load, load.finish())
    assert {record["p"] for record in finished.values()} == {"12"}
    by_user: dict[str, list[str | None]] = {}
    for headers in server.headers:
        by_user.setdefault(headers["x-user-id"], []).append(headers.get("cookie"))
    whole = [cookies for cookies in by_user.values() if len(cookies) == 5]
    assert sum(cookies == [None, *["cell=rz01"] * 4] for cookies in whole) > 10
    # At a rate, the next request is sent on time even if the answer with the cookie is not there yet.
    assert all(cookies[0] is None and cookies == sorted(cookies, key=lambda each: each or "") for cookies in whole)
    assert max(map(len, by_user.values())) == 5
