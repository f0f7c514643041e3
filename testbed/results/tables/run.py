"""All that a finished run has left, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from testbed.results.tables.facts import RunFacts
from testbed.results.tables.schemas import PLACE_FIELDS
from testbed.results.tables.writer import read_table

_REQUESTS = (
    "request_id",
    "origin_zone",
    "name",
    "intended_s",
    "sent_s",
    "finished_s",
    "latency_ms",
    "outcome",
    "error",
    "entry_zone",
    "cell",
    "questions",
    "router_ms",
)
_HOPS = (
    *(
        "request_id",
        "direction",
        "start_s",
        "duration_ms",
        "status",
        "bytes",
        "request_bytes",
        "response_bytes",
        "partition",
        "owner_cell",
        "map_version",
        "route",
    ),
    *(f"{end}_{field}" for end in ("source", "destination") for field in PLACE_FIELDS if field != "pod"),
)
_ATTEMPTS = ("start_s", "source_zone", "destination_zone")
_PUSHES = ("proxy", "type", "version", "sent_s", "acked_s", "error")


@dataclass(frozen=True, slots=True)
class Run:
    """Facts and tables. Of `requests`, `hops`, `attempts` and `pushes`, which can have millions of rows, only what
    figures are made from."""

    facts: RunFacts
    requests: pa.Table
    hops: pa.Table
    attempts: pa.Table
    events: pa.Table
    pushes: pa.Table
    links: pa.Table
    machines: pa.Table
    pods: pa.Table
    operations: pa.Table

    @classmethod
    def read(cls, run_dir: Path) -> Run:
        """Raises BadRunFolder."""
        return cls(
            facts := RunFacts.load(run_dir),
            read_table(run_dir, "requests", [*_REQUESTS, *(["path"] if facts.has_routes_by_path else [])]),
            read_table(run_dir, "hops", _HOPS),
            read_table(run_dir, "attempts", _ATTEMPTS),
            read_table(run_dir, "events"),
            read_table(run_dir, "pushes", _PUSHES),
            *(read_table(run_dir, table) for table in ("links", "machines", "pods", "operations")),
        )
