"""Writes of a store in quorum mode, as clients see them, against what its links and its disk make of them at least.

Both are of the same run: the round trip is that of its links, as their relays achieved it, and fsyncs are made beside
it, five a second, of as many bytes as a write has. The history checker has a row of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median

import pyarrow.compute as pc

from benchmarks.row import Row
from benchmarks.testbed_run import temporary_folder, testbed_run
from testbed.results.measure.histories.check import check
from testbed.results.measure.histories.operations import Operation, Outcome
from testbed.results.tables.writer import read_table

SCENARIO = Path(__file__).parent / "store.yaml"
WARMUP_S, END_S = 4.0, 16.0
ROUND_TRIPS = 3
"""To the replica, to its group's leader, and to a majority."""
WRITES_PER_S = 300
RECORD_BYTES = 300
OPERATIONS, KEYS, CLIENTS, UNKNOWN = 200_000, 1_000, 32, 0.02
CHECKED_WITHIN_S = 30.0


def measure() -> Iterator[Row]:
    yield from _writes()
    yield _checker()


def _writes() -> Iterator[Row]:
    with _Fsyncs(temporary_folder() / "fsync") as fsyncs:
        run = testbed_run(SCENARIO)
    # What else the machine does shows here first, and says what the figures are worth.
    doubt = "".join(f"; {reason}" for reason in run.summary["invalid_reasons"])
    operations = read_table(run.run_dir, "operations")
    steady = pc.and_(pc.greater_equal(operations["invoked_s"], WARMUP_S), pc.equal(operations["outcome"], "ok"))
    written = operations.filter(steady)
    rate_per_s = len(written) / (END_S - WARMUP_S)
    p50_ms = 1e3 * median(pc.subtract(written["returned_s"], written["invoked_s"]).to_pylist())
    rtt_ms, fsync_ms = _round_trip_ms(run.run_dir), 1e3 * median(fsyncs.took_s)
    bound_ms = ROUND_TRIPS * rtt_ms + fsync_ms
    what = "store, quorum, three replicas in a city"
    yield Row(
        f"{what}: writes",
        f"{rate_per_s:.0f} acknowledged writes/s of {len(operations) / END_S:.0f} sent{doubt}",
        f"{WRITES_PER_S}/s",
        f"{rate_per_s / WRITES_PER_S:.2f}",
        ">= 1",
    )
    yield Row(
        f"{what}: p50",
        f"{p50_ms:.1f} ms",
        f"{bound_ms:.1f} ms: {ROUND_TRIPS} RTT of {rtt_ms:.2f} ms and an fsync of {fsync_ms:.2f} ms",
        f"{p50_ms / bound_ms:.2f}",
        "<= 1",
    )


def _round_trip_ms(run_dir: Path) -> float:
    """Between zones: twice what it took in one direction, half of the time."""
    links = read_table(run_dir, "links")
    between = links.filter(pc.greater(links["declared_ms"], 0.5))
    took: list[float] = [took_ms for took_ms in between["achieved_p50_ms"].to_pylist() if took_ms is not None]
    return 2 * median(took)


class _Fsyncs:
    """Appends to a file and syncs it, five times a second, as long as it is entered."""

    def __init__(self, path: Path) -> None:
        self.took_s: list[float] = []
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_syncing)

    def __enter__(self) -> _Fsyncs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _keep_syncing(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        while not self._over.wait(0.2):
            os.write(fd, b"x" * RECORD_BYTES)
            began_s = time.perf_counter()
            os.fdatasync(fd)
            self.took_s.append(time.perf_counter() - began_s)
        os.close(fd)


def _checker() -> Row:
    history = _history(Random(1))
    began_s = time.perf_counter()
    report = check(history)
    took_s = time.perf_counter() - began_s
    if report.findings or report.gave_up:
        raise RuntimeError(f"a good history has {len(report.findings)} findings, {len(report.gave_up)} keys given up")
    return Row(
        f"history checker, {OPERATIONS} operations",
        f"{took_s:.1f} s, {KEYS} keys, {CLIENTS} clients at once",
        f"{CHECKED_WITHIN_S:.0f} s",
        f"{took_s / CHECKED_WITHIN_S:.2f}",
        "<= 1",
    )


def _history(random: Random) -> list[Operation]:
    """Of registers that are right: clients whose operations overlap, each done at some moment within. Some
    writes have no known end."""
    free_s = [0.0] * CLIENTS
    spans = []
    for number in range(OPERATIONS):
        turn = number % CLIENTS
        invoked_s = free_s[turn] + random.expovariate(50)
        free_s[turn] = invoked_s + random.uniform(0.001, 0.05)
        done_s = random.uniform(invoked_s, free_s[turn])
        spans.append((done_s, invoked_s, free_s[turn], f"c{turn}", f"k{random.randrange(KEYS)}"))
    values: dict[str, str | None] = {}
    operations = []
    for number, (_, invoked_s, returned_s, client, key) in enumerate(sorted(spans)):
        is_write = random.random() < 0.5
        if is_write:
            values[key] = f"v{number}"
        unknown = is_write and random.random() < UNKNOWN
        outcome, owner = Outcome.UNKNOWN if unknown else Outcome.OK, "r1@1" if is_write else None
        value = values.get(key)
        operations.append(Operation(client, key, "", is_write, value, invoked_s, returned_s, outcome, owner))
    return operations
