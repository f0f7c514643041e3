"""Run folders -> what each run was of, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml

from testbed.results.tables.damage import BadRunFolder

Better = Literal["lower", "higher"]
Unit = Literal["s", "ms", "share", "count", "number"]


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    unit: Unit
    better: Better
    of_answered: bool = False
    """It leaves out what was never answered, which is shown beside it then."""


UNANSWERED = Metric("unanswered requests", "count", "lower")


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """`settings` is the resolved scenario, a value for each path, without its seed and what is expected of it.

    Times of a run that never recovered are infinite; figures that it does not have are left out.
    """

    run_dir: Path
    seed: int
    verdict: str
    why_invalid: tuple[str, ...]
    settings: Mapping[str, Any]
    figures: Mapping[Metric, float]

    @property
    def counts(self) -> bool:
        return self.verdict in ("passed", "failed")


def read_run(run_dir: Path) -> ComparedRun:
    """Raises BadRunFolder if its `summary.json` or `scenario.yaml` is missing or cannot be read."""
    scenario = _read(run_dir / "scenario.yaml", yaml.safe_load)
    summary = _read(run_dir / "summary.json", orjson.loads)
    try:
        spec = {key: value for key, value in scenario["spec"].items() if key not in ("seed", "expect")}
        return ComparedRun(
            run_dir,
            summary["seed"],
            summary["verdict"],
            tuple(summary["invalid_reasons"]),
            dict(_flat("metadata.name", scenario["metadata"]["name"])) | dict(_flat("spec", spec)),
            dict(_figures(summary)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRunFolder(f"{run_dir}: summary or scenario is of another format: {error!r}") from error


def _read(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise BadRunFolder(f"{path}: {error.strerror}") from error
    except (orjson.JSONDecodeError, yaml.YAMLError) as error:
        raise BadRunFolder(f"{path}: cannot be read: {error}") from error


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Things in lists go by their names, if they have them, so that one more does not make all others differ."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(f"{path}.{key}", each)
    elif isinstance(value, list) and value:
        for number, each in enumerate(value):
            name = each.get("name", number) if isinstance(each, dict) else number
            yield from _flat(f"{path}[{name}]", each)
    else:
        yield path, value


def _figures(summary: Mapping[str, Any]) -> Iterator[tuple[Metric, float]]:
    for result in summary["expectations"]:
        if (value := _expected(result)) is not None:
            better: Better = "lower" if result["bound"].startswith("at most") else "higher"
            yield Metric(result["text"], _unit(result["metric"]), better, "latency" in result["metric"]), value
    for fault in summary["faults"]:
        for change, name in ((fault, fault["name"]), (fault["heal"], f"heal of {fault['name']}")):
            if change is not None:
                time_s = change["time_to_recover_s"]
                yield Metric(f"time to recover, {name}", "s", "lower"), inf if time_s is None else time_s
    for phase in summary["phases"]:
        if phase["name"] == "all" and phase["sent"]:
            yield Metric("success rate", "share", "higher"), phase["success_rate"]
            yield UNANSWERED, phase["unknown"]
            for quantile in ("p50", "p99"):
                if (latency_ms := phase["latency_ms"][quantile]) is not None:
                    yield Metric(f"latency {quantile} of ok requests", "ms", "lower", of_answered=True), latency_ms
    if (same_zone := summary["same_zone_share_by_phase"].get("all")) is not None:
        yield Metric("cross-zone share of calls", "share", "lower"), 1 - same_zone


def _expected(result: Mapping[str, Any]) -> float | None:
    if result["measured"] is None and result["shown"] == "never recovered":
        return inf
    value: float | None = result["measured"]
    return value


def _unit(metric: str) -> Unit:
    if metric == "time_to_recover" or metric.startswith("latency"):
        return "s"
    return "share" if metric.endswith(("share", "success_rate")) else "number"
