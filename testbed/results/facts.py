"""What a run knows about itself that no table holds; `facts.json` in its folder, so that a report can be made again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import orjson

from testbed.scenario import Expectation, LoadSource

_FILE = "facts.json"


@dataclass(frozen=True, slots=True)
class AppliedFault:
    """When a fault was to come, when it came, and when it was lifted again (None: never)."""

    name: str
    declared_at_s: float
    applied_s: float
    healed_s: float | None = None


@dataclass(frozen=True, slots=True)
class LocustCount:
    """Locust's own statistics of one origin zone; its failures are the failed and the unknown together."""

    requests: int
    failures: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All about a run but its tables. Times are seconds since the load started."""

    name: str
    seed: int
    profile: str
    warmup_s: float
    end_s: float
    """When the load ended: its declared duration, warm-up included, or less where the run was interrupted."""
    ready_s: float
    """How long it took from nothing until every pod was ready."""
    sources: tuple[LoadSource, ...] = ()
    faults: tuple[AppliedFault, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    locust: dict[str, LocustCount] = field(default_factory=dict)
    """By origin zone; a zone is missing if its Locust died before it could count."""
    killed_proxies: tuple[tuple[str, float], ...] = ()
    """Pod and time of every proxy that was killed, by a fault or by its node's crash."""
    epoch_offset_start_s: float = 0.0
    """Epoch minus monotonic clock when the run began, and when it ended."""
    epoch_offset_end_s: float = 0.0
    logs_hops: bool = True
    """False where no proxy is in the way of requests, so that no hops can be expected."""
    interrupted: bool = False

    def save(self, run_dir: Path) -> None:
        (run_dir / _FILE).write_bytes(orjson.dumps(self, option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, run_dir: Path) -> RunFacts:
        """Raises FileNotFoundError if the folder is none of a run, pydantic.ValidationError if the file was altered."""
        # Whoever only saves facts must not load Pydantic.
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_json((run_dir / _FILE).read_bytes())
