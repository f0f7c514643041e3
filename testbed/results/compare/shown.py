"""A comparison as text, at any width."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf
from pathlib import Path

from rich.text import Text

from testbed.results.compare.comparison import Comparison, Place, Ranking, Variant
from testbed.results.compare.rank_test import LEVEL
from testbed.results.compare.runs import Unit
from testbed.results.show.figures import milliseconds, seconds, share
from testbed.results.show.grid import Grid, wrapped

_SETTINGS = 4
_METHOD = (
    f"Real is what an exact rank-sum test (unpaired, two-sided) tells apart at {LEVEL:g}, corrected by Holm for all "
    "pairs of variants in a table; each table has that level for itself."
)


def render(comparison: Comparison, width: int) -> Iterator[Text]:
    """Lines: what the variants are, a table for each metric, runs that were left out, how differences are judged."""
    for variant in comparison.variants:
        yield from wrapped(Text(_variant(variant)), width, hanging="   ")
    for ranking in comparison.rankings:
        yield Text()
        yield from wrapped(Text(f"{ranking.metric.name} ({ranking.metric.better} is better)", style="bold"), width)
        yield from (Text("  ") + line for line in _table(ranking).lines(width - 2))
    yield Text()
    for run in comparison.left_out:
        why = f": {run.why_invalid[0]}" if run.why_invalid else ""
        yield from wrapped(Text(f"left out, {run.verdict}: {_folder(run.run_dir)}{why}", "yellow"), width, "", "  ")
    yield from wrapped(Text(_METHOD, style="dim"), width)


def _folder(run_dir: Path) -> str:
    return run_dir.name or str(run_dir)


def _variant(variant: Variant) -> str:
    differing = [f"{path}={value}" for path, value in variant.settings.items()]
    more = [f"and {len(differing) - _SETTINGS} more"] if len(differing) > _SETTINGS else []
    settings = ", ".join(differing[:_SETTINGS] + more) or "all alike"
    seeds = ", ".join(str(run.seed) for run in variant.runs)
    runs = len(variant.runs)
    return f"{variant.name}  {settings} ({runs} run{'' if runs == 1 else 's'}{f', seeds {seeds}' if seeds else ''})"


def _table(ranking: Ranking) -> Grid:
    latency, unit = ranking.metric.of_answered, ranking.metric.unit
    headers = ("", "runs", "median", "least", "most", *(("unanswered",) if latency else ()), "against the best")
    rows = [
        [
            place.variant,
            str(len(place.values)),
            *(_figure(value, unit) for value in (place.median, min(place.values), max(place.values))),
            *([f"{place.unanswered:g}"] if latency else []),
            _verdict(place),
        ]
        for place in ranking.places
    ]
    return Grid(headers, rows)


def _verdict(place: Place) -> str:
    difference = place.to_best
    if difference is None:
        return ""
    if difference.distinguishable:
        return f"worse (p {max(difference.p, 1e-4):.2g})"
    if difference.runs is None:
        return "not distinguishable"
    return f"not distinguishable; try {max(difference.runs, len(place.values) + 1)} runs"


def _figure(value: float, unit: Unit) -> str:
    if isinf(value):
        return "never"
    match unit:
        case "s":
            return seconds(value)
        case "ms":
            return milliseconds(value)
        case "share":
            return share(value)
        case _:
            return f"{value:g}"
