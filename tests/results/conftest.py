"""A small synthetic run: three zones, one lost at 6 s for 6 s; its clients suffer for 0.8 s."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from testbed.results.tables.facts import AppliedFault, LocustCount, RunFacts
from testbed.results.tables.schemas import PLACE_FIELDS
from testbed.results.tables.writer import TableWriter, write_missing_tables
from testbed.scenario import Expectation, LoadSource

ZONES = ("east-a", "east-b", "east-c")
RATE_PER_S = 50
END_S = 18.0

FACTS = RunFacts(
    name="zone-outage",
    seed=7,
    profile="fast",
    warmup_s=2.0,
    end_s=END_S,
    ready_s=11.25,
    sources=tuple(LoadSource(zone, float(RATE_PER_S), "constant") for zone in ZONES),
    faults=(AppliedFault("lose-east-a", 6.0, 6.001, 12.0, victims=("east-a-1",)),),
    expectations=(
        Expectation("success_rate", "all", None, None, 0.98, None, "success_rate at least 98%"),
        Expectation("time_to_recover", "all", "lose-east-a", None, None, 3.0, "time_to_recover lose-east-a at most 3s"),
        Expectation("same_zone_share", "steady", None, "web", 0.95, None, "same_zone_share of web steady at least 95%"),
    ),
    routes=(("/", "web"),),
    locust={zone: LocustCount(int(END_S * RATE_PER_S), 40 if zone == "east-a" else 0) for zone in ZONES},
)


def _place(end: str, zone: str, service: str) -> dict[str, str]:
    values = (f"{service}-{zone}", service, f"{zone}-1", zone, "east", "")
    return dict(zip((f"{end}_{field}" for field in PLACE_FIELDS), values, strict=True))


def write_run(run_dir: Path, facts: RunFacts = FACTS) -> Path:
    run_dir.mkdir()
    facts.save(run_dir)
    for zone in ZONES:
        with TableWriter(run_dir, "requests", zone) as requests, TableWriter(run_dir, "hops", zone) as hops:
            for number in range(int(END_S * RATE_PER_S)):
                intended_s = number / RATE_PER_S
                dead = zone == "east-a" and 6.0 <= intended_s < 12.0
                lost = dead and intended_s < 6.8
                latency_ms = 1000.0 if lost else 3.0 + number % 10 * 0.1
                entry_zone = "east-b" if dead else zone
                request_id = f"{zone}-{number}"
                requests.append(
                    {
                        "request_id": request_id,
                        "origin_zone": zone,
                        "name": "GET /",
                        "intended_s": intended_s,
                        "sent_s": intended_s + 0.0002,
                        "finished_s": intended_s + latency_ms / 1e3,
                        "latency_ms": latency_ms,
                        "status": None if lost else 200,
                        "outcome": ("unknown" if number % 2 else "failed") if lost else "ok",
                        "error": "timed out" if lost else None,
                        "entry_zone": zone if lost else entry_zone,
                    }
                )
                if not lost:
                    hops.append(
                        {
                            "request_id": request_id,
                            "direction": "outbound",
                            **_place("source", entry_zone, "gateway"),
                            **_place("destination", entry_zone, "web"),
                            "start_s": intended_s + 0.001,
                            "duration_ms": 2.0,
                            "status": 200,
                            "attempts": 1,
                            "bytes": 1100,
                            "request_bytes": 100,
                            "response_bytes": 1000,
                        }
                    )
    with TableWriter(run_dir, "events", "control-plane") as events:
        for t_s, kind, name, reason in (
            (-3.0, "EndpointSlice", "web", "EndpointsChanged"),
            (6.4, "Node", "east-a-1", "NodeNotReady"),
            (6.41, "EndpointSlice", "web", "EndpointsChanged"),
            (6.55, "Entry", "east-a", "EntryChanged"),
            (12.3, "Node", "east-a-1", "NodeReady"),
            (12.6, "EndpointSlice", "web", "EndpointsChanged"),
        ):
            row = {"t_s": t_s, "source": "control-plane", "kind": kind, "object": name, "reason": reason}
            events.append({**row, "details": "{}"})
    with TableWriter(run_dir, "pushes", "control-plane") as pushes:
        for t_s in (6.42, 12.61, 14.0):
            for delay_s, zone in enumerate(ZONES[1:]):
                row = {"proxy": f"web-{zone}", "type": "EDS", "version": "2", "sent_s": t_s}
                pushes.append({**row, "acked_s": t_s + 0.002 + delay_s * 0.001})
    write_missing_tables(run_dir)
    return run_dir


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run_dir(whole_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_run, tmp_path / "run"))
