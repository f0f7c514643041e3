"""Result folders with as much in them as a comparison reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import yaml

SPEC = {"seed": 0, "mesh": {"retries": 1}, "faults": [{"name": "lose", "at": "12s"}], "expect": []}


def made(
    folder: Path,
    seed: int,
    recover_s: float | None,
    retries: int | None = 1,
    verdict: str = "passed",
    hosting: str = "node",
    router: dict[str, Any] | None = None,
    machine: str | None = None,
) -> Path:
    folder.mkdir(parents=True)
    mesh = {} if retries is None else {"retries": retries}
    spec = {**SPEC, "seed": seed, "mesh": mesh, "expect": [{"seed": seed}]}
    (folder / "scenario.yaml").write_text(yaml.safe_dump({"metadata": {"name": "zone-outage"}, "spec": spec}))
    latency_ms = {"p50": 6.0, "p99": 20.0}
    seen = {"sent": 100, "unknown": seed, "success_rate": 0.97, "latency_ms": latency_ms}
    phase = {"name": "all", **seen, "router": router}
    shown = "never recovered" if recover_s is None else str(recover_s)
    recovery = {"metric": "time_to_recover", "measured": recover_s, "shown": shown, "held": recover_s is not None}
    steady = {"metric": "success_rate", "measured": 1.0, "shown": "100%", "held": True}
    summary: dict[str, Any] = {
        "seed": seed,
        "verdict": verdict,
        "invalid_reasons": ["load generator lag: too much"] if verdict == "invalid" else [],
        "expectations": [
            {**recovery, "bound": "at most 6s", "text": "time_to_recover lose at most 6s"},
            {**steady, "bound": "at least 99%", "text": "success_rate steady at least 99%"},
        ],
        "faults": [{"name": "lose", "time_to_recover_s": recover_s, "heal": None}],
        "phases": [phase],
        "same_zone_share_by_phase": {"all": 0.75},
    }
    (folder / "summary.json").write_bytes(orjson.dumps(summary))
    expectations = [
        {"metric": "time_to_recover", "when": "all", "fault": "lose", "service": None},
        {"metric": "success_rate", "when": "steady", "fault": None, "service": None},
    ]
    named = {"hardware": "2 x this"} | ({} if machine is None else {"name": machine})
    facts = {"expectations": expectations, "hosting": hosting, "machines": [named]}
    (folder / "facts.json").write_bytes(orjson.dumps(facts))
    return folder
