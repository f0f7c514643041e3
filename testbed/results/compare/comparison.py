"""Runs -> variants of a scenario, ranked by each metric, with how sure the ranking is. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from testbed.results.compare.rank_test import LEVEL, fewest_runs, holm, p_value, runs_to_tell
from testbed.results.compare.runs import UNANSWERED, ComparedRun, Metric

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Variant:
    """Runs whose scenarios are the same but for the seed. `settings` is where they differ from those of others: a
    value as text for each path, empty for a key that the variant does not have."""

    name: str
    settings: Mapping[str, str]
    runs: tuple[ComparedRun, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two variants, by one metric. `p` is corrected for all differences in the metric's table.

    `runs` is how many of each would tell a difference like this, `fewest` with how few none could ever be told.
    """

    better: str
    worse: str
    p: float
    runs: int | None
    fewest: int

    @property
    def distinguishable(self) -> bool:
        return self.p <= LEVEL


@dataclass(frozen=True, slots=True)
class Place:
    """`unanswered` is the median of requests that are in no latency; None where the metric is no latency."""

    variant: str
    values: tuple[float, ...]
    median: float
    unanswered: float | None
    to_best: Difference | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best median first. Where medians are equal, by name."""

    metric: Metric
    places: tuple[Place, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left_out` are runs that were invalid or interrupted: in no figure."""

    variants: tuple[Variant, ...]
    rankings: tuple[Ranking, ...]
    left_out: tuple[ComparedRun, ...]


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """Variants are named A, B, ... in the order in which their first run comes."""
    variants = _variants(runs)
    metrics = dict.fromkeys(metric for run in runs if run.counts for metric in run.figures)
    rankings = tuple(_ranking(metric, variants) for metric in metrics)
    return Comparison(variants, rankings, tuple(run for run in runs if not run.counts))


def _variants(runs: Sequence[ComparedRun]) -> tuple[Variant, ...]:
    paths = dict.fromkeys(path for run in runs for path in run.settings)
    differing = [path for path in paths if len({_text(run.settings.get(path, _ABSENT)) for run in runs}) > 1]
    groups: dict[tuple[str, ...], list[ComparedRun]] = defaultdict(list)
    for run in runs:
        groups[tuple(_text(run.settings.get(path, _ABSENT)) for path in differing)].append(run)
    return tuple(
        Variant(_name(number), dict(zip(differing, values, strict=True)), tuple(run for run in group if run.counts))
        for number, (values, group) in enumerate(groups.items())
    )


def _text(value: Any) -> str:
    return "" if value is _ABSENT else str(value)


def _name(number: int) -> str:
    return ("" if number < 26 else _name(number // 26 - 1)) + chr(ord("A") + number % 26)


def _ranking(metric: Metric, variants: Sequence[Variant]) -> Ranking:
    values = {
        variant.name: tuple(run.figures[metric] for run in variant.runs if metric in run.figures)
        for variant in variants
    }
    values = {name: found for name, found in values.items() if found}
    sign = 1 if metric.better == "lower" else -1
    order = sorted(values, key=lambda name: (sign * median(values[name]), name))
    differences = _differences(order, values)
    to_best = {difference.worse: difference for difference in differences if difference.better == order[0]}
    unanswered = {variant.name: [run.figures[UNANSWERED] for run in variant.runs] for variant in variants}
    places = tuple(
        Place(
            name,
            values[name],
            median(values[name]),
            median(unanswered[name]) if metric.of_answered else None,
            to_best.get(name),
        )
        for name in order
    )
    return Ranking(metric, places, differences)


def _differences(order: Sequence[str], values: Mapping[str, Sequence[float]]) -> tuple[Difference, ...]:
    """All pairs count for the correction, as which variant is the best is taken from the same figures."""
    pairs = list(combinations(order, 2))
    adjusted = holm([p_value(values[better], values[worse]) for better, worse in pairs])
    fewest = fewest_runs(len(pairs)) if pairs else 0
    return tuple(
        Difference(better, worse, p, runs_to_tell(values[better], values[worse], len(pairs)), fewest)
        for (better, worse), p in zip(pairs, adjusted, strict=True)
    )
