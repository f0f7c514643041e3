"""A comparison -> `comparison.html`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from testbed.results.compare.comparison import Comparison, Place, Ranking
from testbed.results.compare.html.strips import strips
from testbed.results.compare.wording import METHOD, figure, held, of_run, settings, verdict, warnings
from testbed.results.show.html.page import asset, environment, script_hash

_SETTINGS = 12
_RANKINGS = 60
_OVERVIEW_VARIANTS = 12


def page(comparison: Comparison) -> str:
    """Self-contained: it opens offline, and asks for nothing."""
    rankings = comparison.rankings[:_RANKINGS]
    names = [variant.name for variant in comparison.variants]
    return (
        _environment()
        .get_template("comparison.html.jinja")
        .render(
            style=Markup(asset("style.css")),
            script=Markup(asset("script.js")),
            script_hash=script_hash(),
            title=_title(comparison),
            variants=[(each, settings(each, _SETTINGS), of_run(each)) for each in comparison.variants],
            warnings=warnings(comparison),
            left_out=comparison.left_out,
            names=names[:_OVERVIEW_VARIANTS],
            more_names=len(names) - _OVERVIEW_VARIANTS,
            rankings=[(f"m{number}", each, strips(each)) for number, each in enumerate(rankings)],
            more_rankings=len(comparison.rankings) - len(rankings),
            places={(ranking.metric.name, place.variant): place for ranking in rankings for place in ranking.places},
            mark=_mark,
            told=_told,
            figure=figure,
            verdict=verdict,
            held=held,
            method=METHOD,
        )
    )


def _title(comparison: Comparison) -> str:
    runs = [run for variant in comparison.variants for run in variant.runs] or list(comparison.left_out)
    scenarios = dict.fromkeys(str(run.settings.get("metadata.name", "")) for run in runs)
    return " and ".join(scenarios)


def _mark(place: Place, ranking: Ranking) -> str:
    """The class of a cell in the overview. Where all medians are equal, none is the best."""
    medians = [each.median for each in ranking.places]
    if place.median == medians[0] and medians[-1] != medians[0]:
        return "best"
    return "worse" if place.to_best is not None and place.to_best.distinguishable else "same"


def _told(ranking: Ranking) -> str:
    """What the ranking says, in a sentence."""
    if len(ranking.places) < 2:
        return "There is only one variant with such a figure."
    best, *others = ranking.places
    worse = [place.variant for place in others if place.to_best and place.to_best.distinguishable]
    same = [place.variant for place in others if place.variant not in worse]
    parts = []
    if worse:
        parts.append(f"{best.variant} is better than {_listed(worse)}")
    if same:
        parts.append(f"{best.variant} and {_listed(same)} are not distinguishable")
    return "; ".join(parts) + "."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


@cache
def _environment() -> jinja2.Environment:
    return environment().overlay(loader=jinja2.FileSystemLoader(Path(__file__).parent))
