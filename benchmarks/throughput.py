"""Requests per second through gateway, web and orders, against a hand-wired Envoy chain of the same shape.

Beside three nodes, the same chain also has a plain Envoy in the place of each link.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import orjson

from benchmarks.hand_wired import hand_wired_chain
from benchmarks.row import Row
from benchmarks.testbed_run import temporary_folder, testbed_run
from loadgen.command import command
from loadgen.entry import Entry, write_entries
from loadgen.settings import ENVIRONMENT_VARIABLE, ClosedSource, RequestTemplate, Settings
from testbed.objects.addresses import SocketAddress

SCENARIO = Path(__file__).parent / "chain.yaml"
PAIRS = 3
USERS = 32
SECONDS = 8.0
WARMUP_S = 2.0


def measure() -> Iterator[Row]:
    """Ours and theirs in turns, so that what else the machine does hits both; ratios of medians."""
    ours, bare, _ = _rates(crossings=False)
    yield _row("one node", ours, bare, "hand-wired", ">= 0.8")
    ours, bare, crossed = _rates("spec.topology.regions.east.zones.east-a.nodes=3", crossings=True)
    yield _row("three nodes, 0.3 ms links", ours, bare, "hand-wired, without links", ">= 0.58")
    yield _row("three nodes, 0.3 ms links", ours, crossed, "hand-wired, a tcp_proxy for each crossing", ">= 0.8")


def _rates(*overrides: str, crossings: bool) -> tuple[list[float], list[float], list[float]]:
    """Requests per second of the testbed, of the hand-wired chain, and of that with crossings if these are wanted."""
    ours, bare, crossed = [], [], []
    for _ in range(PAIRS):
        bare.append(_hand_wired_rate())
        run = testbed_run(SCENARIO, *overrides)
        ours.append(next(phase["rate_per_s"] for phase in run.summary["phases"] if phase["name"] == "steady"))
        if crossings:
            crossed.append(_hand_wired_rate(crossings=True))
    return ours, bare, crossed


def _row(shape: str, ours: list[float], theirs: list[float], what: str, bound: str) -> Row:
    return Row(
        f"mesh throughput, {shape}",
        f"{median(ours):.0f} requests/s",
        f"{median(theirs):.0f} requests/s {what}",
        f"{median(ours) / median(theirs):.2f}",
        bound,
    )


def _hand_wired_rate(*, crossings: bool = False) -> float:
    """The same Locust driver as the testbed's, counted over the same part of the time."""
    directory = temporary_folder()
    with hand_wired_chain(directory, crossings=crossings) as gateway:
        records = directory / "requests.jsonl"
        started_s = _drive(directory, gateway, records)
        finished = [line for line in map(orjson.loads, records.read_bytes().splitlines()) if line["e"] == "f"]
    assert all(line["o"] == "ok" for line in finished), "the hand-wired chain answered with errors"
    counted = [line for line in finished if WARMUP_S <= line["f"] - started_s < SECONDS]
    return len(counted) / (SECONDS - WARMUP_S)


def _drive(directory: Path, gateway: SocketAddress, records: Path) -> float:
    """Run the load to its end; returns when it began, in monotonic seconds."""
    entries, settings = directory / "entry.json", directory / "load.json"
    write_entries(entries, [Entry("east-a", f"http://{gateway}")])
    Settings(
        origin_zone="east-a",
        seed=1,
        sources=(ClosedSource(USERS),),
        duration_s=SECONDS,
        requests=(RequestTemplate("GET /", "GET", "/"),),
        timeout_s=5.0,
        connect_timeout_s=1.0,
        entry_file=entries,
        entry_ttl_s=60.0,
        records_file=records,
        locustfile=None,
    ).save(settings)
    process = subprocess.Popen(
        command(settings),
        env={**os.environ, ENVIRONMENT_VARIABLE: str(settings)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    started_s = time.monotonic() + 0.2
    process.stdin.write(f"start {started_s!r}\n".encode())
    process.stdin.flush()
    process.stdout.read()
    process.wait()
    return started_s
