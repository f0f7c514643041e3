"""A comparison as text, at any width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from testbed.results.compare.comparison import Comparison, Ranking
from testbed.results.compare.wording import METHOD, figure, held, of_run, settings, verdict, warnings
from testbed.results.show.grid import Grid, wrapped

_SETTINGS = 4


def render(comparison: Comparison, width: int) -> Iterator[Text]:
    """Lines: what the variants are, a table for each metric, runs that were left out, how differences are judged."""
    for variant in comparison.variants:
        differing = ", ".join(settings(variant, _SETTINGS)) or "all alike"
        yield from wrapped(Text(f"{variant.name}  {differing} ({of_run(variant)})"), width, hanging="   ")
    for warning in warnings(comparison):
        yield from wrapped(Text(warning, "yellow"), width, "", "  ")
    for ranking in comparison.rankings:
        yield Text()
        yield from wrapped(Text(f"{ranking.metric.name} ({ranking.metric.better} is better)", style="bold"), width)
        yield from (Text("  ") + line for line in _table(ranking).lines(width - 2))
    yield Text()
    for run in comparison.left_out:
        why = f": {run.why[0]}" if run.why else ""
        ended = "without a result" if run.verdict == "none" else run.verdict
        yield from wrapped(Text(f"left out, {ended}: {_folder(run.run_dir)}{why}", "yellow"), width, "", "  ")
    yield from wrapped(Text(METHOD, style="dim"), width)


def _folder(run_dir: Path) -> str:
    return run_dir.name or str(run_dir)


def _table(ranking: Ranking) -> Grid:
    latency, unit = ranking.metric.of_answered, ranking.metric.unit
    unanswered = ("unanswered",) if latency else ()
    headers = ("", "runs", "median", "least", "most", *unanswered, *ranking.bounds, "against the best")
    rows = [
        [
            place.variant,
            str(len(place.values)),
            *(figure(value, unit) for value in (place.median, min(place.values), max(place.values))),
            *([f"{place.unanswered:g}"] if latency else []),
            *map(held, place.held),
            verdict(place),
        ]
        for place in ranking.places
    ]
    return Grid(headers, rows)
