"""Runs -> variants of a scenario, ranked by each metric, with how sure the ranking is. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from statistics import median
from typing import Any

from testbed.results.compare.rank_test import LEVEL, holm, p_value, runs_to_tell
from testbed.results.compare.runs import UNANSWERED, ComparedRun, Metric, Unit

SMALLEST = 0.05
"""Smaller differences than this part of the better one are left out of account, however sure they are."""

APART = 0.5
"""Of the runs of two variants, the part that other machines carried from which on machines may be what makes the
difference."""

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
    """Between two variants, by one metric. `p` is corrected for all differences in the metric's table. `more_runs` of
    each would tell a difference like the one seen, by `rank_test.runs_to_tell`; None where that cannot be said, or is
    told already. `apart` is the difference of the medians as a part of the better one: see `apart`."""

    better: str
    worse: str
    p: float
    more_runs: int | None
    apart: float

    @property
    def by_chance(self) -> bool:
        return self.p > LEVEL

    @property
    def distinguishable(self) -> bool:
        """By more than chance, and by enough to matter."""
        return not self.by_chance and self.apart >= SMALLEST


@dataclass(frozen=True, slots=True)
class Place:
    """`unanswered` is the median of requests that are in no latency; None where the metric is no latency. `held` says
    for each bound of the ranking in how many of how many runs it held."""

    variant: str
    values: tuple[float, ...]
    median: float
    unanswered: float | None
    held: tuple[tuple[int, int], ...]
    to_best: Difference | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best median first. Where medians are equal, by name. `bounds` are what was expected of the metric."""

    metric: Metric
    bounds: tuple[str, ...]
    places: tuple[Place, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Unlike:
    """Something that is not the same for all runs, though no scenario says so: by its value, how many runs of which
    variant."""

    what: str
    runs: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Confounded:
    """Variants of which at least `APART` of the runs were on other machines: by variant, how many on which."""

    runs: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left_out` are runs that were invalid or interrupted, or have no result: in no figure."""

    variants: tuple[Variant, ...]
    rankings: tuple[Ranking, ...]
    left_out: tuple[ComparedRun, ...]
    unlike: tuple[Unlike, ...]
    confounded: Confounded | None


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """Variants have the names that their sweep gave them, or else A, B, ... in the order in which their first run
    comes."""
    variants = _variants(runs)
    metrics = dict.fromkeys(metric for run in runs if run.counts for metric in run.figures)
    rankings = tuple(_ranking(metric, variants) for metric in metrics)
    left_out = tuple(run for run in runs if not run.counts)
    return Comparison(variants, rankings, left_out, tuple(_unlike(variants)), _confounded(variants))


def _variants(runs: Sequence[ComparedRun]) -> tuple[Variant, ...]:
    paths = dict.fromkeys(path for run in runs for path in run.settings)
    differing = [path for path in paths if len({_text(run.settings.get(path, _ABSENT)) for run in runs}) > 1]
    groups: dict[tuple[str, ...], list[ComparedRun]] = defaultdict(list)
    for run in runs:
        groups[tuple(_text(run.settings.get(path, _ABSENT)) for path in differing)].append(run)
    given = [{run.variant for run in group} for group in groups.values()]
    known = [names.pop() if len(names) == 1 else "" for names in given]
    names = (
        known if all(known) and len(set(known)) == len(known) else [name_of(number) for number in range(len(groups))]
    )
    return tuple(
        Variant(name, dict(zip(differing, values, strict=True)), tuple(run for run in group if run.counts))
        for name, (values, group) in zip(names, groups.items(), strict=True)
    )


def _text(value: Any) -> str:
    return "" if value is _ABSENT else str(value)


def name_of(number: int) -> str:
    """A, B, ..., Z, AA, ..."""
    return ("" if number < 26 else name_of(number // 26 - 1)) + chr(ord("A") + number % 26)


def _unlike(variants: Sequence[Variant]) -> Iterator[Unlike]:
    """Of all runs that count."""
    for what in dict.fromkeys(what for variant in variants for run in variant.runs for what in run.conditions):
        found: dict[str, dict[str, int]] = {}
        for variant in variants:
            for run in variant.runs:
                by_variant = found.setdefault(run.conditions.get(what, "not recorded"), {})
                by_variant[variant.name] = by_variant.get(variant.name, 0) + 1
        if len(found) > 1:
            yield Unlike(what, found)


def _confounded(variants: Sequence[Variant]) -> Confounded | None:
    """By all runs that count and say where they were. If none had its machines twice, these are but one more chance."""
    carried = {
        variant.name: Counter(" + ".join(run.machines) for run in variant.runs if run.machines) for variant in variants
    }
    if all(times == 1 for runs in carried.values() for times in runs.values()):
        return None
    apart = {
        name
        for pair in combinations([name for name, runs in carried.items() if runs], 2)
        if _on_others(carried[pair[0]], carried[pair[1]]) >= APART
        for name in pair
    }
    return Confounded({name: runs for name, runs in carried.items() if name in apart}) if apart else None


def _on_others(first: Counter[str], second: Counter[str]) -> float:
    """The part of the runs that would have to be moved for both to have used the same machines as often (the distance
    in variation)."""
    shares = ((first[machine] / first.total(), second[machine] / second.total()) for machine in first | second)
    return sum(abs(one - other) for one, other in shares) / 2


def _ranking(metric: Metric, variants: Sequence[Variant]) -> Ranking:
    values = {
        variant.name: tuple(run.figures[metric] for run in variant.runs if metric in run.figures)
        for variant in variants
    }
    values = {name: found for name, found in values.items() if found}
    sign = 1 if metric.better == "lower" else -1
    order = sorted(values, key=lambda name: (sign * median(values[name]), name))
    differences = _differences(order, values, metric.unit)
    to_best = {difference.worse: difference for difference in differences if difference.better == order[0]}
    runs = {variant.name: variant.runs for variant in variants}
    bounds = tuple(
        dict.fromkeys(
            bound.text for variant in variants for run in variant.runs for bound in run.bounds.get(metric, ())
        )
    )
    places = tuple(
        Place(
            name,
            values[name],
            median(values[name]),
            median(run.figures[UNANSWERED] for run in runs[name]) if metric.of_answered else None,
            tuple(_held(runs[name], metric, bound) for bound in bounds),
            to_best.get(name),
        )
        for name in order
    )
    return Ranking(metric, bounds, places, differences)


def _held(runs: Sequence[ComparedRun], metric: Metric, text: str) -> tuple[int, int]:
    judged = [bound.held for run in runs for bound in run.bounds.get(metric, ()) if bound.text == text]
    return sum(held is True for held in judged), len(judged)


def _differences(order: Sequence[str], values: Mapping[str, Sequence[float]], unit: Unit) -> tuple[Difference, ...]:
    """All pairs count for the correction, as which variant is the best is taken from the same figures."""
    pairs = list(combinations(order, 2))
    adjusted = holm([p_value(values[better], values[worse]) for better, worse in pairs])
    return tuple(
        _difference(better, worse, p, values, unit, len(pairs))
        for (better, worse), p in zip(pairs, adjusted, strict=True)
    )


def _difference(
    better: str, worse: str, p: float, values: Mapping[str, Sequence[float]], unit: Unit, comparisons: int
) -> Difference:
    by = apart(median(values[better]), median(values[worse]), unit)
    # Who would make more runs to find what does not matter?
    settled = p <= LEVEL or by < SMALLEST
    more_runs = None if settled else _more_runs(values[better], values[worse], comparisons)
    return Difference(better, worse, p, more_runs, by)


def apart(better: float, worse: float, unit: Unit) -> float:
    """How far two medians are from each other, as a part of the better one; of a share, as a part of what it lacks of
    one, if that is less: from 99.9 to 99.8 % it is twice as many failures. Infinite where that part is nothing."""
    if better == worse:
        return 0.0
    whole = min(abs(better), abs(1 - better)) if unit == "share" else abs(better)
    return abs(worse - better) / whole if 0 < whole < inf else inf


def _more_runs(first: Sequence[float], second: Sequence[float], comparisons: int) -> int | None:
    in_all = runs_to_tell(first, second, comparisons)
    return None if in_all is None else max(1, in_all - min(len(first), len(second)))
