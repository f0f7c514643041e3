"""What the page of a run that goes on costs where it is served, while somebody watches: of one core."""

from __future__ import annotations

import http.client
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.row import Row
from loadgen import records
from testbed.cli.watch import Watch
from testbed.control.views.envoy import access_log
from testbed.emulation.driver.events import FaultApplied, LoadStarted
from testbed.faults.impact import Impact
from testbed.results.tables.pods import PodIdentity
from testbed.scenario import load_scenario

SCENARIO = Path(__file__).parents[1] / "scenarios" / "zone-outage.yaml"
RATE_PER_S = 2000
CALLS = 4
"""Of one request, each a line."""
DURATION_S = 30
STEPS_PER_S = 10
SETTLING_S = 3
ZONES = ("east-a", "east-b", "east-c")
PODS = tuple(
    PodIdentity(f"web-{zone}", "web", f"{zone}-1", zone, "east", "", f"10.0.0.{index}", 0.0)
    for index, zone in enumerate(ZONES)
)


def measure() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        (run_dir / "logs").mkdir()
        t0_s = time.monotonic()
        spawn = multiprocessing.get_context("spawn")
        with Watch(load_scenario(SCENARIO), run_dir, _raised) as watch:
            watch.hear(LoadStarted(t0_s, float(DURATION_S + SETTLING_S)))
            watch.live.pods(PODS)
            others = [
                spawn.Process(target=_write, args=(run_dir / "logs", t0_s), daemon=True),
                spawn.Process(target=_read, args=(watch.url,), daemon=True),
            ]
            for each in others:
                each.start()
            time.sleep(SETTLING_S)
            # From now on recovery is judged again and again.
            watch.hear(FaultApplied("lose", time.monotonic(), Impact(time.monotonic(), victims=("east-a-1",)), True))
            drawn = watch.server.published
            began_s, before_s = time.monotonic(), time.process_time()
            time.sleep(DURATION_S)
            share = (time.process_time() - before_s) / (time.monotonic() - began_s)
            seen, drawn = watch.live.finished, watch.server.published - drawn
        for each in others:
            each.terminate()
            each.join()
    yield Row(
        f"live page at {RATE_PER_S} requests/s, {RATE_PER_S * CALLS} calls/s, for {DURATION_S} s",
        f"{share * 100:.2f} % of a core",
        f"{seen} requests, drawn every {DURATION_S / max(drawn, 1):.1f} s",
        f"{share * 100:.2f} %",
        "< 3 %",
    )


def _raised(defect: Exception) -> None:
    raise defect


def _write(logs: Path, t0_s: float) -> None:
    """As load generators and proxies do, ten times a second."""
    number = 0
    requests = {zone: (logs / f"{zone}.requests.jsonl").open("ab", buffering=0) for zone in ZONES}
    calls = {zone: (logs / f"web-{zone}.access.jsonl").open("ab", buffering=0) for zone in ZONES}
    while True:
        now_s = time.monotonic()
        while number < (now_s - t0_s) * RATE_PER_S:
            lines, logged = dict.fromkeys(ZONES, b""), dict.fromkeys(ZONES, b"")
            for _ in range(RATE_PER_S // STEPS_PER_S):
                zone, at_s = ZONES[number % len(ZONES)], t0_s + number / RATE_PER_S
                lines[zone] += b"".join(_request(number, at_s, zone))
                logged[zone] += _call(number, zone) * CALLS
                number += 1
            for zone in ZONES:
                requests[zone].write(lines[zone])
                calls[zone].write(logged[zone])
        time.sleep(1 / STEPS_PER_S)


def _request(number: int, at_s: float, zone: str) -> Iterator[bytes]:
    id_ = f"077af844-3ea2-49dc-abe9-{number:012d}"
    sent = {
        records.KIND: records.SENT,
        records.ID: id_,
        records.METHOD: "GET",
        records.PATH: "/",
        records.NAME: "GET /",
    }
    when = {records.INTENDED_S: at_s, records.SENT_S: at_s + 0.0001, records.ENTRY_ZONE: zone}
    yield orjson.dumps({**sent, **when}, option=orjson.OPT_APPEND_NEWLINE)
    finished = {records.KIND: records.FINISHED, records.ID: id_, records.FINISHED_S: at_s + 0.005 + number % 97 / 1e4}
    ok = number % 1000 > 0
    answer = {records.STATUS: 200 if ok else 503, records.OUTCOME: "ok" if ok else "failed"}
    more = {records.ERROR: None if ok else "status 503", records.SENT_BYTES: 0, records.RECEIVED_BYTES: 0}
    yield orjson.dumps({**finished, **answer, **more}, option=orjson.OPT_APPEND_NEWLINE)


def _call(number: int, zone: str) -> bytes:
    """As long as Envoy writes it."""
    to = PODS[number // 7 % len(PODS)].ip
    line = {
        **{access_log.KIND: access_log.OUTBOUND, access_log.POD: f"web-{zone}", access_log.STATUS: 200},
        **{access_log.UPSTREAM_HOST: f"{to}:15006", access_log.UPSTREAM_CLUSTER: "outbound|80||orders"},
        **{access_log.REQUEST_ID: f"077af844-3ea2-49dc-abe9-{number:012d}", access_log.START: "1795754506.012973"},
        "padding": "x" * 150,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _read(url: str) -> None:
    """As a browser does."""
    address, _, token = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(address)
    connection.request("GET", f"/{token}events")
    answer = connection.getresponse()
    while answer.readline():
        pass
