"""Run folders -> what each run was of, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml

from testbed.documents.overrides import names_of
from testbed.documents.quantities import PERCENTAGE
from testbed.results.tables.damage import BadRunFolder
from testbed.scenario.models.metrics import METRICS

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
SUCCESS = Metric("success rate", "share", "higher")
LATENCIES = {
    quantile: Metric(f"latency {quantile} of ok requests", "ms", "lower", of_answered=True)
    for quantile in ("p50", "p99")
}
CROSS_ZONE = Metric("cross-zone share of calls", "share", "lower")
ASKED = Metric("requests that asked a router", "share", "lower")
QUESTIONS = Metric("questions to routers", "count", "lower")
UNROUTED = Metric("unrouted requests", "share", "lower")
ASKING = {
    quantile: Metric(f"latency {quantile} of asking a router", "ms", "lower", of_answered=True)
    for quantile in ("p50", "p99")
}


@dataclass(frozen=True, slots=True)
class Bound:
    """What was expected of a metric, for people, and whether it held; None where it was not judged."""

    text: str
    held: bool | None


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """`settings` is the resolved scenario, a value for each path, without its seed and what is expected of it.

    Times of a run that never recovered are infinite; figures that it does not have are left out. `why` says why it is
    invalid, or has no result: then the `verdict` is `none`. `conditions` is where and by what it was run, which no
    scenario says, as far as the folder tells. `variant` is what the sweep calls it, if any. `machines` are the names of
    those that carried it.
    """

    run_dir: Path
    seed: int
    verdict: str
    why: tuple[str, ...]
    settings: Mapping[str, Any]
    figures: Mapping[Metric, float]
    bounds: Mapping[Metric, tuple[Bound, ...]] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""
    machines: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        return self.verdict in ("passed", "failed")


def read_run(run_dir: Path, variant: str = "") -> ComparedRun:
    """Raises BadRunFolder if its `summary.json`, `facts.json` or `scenario.yaml` is missing or cannot be read."""
    scenario = _read(run_dir / "scenario.yaml", yaml.safe_load)
    summary = _read(run_dir / "summary.json", orjson.loads)
    facts = _read(run_dir / "facts.json", orjson.loads)
    try:
        figures = dict(_figures(summary))
        bounds: dict[Metric, tuple[Bound, ...]] = {}
        for expectation, result in zip(facts["expectations"], summary["expectations"], strict=True):
            metric = _expected(expectation, result)
            if (value := _measured(result)) is not None:
                figures.setdefault(metric, value)
            bounds[metric] = (*bounds.get(metric, ()), Bound(result["bound"], result["held"]))
        return ComparedRun(
            run_dir,
            summary["seed"],
            summary["verdict"],
            tuple(summary["invalid_reasons"]),
            settings_of(scenario),
            figures,
            bounds,
            _conditions(facts),
            variant,
            tuple(sorted(machine["name"] for machine in facts.get("machines", []) if "name" in machine)),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadRunFolder(f"{run_dir}: summary, facts or scenario are of another format: {error!r}") from error


def settings_of(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Of a resolved scenario: a value for each path, without its seed and what is expected of it."""
    spec = {key: value for key, value in scenario["spec"].items() if key not in ("seed", "expect")}
    return dict(_flat("metadata.name", scenario["metadata"]["name"])) | dict(_flat("spec", spec))


def _read(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise BadRunFolder(f"{path}: {error.strerror}") from error
    except (orjson.JSONDecodeError, yaml.YAMLError) as error:
        raise BadRunFolder(f"{path}: cannot be read: {error}") from error


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Things in lists go by what `--set` calls them, so that one more does not make all others differ."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(f"{path}.{key}", each)
    elif isinstance(value, list) and value:
        for number, (name, each) in enumerate(zip(names_of(value), value, strict=True)):
            yield from _flat(f"{path}[{number if name is None else name}]", each)
    else:
        yield path, value


def _figures(summary: Mapping[str, Any]) -> Iterator[tuple[Metric, float]]:
    for fault in summary["faults"]:
        for change, healed in ((fault, False), (fault["heal"], True)):
            if change is not None:
                time_s = change["time_to_recover_s"]
                yield _recovery(fault["name"], healed=healed), inf if time_s is None else time_s
    for phase in summary["phases"]:
        if phase["name"] == "all" and phase["sent"]:
            yield SUCCESS, phase["success_rate"]
            yield UNANSWERED, phase["unknown"]
            for quantile, metric in LATENCIES.items():
                if (latency_ms := phase["latency_ms"][quantile]) is not None:
                    yield metric, latency_ms
            # Runs of older versions do not have it at all.
            if (router := phase.get("router")) is not None:
                yield from _asked(router, phase["sent"])
    if (same_zone := summary["same_zone_share_by_phase"].get("all")) is not None:
        yield CROSS_ZONE, 1 - same_zone


def _asked(router: Mapping[str, Any], sent: int) -> Iterator[tuple[Metric, float]]:
    """What directed clients asked routers: of a phase with requests."""
    yield ASKED, router["asked"] / sent
    yield QUESTIONS, router["questions"]
    yield UNROUTED, router["unrouted"] / sent
    for quantile, metric in ASKING.items():
        if (took_ms := router[f"{quantile}_ms"]) is not None:
            yield metric, took_ms


def _recovery(fault: str, *, healed: bool) -> Metric:
    return Metric(f"time to recover, {'heal of ' if healed else ''}{fault}", "s", "lower")


def _expected(expectation: Mapping[str, Any], result: Mapping[str, Any]) -> Metric:
    """The headline metric that an expectation is about, or else one of its own."""
    name, when = expectation["metric"], expectation["when"]
    if all(expectation.get(part) is None for part in ("origin", "cell", "service")):
        if name == "time_to_recover":
            return _recovery(expectation["fault"], healed=when == "after")
        if when == "all" and name == "success_rate":
            return SUCCESS
        if when == "all" and (latency := LATENCIES.get(name.removeprefix("latency_"))):
            return latency
        if when == "all" and (of_router := {"questions": ASKED, "unrouted": UNROUTED}.get(name)):
            return of_router
    better: Better = "lower" if result["bound"].startswith("at most") else "higher"
    text = result["text"].removesuffix(result["bound"]).strip()
    return Metric(text, _unit(name), better, "latency" in name)


def _measured(result: Mapping[str, Any]) -> float | None:
    if result["measured"] is None and result["shown"] == "never recovered":
        return inf
    value: float | None = result["measured"]
    return value


def _unit(metric: str) -> Unit:
    if metric == "time_to_recover" or metric.startswith("latency"):
        return "s"
    return "share" if METRICS.get(metric) is PERCENTAGE else "number"


def _conditions(facts: Mapping[str, Any]) -> dict[str, str]:
    machines = facts.get("machines", [])
    hardware = sorted(machine.get("hardware", "") for machine in machines)
    software = {machine.get("software", "") for machine in machines}
    found = {
        "machines": " + ".join(f"{hardware.count(each)} of {each}" if hardware.count(each) > 1 else each
                               for each in dict.fromkeys(hardware)),
        "versions": " and ".join(sorted(software)),
        "pods hosted by": facts.get("hosting", ""),
    }  # fmt: skip
    return {what: value for what, value in found.items() if value}
